"""``two-best``: a rule of thumb, for comparison, that averages runs of the table's two best Formats A.

A rule that does not chase noise can hardly be simpler. It trains with the two Formats A of least mean error
on the table in turn, each time with another Format B, and picks the one whose runs have the lower mean error.
A column without formats forms its own group, which is run once.
"""

import numpy as np
from numpy.typing import NDArray

from peppp.learn.completion import Completion
from peppp.learn.methods import Method
from peppp.learn.points import PointStrategy
from peppp.learn.task import Measured, Task


class TwoBest(PointStrategy):
    """The :class:`peppp.learn.strategy.Strategy` of ``two-best``."""

    sequential, settles = False, False

    def __init__(self, method: Method, learned: Completion, task: Task, measurements: int) -> None:
        self.method, self.task, self.rank = method, task, 0
        self._mean = task.scale * learned.estimate.mean(axis=0)  # [d]
        groups = learned.groups
        self._group = np.arange(len(self._mean)) if groups is None else groups
        self._of_group = np.bincount(self._group, self._mean) / np.bincount(self._group)
        self._measurements = measurements
        open_groups = np.unique(self._group[task.measurable])
        self._two = open_groups[np.argsort(self._of_group[open_groups], kind="stable")][:2].tolist()

    def next(self, measured: Measured, count: int = 1) -> list[int]:
        """The next columns: in the group with fewer runs, the one of least memory that was not run yet."""
        run_already, chosen = list(measured), list[int]()
        for _ in range(min(count, self._measurements - len(measured))):
            runs = [sum(self._group[j] == g for j in run_already) for g in self._two]
            for place in np.argsort(runs, kind="stable"):
                free = self.task.measurable & (self._group == self._two[place])
                free[run_already] = False
                if free.any():
                    j = int(np.where(free, self.task.memory, np.inf).argmin())
                    chosen.append(j)
                    run_already.append(j)
                    break
        return chosen

    def predict(self, measured: Measured) -> NDArray[np.float64]:
        """Estimated errors [d]: the means of both groups' runs, and at least the larger one elsewhere.

        Until both groups have runs, all are the table's means: one run says nothing against the other group.
        """
        run = {int(self._group[j]) for j in measured}
        found = self._of_group.copy()
        if len(run) > 1:
            means = {g: np.mean([e for j, e in measured.items() if self._group[j] == g]) for g in run}
            found = np.maximum(found, max(means.values()))
            found[list(means)] = list(means.values())
        return np.clip(found[self._group], 0.0, 1.0)

    def errors(self, measured: Measured) -> NDArray[np.float64]:
        """Like :meth:`predict`."""
        return self.predict(measured)

    def pick(self, measured: Measured) -> int:
        """The feasible column of least error; in a group, whose errors are equal, the one of least memory."""
        return self.task.pick(self.predict(measured), {})

    def reliable(self, measured: Measured) -> bool:
        """Always True."""
        return True
