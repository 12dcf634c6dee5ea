"""The tables of a store, and the steps from each version of them to the next.

``measurements`` holds flat records as the text table does (:mod:`peppp.table.columns`), with recipes once in
a table of their own. ``cells`` (since version 2) holds what campaigns have asked for and nobody has measured
yet: who is at it until when, and how it failed.
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

# What names a cell; a measurement's key counts its repeats besides.
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
# Rows are wide and many: what is asked often is answered from these indexes alone.
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
    # The driver that is at it, and until when that holds; in seconds since 1970 by the database's clock.
    Column("driver", Text),
    Column("expires", Double),
    # How it ended when it was last given up: when, after how many tries, whether its worker had died.
    Column("failed", Double),
    Column("tries", Integer),
    Column("lost", Boolean),
    Column("message", Text),
    Column("traceback", Text),
    PrimaryKeyConstraint(*CELL),
)


def create(connection: Connection) -> None:
    """Make the tables of the newest version in an empty database."""
    schema.create_all(connection)
    connection.execute(insert(about).values(schema_version=SCHEMA_VERSION))


def version(connection: Connection) -> int:
    """The version of a store's tables; 0 if there are none."""
    if not inspect(connection).has_table(about.name):
        return 0
    return int(connection.execute(select(about.c.schema_version)).scalar_one())


def migrate(connection: Connection) -> None:
    """Bring the tables of any older version to the newest; measurements stay as they are."""
    for step in range(version(connection), SCHEMA_VERSION):
        _STEPS[step](connection)
    connection.execute(update(about).values(schema_version=SCHEMA_VERSION))


def _add_cells(connection: Connection) -> None:
    """Version 1 held measurements only."""
    cells.create(connection, checkfirst=True)
    for index in sorted(measurements.indexes, key=lambda index: str(index.name)):
        index.create(connection, checkfirst=True)


# The step from each version to the next; a step, once released, is never changed.
_STEPS: dict[int, Callable[[Connection], None]] = {1: _add_cells}
