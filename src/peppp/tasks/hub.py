"""Read data sets from the Hugging Face hub with its ``datasets`` library (extra ``hf``)."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from peppp.errors import DataError
from peppp.tasks.dataset import Dataset, Images, Labels
from peppp.tasks.fingerprint import Fingerprint
from peppp.tasks.images import (
    decoded,
    image_dataset,
    in_two,
    own_resolution,
    size_of,
    split_notes,
    squares,
)
from peppp.tasks.trees import read_bytes

_NAME = re.compile(
    r"(?P<name>[\w-][\w.-]*/[\w-][\w.-]*)(?::(?P<config>[\w.-]+))?(?:@(?P<revision>[\w./-]+))?"
)
_TEST_SPLITS = ("test", "validation", "valid", "val")


def read_hub(text: str, resolution: int = 0) -> Dataset:
    """Read ``owner/name``, ``owner/name@revision`` or ``owner/name:config@revision`` from the hub.

    The inputs and targets are the first image column and the first class-label column. The split ``train`` is
    the training part, and ``test`` or ``validation`` the test part; without either, the training part is
    split. Raises DataError for an unsuitable set, and where the library or the network is missing.
    """
    match = _NAME.fullmatch(text)
    if match is None:
        raise DataError(
            f"not a name on the hub: {text!r}; write hf:owner/name, hf:owner/name@revision, or "
            "hf:owner/name:config@revision"
        )
    name = match["name"]
    if Path(name).exists():  # the library would read it instead of the hub's set
        raise DataError(
            f"there is a folder {name} here; write folder:{name} to read it, or run from another folder to "
            f"read hf:{name}"
        )
    parts = _loaded(name, match["config"], match["revision"])
    if "train" not in parts:
        raise DataError(f"hf:{text} has no split named train; it has {', '.join(parts)}")
    image, label, classes = _columns(text, parts["train"])
    names = ["train", *(part for part in _TEST_SPLITS if part in parts)][:2]
    fingerprint = Fingerprint(classes)
    fingerprint.add_former("\n".join(classes))
    labels = [_labels(f"hf:{text} ({part})", parts[part], label, len(classes)) for part in names]
    encoded = [_Encoded(f"hf:{text} ({part})", parts[part], image) for part in names]
    side = resolution or own_resolution(size_of(data, e.where) for e in encoded for data in e)
    pixels = []
    for number, (e, found) in enumerate(zip(encoded, labels, strict=True)):
        fingerprint.begin(("train", "test")[number])
        fingerprint.add_former(names[number], found)
        pixels.append(squares(_decoded(e, found, fingerprint), len(found), side, e.where))
    return image_dataset(
        name,
        name,
        str(fingerprint),
        classes,
        *in_two(pixels, labels, classes),
        former=fingerprint.former,
        notes=(*split_notes(len(names)), *fingerprint.notes),
    )


def _decoded(encoded: "_Encoded", labels: Labels, fingerprint: Fingerprint) -> Iterator[Images]:
    """Decode the images of a part one by one, adding each to the fingerprint."""
    for data, label in zip(encoded, labels.tolist(), strict=True):
        image, adjusted = decoded(data, encoded.where)
        fingerprint.add(label, image, adjusted=adjusted)
        fingerprint.add_former(data)
        yield image


def _loaded(name: str, config: str | None, revision: str | None) -> Any:
    try:
        import datasets
    except ImportError:
        raise DataError("hf: needs the datasets library; pip install 'peppp[hf]'") from None
    try:
        return datasets.load_dataset(name, config, revision=revision)
    except Exception as error:  # the library and its dependencies raise many kinds
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise DataError(
            f"cannot get hf:{name}: {reason}; is the name right, and is there a network?"
        ) from None


def _columns(text: str, part: Any) -> tuple[str, str, tuple[str, ...]]:
    """Return the names of the image and label columns, and the classes."""
    kinds = {column: type(feature).__name__ for column, feature in part.features.items()}
    images = [column for column, kind in kinds.items() if kind == "Image"]
    labels = [column for column, kind in kinds.items() if kind == "ClassLabel"]
    if not images or not labels:
        listed = ", ".join(f"{column} ({kind})" for column, kind in kinds.items())
        raise DataError(
            f"hf:{text} is not an image classification: it needs an Image and a ClassLabel column, but has "
            f"{listed}"
        )
    return images[0], labels[0], tuple(part.features[labels[0]].names)


def _labels(where: str, part: Any, column: str, classes: int) -> Labels:
    labels = np.array(part[column], dtype=np.float64)  # missing labels become NaN
    if not ((labels >= 0) & (labels < classes)).all():
        raise DataError(f"{where} holds images without a label, or labels beyond its {classes} classes")
    return labels.astype(np.int64)


class _Encoded:
    """The encoded images of a part; it can be iterated several times."""

    def __init__(self, where: str, part: Any, column: str) -> None:
        import datasets

        self.where = where
        self._column = column
        self._rows = part.cast_column(column, datasets.Image(decode=False)).select_columns([column])

    def __iter__(self) -> Iterator[bytes]:
        for number, row in enumerate(self._rows):
            found = row[self._column] or {}
            data = found.get("bytes")
            if data is None and found.get("path"):
                data = read_bytes(Path(found["path"]))
            if data is None:
                raise DataError(f"{self.where}: row {number} holds no image")
            yield data
