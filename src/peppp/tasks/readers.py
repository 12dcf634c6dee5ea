"""Data sets from what people have: scikit-learn's digits, .npz files, folders of images.

A data set is named by a text: ``digits``, ``digits:02468`` (some classes), ``npz:FILE``, ``folder:FOLDER``,
or just a path. Behind it, ``?train=1600&test=2000`` limits its parts, ``resolution=16`` sets the side of its
images and ``group=NAME`` names the source that it shares with siblings.
"""

import io
import zipfile
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qsl

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from peppp.errors import DataError
from peppp.tasks.dataset import Dataset, Images, Labels, cut, digest, split

_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
_TRAIN_NAMES = ("train", "training")
_TEST_NAMES = ("test", "testing", "val", "valid", "validation")
DEFAULT_RESOLUTION = 32
_LARGEST_OWN_RESOLUTION = 64


def load(text: str, *, resolution: int = 0) -> Dataset:
    """The data set of a text (see above) with square images of ``resolution`` pixels a side.

    With resolution 0, images that are square, of one size and at most 64 pixels stay as they are, and others
    come at 32. Images are cropped to their centre square, resized with Lanczos, grey ones made three equal
    channels. Sets without a test part are split 80/20, stratified and seeded.

    Raises DataError: one line that names the file and what is wrong with it.

    >>> load("digits:01").train_images.shape, load("digits").classes[:3]
    ((288, 8, 8, 3), ('0', '1', '2'))
    """
    source, _, query = text.partition("?")
    options = _options(query, text)
    resolution = int(options.pop("resolution", resolution))
    group = options.pop("group", None)
    kind, separator, rest = source.partition(":")
    if source == "digits" or (kind == "digits" and separator):
        dataset = _digits(rest, resolution)
    elif kind == "npz" or (not separator and source.endswith(".npz")):
        dataset = _npz(Path(rest if separator else source), resolution)
    elif kind == "folder" or not separator:
        dataset = _folder(Path(rest if separator else source), resolution)
    else:
        raise DataError(f"unknown kind of data {kind!r} in {text!r}; known: digits, npz:FILE, folder:FOLDER")
    if options:
        limits = {part: int(limit) for part, limit in options.items()}
        dataset = cut(dataset, train=limits.get("train"), test=limits.get("test"))
    return replace(dataset, group=group) if group else dataset


def _options(query: str, text: str) -> dict[str, str]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    for name, value in options.items():
        is_count = name in ("train", "test", "resolution") and value.isdecimal() and int(value) > 0
        if not is_count and not (name == "group" and value):
            raise DataError(
                f"cannot read {name}={value} in {text!r}; "
                "write ?train=1600&test=2000&resolution=16&group=NAME"
            )
    return options


def _digits(labels_text: str, resolution: int) -> Dataset:
    from sklearn.datasets import load_digits

    wanted = sorted(set(labels_text or "0123456789"))
    if len(wanted) < 2 or not set(wanted) <= set("0123456789"):
        raise DataError(f"no such digits: {labels_text!r}; name two or more of them, as digits:02468")
    bunch = load_digits()
    chosen = np.isin(bunch.target, [int(c) for c in wanted])
    images = np.round(bunch.images[chosen] * (255 / 16)).astype(np.uint8)
    labels = np.searchsorted([int(c) for c in wanted], bunch.target[chosen]).astype(np.int64)
    name = "digits" if len(wanted) == 10 else f"digits-{''.join(wanted)}"
    tested = split(labels, wanted)
    return _dataset(
        name,
        "digits",
        digest("digits", images, labels),
        tuple(wanted),
        (_resized(list(images[~tested]), resolution, name), labels[~tested]),
        (_resized(list(images[tested]), resolution, name), labels[tested]),
    )


def _npz(path: Path, resolution: int) -> Dataset:
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise DataError(f"no such file: {path}") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is not an .npz file of plain arrays: {error}") from None
    missing = {"y_train", "y_test", "classes"} - set(arrays)
    if missing:
        raise DataError(f"{path} lacks {', '.join(sorted(missing))}; it holds {', '.join(sorted(arrays))}")
    classes = tuple(str(name) for name in arrays["classes"])
    parts = [_npz_part(path, arrays, part, len(classes), resolution) for part in ("train", "test")]
    contents = [item for name in sorted(arrays) for item in (name, arrays[name])]
    return _dataset(path.stem, path.stem, digest(*contents), classes, *parts)


def _npz_part(
    path: Path, arrays: dict[str, NDArray[np.generic]], part: str, classes: int, resolution: int
) -> tuple[Images, Labels]:
    labels = arrays[f"y_{part}"]
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or labels.size == 0:
        raise DataError(
            f"{path}: y_{part} must be a list of whole numbers, not {labels.dtype} {labels.shape}"
        )
    if labels.min() < 0 or labels.max() >= classes:
        raise DataError(
            f"{path}: y_{part} holds labels {labels.min()} to {labels.max()} for {classes} classes"
        )
    if f"x_{part}" in arrays:
        images = arrays[f"x_{part}"]
        channels = images.shape[3] if images.ndim == 4 else 1
        if images.dtype != np.uint8 or images.ndim not in (3, 4) or channels not in (1, 3):
            raise DataError(
                f"{path}: x_{part} must be uint8 [count, height, width, 1 or 3], "
                f"not {images.dtype} {list(images.shape)}"
            )
        decoded = list(images)
    elif f"{part}_jpeg" in arrays and f"{part}_offsets" in arrays:
        data, offsets = arrays[f"{part}_jpeg"].tobytes(), arrays[f"{part}_offsets"].astype(np.int64)
        decoded = [
            _decode(io.BytesIO(data[offsets[i] : offsets[i + 1]]), f"image {i} of the {part} part of {path}")
            for i in range(len(offsets) - 1)
        ]
    else:
        raise DataError(f"{path} lacks x_{part}, and {part}_jpeg with {part}_offsets")
    if len(decoded) != len(labels):
        raise DataError(f"{path}: {len(decoded)} images but {len(labels)} labels in the {part} part")
    return _resized(decoded, resolution, f"{path} ({part})"), labels.astype(np.int64)


