"""Read CIFAR-10 and CIFAR-100 from the official python or binary archives, packed or unpacked.

Archives are read in place. The python form is pickled, and plain unpickling could run code from the file, so
:class:`_Reader` accepts only arrays, plain containers, texts and numbers.
"""

import gzip
import io
import pickle
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from peppp.errors import DataError
from peppp.tasks.dataset import Dataset, Images, Labels, digest
from peppp.tasks.images import image_dataset, squares
from peppp.tasks.trees import read_bytes

_SIDE = 32
_PIXELS = 3 * _SIDE * _SIDE
# The largest official member, CIFAR-100's training part, has 155 MB.
_LARGEST_MEMBER = 256 * 2**20
_MOST_MEMBERS = 64

_BATCHES = tuple(f"data_batch_{i}" for i in range(1, 6))
_LAYOUTS = {
    "CIFAR-10 python": ((*_BATCHES,), ("test_batch",), "batches.meta"),
    "CIFAR-10 binary": (tuple(f"{b}.bin" for b in _BATCHES), ("test_batch.bin",), "batches.meta.txt"),
    "CIFAR-100 python": (("train",), ("test",), "meta"),
    "CIFAR-100 binary": (("train.bin",), ("test.bin",), "fine_label_names.txt"),
}
_NAMES = {name for trained, tested, meta in _LAYOUTS.values() for name in (*trained, *tested, meta)}


class Cifar(NamedTuple):
    """A whole set: its classes, and the images [count, 32, 32, 3] and labels [count] of each part."""

    classes: tuple[str, ...]
    train: tuple[Images, Labels]
    test: tuple[Images, Labels]


def is_cifar(path: Path) -> bool:
    """Whether a path looks like an official archive or its unpacked folder, judging by file names alone."""
    if path.is_file():
        return path.name.endswith((".tar.gz", ".tgz"))
    return any((path / trained[0]).is_file() for trained, _, _ in _LAYOUTS.values())


def read_cifar(
    path: Path, resolution: int = 0, *, name: str, only: Sequence[str] = (), group: str = "cifar"
) -> Dataset:
    """Read an official archive or its unpacked folder, keeping the classes ``only`` (default: all).

    The fingerprint depends on classes, pixels and labels, so it is the same for all forms of the archive.
    Raises DataError, naming the archive and the faulty member.
    """
    try:
        changed = path.stat().st_mtime_ns
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    whole = _whole(path, changed)
    unknown = [one for one in only if one not in whole.classes]
    if unknown:
        raise DataError(f"{path} has no class {unknown[0]!r}, which {name} needs; is it CIFAR-100?")
    if not only and name == "cifar10" and len(whole.classes) != 10:
        raise DataError(f"{path} holds {len(whole.classes)} classes; CIFAR-10 has ten")
    classes = tuple(only) or whole.classes
    parts = [_of_classes(part, whole.classes, classes) for part in (whole.train, whole.test)]
    contents = [item for part in parts for item in part]
    side = resolution or _SIDE
    train, test = ((squares(images, len(images), side, str(path)), labels) for images, labels in parts)
    return image_dataset(name, group, digest(*classes, *contents), classes, train, test)


@lru_cache(maxsize=1)
def _whole(path: Path, changed: int) -> Cifar:
    """Parse an archive; ``changed``, its modification time, makes the cache miss for a replaced file."""
    files = _files(path)
    layout = next((name for name, (trained, _, _) in _LAYOUTS.items() if trained[0] in files), None)
    if layout is None:
        firsts = " nor ".join(trained[0] for trained, _, _ in _LAYOUTS.values())
        raise DataError(f"{path} is not a CIFAR archive: it holds neither {firsts}")
    trained, tested, meta = _LAYOUTS[layout]
    for name in (*trained, *tested, meta):
        if name not in files:
            raise DataError(f"{path} lacks {name} of the {layout} archive; download it again")
    if layout.endswith("binary"):
        classes = _lines(path, meta, files[meta])
        label_bytes = 1 if layout.startswith("CIFAR-10 ") else 2
        parts = [
            [_binary(path, name, files[name], label_bytes) for name in names] for names in (trained, tested)
        ]
    else:
        classes = _meta(path, meta, files[meta])
        parts = [[_pickled(path, name, files[name]) for name in names] for names in (trained, tested)]
    joined = []
    for names, part in zip((trained, tested), parts, strict=True):
        images = np.concatenate([one[0] for one in part])
        labels = np.concatenate([one[1] for one in part])
        if len(labels) and not 0 <= labels.min() <= labels.max() < len(classes):
            raise DataError(
                f"{path}: {names[0]} holds labels {labels.min()} to {labels.max()} for {len(classes)} classes"
            )
        joined.append((images, labels))
    return Cifar(classes, joined[0], joined[1])


def _files(path: Path) -> Mapping[str, bytes]:
    """Read the members that belong to any layout, by file name; other members are ignored."""
    if path.is_dir():
        return {name: read_bytes(path / name) for name in _NAMES if (path / name).is_file()}
    try:
        return dict(_members(path))
    except FileNotFoundError:
        raise DataError(f"no such file: {path}") from None
    except (OSError, EOFError, tarfile.TarError, gzip.BadGzipFile, zlib.error, ValueError) as error:
        raise DataError(f"{path} is not a whole tar.gz archive: {error}") from None


def _members(path: Path) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(path, "r:gz") as archive:
        for number, member in enumerate(archive):
            if number >= _MOST_MEMBERS or member.size > _LARGEST_MEMBER:
                raise DataError(
                    f"{path} is not a CIFAR archive: {member.name} is too large, or there are more than "
                    f"{_MOST_MEMBERS} members"
                )
            name = member.name.rpartition("/")[2]
            if name in _NAMES and member.isreg() and (file := archive.extractfile(member)) is not None:
                yield name, file.read()


