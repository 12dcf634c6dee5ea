"""Decoded and resized images on disk, so that large ones are read once: .npz in the user's cache."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from peppp.files import whole
from peppp.tasks.dataset import Dataset


def folder() -> Path:
    """Where decoded images are kept: PEPPP_CACHE, or the user's cache folder."""
    if os.environ.get("PEPPP_CACHE"):
        return Path(os.environ["PEPPP_CACHE"]) / "images"
    from platformdirs import user_cache_path  # not there where only torch and numpy are

    return user_cache_path("peppp") / "images"


def kept(key: str, read: Callable[[], Dataset]) -> Dataset:
    """The data set of a key, from the cache or from ``read``, after which it is in the cache.

    A file is written beside its place and then renamed: another process sees all of it or nothing. One that
    cannot be read is made again; one that cannot be written is done without.
    """
    path = folder() / f"{key}.npz"
    with suppress(Exception):  # not there, cut off by a full disk, of an older layout: all the same
        return _opened(path)
    dataset = read()
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, dataset)
    return dataset


def _opened(path: Path) -> Dataset:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return Dataset(
            name=str(arrays["name"]),
            group=str(arrays["group"]),
            fingerprint=str(arrays["fingerprint"]),
            classes=tuple(str(name) for name in arrays["classes"]),
            train_inputs=arrays["train_inputs"],
            train_targets=arrays["train_targets"],
            test_inputs=arrays["test_inputs"],
            test_targets=arrays["test_targets"],
            former=str(arrays["former"]),
            notes=tuple(str(note) for note in arrays["notes"]),
        )


def _write(path: Path, dataset: Dataset) -> None:
    with whole(path) as unfinished, unfinished.open("wb") as file:
        np.savez(
            file,
            name=np.array(dataset.name),
            group=np.array(dataset.group),
            fingerprint=np.array(dataset.fingerprint),
            classes=np.array(dataset.classes),
            train_inputs=dataset.train_inputs,
            train_targets=dataset.train_targets,
            test_inputs=dataset.test_inputs,
            test_targets=dataset.test_targets,
            former=np.array(dataset.former),
            notes=np.array(dataset.notes, dtype=str),
        )
