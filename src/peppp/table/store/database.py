"""Where a store is: an SQLite file (or memory), or a PostgreSQL database by URL; one code for all."""

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

# Seconds that a writer waits while other processes write.
_PATIENCE = 60

_KINDS = ("sqlite", "postgresql")
_NETWORK = {
    "nfs", "nfs3", "nfs4", "cifs", "smb", "smbfs", "smb2", "smb3", "afs", "ncpfs", "lustre", "gpfs", "beegfs",
    "fhgfs_nodev", "glusterfs", "fuse.glusterfs", "ceph", "fuse.ceph", "fuse.sshfs", "pvfs2", "orangefs",
    "panfs", "wekafs", "davfs", "fuse.davfs",
}  # fmt: skip
_MOUNTS = Path("/proc/self/mountinfo")

# Any number: the lock under which one of several processes makes or migrates a PostgreSQL store.
_MAKING = 8613_99


def connect(place: str | Path, *, create: bool) -> tuple[Engine, str]:
    """The engine of a store and its name for messages; with ``create`` the store is made if there is none.

    Raises StoreError on what is no store, which is then left untouched.
    """
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


def engine_of(url: URL) -> Engine:
    """An engine whose writing transactions (execution option ``writing``) never find themselves too late."""
    if url.get_backend_name() != "sqlite":
        return create_engine(url.set(drivername="postgresql+psycopg"), pool_pre_ping=True)
    in_memory = {} if url.database else {"poolclass": StaticPool}
    engine = create_engine(url, connect_args={"timeout": _PATIENCE, "check_same_thread": False}, **in_memory)

    @event.listens_for(engine, "connect")
    def _(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # transactions begin below, as PostgreSQL's: schema changes too
        # Safe in WAL mode against killed processes; power cuts may cost the last commits, never the file.
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def _(connection: Connection) -> None:
        writing = connection.get_execution_options().get("writing")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")

    return engine


@contextmanager
def making(engine: Engine) -> Iterator[Connection]:
    """A transaction in which tables are made or migrated, by one process at a time."""
    with engine.connect().execution_options(writing=True) as connection, connection.begin():
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MAKING})
        yield connection


def now(engine: Engine) -> ColumnElement[float]:
    """Seconds since 1970 by the database's clock, the one that all drivers share."""
    if engine.dialect.name == "postgresql":
        return literal_column("extract(epoch FROM clock_timestamp())::double precision")
    return literal_column("((julianday('now') - 2440587.5) * 86400.0)")


def insert_new(engine: Engine, table: Table) -> Insert:
    """An insertion that leaves alone what is there already."""
    kind = postgresql.insert if engine.dialect.name == "postgresql" else sqlite.insert
    return kind(table).on_conflict_do_nothing().inline().execution_options(preserve_rowcount=True)


@contextmanager
def one_line(doing: str) -> Iterator[None]:
    """What the database or the system says becomes a StoreError of one line, without addresses."""
    try:
        yield
    except (ImportError, OSError, SQLAlchemyError) as error:
        cause = getattr(error, "orig", None) or error
        reason = getattr(cause, "strerror", None) or (str(cause).splitlines() or [type(cause).__name__])[0]
        if isinstance(cause, ImportError) and "psycopg" in reason:
            reason = "PostgreSQL needs psycopg: pip install 'peppp[postgres]'"
        if "malformed" in reason:
            reason += "; the file is damaged: give a copy of it, or a new name"
        raise StoreError(f"{doing}: {reason}") from error


def shown(place: str | Path) -> str:
    """The name of a store for messages: without its password."""
    return _url(place).render_as_string(hide_password=True) if "://" in str(place) else str(place)


def _url(place: str | Path) -> URL:
    try:
        url = make_url(str(place)) if "://" in str(place) else URL.create("sqlite", database=str(place))
    except (ArgumentError, ValueError) as error:  # what was given may hold a password
        raise StoreError(
            "not a database URL; write postgresql://user:password@host/name, or the path of a file"
        ) from error
    if url.get_backend_name() not in _KINDS:
        raise StoreError(
            f"no store in {url.get_backend_name()}; give the path of a file, or a postgresql:// URL"
        )
    return url


def _create_file(path: Path) -> None:
    """Make an empty store elsewhere and move it into place: it is there complete, or not at all."""
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
        except FileExistsError:  # another process was quicker; its store is as good
            pass
        except OSError:  # a file system without hard links
            os.rename(unfinished, path)


def _check_file(path: Path) -> None:
    if not path.exists():
        raise StoreError(f"there is no store {path}; give one that `peppp measure` made")
    if path.is_dir():
        raise StoreError(f"{path} is a folder, not a store; give the name of a file, as {path / 'runs.db'}")
    try:
        # Immutable: nothing is locked, made or changed beside a database that may be somebody else's.
        uri = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
        with closing(sqlite3.connect(uri, uri=True)) as connection:
            query = "SELECT 1 FROM sqlite_master WHERE name = ?"
            found = connection.execute(query, (schema.about.name,)).fetchone()
    except sqlite3.Error as error:
        raise StoreError(
            f"{path} is not a store ({error}); give one that `peppp measure` made, or a new name"
        ) from error
    if not found:
        raise StoreError(f"{path} is not a store of peppp; it was left as it is: give another name")


def _refuse_network(path: Path) -> None:
    """SQLite's locks do not hold on network file systems, and its WAL needs shared memory: stores break."""
    kind = _file_system(path)
    if kind in _NETWORK:
        raise StoreError(
            f"{path} lies on a network file system ({kind}), where SQLite's locks do not hold and stores "
            "break; give a local file, or a PostgreSQL URL for several machines"
        )


def _file_system(path: Path) -> str:
    """The type of the file system that holds ``path``, as Linux names it; empty where that is not known."""
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
