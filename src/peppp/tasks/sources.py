"""Find and read the catalog's data sets on this machine.

The data root (PEPPP_DATA, or a folder in the user's data folder) holds published files under their published
names, such as ``cifar-10-python.tar.gz`` and ``imagenet/train/...``, or a folder or .npz file that is named
after a set.
"""

import os
from dataclasses import replace
from pathlib import Path

from peppp.errors import DataError
from peppp.tasks.arrays import read_npz
from peppp.tasks.catalog import Entry
from peppp.tasks.cifar import is_cifar, read_cifar
from peppp.tasks.dataset import Dataset
from peppp.tasks.folders import read_folder, read_imagenet

ROOT_VARIABLE = "PEPPP_DATA"

_PLACES = {
    "CIFAR-10": (
        "cifar-10-python.tar.gz",
        "cifar-10-batches-py",
        "cifar-10-binary.tar.gz",
        "cifar-10-batches-bin",
    ),
    "CIFAR-100": (
        "cifar-100-python.tar.gz",
        "cifar-100-python",
        "cifar-100-binary.tar.gz",
        "cifar-100-binary",
        "cifar100",
    ),
    "ILSVRC-2012": ("imagenet", "ILSVRC2012", "ILSVRC/Data/CLS-LOC"),
}


def data_root() -> Path:
    """Return the data root: PEPPP_DATA if it is set, or else ``peppp`` in the user's data folder."""
    if os.environ.get(ROOT_VARIABLE):
        return Path(os.environ[ROOT_VARIABLE])
    from platformdirs import user_data_path  # may be missing where only torch and numpy are installed

    return user_data_path("peppp")


def place(entry: Entry) -> Path | None:
    """Return the path of a set below the data root, or None if it is not there."""
    names = (entry.slug, f"{entry.slug}.npz", *_PLACES.get(entry.source, ()))
    try:
        return next((path for name in names if (path := data_root() / name).exists()), None)
    except OSError:
        return None


def read_entry(entry: Entry, path: Path | None = None, resolution: int = 0) -> Dataset:
    """Read a set of the catalog from ``path``, or from its place below the data root.

    ``resolution`` is the side in pixels; 0 is the paper's. Raises DataError if the set is missing, or has
    another number of classes than the catalog says.
    """
    found = path or place(entry)
    if found is None:
        names = " or ".join((*_PLACES.get(entry.source, ()), entry.slug)[:2])
        raise DataError(
            f"{entry.slug} is not on this machine: {data_root()} holds no {names}; set {ROOT_VARIABLE}, "
            f"write {entry.slug}=/path, or see: peppp datasets show {entry.slug}"
        )
    if not found.exists():
        raise DataError(f"no such file or folder: {found}, given for {entry.slug}")
    side = resolution or entry.resolution
    if entry.family == "imagenet" and found.is_dir():
        return read_imagenet(found, entry, side)
    if entry.family == "cifar" and is_cifar(found):
        return read_cifar(found, side, name=entry.slug, only=entry.class_names)
    read = read_npz(found, side) if found.suffix == ".npz" else _folder(found, entry, side)
    if entry.classes is not None and len(read.classes) != entry.classes:
        raise DataError(f"{found} holds {len(read.classes)} classes; {entry.slug} has {entry.classes}")
    return replace(read, name=entry.slug, group=entry.family)


def _folder(path: Path, entry: Entry, side: int) -> Dataset:
    """Read folders of images; sets outside CIFAR prefer ``val`` as test part, by the paper's point counts."""
    if entry.family == "cifar":
        return read_folder(path, side, only=entry.class_names)
    return read_folder(path, side, tests=("val", "validation", "valid", "test"))
