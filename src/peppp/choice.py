"""``pick``: data, a network and a budget in; a few measurements later, the precision to train at."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from peppp.advisor import Advisor, Pick
from peppp.campaign.cells import Cell
from peppp.campaign.engines import local
from peppp.campaign.runner import Progress, run_campaign
from peppp.campaign.store import Store
from peppp.campaign.worker import measure_cell, source
from peppp.errors import PepppError, StoreError, TableError
from peppp.formats import Configuration
from peppp.records import Footprint, Measurement, Recipe
from peppp.tables import ErrorMatrix, error_matrix
from peppp.tasks.dataset import Dataset
from peppp.tasks.readers import load
from peppp.textable import read_table
from peppp.training.measurement import footprint, with_resolution
from peppp.tuning import TunedConfiguration, tuned_matrix

SHIPPED_TABLE = Path(__file__).parent / "data" / "table.csv.gz"
_SQLITE_MAGIC = b"SQLite format 3\0"


def pick(
    data: str | Path,
    *,
    budget: int | str,
    network: str = "resnet8",
    measurements: int = 6,
    table: str | Path | ErrorMatrix | None = None,
    recipe: Recipe | None = None,
    learning_rates: Sequence[float] = (),
    resolution: int = 0,
    cap: int | str | None = None,
    rank: int = 3,
    seed: int = 0,
    store: str | Path | None = None,
    workers: int = 0,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Pick:
    """The configuration of least predicted error on ``data`` within a memory ``budget``.

    ``data`` is a text that :func:`peppp.tasks.readers.load` knows, most often a folder of images; ``table`` a
    store, a text table or an error matrix of other tasks (default: the table that ships), of which rows of
    the same data are left out. ``measurements`` configurations that fit in ``cap`` (default: the budget) are
    trained, in ``workers`` processes or (0) in this one, and kept in ``store`` if one is named; all others
    are predicted. With several ``learning_rates`` the table's columns are configurations at each of them,
    and the answer is a pair, a :class:`peppp.tuning.TunedConfiguration`. Raises a child of PepppError: one
    line that says what to change.
    """
    dataset = load(str(data), resolution=resolution)
    recipe = with_resolution(replace(recipe or Recipe(), network=network), dataset)
    if len(learning_rates) == 1:
        recipe = replace(recipe, learning_rate=learning_rates[0])
    errors = (
        table
        if isinstance(table, ErrorMatrix)
        else open_table(table, recipe, without=dataset.fingerprint, learning_rates=learning_rates)
    )
    advisor = Advisor(
        errors,
        footprints(dataset, recipe, errors.configurations),
        budget,
        measurements=measurements,
        cap=cap,
        rank=rank,
        chance_error=dataset.chance_error,
        task=dataset.name,
        network=network,
    )
    plan = {source(str(data), dataset).cell(*_training(c, recipe), seed): c for c in advisor.plan}
    asked = {cell.key: configuration for cell, configuration in plan.items()}
    for measurement in measure_cells(
        list(plan), store=store, workers=workers, device=device, progress=progress
    ):
        advisor.tell(asked[measurement.key], measurement.test_error)
    return advisor.recommend()


def _training(configuration: Configuration, recipe: Recipe) -> tuple[Configuration, Recipe]:
    """What is trained for a column of the table: with its own learning rate, if it has one."""
    if isinstance(configuration, TunedConfiguration):
        return configuration.plain, replace(recipe, learning_rate=configuration.learning_rate)
    return configuration, recipe


def measure_cells(
    cells: Sequence[Cell],
    *,
    store: str | Path | None = None,
    workers: int = 0,
    device: str = "cpu",
    progress: Progress | None = None,
) -> list[Measurement]:
    """Measurements of all cells, made or found in the store; PepppError when one cannot be had."""
    with TemporaryDirectory() as folder, Store.open(store or Path(folder) / "measurements.db") as kept:
        engine = local(partial(measure_cell, device=device), workers)
        summary = run_campaign(kept, cells, engine, progress=progress)
        if summary.interrupted:
            raise KeyboardInterrupt
        for cell, failure in (*summary.failed, *summary.lost):
            raise PepppError(f"{cell.configuration} on {cell.task} could not be measured: {failure.message}")
        wanted = {cell.key for cell in cells}
        return [measurement for measurement in kept.measurements() if measurement.key in wanted]


def footprints(
    dataset: Dataset, recipe: Recipe, configurations: Sequence[Configuration]
) -> dict[Configuration, Footprint]:
    """The footprint of a training on ``dataset`` at each configuration."""
    return {configuration: footprint(dataset, configuration, recipe) for configuration in configurations}


def open_table(
    place: str | Path | None,
    recipe: Recipe | None = None,
    *,
    without: str | None = None,
    learning_rates: Sequence[float] = (),
) -> ErrorMatrix:
    """The error matrix of a store or a text table; None is the table that ships.

    Only rows that round as ``recipe`` does are taken: the mode of rounding orders configurations as much as
    the task does. Rows of the data set with the fingerprint ``without`` are left out: a task does not teach
    about itself. Several ``learning_rates`` make columns of configurations at each of them.
    """
    if place is None and not SHIPPED_TABLE.exists():
        raise TableError("this version ships no table of measurements; name one, as --table runs.db")
    path = SHIPPED_TABLE if place is None else Path(place)
    others = [m for m in read_measurements(path) if m.fingerprint != without]
    if not others:
        raise TableError(
            f"{path} holds no measurements of other data; measure some: peppp measure {path} ..."
        )
    alike = [m for m in others if recipe is None or _rounds_alike(m.recipe, recipe)]
    if not alike:
        modes = ", ".join(
            sorted({f"{m.recipe.rounding} with errors in {m.recipe.error_format}" for m in others})
        )
        raise TableError(f"{path} holds no measurements that round as asked; its are {modes}")
    return tuned_matrix(alike, learning_rates) if len(learning_rates) > 1 else error_matrix(alike)


def _rounds_alike(one: Recipe, other: Recipe) -> bool:
    fields = ("rounding", "error_format", "accumulator", "arithmetic_version")
    return all(getattr(one, field) == getattr(other, field) for field in fields)


def read_measurements(place: str | Path) -> list[Measurement]:
    """All measurements of a store (an SQLite file or a database URL) or of a text table."""
    if "://" not in str(place):
        path = Path(place)
        if not path.is_file():
            raise StoreError(f"no such file: {path}; give a store or a table of measurements")
        with path.open("rb") as file:
            is_store = file.read(len(_SQLITE_MAGIC)) == _SQLITE_MAGIC
        if not is_store:
            return read_table(path)
    with Store.open(place, create=False) as store:
        return store.measurements()
