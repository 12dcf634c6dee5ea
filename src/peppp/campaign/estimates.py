"""How long measurements will take, from those that were made."""

import math
from collections.abc import Iterable, Mapping

from peppp.campaign.cells import Cell
from peppp.records import Measurement

# A measurement is taken for hung after so many times the longest one of its kind, and not before a while.
_PATIENCE = 20
_LEAST = 600.0

Times = Mapping[tuple[str, str], tuple[int, float, float]]


class Estimates:
    """Seconds of measurements by row (data set and recipe), else by recipe, else by nothing at all.

    ``times`` is what ``Store.seconds()`` gives: number, mean and longest for each (fingerprint, digest).
    """

    def __init__(self, times: Times) -> None:
        self._rows = dict(times)
        self._recipes: dict[str, tuple[int, float, float]] = {}
        self._all = (0, 0.0, 0.0)
        for (_, digest), row in times.items():
            self._count(digest, row)

    def learn(self, measurement: Measurement) -> None:
        """Take one more measurement into account."""
        one = (1, measurement.seconds, measurement.seconds)
        key = (measurement.fingerprint, measurement.recipe.digest)
        self._rows[key] = _joined(self._rows.get(key), one)
        self._count(key[1], one)

    def seconds(self, cell: Cell) -> float | None:
        """The expected seconds of a measurement; None where nothing was measured yet."""
        known = self._known(cell) or self._all
        return known[1] if known[0] else None

    def total(self, cells: Iterable[Cell]) -> float | None:
        """The expected seconds of all, one after the other; None where nothing was measured yet."""
        each = [self.seconds(cell) for cell in cells]
        return None if None in each else math.fsum(second for second in each if second is not None)

    def limit(self, cell: Cell) -> float:
        """The seconds after which a measurement counts as hung; infinity where nothing alike was measured."""
        known = self._known(cell)
        return max(_LEAST, _PATIENCE * known[2]) if known else math.inf

    def _known(self, cell: Cell) -> tuple[int, float, float] | None:
        digest = cell.recipe.digest
        return self._rows.get((cell.fingerprint, digest)) or self._recipes.get(digest)

    def _count(self, digest: str, one: tuple[int, float, float]) -> None:
        self._recipes[digest] = _joined(self._recipes.get(digest), one)
        self._all = _joined(self._all, one)


def _joined(
    known: tuple[int, float, float] | None, more: tuple[int, float, float]
) -> tuple[int, float, float]:
    if known is None:
        return more
    count = known[0] + more[0]
    return count, (known[0] * known[1] + more[0] * more[1]) / count, max(known[2], more[2])
