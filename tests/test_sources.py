"""The same pictures from a folder, an archive, an .npz file and the hub; skipped files; old fingerprints."""

import hashlib
import io
import tarfile
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from helpers import peppp
from peppp.campaign.cells import Cell
from peppp.campaign.worker import measure_cell
from peppp.errors import DataError
from peppp.precisions.known import parse_precision
from peppp.records import Recipe
from peppp.table.store.store import Store
from peppp.tasks.dataset import described, under
from peppp.tasks.folders import read_folder
from peppp.tasks.readers import load, names_in
from peppp.training.kept_training import CHECKPOINT, train_in_folder

DRAW = np.random.default_rng(0)
CLASSES = ("cat", "dog")


def picture(path, kind="PNG", pixels=None, **options):
    pixels = DRAW.integers(0, 256, (12, 16, 3), dtype=np.uint8) if pixels is None else pixels
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, kind, **options)


@pytest.fixture
def photos(tmp_path):
    root = tmp_path / "photos"
    for part, count in (("train", 6), ("test", 3)):
        for name in CLASSES:
            for i in range(count):
                picture(root / part / name / f"{i}.png")
    return root


def packed(root, suffix, inside=""):
    """The folder in an archive, with its own folder around it or without."""
    target = root.with_name(f"{root.name}{suffix}")
    files = sorted(p for p in root.rglob("*") if p.is_file())
    names = [f"{inside}{p.relative_to(root).as_posix()}" for p in files]
    if suffix == ".zip":
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for file, name in zip(files, names, strict=True):
                archive.write(file, name)
            archive.writestr("__MACOSX/._junk", b"")
    else:
        with tarfile.open(target, "w:gz" if suffix != ".tar" else "w") as archive:
            for file, name in zip(files, names, strict=True):
                archive.add(file, f"./{name}")
    return target


def alike(a, b):
    return all(
        np.array_equal(getattr(a, name), getattr(b, name))
        for name in ("train_inputs", "train_targets", "test_inputs", "test_targets")
    )


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz", ".tgz"])
@pytest.mark.parametrize("inside", ["", "photos/"])
def test_an_archive_is_read_as_its_folder(photos, suffix, inside):
    folder, archive = load(str(photos)), load(f"folder:{packed(photos, suffix, inside)}")
    assert alike(folder, archive)
    assert (archive.name, archive.classes) == (folder.name, folder.classes)
    assert archive.fingerprint == folder.fingerprint


def test_an_archive_of_classes_alone_is_split_as_its_folder(photos):
    root = photos / "train"
    folder, archive = load(str(root)), load(str(packed(root, ".zip")))
    assert alike(folder, archive)
    assert archive.fingerprint == folder.fingerprint


def test_equal_pixels_have_one_fingerprint_however_they_are_stored(photos, tmp_path):
    folder = load(str(photos))
    for file in sorted(photos.rglob("*.png")):
        picture(
            tmp_path / "other" / file.relative_to(photos).with_suffix(".bmp"),
            "BMP",
            np.asarray(Image.open(file)),
        )
    other = load(str(tmp_path / "other"))
    assert alike(folder, other)
    assert folder.fingerprint == other.fingerprint
    assert folder.former != other.former  # the bytes of the files differ
    assert load(f"{photos}?resolution=8").fingerprint == folder.fingerprint
    picture(photos / "test" / "cat" / "0.png")
    assert load(str(photos)).fingerprint != folder.fingerprint


