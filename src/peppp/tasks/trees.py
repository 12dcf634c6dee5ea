"""Read files by their paths within a folder on disk, or a zip or tar archive.

Archives are read in place. Nothing is unpacked to disk, so a member whose path leads out of the archive does
no harm.
"""

import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple, Protocol

from peppp.errors import DataError

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_LARGEST = 1 << 30  # bytes of one unpacked file; no image is larger
_FOREIGN = "__MACOSX"  # macOS adds this folder to its archives
_BROKEN = (OSError, EOFError, ValueError, zlib.error, zipfile.BadZipFile, tarfile.TarError,
           NotImplementedError, RuntimeError)  # fmt: skip


class Tree(Protocol):
    """Folders and files below a root; paths have ``/`` between their parts, and "" is the root itself."""

    @property
    def where(self) -> Path:
        """The folder or archive on disk."""

    def listed(self, folder: str) -> tuple[list[str], list[str]]:
        """Return the sorted names of the folders and of the files in a folder; DataError if it is missing."""

    def source(self, file: str) -> Path | bytes:
        """Return what Pillow can open: a path, so that it reads no more than it needs, or the contents."""

    def read(self, file: str) -> bytes:
        """Return the contents of a file; DataError if it cannot be read."""

    def stamp(self, file: str) -> str:
        """Return a text that changes when the file is replaced."""


def bare_name(path: Path) -> str:
    """The name of a folder, or of an archive without its suffix."""
    name = path.resolve().name
    suffix = max((end for end in ARCHIVES if name.lower().endswith(end)), key=len, default="")
    return name if path.is_dir() else name[: len(name) - len(suffix)] or name


@contextmanager
def opened(path: Path) -> Iterator[Tree]:
    """Open the tree of a folder or an archive, and close it afterwards; DataError if there is neither."""
    if os.path.isfile(path):  # False, unlike Path.is_file, for a name that is too long
        if not path.name.lower().endswith(ARCHIVES):
            raise DataError(
                f"{path} is a file; give a folder with one folder of images for each class, a zip or tar "
                "archive of such a folder, or an .npz file"
            )
        with _archive(path) as tree:
            yield tree
    elif os.path.isdir(path):
        yield FolderTree(path)
    else:
        raise DataError(f"no such folder: {path}; give a folder with one folder of images for each class")


@dataclass(frozen=True, slots=True)
class FolderTree:
    """A folder on disk."""

    where: Path

    def listed(self, folder: str) -> tuple[list[str], list[str]]:
        """See :class:`Tree`."""
        place = self.where / folder
        folders: list[str] = []
        files: list[str] = []
        try:
            with os.scandir(place) as found:
                for inner in found:
                    (folders if inner.is_dir() else files).append(inner.name)
        except FileNotFoundError:
            raise DataError(f"no such folder: {place}") from None
        except OSError as error:
            raise DataError(f"cannot read the folder {place}: {error.strerror}") from None
        return sorted(folders), sorted(files)

    def source(self, file: str) -> Path:
        """See :class:`Tree`."""
        return self.where / file

    def read(self, file: str) -> bytes:
        """See :class:`Tree`."""
        return read_bytes(self.where / file)

    def stamp(self, file: str) -> str:
        """See :class:`Tree`."""
        found = (self.where / file).stat()
        return f"{found.st_size} {found.st_mtime_ns}"


@dataclass(frozen=True, slots=True)
class ArchiveTree:
    """An archive: the names in each folder, and the files by their names."""

    where: Path
    folders: Mapping[str, tuple[list[str], list[str]]]
    members: Mapping[str, "Member"]
    root: str = ""  # the single folder that holds everything else, if there is one

    def listed(self, folder: str) -> tuple[list[str], list[str]]:
        """See :class:`Tree`."""
        try:
            return self.folders[_joined(self.root, folder)]
        except KeyError:
            raise DataError(f"no such folder: {self.where / folder}") from None

    def source(self, file: str) -> bytes:
        """See :class:`Tree`."""
        return self.read(file)

    def read(self, file: str) -> bytes:
        """See :class:`Tree`."""
        member = self.members[_joined(self.root, file)]
        if member.size > _LARGEST:
            raise DataError(
                f"{self.where / file} has {member.size} bytes: too many for an image, at most {_LARGEST}"
            )
        try:
            return member.contents()
        except _BROKEN as error:
            raise DataError(f"cannot read {self.where / file}: {error}") from None

    def stamp(self, file: str) -> str:
        """See :class:`Tree`; the archive's stamp serves for all files in it."""
        found = self.where.stat()
        return f"{found.st_size} {found.st_mtime_ns}"


def read_bytes(file: Path) -> bytes:
    """Return a file's contents; raise DataError if it cannot be read."""
    try:
        return file.read_bytes()
    except FileNotFoundError:
        raise DataError(f"no such file: {file}") from None
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}") from None


class Member(NamedTuple):
    """A file in an archive: its size in bytes, unpacked, and a function that reads it."""

    size: int
    contents: Callable[[], bytes]


@contextmanager
def _archive(path: Path) -> Iterator[ArchiveTree]:
    try:
        archive, named = (_zip if path.name.lower().endswith(".zip") else _tar)(path)
    except _BROKEN as error:
        raise DataError(f"{path} is not an archive that can be read: {error}") from None
    with archive:
        members = {"/".join(parts): member for name, member in named if (parts := _parts(name))}
        folders = _folders(members)
        inner, files = folders[""]
        # An archive of the folder photos holds photos/cat/1.jpg, so the classes are below its only folder.
        root = inner[0] if len(inner) == 1 and not files and folders[inner[0]][0] else ""
        yield ArchiveTree(path, folders, members, root)


_Archive = tuple[zipfile.ZipFile | tarfile.TarFile, list[tuple[str, Member]]]


def _zip(path: Path) -> _Archive:
    archive = zipfile.ZipFile(path)
    files = (one for one in archive.infolist() if not one.is_dir())
    return archive, [(one.filename, Member(one.file_size, partial(archive.read, one))) for one in files]


def _tar(path: Path) -> _Archive:
    """Open a tar archive; a compressed one is read once, in order, as seeking back would unpack it again."""
    archive = tarfile.open(path)  # noqa: SIM115 (the caller closes it)
    files = [one for one in archive if one.isfile()]
    held: dict[str, bytes] = {}

    def contents(member: tarfile.TarInfo) -> bytes:
        if path.suffix.lower() == ".tar":
            return _contents(archive, member)
        if not held:
            held.update((one.name, _contents(archive, one)) for one in files if one.size <= _LARGEST)
        return held[member.name]

    return archive, [(one.name, Member(one.size, partial(contents, one))) for one in files]


def _contents(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    assert file is not None  # None is for members that are not regular files
    return file.read()


def _parts(name: str) -> tuple[str, ...]:
    """The parts of a name in an archive, without those of macOS and without "." for the archive itself."""
    parts = PurePosixPath(name).parts
    return () if parts[:1] == (_FOREIGN,) else parts


def _folders(files: Iterable[str]) -> dict[str, tuple[list[str], list[str]]]:
    """Return the names of the folders and of the files in each folder of an archive."""
    found: dict[str, tuple[set[str], set[str]]] = {"": (set(), set())}
    for file in files:
        parts = file.split("/")
        for depth in range(len(parts)):
            inside = found.setdefault("/".join(parts[:depth]), (set(), set()))
            inside[depth == len(parts) - 1].add(parts[depth])
    return {name: (sorted(folders), sorted(own)) for name, (folders, own) in found.items()}


def _joined(*parts: str) -> str:
    return "/".join(part for part in parts if part)
