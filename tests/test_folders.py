"""ImageNet folders and their cache, visual domains, and folders that are wrong."""

import numpy as np
import pytest
from PIL import Image

from peppp.cache import folder
from peppp.errors import DataError
from peppp.tasks.catalog import find, imagenet_classes
from peppp.tasks.images import decode, size_of
from peppp.tasks.readers import load

RNG = np.random.default_rng(0)
BAG = [one.wordnet_id for one in imagenet_classes(find("imagenet-bag"))]


def photograph(path, height, width, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path, "jpeg", **options)


@pytest.fixture
def imagenet(tmp_path, monkeypatch):
    monkeypatch.setenv("PEPPP_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("PEPPP_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "data" / "imagenet"
    for wordnet_id in (*BAG, "n01440764"):  # a tench, which is in no bag
        for i in range(3):
            photograph(root / "train" / wordnet_id / f"{wordnet_id}_{i}.JPEG", 90 + i, 120)
        photograph(root / "val" / wordnet_id / f"ILSVRC2012_val_0000000{i}.JPEG", 75, 70)
    return root


def test_a_set_is_cut_out_of_imagenet(imagenet):
    data = load("imagenet-bag")
    assert (data.name, data.group, data.resolution) == ("imagenet-bag", "imagenet", 64)
    assert data.classes == ("backpack", "mailbag", "plastic bag", "purse", "sleeping bag")
    assert np.bincount(data.train_targets).tolist() == [3] * 5
    assert np.bincount(data.test_targets).tolist() == [1] * 5
    first = Image.open(imagenet / "train" / BAG[0] / f"{BAG[0]}_0.JPEG")
    expected = first.crop((15, 0, 105, 90)).resize((64, 64), Image.Resampling.LANCZOS)
    assert (data.train_inputs[0] == np.asarray(expected)).all()
    elsewhere = load(f"imagenet-bag={imagenet}?resolution=32")
    assert (elsewhere.resolution, elsewhere.fingerprint) == (32, data.fingerprint)


def test_the_cache_is_used_and_changed_images_are_read_anew(imagenet, monkeypatch):
    first = load("imagenet-bag")
    (kept,) = folder("images").iterdir()
    with monkeypatch.context() as patch:
        patch.setattr("peppp.tasks.folders.decoded", None)  # nothing is decoded the second time
        again = load("imagenet-bag")
    assert again.fingerprint == first.fingerprint
    assert (again.train_inputs == first.train_inputs).all()
    kept.write_bytes(kept.read_bytes()[:1000])  # a damaged one is made again
    assert load("imagenet-bag").fingerprint == first.fingerprint
    photograph(imagenet / "train" / BAG[2] / f"{BAG[2]}_1.JPEG", 80, 80)
    assert load("imagenet-bag").fingerprint != first.fingerprint


@pytest.mark.parametrize("parts", [("train", "test"), ("",)])
def test_a_folder_of_many_images_is_decoded_once(parts, tmp_path, monkeypatch):
    monkeypatch.setenv("PEPPP_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "mine"
    for part in parts:
        for name in ("cats", "dogs"):
            for i in range(5):
                photograph(root / part / name / f"{i}.jpg", 20 + i, 30)
    plain = load(f"folder:{root}")
    assert not folder("images").exists()
    monkeypatch.setattr("peppp.tasks.folders._MANY", 10)
    first = load(f"folder:{root}")
    with monkeypatch.context() as patch:
        patch.setattr("peppp.tasks.folders.decoded", None)  # nothing is decoded the second time
        again = load(f"folder:{root}")
    for data in (first, again):
        assert (data.name, data.fingerprint, data.classes) == (plain.name, plain.fingerprint, plain.classes)
        assert (data.train_inputs == plain.train_inputs).all()
        assert (data.test_targets == plain.test_targets).all()
    assert load(f"folder:{root}?resolution=16").resolution == 16
    photograph(root / parts[0] / "cats" / "0.jpg", 21, 31)
    assert load(f"folder:{root}").fingerprint != plain.fingerprint


def test_nothing_is_cached_half_way(imagenet, monkeypatch):
    def broken(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", broken)
    assert len(load("imagenet-bag").train_targets) == 15
    assert list(folder("images").iterdir()) == []
    path = imagenet / "train" / BAG[1] / f"{BAG[1]}_0.JPEG"
    path.write_bytes(path.read_bytes()[:2000])
    monkeypatch.undo()
    monkeypatch.setenv("PEPPP_CACHE", str(imagenet / "cache"))
    with pytest.raises(DataError, match=rf"{BAG[1]}_0\.JPEG is not an image"):
        load(f"imagenet-bag={imagenet}")
    assert not (imagenet / "cache").exists()


def test_what_an_imagenet_folder_lacks(imagenet):
    with pytest.raises(DataError, match="imagenet/val holds no folders of imagenet-shop; sort"):
        load("imagenet-shop")
    for file in (imagenet / "train" / BAG[3]).iterdir():
        file.unlink()
    with pytest.raises(DataError, match=f"{BAG[3]} holds no images"):
        load("imagenet-bag")
    (imagenet / "train" / BAG[3]).rmdir()
    with pytest.raises(DataError, match=f"no such folder: .*{BAG[3]}"):
        load("imagenet-bag")
    with pytest.raises(DataError, match="holds no folder train"):
        load(f"imagenet-bag={imagenet / 'train'}")


def test_a_visual_domain_is_tested_on_its_validation_part(tmp_path, monkeypatch):
    monkeypatch.setenv("PEPPP_DATA", str(tmp_path))
    for part, count in (("train", 3), ("val", 2), ("test", 4)):
        for name in "abcd":
            for i in range(count):
                photograph(tmp_path / "bach" / part / name / f"{i}.jpg", 80, 72)
    data = load("bach")
    assert (data.name, data.group, data.resolution, len(data.test_targets)) == ("bach", "bach", 64, 8)
    with pytest.raises(DataError, match="holds 4 classes; kather has 8"):
        load(f"kather={tmp_path / 'bach'}")


def test_a_folder_comes_before_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in "ab":
        for i in range(2):
            photograph(tmp_path / "wine" / name / f"{i}.jpg", 8, 8)
    assert load("wine").classes == ("a", "b")


@pytest.mark.parametrize("what", ["folder", "file"])
def test_what_may_not_be_read(tmp_path, monkeypatch, what):
    for name in "ab":
        for i in range(2):
            photograph(tmp_path / "set" / name / f"{i}.jpg", 8, 8)
    import os
    from pathlib import Path

    def refuse(path, *_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(*((os, "scandir") if what == "folder" else (Path, "read_bytes")), refuse)
    with pytest.raises(DataError, match=r"cannot read .*set.*: Permission denied"):
        load(str(tmp_path / "set"))


def test_the_size_of_an_image_is_read_without_its_pixels(tmp_path):
    photograph(tmp_path / "a.jpg", 20, 30)
    data = (tmp_path / "a.jpg").read_bytes()
    assert size_of(tmp_path / "a.jpg", "a") == size_of(data, "a") == (30, 20)
    with pytest.raises(DataError, match="a is not an image"):
        size_of(data[:10], "a")


@pytest.mark.parametrize(("suffix", "kind"), [("png", np.uint16), ("tif", np.uint16), ("pgm", np.int32)])
def test_of_16_bits_the_upper_8_are_taken(tmp_path, suffix, kind):
    ramp = np.linspace(0, 65535, 256).astype(kind).reshape(16, 16)
    for name, picture in (("dark", ramp // 2), ("light", ramp)):
        (tmp_path / name).mkdir()
        for i in range(5):
            Image.fromarray(picture.astype(kind)).save(tmp_path / name / f"{i}.{suffix}")
    data = load(f"folder:{tmp_path}")
    light = data.train_inputs[data.train_targets == 1][0]
    assert (light == (ramp // 256)[..., None]).all()  # as libpng takes 16-bit colour, too


@pytest.mark.parametrize(("kind", "named"), [(np.float32, "floating-point"), (np.int32, "32-bit")])
def test_numbers_without_a_white_are_refused(tmp_path, kind, named):
    Image.fromarray(np.ones((8, 8), kind)).save(tmp_path / "one.tif")
    with pytest.raises(DataError, match=f"one.tif holds {named} numbers.*save it with 8 or 16 bits"):
        decode((tmp_path / "one.tif").read_bytes(), "one.tif")
