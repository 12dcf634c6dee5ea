"""Connect to a store: an SQLite file, SQLite in memory, or a PostgreSQL database by URL."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sqlalchemy import Connection, Engine, Insert, Table, create_engine, event, make_url, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.pool import StaticPool
from sqlalchemy.sql.expression import ColumnElement, literal_column

from peppp.errors import StoreError
from peppp.table.store import schema

# Seconds that an SQLite writer waits for other writers.
_PATIENCE = 60

_KINDS = ("sqlite", "postgresql")
_NETWORK = {
    "nfs", "nfs3", "nfs4", "cifs", "smb", "smbfs", "smb2", "smb3", "afs", "ncpfs", "lustre", "gpfs", "beegfs",
    "fhgfs_nodev", "glusterfs", "fuse.glusterfs", "ceph", "fuse.ceph", "fuse.sshfs", "pvfs2", "orangefs",
    "panfs", "wekafs", "davfs", "fuse.davfs",
}  # fmt: skip
_MOUNTS = Path("/proc/self/mountinfo")

# An arbitrary number for the advisory lock under which one process creates or migrates a PostgreSQL store.
_MAKING = 8613_99


def connect(place: str | Path, *, create: bool) -> tuple[Engine, str]:
    """Return the engine of a store, and its name for messages; ``create`` makes a missing SQLite file.

    Raises StoreError for a file that is not a store, and leaves it untouched.
    """
    if not _is_unicode(str(place)):
        raise StoreError(f"the name of a store is Unicode text, not {str(place)!a}; give another")
    url = _url(place)
    name = url.render_as_string(hide_password=True)
    if url.get_backend_name() == "sqlite" and url.database:
        path = Path(url.database)
        url, name = url.set(database=str(path.absolute())), str(path)
        _refuse_network(path)
        if not path.exists() and create:
            _create_file(path)
        _check_file(path)
    with one_line(f"cannot open the store {name}"):
        return engine_of(url), name


def _is_unicode(text: str) -> bool:
    """Whether a text can be written; names of files can hold other bytes, which databases do not take."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def engine_of(url: URL) -> Engine:
    """Create an engine. With the execution option ``writing``, SQLite transactions lock when they begin.

    A transaction that locked only at its first write could fail because another process wrote meanwhile.
    """
    if url.get_backend_name() != "sqlite":
        return create_engine(url.set(drivername="postgresql+psycopg"), pool_pre_ping=True)
    in_memory = {} if url.database else {"poolclass": StaticPool}
    engine = create_engine(url, connect_args={"timeout": _PATIENCE, "check_same_thread": False}, **in_memory)

    @event.listens_for(engine, "connect")
    def _(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # transactions begin below and include schema changes
        # In WAL mode this survives killed processes; a power cut may lose the last commits, but not the file.
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def _(connection: Connection) -> None:
        writing = connection.get_execution_options().get("writing")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")

    return engine


@contextmanager
def making(engine: Engine) -> Iterator[Connection]:
    """Open a transaction to create or migrate tables, one process at a time."""
    with engine.connect().execution_options(writing=True) as connection, connection.begin():
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MAKING})
        yield connection


def now(engine: Engine) -> ColumnElement[float]:
    """Return SQL for the seconds since 1970 by the database's clock, which all drivers share."""
    if engine.dialect.name == "postgresql":
        return literal_column("extract(epoch FROM clock_timestamp())::double precision")
    return literal_column("((julianday('now') - 2440587.5) * 86400.0)")


def insert_new(engine: Engine, table: Table) -> Insert:
    """Return an insert statement that skips rows whose key exists."""
    kind = postgresql.insert if engine.dialect.name == "postgresql" else sqlite.insert
    return kind(table).on_conflict_do_nothing().inline().execution_options(preserve_rowcount=True)


