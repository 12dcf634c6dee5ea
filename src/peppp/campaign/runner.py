"""A campaign: measure what the store lacks, keep each measurement as soon as it is made."""

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Protocol

from peppp.campaign.cells import Cell
from peppp.campaign.engines import Failure, Measure, Result, run
from peppp.campaign.store import Store
from peppp.records import Measurement, Outcome


@dataclass(frozen=True, slots=True)
class Summary:
    """What became of a campaign's cells, so far or at its end.

    ``done`` were measured and stored now, ``diverged`` of them without learning. ``failed`` raised an error,
    and of ``lost`` the worker processes died: neither is stored, the same campaign again tries them again.
    """

    asked: int
    already_there: int
    done: int = 0
    diverged: int = 0
    failed: tuple[tuple[Cell, Failure], ...] = ()
    lost: tuple[tuple[Cell, Failure], ...] = ()
    seconds: float = 0.0
    interrupted: bool = False

    @property
    def left(self) -> int:
        """Cells of which nothing is known yet."""
        return self.asked - self.already_there - self.done - len(self.failed) - len(self.lost)


class Progress(Protocol):
    """Something that shows how a campaign gets on (see :mod:`peppp.campaign.progress`)."""

    def begin(self, summary: Summary) -> None:
        """Called once, before anything is measured."""

    def step(self, summary: Summary, cell: Cell, result: Result) -> None:
        """Called after each cell, when its measurement is stored."""


def run_campaign(
    store: Store,
    cells: Sequence[Cell],
    measure: Measure,
    *,
    workers: int = 1,
    progress: Progress | None = None,
) -> Summary:
    """Measure the cells that the store lacks; the same call again does only the rest.

    ``workers`` and ``measure`` are those of :func:`peppp.campaign.engines.run`. A failing cell is reported
    and the others go on. Ctrl-C ends the workers: what is done is kept, what was in flight is not.
    """
    started = time.monotonic()
    asked = {cell.key: cell for cell in cells}
    present = store.keys()
    todo = [cell for key, cell in asked.items() if key not in present]
    summary = Summary(asked=len(asked), already_there=len(asked) - len(todo))
    if progress:
        progress.begin(summary)
    try:
        with closing(run(todo, measure, workers=workers)) as results:
            for cell, result in results:
                if isinstance(result, Measurement) and result.key != cell.key:
                    result = Failure(
                        f"{cell.data} was measured as {result.key}, planned as {cell.key}; has it changed?"
                    )
                summary = _counted(summary, store, cell, result)
                summary = replace(summary, seconds=time.monotonic() - started)
                if progress:
                    progress.step(summary, cell, result)
    except KeyboardInterrupt:
        summary = replace(summary, interrupted=True)
    return replace(summary, seconds=time.monotonic() - started)


def _counted(summary: Summary, store: Store, cell: Cell, result: Result) -> Summary:
    if isinstance(result, Failure):
        if result.lost:
            return replace(summary, lost=(*summary.lost, (cell, result)))
        return replace(summary, failed=(*summary.failed, (cell, result)))
    if not store.add(result):  # another process has stored it meanwhile
        return replace(summary, already_there=summary.already_there + 1)
    diverged = summary.diverged + (result.outcome is Outcome.DIVERGED)
    return replace(summary, done=summary.done + 1, diverged=diverged)