def _folder(path: Path, resolution: int) -> Dataset:
    if not path.is_dir():
        raise DataError(f"no such folder: {path}; give a folder with one folder of images a class")
    train = next((path / name for name in _TRAIN_NAMES if (path / name).is_dir()), path)
    test = (
        next((path / name for name in _TEST_NAMES if (path / name).is_dir()), None) if train != path else None
    )
    classes = tuple(sorted(p.name for p in train.iterdir() if p.is_dir() and not p.name.startswith(".")))
    if len(classes) < 2:
        raise DataError(
            f"{train} holds {len(classes)} class folders; it needs at least two (class/image.png)"
        )
    images, labels, contents = _folder_part(train, classes)
    if test is not None:
        others = sorted(p.name for p in test.iterdir() if p.is_dir() and not p.name.startswith("."))
        if set(others) - set(classes):
            raise DataError(
                f"{test} holds the class {sorted(set(others) - set(classes))[0]!r} that {train} lacks"
            )
        test_images, test_labels, test_contents = _folder_part(test, classes)
        contents += ["test", *test_contents]
    else:
        tested = split(labels, classes)
        test_labels = labels[tested]
        test_images = [image for image, chosen in zip(images, tested, strict=True) if chosen]
        images = [image for image, chosen in zip(images, tested, strict=True) if not chosen]
        labels = labels[~tested]
    side = resolution or _own_resolution(images + test_images)
    return _dataset(
        path.resolve().name,
        path.resolve().name,
        digest(*contents),
        classes,
        (_resized(images, side, str(train)), labels),
        (_resized(test_images, side, str(test or train)), test_labels),
    )


def _folder_part(folder: Path, classes: tuple[str, ...]) -> tuple[list[Images], Labels, list[str | bytes]]:
    images: list[Images] = []
    labels: list[int] = []
    contents: list[str | bytes] = []
    for label, name in enumerate(classes):
        files = sorted(
            p for p in (folder / name).glob("*") if p.suffix.lower() in _SUFFIXES and p.name[0] != "."
        )
        if not files:
            raise DataError(f"class folder {folder / name} holds no images ({', '.join(sorted(_SUFFIXES))})")
        for file in files:
            try:
                data = file.read_bytes()
            except OSError as error:
                raise DataError(f"cannot read {file}: {error.strerror}") from None
            images.append(_decode(io.BytesIO(data), str(file)))
            labels.append(label)
            contents += [f"{name}/{file.name}", data]
    return images, np.array(labels, dtype=np.int64), contents


def _decode(file: io.BytesIO, where: str) -> Images:
    """[height, width, 3] uint8."""
    try:
        with Image.open(file) as image:
            return np.asarray(image.convert("RGB"))
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{where} is not an image that can be decoded: {type(error).__name__}") from None


def _own_resolution(images: list[Images]) -> int:
    sides = {side for image in images for side in image.shape[:2]}
    side = sides.pop()
    return side if not sides and side <= _LARGEST_OWN_RESOLUTION else DEFAULT_RESOLUTION


def _resized(images: list[Images], resolution: int, where: str) -> Images:
    """[count, side, side, 3]: centre crops, Lanczos; images of the right size are left as they are."""
    side = resolution or _own_resolution(images)
    if not 4 <= side <= 1024:
        raise DataError(f"{where}: a resolution of {side} pixels is not between 4 and 1024; give another")
    result = np.empty((len(images), side, side, 3), dtype=np.uint8)
    for i, image in enumerate(images):
        pixels = image[..., None] if image.ndim == 2 else image
        height, width = pixels.shape[:2]
        if (height, width) != (side, side):
            short = min(height, width)
            top, left = (height - short) // 2, (width - short) // 2
            square = pixels[top : top + short, left : left + short]
            resampled = Image.fromarray(square.squeeze()).resize((side, side), Image.Resampling.LANCZOS)
            pixels = np.asarray(resampled).reshape(side, side, -1)
        result[i] = pixels  # one grey channel becomes three
    return result


def _dataset(
    name: str,
    group: str,
    fingerprint: str,
    classes: tuple[str, ...],
    train: tuple[Images, Labels],
    test: tuple[Images, Labels],
) -> Dataset:
    if len(classes) < 2:
        raise DataError(f"{name} has {len(classes)} class; classification needs at least two")
    if len(test[1]) == 0:
        raise DataError(f"{name} has no test images")
    return Dataset(name, group, fingerprint, classes, *train, *test)
