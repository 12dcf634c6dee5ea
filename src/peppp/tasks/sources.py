"""Where the catalog's data sets lie on this machine, and what they are read with.

A data root (PEPPP_DATA, or a folder of the user's) holds what was published, under its published name:
``cifar-10-python.tar.gz``, ``imagenet/train/...``, or for any set a folder or an .npz file of its name.
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
    """The folder in which the catalog's sets are looked for.

    PEPPP_DATA, or else ``peppp`` in the user's data folder.
    """
    if os.environ.get(ROOT_VARIABLE):
        return Path(os.environ[ROOT_VARIABLE])
    from platformdirs import user_data_path  # not there where only torch and numpy are

    return user_data_path("peppp")


def place(entry: Entry) -> Path | None:
    """Where a set lies below the data root; None where it does not."""
    names = (entry.slug, f"{entry.slug}.npz", *_PLACES.get(entry.source, ()))
    try:
        return next((path for name in names if (path := data_root() / name).exists()), None)
    except OSError:
        return None


def read_entry(entry: Entry, path: Path | None = None, resolution: int = 0) -> Dataset:
    """A set of the catalog from ``path``, or from where it lies below the data root.

    With ``resolution`` 0 it comes at the paper's. DataError where there is nothing, or something else.
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
    """Images in folders; visual domains are tested on their validation part, as the paper's points say."""
    if entry.family == "cifar":
        return read_folder(path, side, only=entry.class_names)
    return read_folder(path, side, tests=("val", "validation", "valid", "test"))
