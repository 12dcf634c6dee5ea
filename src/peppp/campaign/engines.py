"""What runs the cells of a campaign, behind one small interface: this process, here; others beside it.

:mod:`.processes` has worker processes, :mod:`.cluster` Ray, :mod:`.slurm` Slurm. An engine knows nothing of
stores, plans or second tries; a campaign (:mod:`.runner`) knows nothing of processes or machines.
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
"""The seconds that a cell may take before its worker counts as hung; infinity for no limit."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A cell without a measurement: ``measure`` raised, or (``lost``) its worker died, hung or was cut off.

    ``hopeless`` says that a second try would end alike: the input was refused. ``crash`` is the signal by
    which a worker died of what it computed (SIGSEGV and the like), not of a signal from outside.
    """

    message: str
    traceback: str = ""
    lost: bool = False
    hopeless: bool = False
    crash: str = ""


Result = Measurement | Failure


class Engine(Protocol):
    """Something that measures cells and hands back each with its result, once."""

    @property
    def slots(self) -> int:
        """How many submitted cells keep it busy."""

    def submit(self, cell: Cell) -> None:
        """Begin to measure a cell, or do so when there is room."""

    def results(self, timeout: float) -> list[tuple[Cell, Result]]:
        """What has ended since the last call; where nothing has, wait up to ``timeout`` seconds for it."""

    def close(self) -> None:
        """End everything that was begun; what was submitted and has no result has none."""


class InProcess:
    """Measures in this process, one cell after the other, while the results are waited for."""

    slots = 1

    def __init__(self, measure: Measure) -> None:
        self._measure = measure
        self._waiting: deque[Cell] = deque()

    def submit(self, cell: Cell) -> None:
        """Keep a cell for the next wait."""
        self._waiting.append(cell)

    def results(self, timeout: float) -> list[tuple[Cell, Result]]:
        """The next cell and its result, however long it takes."""
        if not self._waiting:
            return []
        cell = self._waiting.popleft()
        return [(cell, attempt(self._measure, cell))]

    def close(self) -> None:
        """Forget what was submitted."""
        self._waiting.clear()


def no_limit(cell: Cell) -> float:
    """Any cell may take as long as it takes."""
    return float("inf")


def attempt(measure: Callable[..., Measurement], cell: Cell, *data: object) -> Result:
    """The measurement of a cell, or what was raised instead, as a value that can be sent."""
    try:
        measurement = measure(cell, *data)
        check(measurement)  # refuses what could not be stored, while its cell is known
    except Exception as error:
        refused = isinstance(error, PepppError)
        message = str(error) if refused else f"{type(error).__name__}: {error}"
        return Failure(" ".join(message.split()), traceback.format_exc(), hopeless=refused)
    return measurement
