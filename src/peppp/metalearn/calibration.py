"""How wide intervals must be to be honest: the table's own tasks, each predicted from the other families.

A Gaussian learned from few or sparse rows is too sure of itself. So each family of the table is held out in
turn, a few of its known errors are told, the others are predicted; the distances, in standard deviations of
the posterior, are what intervals on a new task have to reach (conformal prediction by groups: Dunn et al.,
2022). Not in the paper.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from peppp.metalearn.completion import Completion
from peppp.metalearn.inner import inner_folds
from peppp.metalearn.methods import Method, Task, prior_of
from peppp.metalearn.posterior import Posterior
from peppp.metalearn.threads import single_thread


@dataclass(frozen=True, slots=True)
class Calibration:
    """Standardised distances [m] of held-out errors, ascending, and their weights [m], which sum to 1.

    Each of the ``families`` weighs the same, and each of its rows within it. Without any distance, as from
    fewer than three rows, nothing is known and intervals are infinite.
    """

    distances: NDArray[np.float64]
    weights: NDArray[np.float64]
    families: int

    def quantile(self, level: float = 0.9) -> float:
        """How many posterior deviations an interval has to reach to cover a share ``level`` of the errors.

        >>> Calibration(np.array([0.5, 1.0, 2.0]), np.array([0.25, 0.5, 0.25]), 4).quantile(0.7)
        1.0
        """
        if not len(self.distances):
            return float("inf")
        place = int(np.searchsorted(np.cumsum(self.weights), level))
        return float(self.distances[min(place, len(self.distances) - 1)])

    @property
    def inflation(self) -> float:
        """What to multiply the posterior's deviations by: the 90 % quantile over a Gaussian's."""
        return self.quantile(0.9) / 1.6449


@single_thread()
def calibrate(method: Method, learned: Completion, task: Task, count: int) -> Calibration:
    """How far ``method`` misses after ``count`` measurements on the table's own tasks.

    ``task`` is the new one, of which only its memory and what may be measured are looked at. A row is told
    ``count`` of its known measurable errors, or one less than it has, and judged on the others. Rows without
    any are left out.
    """
    distances: list[NDArray[np.float64]] = []
    owners: list[int] = []
    for fold in inner_folds(learned):
        prior = prior_of(fold.training)
        for i, owner in zip(fold.rows, fold.families, strict=True):
            known, values = learned.observed[i], learned.estimate[i]
            within = known & task.measurable
            if not within.any():
                continue
            most = min(count, int(within.sum()) - 1)
            rule, told = fold.played(method, int(i), values, Task(task.memory, within, within), most)
            judged = known.copy()
            judged[list(told)] = False
            if judged.any():
                posterior = prior.given(list(told), list(told.values()))
                distances.append(standardised(values, rule.predict(told), posterior)[judged])
                owners.append(int(owner))
    if not distances:
        return Calibration(np.empty(0), np.empty(0), 0)
    names, sizes = np.unique(owners, return_counts=True)
    share = dict(zip(names.tolist(), (1.0 / (len(names) * sizes)).tolist(), strict=True))
    flat = np.concatenate(distances)
    weights = np.concatenate(
        [np.full(len(row), share[owner] / len(row)) for row, owner in zip(distances, owners, strict=True)]
    )
    order = np.argsort(flat)
    return Calibration(flat[order], weights[order], len(names))


def standardised(
    errors: NDArray[np.float64], estimate: NDArray[np.float64], posterior: Posterior
) -> NDArray[np.float64]:
    """Distances [d] of ``errors`` to an ``estimate``, in the posterior's deviations."""
    return np.asarray(np.abs(errors - estimate) / np.maximum(posterior.deviation, 1e-9))