def test_the_hub_and_an_npz_file_give_the_folders_pixels(photos, tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets", reason="pip install 'peppp[hf]'")
    folder = load(f"{photos}?resolution=16")
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(CLASSES))}
    )
    arrays, parts = {"classes": np.array(CLASSES)}, {}
    for part in ("train", "test"):
        files = sorted((photos / part).rglob("*.png"))
        data = [file.read_bytes() for file in files]
        labels = [CLASSES.index(file.parent.name) for file in files]
        rows = {"image": [{"bytes": one, "path": None} for one in data], "label": labels}
        parts[part] = datasets.Dataset.from_dict(rows, features=features)
        arrays[f"{part}_jpeg"] = np.frombuffer(b"".join(data), np.uint8)
        arrays[f"{part}_offsets"] = np.cumsum([0, *map(len, data)])
        arrays[f"y_{part}"] = np.array(labels)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: datasets.DatasetDict(parts))
    hub = load("hf:me/pets?resolution=16")
    assert alike(folder, hub)
    assert hub.fingerprint == folder.fingerprint
    np.savez(tmp_path / "pets.npz", **arrays)
    assert alike(folder, load(f"{tmp_path / 'pets.npz'}?resolution=16"))


def old_fingerprint(root):
    """As version 0.1 made it: names and bytes of files, each after its length; "test" before the tests."""
    total = hashlib.sha256()

    def add(data):
        total.update(len(data).to_bytes(8, "little") + data)

    for part in ("train", "test"):
        if part == "test":
            add(b"test")
        for file in sorted((root / part).rglob("*.png")):
            add(f"{file.parent.name}/{file.name}".encode())
            add(file.read_bytes())
    return total.hexdigest()[:16]


def test_rows_under_the_old_fingerprint_are_found_and_repeated_alike(photos, tmp_path):
    data = load(f"{photos}?resolution=8")
    assert data.former == old_fingerprint(photos)
    recipe = Recipe(network="resnet8-w4", epochs=1)
    old = replace(data, fingerprint=data.former, former="")
    precision = parse_precision("1-4-1/1-6-7")
    store = tmp_path / "runs.db"
    text = f"{photos}?resolution=8"
    with Store.open(store) as kept:
        cell = Cell(text, old.fingerprint, "photos", precision, replace(recipe, resolution=8))
        kept.add(measure_cell(cell, old))
    line = ["measure", str(store), "--data", text, "--network", "resnet8-w4", "--epochs", "1", "--json"]
    found = peppp(*line, "--configurations", "1-4-1/1-6-7,1-5-2/1-6-7")
    assert found.returncode == 0, found.stderr
    assert '"already_there": 1' in found.stdout
    with Store.open(store) as kept:
        assert {m.fingerprint for m in kept} == {old.fingerprint}
    # A checkpoint of the old version goes on, with the random numbers of its fingerprint.
    whole = train_in_folder(old, precision, replace(recipe, epochs=2), 0, tmp_path / "whole")
    train_in_folder(old, precision, replace(recipe, epochs=2), 0, tmp_path / "old")
    assert (tmp_path / "old" / CHECKPOINT).exists()
    again = train_in_folder(data, precision, replace(recipe, epochs=2), 0, tmp_path / "old")
    assert again.curve == whole.curve
    assert under(data, {data.former, data.fingerprint}) is data


def test_what_was_read_and_what_was_skipped_is_one_line(photos):
    root = photos / "train"
    (root / "notes.txt").write_text("x")
    (root / ".DS_Store").write_text("x")
    (root / "cat" / "labels.csv").write_text("x")
    (root / "cat" / "README").write_text("x")
    (root / "dog" / "puppies").mkdir()
    exif = Image.Exif()
    exif[274] = 3
    picture(root / "dog" / "turned.jpg", "JPEG", exif=exif)
    line = described(load(str(root)))
    assert line.startswith("train: 13 images of 32x32 pixels in 2 classes, 11 to train and 2 to test; ")
    assert "skipped 5 (by suffix or reason: " in line
    for part in ("1 .csv", "1 no suffix", "1 hidden", "1 outside class folders", "1 a folder inside"):
        assert part in line
    assert "1 image was turned" in line
    assert "\n" not in line
    found = peppp(
        "train",
        str(root),
        "--precision",
        "fp32",
        "--network",
        "resnet8-w4",
        "--epochs",
        "1",
        "--json",
        "--out",
        str(photos / "run"),
    )
    assert found.returncode == 0, found.stderr
    assert f"read      {line}" in found.stderr


