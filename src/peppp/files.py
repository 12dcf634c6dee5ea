"""Atomic file writing, and text files that are gzipped if their name ends in ``.gz``."""

import csv
import gzip
import io
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from peppp.errors import StoreError, TableError


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to, and move that file to ``path`` on success.

    ``path`` is therefore replaced completely or left as it was. Raises OSError if this fails; the temporary
    file is removed in any case.

    >>> with TemporaryDirectory() as folder:
    ...     with whole(Path(folder) / "answer.txt") as unfinished:
    ...         written = unfinished.write_text("42")
    ...     [path.name for path in Path(folder).iterdir()]
    ['answer.txt']
    """
    with TemporaryDirectory(prefix=".peppp-", dir=path.parent) as folder:
        unfinished = Path(folder) / path.name
        yield unfinished
        os.replace(unfinished, path)


def check_place(path: Path) -> None:
    """Raise StoreError if no file can be written at ``path``; call this before hours of work.

    >>> check_place(Path("none/answer.txt"))
    Traceback (most recent call last):
    peppp.errors.StoreError: cannot write none/answer.txt: there is no folder none; make it first
    """
    if not os.path.isdir(path.parent):
        raise StoreError(f"cannot write {path}: there is no folder {path.parent}; make it first")
    if os.path.exists(path) and not os.path.isfile(path):
        raise StoreError(f"cannot write {path}: it is not a file; name a file")


@contextmanager
def writing(path: Path) -> Iterator[io.TextIOBase]:
    """Open a text file for writing, gzipped if its name ends in ``.gz``; it appears complete or not at all.

    Raises StoreError if it cannot be written.
    """
    try:
        with whole(path) as unfinished, _writable(unfinished) as file:
            yield file
    except OSError as error:
        raise StoreError(
            f"cannot write the table {path}: {error.strerror or error}; give a file in a folder that exists "
            "and can be written"
        ) from error


@contextmanager
def reading(path: Path) -> Iterator[io.TextIOBase]:
    """Open a text file for reading, gunzipped if its name ends in ``.gz``.

    Raises StoreError if the file cannot be opened, and TableError if it does not hold CSV in UTF-8.
    """
    try:
        # utf-8-sig: spreadsheets put a byte order mark before the header.
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt", encoding="utf-8-sig", newline="") as file:
            yield file
    except (csv.Error, EOFError, UnicodeDecodeError, gzip.BadGzipFile, zlib.error) as error:
        raise TableError(f"not a table: {path} cannot be read as CSV in UTF-8 ({error})") from error
    except OSError as error:
        raise StoreError(
            f"cannot read the table {path}: {error.strerror or error}; give a table of peppp or a CSV"
        ) from error


@contextmanager
def _writable(path: Path) -> Iterator[io.TextIOBase]:
    with path.open("wb") as raw:
        if path.suffix == ".gz":
            # The gzip header gets neither a time nor a name, so that equal tables give equal bytes.
            with (
                gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as packed,
                io.TextIOWrapper(packed, encoding="utf-8", newline="") as file,
            ):
                yield file
        else:
            with io.TextIOWrapper(raw, encoding="utf-8", newline="") as file:
                yield file
