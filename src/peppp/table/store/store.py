"""The store: measurements in a database, each committed as soon as it is made."""

import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, Self

from sqlalchemy import Connection, Engine, and_, delete, func, select, update

from peppp.arguments import checked
from peppp.arithmetic import current_recipe
from peppp.errors import StoreError
from peppp.precisions.known import parse_precision
from peppp.records import ARITHMETIC_VERSION, Measurement, Recipe
from peppp.table.columns import from_record, read_recipe, to_record
from peppp.table.store import database, schema
from peppp.table.store.schema import CELL, SCHEMA_VERSION, about, cells, measurements, recipes

__all__ = ["SCHEMA_VERSION", "Key", "Store"]

Key = tuple[str, str, str, int, int]


class Present(NamedTuple):
    """What a store holds already: the keys of cells, and how many measurements are of no use any more."""

    keys: set[Key]
    outdated: int


_key = [measurements.c[name] for name in (*CELL, "repeat")]


class Store:
    """Measurements that survive: open one with :meth:`open`, close it or use it in a ``with``.

    Several processes may write to one store at once, and readers make nobody wait. No key is ever stored
    twice.

    >>> with Store.open("sqlite://") as store:  # in memory
    ...     store.keys(), store.measurements()
    (set(), [])
    """

    def __init__(self, engine: Engine, name: str) -> None:
        self.engine = engine
        self.name = name
        # A database in memory has one connection, which threads must not use at once.
        self._turn = threading.RLock()

    @classmethod
    @checked
    def open(cls, place: str | Path, *, create: bool = True) -> Self:
        """The store in an SQLite file, or at a database URL (with ``://``), made if there is none.

        With ``create=False`` it must be there already, and need not be writable; a store of an older version
        is then read as it is, and else brought to this one. Raises StoreError on what is no store, which is
        left untouched, on a newer version, on SQLite files in network file systems, and where a store cannot
        be made or written.
        """
        engine, name = database.connect(place, create=create)
        store = cls(engine, name)
        try:
            with database.one_line(f"cannot open the store {name}"):
                store._check(create)
        except BaseException:
            engine.dispose()
            raise
        return store

    @checked
    def add(self, measurement: Measurement) -> bool:
        """Keep a measurement for good; False, and nothing changes, if there is one of the same key.

        Raises TableError on a measurement that could not be read again and StoreError where writing fails.
        """
        return self.add_all([measurement]) == 1

    @checked
    def add_all(self, measured: Collection[Measurement]) -> int:
        """Keep measurements, all or none if writing fails; how many had keys that were not there."""
        added = 0
        new_recipe = database.insert_new(self.engine, recipes)
        new_measurement = database.insert_new(self.engine, measurements)
        with self.writing() as connection:
            for measurement in measured:
                record = to_record(measurement)
                recipe = {"digest": record["recipe_digest"], "recipe": record.pop("recipe")}
                connection.execute(new_recipe, recipe)
                new = connection.execute(new_measurement, record)
                added += new.rowcount
                if self.version > 1:
                    done = and_(*(cells.c[name] == record[name] for name in CELL))
                    connection.execute(delete(cells).where(done))
        return added

    def keys(self) -> set[Key]:
        """The keys of all measurements (see ``Measurement.key``)."""
        with self.reading() as connection:
            return {tuple(row) for row in connection.execute(select(*_key))}

    def present(self) -> Present:
        """What need not be measured again: keys as today's arithmetic version names them.

        Measurements of an older version count where today's would repeat them (see :mod:`peppp.arithmetic`).
        """
        keys, outdated = self.keys(), 0
        named = {digest: recipe for digest, recipe in self._recipes().items() if _is_old(recipe)}
        for key in [key for key in keys if key[2] in named]:
            now = current_recipe(named[key[2]], parse_precision(key[1]))
            if _is_old(now):
                outdated += 1
            keys.add((*key[:2], now.digest, *key[3:]))
        return Present(keys, outdated)

    def _recipes(self) -> dict[str, Recipe]:
        with self.reading() as connection:
            found = connection.execute(select(recipes.c.digest, recipes.c.recipe)).all()
        return {digest: read_recipe(text, f"{self.name}, recipe {digest}") for digest, text in found}

    def measurements(self) -> list[Measurement]:
        """All measurements, in the order in which they were stored."""
        return list(self)

    def __iter__(self) -> Iterator[Measurement]:
        """The same, one after the other, so that a table larger than memory can be written from them."""
        query = select(measurements, recipes.c.recipe).join(recipes).order_by(measurements.c.id)
        with self.reading() as connection:
            for record in connection.execution_options(yield_per=1000).execute(query).mappings():
                yield from_record(dict(record), f"{self.name}, measurement {record['id']}")

    def seconds(self) -> dict[tuple[str, str], tuple[int, float, float]]:
        """How long measurements took: number, mean and longest of each (fingerprint, recipe digest).

        Digests are those of today's arithmetic version, which changes numbers and no durations.
        """
        m = measurements.c
        query = select(
            m.fingerprint, m.recipe_digest, func.count(), func.avg(m.seconds), func.max(m.seconds)
        ).group_by(m.fingerprint, m.recipe_digest)
        with self.reading() as connection:
            rows = connection.execute(query).all()
        times: dict[tuple[str, str], tuple[int, float, float]] = {}
        now = {old: replace(r, arithmetic_version=ARITHMETIC_VERSION) for old, r in self._recipes().items()}
        for fingerprint, digest, count, mean, most in rows:
            key = fingerprint, now[digest].digest
            n, known, longest = times.get(key, (0, 0.0, 0.0))
            times[key] = n + count, (n * known + count * mean) / (n + count), max(longest, most)
        return times

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection to read by; StoreError where that fails."""
        with (
            self._turn,
            database.one_line(f"cannot read the store {self.name}"),
            self.engine.connect() as connection,
        ):
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction to write by, committed at its end or not at all; StoreError where that fails."""
        with (
            self._turn,
            database.one_line(f"cannot write to the store {self.name}"),
            self.engine.connect().execution_options(writing=True) as connection,
            connection.begin(),
        ):
            yield connection

    def close(self) -> None:
        """Let go of the database."""
        self.engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _check(self, create: bool) -> None:
        with self.engine.connect() as connection:
            self.version = schema.version(connection)
        if self.version == 0 and not create:
            raise StoreError(f"there is no store at {self.name}; `peppp measure` makes one")
        if self.version > SCHEMA_VERSION:
            raise StoreError(
                f"the store {self.name} was written by a newer peppp (store version {self.version}; this is "
                f"for {SCHEMA_VERSION}); upgrade peppp"
            )
        if create and self.version < SCHEMA_VERSION:
            with database.making(self.engine) as connection:
                found = schema.version(connection)  # another process may have been quicker
                schema.migrate(connection) if found else schema.create(connection)
            self.version = SCHEMA_VERSION
        elif create:  # a store that cannot be written says so now, not after an hour of training
            with self.engine.connect() as connection:
                connection.execute(update(about).values(schema_version=self.version))
                connection.rollback()


def _is_old(recipe: Recipe) -> bool:
    return recipe.arithmetic_version != ARITHMETIC_VERSION
