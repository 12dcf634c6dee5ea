"""Folders of images: a folder a class, below ``train`` and ``test`` or not; ImageNet as it is unpacked."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from peppp.errors import DataError
from peppp.tasks import cache
from peppp.tasks.catalog import Entry, imagenet_classes
from peppp.tasks.dataset import Dataset, Digest, Images, Labels, digest, split
from peppp.tasks.images import (
    ADJUSTED,
    check_resolution,
    decoded,
    image_dataset,
    own_resolution,
    read_bytes,
    several,
    size_of,
    square,
)

_USUAL = ".jpg, .png"  # of the suffixes, in messages
# Pillow opens these as well, but they are pages, films or need another program.
_NO_IMAGES = {"EPS", "PDF", "MPEG", "WMF", "GBR", "HDF5", "BUFR", "GRIB", "MSP", "FITS"}
_MANY = 2000  # images that take seconds to decode: they are kept decoded
_TRAIN_NAMES = ("train", "training")
_TEST_NAMES = ("test", "testing", "val", "valid", "validation")


Seen = Callable[[int, int, int], None]
"""What is called with the numbers of classes, pixels of a side, and images to train on, once known."""


def images_within(places: Sequence[Path]) -> list[Path]:
    """Images by their paths, and all of those within folders, in order. DataError where there are none."""
    found: list[Path] = []
    for place in places:
        if place.is_dir():
            inner = sorted(p for p in place.rglob("*") if p.suffix.lower() in suffixes() and p.is_file())
            if not inner:
                raise DataError(f"{place} holds no images; known: {_USUAL} and what else Pillow reads")
            found += inner
        else:
            found.append(place)
    return found


@lru_cache(maxsize=1)
def suffixes() -> frozenset[str]:
    """Those of images that Pillow reads here, with its plugins; lower case, with their dot."""
    Image.init()
    readable = Image.OPEN.keys() - _NO_IMAGES
    return frozenset(suffix for suffix, kind in Image.EXTENSION.items() if kind in readable)


class _Part(NamedTuple):
    """The files of a training or a test part, class by class, and their labels."""

    folder: Path
    files: list[Path]
    labels: Labels


def read_folder(
    path: Path,
    resolution: int = 0,
    *,
    only: Sequence[str] = (),
    tests: Sequence[str] = _TEST_NAMES,
    seen: Seen | None = None,
) -> Dataset:
    """The data set of ``path/class/image`` or ``path/train/class/image`` with ``path/test/class/image``.

    ``only`` takes some of the classes, in that order; ``tests`` are the names that the test part may have.
    Many images are kept, decoded and resized, in a cache; changed files are read anew. ``seen`` is called
    with the numbers of classes, pixels of a side and images to train on before any image is decoded.
    """
    train, test = _parts(path, tests)
    classes = tuple(only) or tuple(_class_names(train))
    if len(classes) < 2:
        count = "only one class folder" if classes else "no class folders"
        raise DataError(
            f"{train} holds {count}; it needs at least two, with the images in them: class/image.png"
        )
    parts = [_listed(train, classes)]
    if test is not None:
        unknown = [] if only else sorted(set(_class_names(test)) - set(classes))
        if unknown:
            raise DataError(f"{test} holds the class {unknown[0]!r} that {train} lacks")
        parts.append(_listed(test, classes))
    side = resolution or own_resolution(_sizes(parts))
    if seen is not None:
        labels = parts[0].labels
        seen(len(classes), side, len(labels) if len(parts) > 1 else int((~split(labels, classes)).sum()))
    if only or sum(len(part.files) for part in parts) < _MANY:
        return _read(path, parts, classes, side)
    key = digest(ADJUSTED, str(path.resolve()), str(side), *classes, *(_stamp(part) for part in parts))
    return cache.kept(key, lambda: _read(path, parts, classes, side))


def _read(path: Path, parts: Sequence[_Part], classes: tuple[str, ...], side: int) -> Dataset:
    """The data set of a training part, from which the test part is taken where there is no other."""
    contents = Digest()
    pixels = []
    for number, part in enumerate(parts):
        if number:
            contents.add("test")
        pixels.append(_pixels(part, side, contents))
    labels = [part.labels for part in parts]
    if len(parts) == 1:
        tested = split(labels[0], classes)
        pixels = [pixels[0][~tested], pixels[0][tested]]
        labels = [labels[0][~tested], labels[0][tested]]
    name = path.resolve().name
    return image_dataset(name, name, str(contents), classes, (pixels[0], labels[0]), (pixels[1], labels[1]))


def read_imagenet(path: Path, entry: Entry, resolution: int) -> Dataset:
    """One of the 50 ImageNet sets from ``path/train/nXXXXXXXX/*.JPEG`` and ``path/val/nXXXXXXXX/*.JPEG``.

    Its images are kept, decoded and resized, in a cache; changed files are read anew.
    """
    wanted = imagenet_classes(entry)
    ids = [one.wordnet_id for one in wanted]
    train, test = _parts(path, ("val",))
    if train == path:
        raise DataError(f"{path} holds no folder train; give the folder with ImageNet's train and val")
    if test is None or not any((test / wordnet_id).is_dir() for wordnet_id in ids):
        raise DataError(
            f"{path / 'val'} holds no folders of {entry.slug}; sort the validation images into "
            f"val/{ids[0]}/ and so on"
        )

    def read() -> Dataset:
        return read_folder(path, resolution, only=ids, tests=("val",))

    listing = digest(*(_stamp(part) for part in (_listed(train, ids), _listed(test, ids))))
    key = digest(entry.slug, entry.definition, f"{resolution}", str(path.resolve()), listing)
    found = cache.kept(key, read)
    return image_dataset(
        entry.slug,
        entry.family,
        found.fingerprint,
        tuple(one.name for one in wanted),
        (found.train_inputs, found.train_targets),
        (found.test_inputs, found.test_targets),
    )


def _parts(path: Path, tests: Sequence[str]) -> tuple[Path, Path | None]:
    """The folders of the training and the test part; the folder itself and None where it has no parts.

    A folder called train that holds images, beside folders of other names, is a class.
    """
    if path.is_file():
        raise DataError(f"{path} is a file; give a folder with one folder of images a class, or an .npz file")
    if not path.is_dir():
        raise DataError(f"no such folder: {path}; give a folder with one folder of images a class")
    train = next((path / name for name in _TRAIN_NAMES if (path / name).is_dir()), path)
    others = set(_class_names(path)) - {*_TRAIN_NAMES, *_TEST_NAMES}
    if train == path or (others and not _class_names(train)):
        return path, None
    return train, next((path / name for name in tests if (path / name).is_dir()), None)


def _class_names(folder: Path) -> list[str]:
    return sorted(p.name for p in _inside(folder, lambda p: p.is_dir()) if not p.name.startswith("."))


def _inside(folder: Path, wanted: Callable[[Path], bool]) -> list[Path]:
    try:
        return sorted(p for p in folder.iterdir() if wanted(p))
    except FileNotFoundError:
        raise DataError(f"no such folder: {folder}") from None
    except OSError as error:
        raise DataError(f"cannot read the folder {folder}: {error.strerror}") from None


def _listed(folder: Path, classes: Sequence[str]) -> _Part:
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = _inside(folder / name, lambda p: p.suffix.lower() in suffixes() and p.name[0] != ".")
        if not found:
            raise DataError(
                f"class folder {folder / name} holds no images ({_USUAL} and what else Pillow reads)"
            )
        files += found
        labels += [label] * len(found)
    return _Part(folder, files, np.array(labels, dtype=np.int64))


def _sizes(parts: Sequence[_Part]) -> list[tuple[int, int]]:
    """Width and height of all images. DataError names those that are none."""
    found, broken = [], []
    for part in parts:
        for file in part.files:
            try:
                found.append(size_of(file, str(file)))
            except DataError as error:
                broken.append(str(error))
    if broken:
        raise DataError(several(broken))
    return found


def _pixels(part: _Part, side: int, contents: Digest) -> Images:
    """[count, side, side, 3], one image in memory at a time; names and bytes go into ``contents``."""
    check_resolution(side, str(part.folder))
    pixels = np.empty((len(part.files), side, side, 3), dtype=np.uint8)
    broken: list[str] = []
    adjusted = False
    for i, file in enumerate(part.files):
        data = read_bytes(file)
        contents.add(f"{file.parent.name}/{file.name}")
        contents.add(data)
        try:
            image, changed = decoded(data, str(file))
        except DataError as error:
            broken.append(str(error))
            continue
        adjusted |= changed
        pixels[i] = square(image, side)
    if broken:
        raise DataError(several(broken))
    if adjusted:
        contents.add(ADJUSTED)
    return pixels


def _stamp(part: _Part) -> str:
    """What changes when a file of the part is replaced: names, sizes and times."""
    stats = ((file, file.stat()) for file in part.files)
    return "\n".join(f"{f.parent.name}/{f.name} {s.st_size} {s.st_mtime_ns}" for f, s in stats)
