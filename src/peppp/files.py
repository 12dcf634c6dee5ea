"""Files that are written complete or not at all; text files, gzipped where their name says so."""

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
    """A place to write a file at, moved to ``path`` once it is complete: it is there whole, or not at all.

    What was there before is replaced. Raises OSError where that fails, and leaves nothing behind.

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


@contextmanager
def writing(path: Path) -> Iterator[io.TextIOBase]:
    """A text file to write, gzipped if its name ends in ``.gz``: it appears complete or not at all.

    Raises StoreError where it cannot be written.
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
    """A text file to read, gunzipped if its name ends in ``.gz``.

    Raises StoreError where there is no such file and TableError where it is no text.
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
            # Neither a time nor a name in the file: the same table gives the same bytes.
            with (
                gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as packed,
                io.TextIOWrapper(packed, encoding="utf-8", newline="") as file,
            ):
                yield file
        else:
            with io.TextIOWrapper(raw, encoding="utf-8", newline="") as file:
                yield file
