"""Estimate how long measurements will take, from the durations of earlier ones."""

import math
from collections.abc import Iterable, Mapping

from peppp.campaign.cells import Cell
from peppp.records import Measurement

# A measurement counts as hung after _PATIENCE times the longest known one, but not before _LEAST seconds.
_PATIENCE = 20
_LEAST = 600.0

Times = Mapping[tuple[str, str], tuple[int, float, float]]


class Estimates:
    """Expected seconds by row (data set and recipe), or else by recipe, or else over all measurements.

    ``times`` is the result of ``Store.seconds()``: number, mean and maximum by (fingerprint, digest).
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
        """Return the expected seconds of a measurement, or None if nothing was measured yet."""
        known = self._known(cell) or self._all
        return known[1] if known[0] else None

    def total(self, cells: Iterable[Cell]) -> float | None:
        """Return the expected seconds of all cells in sequence, or None if nothing was measured yet."""
        each = [self.seconds(cell) for cell in cells]
        return None if None in each else math.fsum(second for second in each if second is not None)

    def limit(self, cell: Cell) -> float:
        """Return the seconds after which a measurement counts as hung; infinity without one of its recipe."""
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
