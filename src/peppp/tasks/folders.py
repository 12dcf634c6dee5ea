"""Read images from class folders, on disk or in an archive, with or without ``train`` and ``test`` folders.

This module also reads the paper's ImageNet sets from ImageNet's ``train`` and ``val`` folders.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from peppp.errors import DataError
from peppp.tasks import resized
from peppp.tasks.catalog import Entry, imagenet_classes
from peppp.tasks.dataset import Dataset, Images, Labels, digest, split
from peppp.tasks.fingerprint import ADJUSTED, Fingerprint
from peppp.tasks.images import (
    check_resolution,
    decoded,
    image_dataset,
    in_two,
    own_resolution,
    several,
    size_of,
    split_notes,
    square,
)
from peppp.tasks.trees import FolderTree, Tree, bare_name, opened

_USUAL = ".jpg, .png"  # the suffixes that messages name
_COMMON = frozenset({".jpg", ".jpeg", ".png"})
# Pillow opens these as well, but they hold pages, films or scientific data, or need another program.
_NO_IMAGES = {"EPS", "PDF", "MPEG", "WMF", "GBR", "HDF5", "BUFR", "GRIB", "MSP", "FITS"}
_MANY = 2000  # decoding this many images takes seconds, so their pixels are cached
_TRAIN_NAMES = ("train", "training")
_TEST_NAMES = ("test", "testing", "val", "valid", "validation")


Seen = Callable[[int, int, int], None]
"""A callback that gets the number of classes, the side in pixels, and the number of training images."""


def images_within(places: Sequence[Path]) -> list[Path]:
    """Return image paths in order; a folder means all images below it, and raises DataError if empty."""
    found: list[Path] = []
    for place in places:
        if place.is_dir():
            inner = sorted(p for p in place.rglob("*") if is_image(p.name) and p.is_file())
            if not inner:
                raise DataError(f"{place} holds no images ({_USUAL} or any other format that Pillow reads)")
            found += inner
        else:
            found.append(place)
    return found


def is_image(name: str) -> bool:
    """Return whether a file's name ends like an image."""
    suffix = _suffix(name)
    return suffix in _COMMON or suffix in suffixes()  # loading all of Pillow's formats takes a moment


@lru_cache(maxsize=1)
def suffixes() -> frozenset[str]:
    """Return the suffixes, such as ``.png``, of all image formats that this Pillow and its plugins read."""
    Image.init()
    readable = Image.OPEN.keys() - _NO_IMAGES
    return frozenset(suffix for suffix, kind in Image.EXTENSION.items() if kind in readable)


@dataclass(frozen=True, slots=True)
class _Part:
    """The files of a training or test part, class by class, their labels, and counts of skipped files."""

    tree: Tree
    folder: str
    files: list[str]
    labels: Labels
    skipped: "Counter[str]" = field(default_factory=Counter)


def read_folder(
    path: Path,
    resolution: int = 0,
    *,
    only: Sequence[str] = (),
    tests: Sequence[str] = _TEST_NAMES,
    seen: Seen | None = None,
) -> Dataset:
    """Read ``path/class/image``, or ``path/train/class/image`` with ``path/test/class/image``.

    ``path`` is a folder, or a zip or tar archive of one. ``only`` selects classes and their order; ``tests``
    are the names that the test folder may have. Sets of at least 2000 images are cached after decoding and
    resizing, and read again when a file changes. ``seen`` is called before any image is decoded, with the
    number of classes, the side in pixels and the number of training images. Raises DataError, naming the
    file or folder at fault.
    """
    with opened(path) as tree:
        parts, classes = _class_folders(tree, only, tests)
        side = resolution or own_resolution(_sizes(parts))
        check_resolution(side, str(path))
        if seen is not None:
            labels = parts[0].labels
            trained = len(labels) if len(parts) > 1 else int((~split(labels, classes)).sum())
            seen(len(classes), side, trained)
        if only or sum(len(part.files) for part in parts) < _MANY:
            return _read(path, parts, classes, side)
        stamps = (_stamp(part) for part in parts)
        key = digest(ADJUSTED, str(path.resolve()), str(side), *classes, *stamps, *_notes(parts))
        return resized.kept(key, lambda: _read(path, parts, classes, side))


def _class_folders(
    tree: Tree, only: Sequence[str], tests: Sequence[str]
) -> tuple[list[_Part], tuple[str, ...]]:
    """Return the training part, the test part if there is one, and the classes."""
    train, test = _parts(tree, tests)
    classes = tuple(only) or tuple(_class_names(tree, train))
    if len(classes) < 2:
        count = "only one class folder" if classes else "no class folders"
        raise DataError(
            f"{tree.where / train} holds {count}; it needs at least two, with the images in them: "
            "class/image.png"
        )
    parts = [_listed(tree, train, classes)]
    if test is not None:
        unknown = [] if only else sorted(set(_class_names(tree, test)) - set(classes))
        if unknown:
            raise DataError(
                f"{tree.where / test} holds the class {unknown[0]!r}, which {tree.where / train} lacks"
            )
        parts.append(_listed(tree, test, classes))
    return parts, classes


