"""Keep decoded and resized images as .npz files in the user's cache, so that they are decoded only once."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from peppp.cache import folder
from peppp.files import whole
from peppp.tasks.dataset import Dataset


def kept(key: str, read: Callable[[], Dataset]) -> Dataset:
    """Return the data set cached under ``key``, or call ``read`` and cache what it returns.

    A file is written under a temporary name and then renamed, so that other processes never see part of it.
    An unreadable file is written again. If writing fails, the data set is returned without being cached.
    """
    path = folder("images") / f"{key}.npz"
    with suppress(Exception):  # a missing, truncated or outdated file is replaced below
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
