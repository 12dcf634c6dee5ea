"""Train the configurations that an advisor asks for, and tell it their errors."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

from peppp.advise.advisor import Advisor
from peppp.arithmetic import current
from peppp.campaign.cells import Cell, Source
from peppp.errors import PepppError
from peppp.learn.belief import counted
from peppp.precisions.known import Precision
from peppp.records import Measurement, Recipe
from peppp.table.labels import Label, TunedConfiguration, plain

if TYPE_CHECKING:
    from peppp.campaign.summary import Progress


class Trials(NamedTuple):
    """The seconds of each training, and why training stopped early; "" if it did not."""

    seconds: Mapping[Label, float]
    stopped: str


def make_trials(
    advisor: Advisor,
    task: Source,
    recipe: Recipe,
    *,
    seed: int,
    at_once: int,
    spend: float | None,
    store: str | Path | None,
    workers: int,
    device: str,
    progress: "Progress | None",
) -> Trials:
    """Train what ``advisor`` asks for, ``at_once`` configurations a round, and tell it the errors.

    No round is started that would, judging by the longest round so far, take more than ``spend`` seconds in
    all.
    """
    started, longest = monotonic(), 0.0
    seconds: dict[Label, float] = {}
    while wanted := advisor.batch(at_once):
        begun = monotonic()
        if spend is not None and begun - started + longest > spend:
            reached = f"another one would exceed the limit of {spend:.0f} s"
            return Trials(seconds, f"after {counted(len(advisor.observed))} {reached}")
        plan = {task.cell(*training_of(c, recipe), seed): c for c in wanted}
        asked = {cell.key: configuration for cell, configuration in plan.items()}
        for measurement in measure_cells(
            list(plan), store=store, workers=workers, device=device, progress=progress
        ):
            configuration = asked[measurement.key]
            advisor.tell(configuration, measurement.test_error)
            seconds[configuration] = measurement.seconds
        longest = max(longest, monotonic() - begun)
    return Trials(seconds, "")


def training_of(label: Label, recipe: Recipe) -> tuple[Precision, Recipe]:
    """The precision and recipe to train for a column, with the column's learning rate if it has one."""
    (configuration,) = plain([label])
    if isinstance(label, TunedConfiguration):
        return configuration, replace(recipe, learning_rate=label.learning_rate)
    return configuration, recipe


def measure_cells(
    cells: Sequence[Cell],
    *,
    store: str | Path | None = None,
    workers: int = 0,
    device: str = "cpu",
    progress: "Progress | None" = None,
) -> list[Measurement]:
    """Measurements of all cells, made or found in the store. Raises PepppError if one fails."""
    # SQLAlchemy takes time to load, and a dry run needs none of it.
    from peppp.campaign.local import local
    from peppp.campaign.runner import run_campaign
    from peppp.campaign.worker import measure_cell
    from peppp.table.store.store import Store

    with TemporaryDirectory() as folder, Store.open(store or Path(folder) / "measurements.db") as kept:
        engine = local(partial(measure_cell, device=device), workers)
        summary = run_campaign(kept, cells, engine, progress=progress)
        if summary.interrupted:
            raise KeyboardInterrupt
        for cell, failure in (*summary.failed, *summary.lost):
            raise PepppError(f"{cell.configuration} on {cell.task} could not be measured: {failure.message}")
        wanted = {cell.key for cell in cells}
        return [m for m in map(current, kept) if m.key in wanted]