def _read(path: Path, parts: Sequence[_Part], classes: tuple[str, ...], side: int) -> Dataset:
    """Read the parts; without a test part, split one off the training part."""
    fingerprint = Fingerprint(classes)
    pixels, broken = [], list[str]()
    for name, part in zip(("train", "test"), parts, strict=False):
        fingerprint.begin(name)
        fingerprint.add_former(*(["test"] if name == "test" else []))
        pixels.append(_pixels(part, side, classes, fingerprint, broken))
    if broken:
        raise DataError(several(broken))
    name = bare_name(path)
    return image_dataset(
        name,
        name,
        str(fingerprint),
        classes,
        *in_two(pixels, [part.labels for part in parts], classes),
        former=fingerprint.former,
        notes=(*_notes(parts), *fingerprint.notes),
    )


def read_imagenet(path: Path, entry: Entry, resolution: int) -> Dataset:
    """Read one of the 50 ImageNet sets from ``path/train/nXXXXXXXX/`` and ``path/val/nXXXXXXXX/``.

    Decoded and resized images are cached, and read again when a file changes. Raises DataError if a folder of
    the set is missing.
    """
    wanted = imagenet_classes(entry)
    ids = [one.wordnet_id for one in wanted]
    tree = FolderTree(path)
    train, test = _parts(tree, ("val",))
    if not train:
        raise DataError(f"{path} holds no folder train; give the folder with ImageNet's train and val")
    if test is None or not any((path / test / wordnet_id).is_dir() for wordnet_id in ids):
        raise DataError(
            f"{path / 'val'} holds no folders of {entry.slug}; sort the validation images into "
            f"val/{ids[0]}/ and so on"
        )

    def read() -> Dataset:
        return read_folder(path, resolution, only=ids, tests=("val",))

    listing = digest(*(_stamp(part) for part in (_listed(tree, train, ids), _listed(tree, test, ids))))
    key = digest(ADJUSTED, entry.slug, entry.definition, f"{resolution}", str(path.resolve()), listing)
    found = resized.kept(key, read)
    return replace(found, name=entry.slug, group=entry.family, classes=tuple(one.name for one in wanted))


def _parts(tree: Tree, tests: Sequence[str]) -> tuple[str, str | None]:
    """Return the folders of the training and the test part, or "" and None if there are no parts.

    A folder named train next to other class folders is taken as a class if it has no folders inside.
    """
    names = _class_names(tree, "")
    train = next((name for name in _TRAIN_NAMES if name in names), "")
    others = set(names) - {*_TRAIN_NAMES, *_TEST_NAMES}
    if not train or (others and not _class_names(tree, train)):
        return "", None
    return train, next((name for name in tests if name in names), None)


def _class_names(tree: Tree, folder: str) -> list[str]:
    return [name for name in tree.listed(folder)[0] if not name.startswith(".")]


def _listed(tree: Tree, folder: str, classes: Sequence[str]) -> _Part:
    """List the images of each class, and count the skipped files by reason."""
    files: list[str] = []
    labels: list[int] = []
    skipped = Counter(_reason(name, "outside class folders") for name in tree.listed(folder)[1])
    for label, name in enumerate(classes):
        place = f"{folder}/{name}" if folder else name
        inner, names = tree.listed(place)
        found = [one for one in names if one[0] != "." and is_image(one)]
        if not found:
            raise DataError(
                f"class folder {tree.where / place} holds no images ({_USUAL} or any other format that "
                "Pillow reads)"
            )
        files += [f"{place}/{one}" for one in found]
        labels += [label] * len(found)
        skipped.update(_reason(one, _suffix(one) or "no suffix") for one in set(names) - set(found))
        skipped.update("a folder inside a class folder" for one in inner if one[0] != ".")
    return _Part(tree, folder, files, np.array(labels, dtype=np.int64), skipped)


def _reason(name: str, otherwise: str) -> str:
    return "hidden" if name.startswith(".") else otherwise


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def _notes(parts: Sequence[_Part]) -> tuple[str, ...]:
    """Say how the test part was made if it has no folder, and which files were skipped."""
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part.skipped)
    own = split_notes(len(parts))
    if not total:
        return own
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(total.items()))
    return (*own, f"skipped {total.total()} (by suffix or reason: {reasons})")


def _sizes(parts: Sequence[_Part]) -> Iterator[tuple[int, int]]:
    """Yield width and height of the images; unreadable ones are left out, and named when all are read."""
    for part in parts:
        for file in part.files:
            with suppress(DataError):
                yield size_of(part.tree.source(file), str(part.tree.where / file))


def _pixels(
    part: _Part, side: int, classes: Sequence[str], fingerprint: Fingerprint, broken: list[str]
) -> Images:
    """Decode and resize a part to [count, side, side, 3], holding one full-size image at a time.

    What is wrong with unreadable images is appended to ``broken``.
    """
    pixels = np.empty((len(part.files), side, side, 3), dtype=np.uint8)
    for i, file in enumerate(part.files):
        try:
            data = part.tree.read(file)
            image, adjusted = decoded(data, str(part.tree.where / file))
        except DataError as error:
            broken.append(str(error))
            continue
        label = int(part.labels[i])
        fingerprint.add(label, image, adjusted=adjusted)
        fingerprint.add_former(f"{classes[label]}/{PurePosixPath(file).name}", data)
        pixels[i] = square(image, side)
    return pixels


def _stamp(part: _Part) -> str:
    """Return a text that changes when a file of the part is replaced."""
    return "\n".join(f"{file} {part.tree.stamp(file)}" for file in part.files)
