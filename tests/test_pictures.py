"""Pictures as people see them: turned, on white, of any suffix, in folders of any name."""

import io

import numpy as np
import pytest
from PIL import Image

from peppp.errors import DataError
from peppp.tasks.folders import is_image, read_folder, suffixes
from peppp.tasks.images import decode, decoded, own_resolution
from peppp.tasks.readers import load

DRAW = np.random.default_rng(0)
PIXELS = DRAW.integers(0, 255, (6, 9, 3)).astype(np.uint8)


def encoded(image, **options):
    target = io.BytesIO()
    image.save(target, **{"format": "PNG"} | options)
    return target.getvalue()


def folder(root, classes, save=None):
    save = save or (lambda pixels, path: Image.fromarray(pixels).save(path.with_suffix(".png")))
    for number, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for i in range(6):
            save(np.full((8, 8, 3), 40 * number + 5 * i, dtype=np.uint8), root / name / f"{i}")
    return root


# What each value of the tag says of where the first row and the first column of the picture are.
TURNS = {
    1: lambda x: x, 2: lambda x: x[:, ::-1], 3: lambda x: x[::-1, ::-1], 4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1), 6: lambda x: x[::-1].swapaxes(0, 1),
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1), 8: lambda x: x[:, ::-1].swapaxes(0, 1),
}  # fmt: skip


@pytest.mark.case("T")
@pytest.mark.parametrize("orientation", TURNS)
def test_photographs_are_turned_as_their_exif_data_say(orientation):
    exif = Image.Exif()
    exif[274] = orientation
    data = encoded(Image.fromarray(PIXELS), exif=exif)
    found, adjusted = decoded(data, "here")
    assert np.array_equal(found, TURNS[orientation](PIXELS))
    assert adjusted == (orientation != 1)


@pytest.mark.case("U")
@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_stands_on_white(mode):
    image = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    image.putpixel((1, 2), (0, 0, 0, 255))
    if mode == "P":
        image = image.quantize(4)
        assert image.has_transparency_data
    found = decode(encoded(image.convert(mode) if mode != "P" else image), "here")
    assert found[2, 1].max() <= 2
    white = found.reshape(-1, 3).sum(1) == 765
    assert white.sum() == 15


def test_half_transparent_is_half_white():
    image = Image.new("RGBA", (2, 2), (100, 0, 200, 128))
    assert np.abs(decode(encoded(image), "here")[0, 0].astype(int) - [177, 127, 227]).max() <= 1


def test_opaque_pictures_are_what_they_were():
    image = Image.fromarray(PIXELS)
    for data in (encoded(image), encoded(image.convert("RGBA"))):
        found, adjusted = decoded(data, "here")
        assert np.array_equal(found, PIXELS)
        assert not adjusted


@pytest.mark.case("V")
def test_every_suffix_that_pillow_reads_is_an_image(tmp_path):
    for suffix in (".jfif", ".jpe", ".jpg", ".JPEG", ".webp", ".tga", ".ppm", ".gif"):
        assert suffix.lower() in suffixes()
    assert not suffixes() & {".pdf", ".eps", ".mpg", ".txt", ".npz"}

    def several(pixels, path):
        kind = (".jfif", ".jpe", ".png")[int(path.name) % 3]
        Image.fromarray(pixels).save(path.with_suffix(kind), format="JPEG" if kind != ".png" else "PNG")

    data = read_folder(folder(tmp_path / "d", "ab", several))
    assert len(data.train_inputs) + len(data.test_inputs) == 12


@pytest.mark.case("AC")
def test_a_class_may_be_called_train(tmp_path):
    data = load(str(folder(tmp_path / "vehicles", ["bus", "car", "train", "truck"])))
    assert data.classes == ("bus", "car", "train", "truck")
    with pytest.raises(DataError, match="holds no class folders"):  # here the classes were forgotten
        read_folder(folder(tmp_path / "parts", ["train", "test"]))


def test_a_name_is_an_image_by_its_suffix_in_any_case():
    assert all(
        map(is_image, ("a.jpg", "b.JPEG", "c.PnG", "d.webp", "e.1.tiff", *(f"x{s}" for s in suffixes())))
    )
    assert not any(map(is_image, ("a.txt", "png", "b.pdf", "c.jpg.txt", "d")))


def test_all_broken_images_are_named_at_once(tmp_path):
    """Whether the header is wrong or the pixels end early, and in both parts."""
    root = tmp_path / "d"
    for part in ("train", "test"):
        folder(root / part, "ab")
        for name in ("a/1.png", "b/2.png"):
            (root / part / name).write_bytes(b"broken")
        Image.new("RGB", (40, 40), "red").save(root / part / "b/3.jpg")
        whole = (root / part / "b/3.jpg").read_bytes()
        (root / part / "b/3.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError) as raised:
        read_folder(root)
    text = str(raised.value)
    assert "\n" not in text
    places = ("train/a/1.png", "train/b/2.png", "train/b/3.jpg", "test/a/1.png", "test/b/2.png")
    assert all(place in text for place in places)
    assert text.endswith("and 1 more")


def test_the_side_of_images_is_found_without_looking_at_all_of_them():
    looked = []

    def sizes(*every):
        for size in every:
            looked.append(size)
            yield size

    assert own_resolution(sizes((20, 20), (20, 20))) == 20
    assert own_resolution(sizes()) == 32
    looked.clear()
    assert own_resolution(sizes((160, 120), (20, 20))) == 32
    assert own_resolution(sizes((65, 65), (65, 65))) == 32
    assert own_resolution(sizes((20, 20), (20, 21), (20, 20))) == 32
    assert looked == [(160, 120), (65, 65), (20, 20), (20, 21)]
