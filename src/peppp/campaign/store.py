"""The store: measurements in a database, each committed as soon as it is made.

It holds the records of the text table (:mod:`peppp.textable`); recipes stand once, in a table of their own.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    Engine,
    ForeignKey,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    create_engine,
    event,
    insert,
    inspect,
    make_url,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from peppp.errors import StoreError
from peppp.records import Measurement
from peppp.textable import from_record, to_record

# A later version finds an older number in the store and raises it by small named functions, one a step.
SCHEMA_VERSION = 1

# Seconds that a writer waits while other processes write.
_PATIENCE = 60

Key = tuple[str, str, str, int, int]

_schema = MetaData()
_about = Table("peppp_store", _schema, Column("schema_version", Integer, nullable=False))
_recipes = Table(
    "recipes", _schema, Column("digest", Text, primary_key=True), Column("recipe", Text, nullable=False)
)
_measurements = Table(
    "measurements",
    _schema,
    Column("id", Integer, primary_key=True),
    Column("task", Text, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("group", Text, nullable=False),
    Column("configuration", Text, nullable=False),
    Column("recipe_digest", Text, ForeignKey("recipes.digest"), nullable=False),
    Column("seed", BigInteger, nullable=False),
    Column("repeat", BigInteger, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("test_error", Double, nullable=False),
    Column("train_error", Double, nullable=False),
    Column("chance_error", Double, nullable=False),
    Column("curve", Text, nullable=False),
    Column("seconds", Double, nullable=False),
    Column("weights", BigInteger, nullable=False),
    Column("activations", BigInteger, nullable=False),
    Column("gradients", BigInteger, nullable=False),
    Column("states", Text, nullable=False),
    Column("raw", BigInteger, nullable=False),
    Column("working", BigInteger, nullable=False),
    Column("provenance", Text, nullable=False),
    UniqueConstraint("fingerprint", "configuration", "recipe_digest", "seed", "repeat"),
)
_key = [_measurements.c[name] for name in ("fingerprint", "configuration", "recipe_digest", "seed", "repeat")]

_INSERT: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


class Store:
    """Measurements that survive: open one with :meth:`open`, close it or use it in a ``with``.

    Several processes may write to one store at once. No key is ever stored twice.

    >>> with TemporaryDirectory() as folder, Store.open(f"{folder}/runs.db") as store:
    ...     store.keys(), store.measurements()
    (set(), [])
    """

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine = engine
        self.name = name

    @classmethod
    def open(cls, place: str | Path, *, create: bool = True) -> Self:
        """The store in an SQLite file, or at a database URL (with ``://``), made if there is none.

        With ``create=False`` it must be there already, and need not be writable. Raises StoreError on what
        is no store, which is then left untouched, and where a store cannot be made or written.
        """
        try:
            url = make_url(str(place)) if "://" in str(place) else URL.create("sqlite", database=str(place))
        except (ArgumentError, ValueError) as error:  # what was given may hold a password
            raise StoreError(
                "not a database URL; write postgresql://user:password@host/name, or the path of a file"
            ) from error
        if url.get_backend_name() not in _INSERT:
            raise StoreError(
                f"no store in {url.get_backend_name()}; give the path of a file, or a postgresql:// URL"
            )
        name = url.render_as_string(hide_password=True)
        if url.get_backend_name() == "sqlite":
            path = Path(url.database or "")
            url, name = url.set(database=str(path.absolute())), str(path)
            if not path.exists() and create:
                _create_file(path)
            _check_file(path)
        with _one_line(f"cannot open the store {name}"):
            engine = _engine(url)
            store = cls(engine, name)
        try:
            with _one_line(f"cannot open the store {name}"):
                store._check(create)
        except BaseException:
            engine.dispose()
            raise
        return store

    def add(self, measurement: Measurement) -> bool:
        """Keep a measurement for good; False, and nothing changes, if there is one of the same key.

        Raises TableError on a measurement that could not be read again and StoreError where writing fails.
        """
        record = to_record(measurement)
        recipe = {"digest": record["recipe_digest"], "recipe": record.pop("recipe")}
        insert_new = _INSERT[self._engine.dialect.name]
        with _one_line(f"cannot write to the store {self.name}"), self._engine.begin() as connection:
            connection.execute(insert_new(_recipes).values(recipe).on_conflict_do_nothing())
            added = connection.execute(insert_new(_measurements).values(record).on_conflict_do_nothing())
            return bool(added.rowcount)

    def keys(self) -> set[Key]:
        """The keys of all measurements (see ``Measurement.key``)."""
        with _one_line(f"cannot read the store {self.name}"), self._engine.connect() as connection:
            return {tuple(row) for row in connection.execute(select(*_key))}

    def measurements(self) -> list[Measurement]:
        """All measurements, in the order in which they were stored."""
        query = select(_measurements, _recipes.c.recipe).join(_recipes).order_by(_measurements.c.id)
        with _one_line(f"cannot read the store {self.name}"), self._engine.connect() as connection:
            records = connection.execute(query).mappings().all()
        return [from_record(dict(record), f"{self.name}, measurement {record['id']}") for record in records]

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _check(self, create: bool) -> None:
        if not inspect(self._engine).has_table(_about.name):
            if not create:
                raise StoreError(f"there is no store at {self.name}; `peppp measure` makes one")
            _create_schema(self._engine)
        with self._engine.connect() as connection:
            version = connection.execute(select(_about.c.schema_version)).scalar_one()
        if version > SCHEMA_VERSION:
            raise StoreError(
                f"the store {self.name} was written by a newer peppp (store version {version}; this is "
                f"for {SCHEMA_VERSION}); upgrade peppp"
            )
        if create:  # a store that cannot be written says so now, not after an hour of training
            with self._engine.connect() as connection:
                connection.execute(update(_about).values(schema_version=version))
                connection.rollback()


def _engine(url: URL) -> Engine:
    if url.get_backend_name() != "sqlite":
        return create_engine(url)
    engine = create_engine(url, connect_args={"timeout": _PATIENCE})

    @event.listens_for(engine, "connect")
    def _(connection: Any, _record: Any) -> None:
        # Safe in WAL mode against killed processes; power cuts may cost the last commits, never the file.
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA foreign_keys=ON")

    return engine


def _create_schema(engine: Engine) -> None:
    with engine.begin() as connection:
        _schema.create_all(connection)
        connection.execute(insert(_about).values(schema_version=SCHEMA_VERSION))


def _create_file(path: Path) -> None:
    """Make an empty store elsewhere and move it into place: it is there complete, or not at all."""
    if not path.parent.is_dir():
        raise StoreError(f"cannot make the store {path}: there is no folder {path.parent}; create it first")
    with (
        _one_line(f"cannot make the store {path}"),
        TemporaryDirectory(prefix=".peppp-", dir=path.parent) as folder,
    ):
        unfinished = Path(folder).absolute() / path.name
        engine = _engine(URL.create("sqlite", database=str(unfinished)))
        try:
            _create_schema(engine)
            with engine.connect() as connection:
                connection.exec_driver_sql("PRAGMA journal_mode=WAL")
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
            found = connection.execute(query, (_about.name,)).fetchone()
    except sqlite3.Error as error:
        raise StoreError(
            f"{path} is not a store ({error}); give one that `peppp measure` made, or a new name"
        ) from error
    if not found:
        raise StoreError(f"{path} is not a store of peppp; it was left as it is: give another name")


@contextmanager
def _one_line(doing: str) -> Iterator[None]:
    try:
        yield
    except (ImportError, OSError, SQLAlchemyError) as error:
        cause = getattr(error, "orig", None) or error
        reason = getattr(cause, "strerror", None) or (str(cause).splitlines() or [type(cause).__name__])[0]
        raise StoreError(f"{doing}: {reason}") from error
