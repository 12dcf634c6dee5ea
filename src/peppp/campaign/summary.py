"""What a campaign reports while it runs and when it ends."""

from dataclasses import dataclass
from typing import Protocol

from peppp.arguments import checked
from peppp.campaign.cells import Cell
from peppp.campaign.engines import Failure, Result
from peppp.tasks.dataset import Dataset


@checked
@dataclass(frozen=True, slots=True)
class Summary:
    """The state of a campaign's cells, during or after it.

    Of the ``asked`` cells, ``already_there`` were in the store, and ``done`` were measured and stored by this
    campaign; ``diverged`` of these diverged. ``failed`` raised an error in the last try, and ``lost`` had a
    worker that died or hung; running the same campaign again tries both again. ``retried`` counts failed
    tries that were followed by another. ``elsewhere`` failed with another driver meanwhile. ``outdated``
    counts stored measurements of an older arithmetic version that the current one would not reproduce.
    ``stopped`` names the limit that ended the campaign: time or measurements.
    """

    asked: int
    already_there: int
    done: int = 0
    diverged: int = 0
    failed: tuple[tuple[Cell, Failure], ...] = ()
    lost: tuple[tuple[Cell, Failure], ...] = ()
    retried: int = 0
    elsewhere: int = 0
    outdated: int = 0
    seconds: float = 0.0
    stopped: str = ""
    interrupted: bool = False

    @property
    def left(self) -> int:
        """The number of cells that have neither a measurement nor a failure yet."""
        known = self.already_there + self.done + len(self.failed) + len(self.lost) + self.elsewhere
        return self.asked - known


class Progress(Protocol):
    """An object that shows the progress of a campaign (see :mod:`peppp.campaign.progress`)."""

    def read(self, dataset: Dataset) -> None:
        """Called when data has been read and before anything is measured on it."""

    def begin(self, summary: Summary) -> None:
        """Called once, before anything is measured."""

    def step(self, summary: Summary, cell: Cell, result: Result) -> None:
        """Called after each cell, when its measurement is stored or its failure recorded."""
