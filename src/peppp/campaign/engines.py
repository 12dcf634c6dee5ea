"""The interface of engines, which run a campaign's cells, and the engine that runs them in this process.

:mod:`.processes` runs cells in worker processes, :mod:`.cluster` with Ray, and :mod:`.slurm` with Slurm.
Engines do not know about stores, plans or retries; campaigns (:mod:`.runner`) do not know about processes or
machines.
"""

import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from peppp.campaign.cells import Cell
from peppp.errors import PepppError
from peppp.records import Measurement
from peppp.table.columns import check

Measure = Callable[[Cell], Measurement]

Limit = Callable[[Cell], float]
"""A function that gives the seconds after which the worker of a cell counts as hung; infinity is no limit."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a cell has no measurement: ``measure`` raised, or its worker died, hung or was cut off (``lost``).

    ``hopeless`` says that another try would fail in the same way, for example because the input is invalid.
    ``crash`` is the signal of a worker that crashed by itself (such as SIGSEGV), not one sent from outside.
    """

    message: str
    traceback: str = ""
    lost: bool = False
    hopeless: bool = False
    crash: str = ""


Result = Measurement | Failure


class Engine(Protocol):
    """An engine measures the cells that are submitted, and returns each one once with its result."""

    @property
    def slots(self) -> int:
        """The number of submitted cells that keeps the engine busy."""

    def submit(self, cell: Cell) -> None:
        """Start to measure a cell, now or as soon as there is room."""

    def results(self, timeout: float) -> list[tuple[Cell, Result]]:
        """Return the cells that ended since the last call; wait up to ``timeout`` seconds if none did."""

    def close(self) -> None:
        """Cancel all submitted cells that have no result yet."""


class InProcess:
    """An engine that measures in this process, one cell in each call of :meth:`results`."""

    slots = 1

    def __init__(self, measure: Measure) -> None:
        self._measure = measure
        self._waiting: deque[Cell] = deque()

    def submit(self, cell: Cell) -> None:
        """Queue a cell."""
        self._waiting.append(cell)

    def results(self, timeout: float) -> list[tuple[Cell, Result]]:
        """Measure the next cell, however long it takes."""
        if not self._waiting:
            return []
        cell = self._waiting.popleft()
        return [(cell, attempt(self._measure, cell))]

    def close(self) -> None:
        """Drop the queued cells."""
        self._waiting.clear()


def no_limit(cell: Cell) -> float:
    """Return infinity: no cell counts as hung."""
    return float("inf")


def attempt(measure: Callable[..., Measurement], cell: Cell, *data: object) -> Result:
    """Measure a cell; return any exception as a Failure, which can be sent between processes."""
    try:
        measurement = measure(cell, *data)
        check(measurement)  # fail here, where the cell is known, if it could not be stored
    except Exception as error:
        refused = isinstance(error, PepppError)
        message = str(error) if refused else f"{type(error).__name__}: {error}"
        return Failure(" ".join(message.split()), traceback.format_exc(), hopeless=refused)
    return measurement
