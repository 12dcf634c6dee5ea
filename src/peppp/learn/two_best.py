"""``two-best``: the table's two best Formats A in turn, their runs averaged. A rule of thumb to compare with.

It is as simple as a rule can be that does not chase noise: it trains the two Formats A of least mean error on
the table, one after the other and again, each time with another Format B, and picks the one whose runs err
less on average. Columns without formats are groups of their own, which are run once.
"""

import numpy as np
from numpy.typing import NDArray

from peppp.learn.completion import Completion
from peppp.learn.methods import Method, Task, Told
from peppp.learn.points import PointStrategy


class TwoBest(PointStrategy):
    """A :class:`peppp.learn.strategy.Strategy` on one task."""

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

    def next(self, told: Told, count: int = 1) -> list[int]:
        """The next columns: of the group with fewer runs, the one of least memory that was not run."""
        told_columns, chosen = list(told), list[int]()
        for _ in range(min(count, self._measurements - len(told))):
            runs = [sum(self._group[j] == g for j in told_columns) for g in self._two]
            for place in np.argsort(runs, kind="stable"):
                free = self.task.measurable & (self._group == self._two[place])
                free[told_columns] = False
                if free.any():
                    j = int(np.where(free, self.task.memory, np.inf).argmin())
                    chosen.append(j)
                    told_columns.append(j)
                    break
        return chosen

    def predict(self, told: Told) -> NDArray[np.float64]:
        """Once both groups were run, the means of their runs, and no other group is thought better [d].

        Before that, one run says nothing against the other group: all are the table's means.
        """
        run = {int(self._group[j]) for j in told}
        found = self._of_group.copy()
        if len(run) > 1:
            means = {g: np.mean([e for j, e in told.items() if self._group[j] == g]) for g in run}
            found = np.maximum(found, max(means.values()))
            found[list(means)] = list(means.values())
        return np.clip(found[self._group], 0.0, 1.0)

    def errors(self, told: Told) -> NDArray[np.float64]:
        """The same."""
        return self.predict(told)

    def pick(self, told: Told) -> int:
        """The column of least error that fits; of a group's equal columns the one of least memory."""
        return self.task.pick(self.predict(told), {})

    def reliable(self, told: Told) -> bool:
        """Always."""
        return True
