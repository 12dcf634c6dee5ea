"""Read data sets from .npz files of pixel arrays, or of concatenated encoded images with their offsets."""

import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peppp.errors import DataError
from peppp.tasks.dataset import Dataset, Images, Labels, digest
from peppp.tasks.fingerprint import ADJUSTED, adjusted_notes
from peppp.tasks.images import Decoded, image_dataset, squares

_BROKEN = (OSError, ValueError, EOFError, TypeError, AttributeError, zipfile.BadZipFile, zlib.error)


def read_npz(path: Path, resolution: int = 0) -> Dataset:
    """Read a data set from ``y_train``, ``y_test``, ``classes`` and the images of each part.

    The training images are either ``x_train`` (uint8 [count, height, width], with 1 or 3 channels behind or
    without), or ``train_jpeg`` with ``train_offsets``: image i is ``train_jpeg[offsets[i]:offsets[i + 1]]``,
    in any encoding that Pillow reads. Test images are named in the same way. Raises DataError if the file
    cannot be read or its arrays do not fit together.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise DataError(f"no such file: {path}") from None
    except PermissionError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    except _BROKEN as error:
        raise DataError(f"{path} is not an .npz file of plain arrays: {error}") from None
    missing = {"y_train", "y_test", "classes"} - set(arrays)
    if missing:
        raise DataError(f"{path} lacks {', '.join(sorted(missing))}; it holds {', '.join(sorted(arrays))}")
    classes = tuple(str(name) for name in np.atleast_1d(arrays["classes"]))
    parts = [_part(path, arrays, part, len(classes), resolution) for part in ("train", "test")]
    if parts[0][0].shape[1:] != parts[1][0].shape[1:]:
        raise DataError(
            f"{path}: training images have {parts[0][0].shape[1]} pixels a side, test images "
            f"{parts[1][0].shape[1]}; give a resolution, such as ?resolution=32"
        )
    contents = [item for name in sorted(arrays) for item in (name, arrays[name])]
    adjusted = sum(part[2] for part in parts)
    fingerprint = digest(*contents, *([ADJUSTED] if adjusted else []))
    train, test = (part[:2] for part in parts)
    notes = adjusted_notes(adjusted)
    return image_dataset(path.stem, path.stem, fingerprint, classes, train, test, notes=notes)


def _part(
    path: Path, arrays: dict[str, NDArray[Any]], part: str, classes: int, resolution: int
) -> tuple[Images, Labels, int]:
    labels = arrays[f"y_{part}"]
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or labels.size == 0:
        raise DataError(
            f"{path}: y_{part} must be a one-dimensional integer array, not {labels.dtype} {labels.shape}"
        )
    if labels.min() < 0 or labels.max() >= classes:
        raise DataError(
            f"{path}: y_{part} holds labels {labels.min()} to {labels.max()} for {classes} classes"
        )
    images: Iterable[Images]
    if f"x_{part}" in arrays:
        images = arrays[f"x_{part}"]
        channels = images.shape[3] if images.ndim == 4 else 1
        if images.dtype != np.uint8 or images.ndim not in (3, 4) or channels not in (1, 3):
            raise DataError(
                f"{path}: x_{part} must be uint8 [count, height, width, 1 or 3], "
                f"not {images.dtype} {list(images.shape)}"
            )
        count = len(images)
    elif f"{part}_jpeg" in arrays and f"{part}_offsets" in arrays:
        data, offsets = arrays[f"{part}_jpeg"], arrays[f"{part}_offsets"]
        if not _lie_in(offsets, data):
            raise DataError(
                f"{path}: {part}_offsets must rise strictly and lie from 0 to the length of {part}_jpeg"
            )
        encoded, count = data.tobytes(), len(offsets) - 1
        each = (encoded[offsets[i] : offsets[i + 1]] for i in range(count))
        images = Decoded(each, f"the {part} part of {path}", numbered=True)
    else:
        raise DataError(f"{path} lacks x_{part}, and {part}_jpeg with {part}_offsets")
    if count != len(labels):
        raise DataError(f"{path}: {count} images but {len(labels)} labels in the {part} part")
    pixels = squares(images, count, resolution, f"{path} ({part})")
    return pixels, labels.astype(np.int64), images.adjusted if isinstance(images, Decoded) else 0


def _lie_in(offsets: NDArray[Any], data: NDArray[Any]) -> bool:
    """Whether ``offsets`` rise strictly and stay within ``data``."""
    if data.dtype != np.uint8 or data.ndim != 1 or offsets.dtype.kind not in "iu" or offsets.ndim != 1:
        return False
    ends = offsets.astype(np.int64)
    return (
        len(ends) > 1 and int(ends[0]) >= 0 and int(ends[-1]) <= len(data) and bool((np.diff(ends) > 0).all())
    )
