"""Download official archives: resume interrupted downloads, and discard files with a wrong checksum."""

import hashlib
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from peppp.errors import DataError
from peppp.tasks.catalog import Entry, find
from peppp.units import format_bytes

_CHUNK = 2**20
_TIMEOUT = 60  # seconds without a byte


@dataclass(frozen=True, slots=True)
class Archive:
    """A published file: its name, URL, size in bytes and sha256."""

    file: str
    url: str
    size: int
    sha256: str


_KRIZHEVSKY = "https://www.cs.toronto.edu/~kriz"
ARCHIVES = {
    "CIFAR-10": Archive(
        "cifar-10-python.tar.gz",
        f"{_KRIZHEVSKY}/cifar-10-python.tar.gz",
        170_498_071,
        "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
    ),
    "CIFAR-100": Archive(
        "cifar-100-python.tar.gz",
        f"{_KRIZHEVSKY}/cifar-100-python.tar.gz",
        169_001_437,
        "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
    ),
}


def archive_of(name: str) -> Archive:
    """Return the archive that holds a set of the catalog; raise DataError if peppp cannot download it."""
    entry: Entry = find(name)
    if entry.source not in ARCHIVES:
        raise DataError(
            f"{name} comes from {entry.source} ({entry.terms}), which peppp does not download; get it from "
            f"there and write {name}=/path"
        )
    return ARCHIVES[entry.source]


def fetch(archive: Archive, folder: Path, *, progress: Callable[[int, int], None] | None = None) -> Path:
    """Return the path of the archive in ``folder``, after downloading it if it is missing.

    ``progress`` is called with the bytes so far and in all. The download grows in a file ``NAME.part``, which
    a later call resumes, and gets its final name once size and checksum are right. Raises DataError, naming
    the file or URL, if the download fails or the file is not the published one.
    """
    path = folder / archive.file
    part = path.with_name(f"{archive.file}.part")
    if path.exists():
        _check(path, archive)
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        have = part.stat().st_size if part.exists() else 0
        if have < archive.size:
            _download(archive, part, have, progress)
        if (size := part.stat().st_size) < archive.size:
            raise DataError(
                f"{archive.url} ended after {format_bytes(size)} of {format_bytes(archive.size)}; "
                "run the same line again to resume"
            )
        try:
            _check(part, archive)
        except DataError:
            part.unlink()
            raise
        os.replace(part, path)
    except urllib.error.HTTPError as error:
        raise DataError(
            f"{archive.url} answered {error.code} {error.reason}; download it by hand to {path}"
        ) from None
    except urllib.error.URLError as error:
        raise DataError(f"cannot reach {archive.url}: {error.reason}; is there a network?") from None
    except (TimeoutError, ConnectionError, HTTPException) as error:
        raise DataError(
            f"the download of {archive.url} broke off ({error}); run the same line again to resume"
        ) from None
    except OSError as error:
        raise DataError(
            f"cannot write {error.filename or part}: {error.strerror}; name another folder"
        ) from None
    return path


def _download(archive: Archive, part: Path, have: int, progress: Callable[[int, int], None] | None) -> None:
    request = urllib.request.Request(archive.url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
        # A server that does not support ranges answers 200 and sends the whole file.
        have = have if answer.status == 206 else 0
        with part.open("r+b" if have else "wb") as file:
            file.seek(have)
            file.truncate()
            while have <= archive.size and (data := answer.read(_CHUNK)):
                file.write(data)
                have += len(data)
                if progress is not None:
                    progress(have, archive.size)


def _check(path: Path, archive: Archive) -> None:
    """Raise DataError if a file is not the published one."""
    if (size := path.stat().st_size) != archive.size:
        raise DataError(f"{path} has {size} bytes, not the {archive.size} of the published file; remove it")
    total = hashlib.sha256()
    with path.open("rb") as file:
        while data := file.read(_CHUNK):
            total.update(data)
    if total.hexdigest() != archive.sha256:
        raise DataError(
            f"{path} has the sha256 {total.hexdigest()[:16]}..., not {archive.sha256[:16]}... of the "
            "published file; delete it if it is still there, and download it again"
        )
