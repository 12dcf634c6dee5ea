"""Read the shipped table, a store or a text table, and select the measurements that suit a recipe."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from peppp.arguments import checked
from peppp.arithmetic import current, outdated_note
from peppp.errors import StoreError, TableError
from peppp.precisions.known import is_of_formats
from peppp.records import ARITHMETIC_VERSION, Measurement, Recipe
from peppp.table.csv import read_table
from peppp.table.matrix import ErrorMatrix
from peppp.table.measured import error_matrix

SHIPPED_TABLE = Path(__file__).parents[1] / "data" / "table.csv.gz"
_SQLITE_MAGIC = b"SQLite format 3\0"
_ROUNDING = ("rounding", "error_format", "accumulator")
_FEW_TASKS, _FEW_COLUMNS = 3, 10  # fewer are too few to learn from
_ENOUGH_TASKS = 10  # with this many tasks of one recipe, the rows of other recipes are left out


def taught_by(
    measurements: Sequence[Measurement], recipe: Recipe, *, every_rate: bool = False
) -> list[Measurement]:
    """Select the measurements, all of one recipe, from which a task trained by ``recipe`` learns.

    That is ``recipe`` itself if at least ten data sets were trained by it, and else the most common recipe;
    adding rows of other networks, rates or lengths did not improve picks (docs/picking.md). Recipes are
    compared without their resolution, and with ``every_rate`` without their learning rate. All measurements
    are returned if the selected recipe has fewer than three data sets or ten configurations.
    """

    @cache  # a table has many rows and few recipes
    def way(r: Recipe) -> Recipe:
        return replace(r, resolution=0, learning_rate=0.0 if every_rate else r.learning_rate)

    low = [m for m in measurements if is_of_formats(m.configuration)]
    tasks: dict[Recipe, set[str]] = defaultdict(set)
    for m in low:
        tasks[way(m.recipe)].add(m.fingerprint)
    if not tasks:
        return list(measurements)
    own = way(recipe)
    if len(tasks.get(own, ())) < _ENOUGH_TASKS:
        own = max(tasks, key=lambda one: (len(tasks[one]), one.to_json()))
    columns = {m.configuration for m in low if way(m.recipe) == own}
    if len(tasks[own]) < _FEW_TASKS or len(columns) < _FEW_COLUMNS:
        return list(measurements)
    return [m for m in measurements if way(m.recipe) == own]


@checked
def open_table(
    place: str | Path | None,
    recipe: Recipe | None = None,
    *,
    without: Collection[str] = (),
    learning_rates: Sequence[float] = (),
) -> ErrorMatrix:
    """Return the error matrix of a store or a text table; ``place=None`` is the table that ships.

    With a ``recipe``, only rows that suit it are used (see :func:`alike`, :func:`taught_by`). Rows with a
    fingerprint in ``without`` are left out, so that a task does not learn from itself. Several
    ``learning_rates`` make a column for each configuration at each rate.
    """
    several = learning_rates if len(learning_rates) > 1 else ()
    known, _ = alike(place, recipe, without=without)
    taught = known if recipe is None else taught_by(known, recipe, every_rate=bool(several))
    return error_matrix(taught, learning_rates=several)


def alike(
    place: str | Path | None, recipe: Recipe | None = None, *, without: Collection[str] = ()
) -> tuple[list[Measurement], str]:
    """Select the measurements of a table that round as ``recipe`` does.

    The mode of rounding changes the order of configurations as much as the task does.

    If these cover fewer than three data sets or ten configurations, the measurements with other rounding are
    returned instead, and :mod:`peppp.advise.caution` says how far they apply. Left out are data sets with a
    fingerprint in ``without``, and measurements of other arithmetic versions that the current one would not
    reproduce; the second value is a line about the latter, or "". Raises TableError if nothing is left.
    """
    if place is None and not SHIPPED_TABLE.exists():
        raise TableError("this version ships no table of measurements; name one, such as --table runs.db")
    path = SHIPPED_TABLE if place is None else Path(place)
    others = [m for m in read_current(path) if m.fingerprint not in without]
    if not others:
        raise TableError(
            f"{path} holds no measurements of other data; name another table, or measure some: "
            "peppp measure runs.db --data ..."
        )
    usable = [m for m in others if m.recipe.arithmetic_version == ARITHMETIC_VERSION]
    if not usable:
        raise TableError(
            f"{path} holds only measurements of arithmetic versions other than {ARITHMETIC_VERSION}; "
            "name another table, or measure some: peppp measure runs.db --data ..."
        )
    unused = outdated_note(len(others) - len(usable), path.name) if len(usable) < len(others) else ""
    if recipe is None:
        return usable, unused
    asked = [getattr(recipe, field) for field in _ROUNDING]
    same: list[Measurement] = []
    different: list[Measurement] = []
    for m in usable:
        (same if [getattr(m.recipe, field) for field in _ROUNDING] == asked else different).append(m)
    tasks, columns = ({getattr(m, of) for m in same} for of in ("fingerprint", "configuration"))
    enough = len(tasks) >= _FEW_TASKS and len(columns) >= _FEW_COLUMNS
    return same if enough or not different else different, unused


def read_current(place: str | Path) -> list[Measurement]:
    """Read measurements, and move those that the current arithmetic version would reproduce to that version.

    See :mod:`peppp.arithmetic`.
    """
    return [current(m) for m in read_measurements(place)]


@checked
def read_measurements(place: str | Path) -> list[Measurement]:
    """Read all measurements of a store (an SQLite file or a database URL) or of a text table."""
    if "://" not in str(place):
        path = Path(place)
        if not path.is_file():
            what = "this is a folder, not a file" if path.is_dir() else "no such file"
            raise StoreError(f"{what}: {path}; give a store or a table of measurements")
        with path.open("rb") as file:
            is_store = file.read(len(_SQLITE_MAGIC)) == _SQLITE_MAGIC
        if not is_store:
            return read_table(path)
    from peppp.table.store.store import Store  # most tables are text, and SQLAlchemy takes time to load

    with Store.open(place, create=False) as store:
        return store.measurements()