@contextmanager
def one_line(doing: str) -> Iterator[None]:
    """Turn errors of the database or the system into a StoreError of one line that begins with ``doing``."""
    try:
        yield
    except (ImportError, OSError, SQLAlchemyError) as error:
        cause = getattr(error, "orig", None) or error
        reason = getattr(cause, "strerror", None) or (str(cause).splitlines() or [type(cause).__name__])[0]
        if isinstance(cause, ImportError) and "psycopg" in reason:
            reason = "PostgreSQL needs psycopg: pip install 'peppp[postgres]'"
        if "malformed" in reason:
            reason += "; the file is damaged: restore a backup, or give a new name"
        raise StoreError(f"{doing}: {reason}") from error


def shown(place: str | Path) -> str:
    """Return the name of a store for messages, without its password."""
    return _url(place).render_as_string(hide_password=True) if "://" in str(place) else str(place)


def _url(place: str | Path) -> URL:
    try:
        url = make_url(str(place)) if "://" in str(place) else URL.create("sqlite", database=str(place))
    except (ArgumentError, ValueError) as error:  # the message omits the text, which may hold a password
        raise StoreError(
            "not a database URL; write postgresql://user:password@host/name, or the path of a file"
        ) from error
    if url.get_backend_name() not in _KINDS:
        raise StoreError(
            f"a store cannot be in {url.get_backend_name()}; give the path of a file, or a postgresql:// URL"
        )
    return url


def _create_file(path: Path) -> None:
    """Create an empty store in a temporary folder and move it into place, so that it appears complete."""
    if not path.parent.is_dir():
        raise StoreError(f"cannot make the store {path}: there is no folder {path.parent}; create it first")
    with (
        one_line(f"cannot make the store {path}"),
        TemporaryDirectory(prefix=".peppp-", dir=path.parent) as folder,
    ):
        unfinished = Path(folder).absolute() / path.name
        engine = engine_of(URL.create("sqlite", database=str(unfinished)))
        try:
            with making(engine) as connection:
                schema.create(connection)
            with closing(sqlite3.connect(unfinished)) as plain:
                plain.execute("PRAGMA journal_mode=WAL")
        finally:
            engine.dispose()
        try:
            os.link(unfinished, path)
        except FileExistsError:  # another process created the store first
            pass
        except OSError:  # a file system without hard links
            os.rename(unfinished, path)


def _check_file(path: Path) -> None:
    if not path.exists():
        raise StoreError(f"there is no store {path}; give one that `peppp measure` made")
    if path.is_dir():
        raise StoreError(
            f"{path} is a folder, not a store; give the name of a file, such as {path / 'runs.db'}"
        )
    try:
        # Immutable, because the file may be another program's database: SQLite then locks and writes nothing.
        uri = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
        with closing(sqlite3.connect(uri, uri=True)) as connection:
            query = "SELECT 1 FROM sqlite_master WHERE name = ?"
            found = connection.execute(query, (schema.about.name,)).fetchone()
    except sqlite3.Error as error:
        raise StoreError(
            f"{path} is not a store ({error}); give one that `peppp measure` made, or a new name"
        ) from error
    if not found:
        raise StoreError(f"{path} is not a store of peppp and was not changed; give another name")


def _refuse_network(path: Path) -> None:
    """Raise StoreError on network file systems, where SQLite's locks and shared memory do not work."""
    kind = _file_system(path)
    if kind in _NETWORK:
        raise StoreError(
            f"{path} is on a network file system ({kind}), where SQLite's locks do not work and would damage "
            "the store; give a local file, or a PostgreSQL URL for several machines"
        )


def _file_system(path: Path) -> str:
    """Return the type of the file system that holds ``path``, as Linux names it, or "" if unknown."""
    try:
        lines = _MOUNTS.read_text().splitlines()
    except OSError:
        return ""
    best, kind = -1, ""
    target = path.absolute().parent.resolve() / path.name
    for line in lines:
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        if len(fields) < 5 or not after:
            continue
        point = Path(fields[4].replace(r"\040", " "))
        # Later mounts cover earlier ones at the same point.
        if target.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), after.split(" ")[0]
    return kind