def test_what_is_cut_says_what_is_left(photos):
    assert "4 to train and 14 to test" in described(load(f"{photos}?train=4"))


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz"])
def test_an_archive_that_is_broken_is_one_line(photos, suffix):
    archive = packed(photos, suffix)
    archive.write_bytes(archive.read_bytes()[:200])
    with pytest.raises(DataError) as raised:
        load(str(archive))
    assert archive.name in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_broken_picture_in_an_archive_is_named(photos):
    (photos / "train" / "cat" / "3.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"photos.zip/train/cat/3.png is not an image"):
        load(str(packed(photos, ".zip")))


def test_names_that_lead_out_of_an_archive_write_nothing(tmp_path):
    target = tmp_path / "evil.zip"
    data = io.BytesIO()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(data, "PNG")
    with zipfile.ZipFile(target, "w") as archive:
        for name in CLASSES:
            for i in range(5):
                archive.writestr(f"{name}/{i}.png", data.getvalue())
        archive.writestr("../../escaped.png", data.getvalue())
    before = sorted(p.name for p in tmp_path.parent.iterdir())
    assert read_folder(target).classes == CLASSES
    assert sorted(p.name for p in tmp_path.parent.iterdir()) == before


@pytest.mark.parametrize("name", ["what?", "a,b", "new\nline", "100%2C", "a?train=3"])
def test_a_path_may_hold_any_character(photos, tmp_path, name):
    moved = photos.rename(tmp_path / name)
    escaped = name.replace("%", "%25").replace("?", "%3F").replace(",", "%2C").replace("\n", "%0A")
    for text in (str(moved), f"folder:{tmp_path / escaped}", str(tmp_path / escaped)):
        assert load(text).name == name
    assert len(load(f"{tmp_path / escaped}?train=4").train_inputs) == 4
    line = [
        "measure",
        str(tmp_path / "runs.db"),
        "--data",
        f"{tmp_path / escaped},digits",
        "--dry-run",
        "--json",
    ]
    found = peppp(*line)
    assert found.returncode == 0, found.stderr
    assert '"asked": 198' in found.stdout
    assert len(found.stderr.splitlines()) == 2


def test_a_comma_in_a_path_that_is_not_there_names_the_escape(tmp_path):
    for text in (f"{tmp_path}/a,b", f"{tmp_path}/what?"):
        with pytest.raises(DataError, match="write %2C for a comma and %3F"):
            load(text)


def test_a_list_of_data_sets_may_be_longer_than_a_path():
    names = [f"npz:/some/folder/set{i}.npz?train=1600&test=2000" for i in range(200)]
    assert names_in(",".join(names)) == names
    assert len(names_in(",".join(f"digits:{i}" for i in range(100)))) == 100
    for text in ("a" * 300, "b" * 5000, "digits?" + "x" * 5000):
        with pytest.raises(DataError) as raised:
            load(text)
        assert "\n" not in str(raised.value)


def test_names_in_an_archive_may_be_written_in_other_ways(photos, tmp_path):
    target = tmp_path / "odd.zip"
    with zipfile.ZipFile(target, "w") as archive:
        for file in sorted(photos.rglob("*.png")):
            archive.write(file, f"./{file.relative_to(photos).as_posix().replace('/', '//')}")
        for name in ("", ".", "./"):
            archive.writestr(zipfile.ZipInfo(name or "/"), b"")
    assert alike(load(str(photos)), load(str(target)))


def test_archives_of_one_folder_in_two_versions_have_two_names(photos):
    for name in ("pets.v1.zip", "pets.v2.zip"):
        packed(photos, ".zip").rename(photos.with_name(name))
        assert load(str(photos.with_name(name))).group == name.removesuffix(".zip")
    assert load(str(packed(photos, ".tar.gz"))).name == "photos"
