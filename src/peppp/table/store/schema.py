"""The tables of a store, and the migration steps between their versions.

``measurements`` holds the same records as the text table (:mod:`peppp.table.columns`), except that each
recipe is stored once, in ``recipes``. ``cells`` (since version 2) holds the cells that campaigns have
requested and that are not measured yet, with their leases and failures.
"""

from collections.abc import Callable

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    insert,
    inspect,
    select,
    update,
)

SCHEMA_VERSION = 2

# These columns identify a cell; the key of a measurement adds the repeat.
CELL = ("fingerprint", "configuration", "recipe_digest", "seed")

schema = MetaData()
about = Table("peppp_store", schema, Column("schema_version", Integer, nullable=False))
recipes = Table(
    "recipes", schema, Column("digest", Text, primary_key=True), Column("recipe", Text, nullable=False)
)
measurements = Table(
    "measurements",
    schema,
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
    UniqueConstraint(*CELL, "repeat"),
)
# Rows are wide and many, so these indexes contain the columns of frequent queries.
Index("measurements_by_outcome", measurements.c.task, measurements.c.outcome)
Index(
    "measurements_by_row",
    *(measurements.c[name] for name in ("fingerprint", "recipe_digest", "task", "group", "chance_error")),
    *(measurements.c[name] for name in ("configuration", "test_error", "seconds")),
)
cells = Table(
    "cells",
    schema,
    Column("fingerprint", Text, nullable=False),
    Column("configuration", Text, nullable=False),
    Column("recipe_digest", Text, nullable=False),
    Column("seed", BigInteger, nullable=False),
    Column("task", Text, nullable=False),
    # The driver that holds the lease, and when it expires, in seconds since 1970 by the database's clock.
    Column("driver", Text),
    Column("expires", Double),
    # The last failure: its time, the number of tries, and whether the worker was lost.
    Column("failed", Double),
    Column("tries", Integer),
    Column("lost", Boolean),
    Column("message", Text),
    Column("traceback", Text),
    PrimaryKeyConstraint(*CELL),
)


def create(connection: Connection) -> None:
    """Create the tables of the newest version in an empty database."""
    schema.create_all(connection)
    connection.execute(insert(about).values(schema_version=SCHEMA_VERSION))


def version(connection: Connection) -> int:
    """Return the version of a store's tables, or 0 if there are none."""
    if not inspect(connection).has_table(about.name):
        return 0
    return int(connection.execute(select(about.c.schema_version)).scalar_one())


def migrate(connection: Connection) -> None:
    """Migrate the tables from any older version to the newest; measurements do not change."""
    for step in range(version(connection), SCHEMA_VERSION):
        _STEPS[step](connection)
    connection.execute(update(about).values(schema_version=SCHEMA_VERSION))


def _add_cells(connection: Connection) -> None:
    """Migrate from version 1, which had neither cells nor these indexes."""
    cells.create(connection, checkfirst=True)
    for index in sorted(measurements.indexes, key=lambda index: str(index.name)):
        index.create(connection, checkfirst=True)


# The step from each version to the next. A released step must never change.
_STEPS: dict[int, Callable[[Connection], None]] = {1: _add_cells}
