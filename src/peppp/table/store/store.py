"""The store keeps measurements in a database and commits each as soon as it is made."""

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
    """The keys that a store holds, and the number of measurements that are outdated."""

    keys: set[Key]
    outdated: int


_key = [measurements.c[name] for name in (*CELL, "repeat")]


class Store:
    """A database of measurements. Open it with :meth:`open`, and close it or use it in a ``with``.

    Several processes may write to one store at once, and readers block nobody. A key is stored only once.

    >>> with Store.open("sqlite://") as store:  # in memory
    ...     store.keys(), store.measurements()
    (set(), [])
    """

    def __init__(self, engine: Engine, name: str) -> None:
        self.engine = engine
        self.name = name
        # A database in memory has one connection, which only one thread may use at a time.
        self._turn = threading.RLock()

    @classmethod
    @checked
    def open(cls, place: str | Path, *, create: bool = True) -> Self:
        """Open the store in an SQLite file or at a database URL (with ``://``); create it if it is missing.

        An older store is migrated to this version. With ``create=False`` the store must exist, need not be
        writable, and is not migrated. Raises StoreError for a file that is not a store (and leaves it
        untouched), for a store of a newer version, for an SQLite file on a network file system, and for a
        store that cannot be created or written.
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
        """Store a measurement and return True, or return False if its key is already stored.

        Raises TableError for a measurement that could not be read again, and StoreError if writing fails.
        """
        return self.add_all([measurement]) == 1

    @checked
    def add_all(self, measured: Collection[Measurement]) -> int:
        """Store measurements in one transaction; return how many had new keys."""
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
        """Return the keys of all measurements (see ``Measurement.key``)."""
        with self.reading() as connection:
            return {tuple(row) for row in connection.execute(select(*_key))}

    def fingerprints(self) -> set[str]:
        """Return the fingerprints of all measured data sets."""
        with self.reading() as connection:
            return set(connection.execute(select(measurements.c.fingerprint).distinct()).scalars())

    def present(self) -> Present:
        """Return the keys that need not be measured again, under the current arithmetic version.

        They include measurements of an older version that the current one would reproduce (see
        :mod:`peppp.arithmetic`); the others are counted as outdated.
        """
        keys, outdated = self.keys(), 0
        named = {digest: recipe for digest, recipe in self.recipes().items() if _is_old(recipe)}
        for key in [key for key in keys if key[2] in named]:
            now = current_recipe(named[key[2]], parse_precision(key[1]))
            if _is_old(now):
                outdated += 1
            keys.add((*key[:2], now.digest, *key[3:]))
        return Present(keys, outdated)

    def recipes(self) -> dict[str, Recipe]:
        """Return the recipes of all measurements by their digests."""
        with self.reading() as connection:
            found = connection.execute(select(recipes.c.digest, recipes.c.recipe)).all()
        return {digest: read_recipe(text, f"{self.name}, recipe {digest}") for digest, text in found}

    def measurements(self) -> list[Measurement]:
        """Return all measurements in the order in which they were stored."""
        return list(self)

    def __iter__(self) -> Iterator[Measurement]:
        """Iterate over all measurements, without holding all of them in memory."""
        query = select(measurements, recipes.c.recipe).join(recipes).order_by(measurements.c.id)
        with self.reading() as connection:
            for record in connection.execution_options(yield_per=1000).execute(query).mappings():
                yield from_record(dict(record), f"{self.name}, measurement {record['id']}")

    def seconds(self) -> dict[tuple[str, str], tuple[int, float, float]]:
        """Return the number, mean and maximum of durations in seconds by (fingerprint, recipe digest).

        Measurements of all arithmetic versions are counted under the current version's digest, because the
        version changes numbers but not durations.
        """
        m = measurements.c
        query = select(
            m.fingerprint, m.recipe_digest, func.count(), func.avg(m.seconds), func.max(m.seconds)
        ).group_by(m.fingerprint, m.recipe_digest)
        with self.reading() as connection:
            rows = connection.execute(query).all()
        times: dict[tuple[str, str], tuple[int, float, float]] = {}
        now = {old: replace(r, arithmetic_version=ARITHMETIC_VERSION) for old, r in self.recipes().items()}
        for fingerprint, digest, count, mean, most in rows:
            key = fingerprint, now[digest].digest
            n, known, longest = times.get(key, (0, 0.0, 0.0))
            times[key] = n + count, (n * known + count * mean) / (n + count), max(longest, most)
        return times

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Open a connection for reading; raise StoreError if that fails."""
        with (
            self._turn,
            database.one_line(f"cannot read the store {self.name}"),
            self.engine.connect() as connection,
        ):
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Open a transaction for writing, which is committed at the end; raise StoreError if that fails."""
        with (
            self._turn,
            database.one_line(f"cannot write to the store {self.name}"),
            self.engine.connect().execution_options(writing=True) as connection,
            connection.begin(),
        ):
            yield connection

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _check(self, create: bool) -> None:
        with self.engine.connect() as connection:
            self.version = schema.version(connection)
        if self.version == 0 and not create:
            raise StoreError(f"there is no store at {self.name}; create one with `peppp measure`")
        if self.version > SCHEMA_VERSION:
            raise StoreError(
                f"the store {self.name} was written by a newer peppp (store version {self.version}; this one "
                f"reads up to {SCHEMA_VERSION}); upgrade peppp"
            )
        if create and self.version < SCHEMA_VERSION:
            with database.making(self.engine) as connection:
                found = schema.version(connection)  # another process may have created it meanwhile
                schema.migrate(connection) if found else schema.create(connection)
            self.version = SCHEMA_VERSION
        elif create:  # find out now whether the store is writable, not after an hour of training
            with self.engine.connect() as connection:
                connection.execute(update(about).values(schema_version=self.version))
                connection.rollback()


def _is_old(recipe: Recipe) -> bool:
    return recipe.arithmetic_version != ARITHMETIC_VERSION


def fingerprints_in(place: str | Path | None) -> set[str]:
    """Return the fingerprints of the data sets in a store; the set is empty if there is no store yet."""
    if place is None or not ("://" in str(place) or Path(place).exists()):
        return set()
    with Store.open(place, create=False) as store:
        return store.fingerprints()