def _of_classes(
    part: tuple[Images, Labels], known: Sequence[str], wanted: Sequence[str]
) -> tuple[Images, Labels]:
    number = np.full(len(known), -1, dtype=np.int64)
    number[[known.index(name) for name in wanted]] = np.arange(len(wanted))
    labels = number[part[1]]
    return part[0][labels >= 0], labels[labels >= 0]


def _as_images(rows: Images) -> Images:
    """Turn rows [count, 3072], one colour plane after another, into images [count, 32, 32, 3]."""
    return np.ascontiguousarray(rows.reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1))


def _binary(path: Path, name: str, data: bytes, label_bytes: int) -> tuple[Images, Labels]:
    """Parse records of one or two label bytes, the last of them the class, and 3072 bytes of pixels."""
    size = label_bytes + _PIXELS
    if not data or len(data) % size:
        raise DataError(f"{path}: {name} has {len(data)} bytes, not a multiple of {size} per image")
    rows = np.frombuffer(data, dtype=np.uint8).reshape(-1, size)
    return _as_images(rows[:, label_bytes:]), rows[:, label_bytes - 1].astype(np.int64)


def _lines(path: Path, name: str, data: bytes) -> tuple[str, ...]:
    try:
        return tuple(line for line in data.decode("ascii").split("\n") if line)
    except UnicodeDecodeError:
        raise DataError(f"{path}: {name} is not a list of names") from None


def _pickled(path: Path, name: str, data: bytes) -> tuple[Images, Labels]:
    batch = _parsed(path, name, data)
    rows = batch.get(b"data")
    rows = rows.array() if isinstance(rows, _Array) else None
    labels = batch.get(b"labels", batch.get(b"fine_labels"))
    if rows is None or rows.dtype != np.uint8 or rows.ndim != 2 or rows.shape[1] != _PIXELS:
        raise DataError(f"{path}: the data of {name} are not uint8 [count, {_PIXELS}]")
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise DataError(f"{path}: the labels of {name} are not a list of whole numbers")
    if len(labels) != len(rows):
        raise DataError(f"{path}: {len(rows)} images but {len(labels)} labels in {name}")
    return _as_images(rows), np.array([min(max(label, -1), 2**31) for label in labels], dtype=np.int64)


def _meta(path: Path, name: str, data: bytes) -> tuple[str, ...]:
    meta = _parsed(path, name, data)
    names = meta.get(b"label_names", meta.get(b"fine_label_names"))
    if not isinstance(names, list) or not all(isinstance(one, bytes) for one in names):
        raise DataError(f"{path}: {name} holds no list of class names")
    return tuple(one.decode("ascii", "replace") for one in names)


def _parsed(path: Path, name: str, data: bytes) -> dict[Any, Any]:
    try:
        found = _Reader(io.BytesIO(data), encoding="bytes").load()
    except Exception as error:  # a damaged pickle can raise anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: {name} is not a batch of CIFAR: {reason}") from None
    if not isinstance(found, dict):
        raise DataError(f"{path}: {name} is not a batch of CIFAR: it holds a {type(found).__name__}")
    # Pickles written by Python 3 have text keys; the official ones have bytes.
    return {key.encode() if isinstance(key, str) else key: _as_bytes(value) for key, value in found.items()}


def _as_bytes(value: Any) -> Any:
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        return [item.encode() for item in value]
    return value


class _Reader(pickle._Unpickler):
    """Unpickle data only: arrays become :class:`_Array`, and every other global is refused.

    This subclasses the unpickler written in Python because the one in C allocates whatever size a damaged
    file names.
    """

    def find_class(self, module: str, name: str) -> Any:
        """Return a harmless stand-in for a global that the file names, never the global itself."""
        known = _GLOBALS.get(f"{module}.{name}")
        if known is None:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no batch needs")
        return known


class _Array:
    """The pickled state of an array, which is checked before an array is made from it."""

    def __init__(self) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def array(self) -> Images | None:
        """Return the array if it is a complete uint8 matrix, else None."""
        match self.state:
            case (int(), (int(rows), int(columns)), _Type(name=(b"u1" | "u1")), by_columns, bytes(data)):
                if rows >= 0 and columns >= 0 and rows * columns == len(data):
                    flat = np.frombuffer(data, dtype=np.uint8)
                    return flat.reshape(columns, rows).T if by_columns else flat.reshape(rows, columns)
        return None


class _Type:
    """The pickled name of an array's dtype."""

    def __init__(self, name: Any = None, *_: Any) -> None:
        self.name = name

    def __setstate__(self, state: Any) -> None:
        pass


class _Global:
    """A stand-in for a global that a pickle names: the file can call it but not change it."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., Any]) -> None:
        self._make = make

    def __call__(self, *args: Any) -> Any:
        return self._make(*args)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("it tries to change a global")


def _encode(text: str, encoding: Any = "latin1") -> bytes:
    """Stand in for ``_codecs.encode``, by which Python 3 writes bytes at protocol 2."""
    if encoding not in ("latin1", b"latin1"):
        raise pickle.UnpicklingError(f"it asks for the encoding {encoding!r}")
    return text.encode("latin1")


_GLOBALS = {
    "numpy.core.multiarray._reconstruct": _Global(lambda *_: _Array()),
    "numpy._core.multiarray._reconstruct": _Global(lambda *_: _Array()),
    "numpy.ndarray": _Global(lambda *_: _Array()),
    "numpy.dtype": _Global(_Type),
    "_codecs.encode": _Global(_encode),
}
