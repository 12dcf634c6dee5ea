"""What hardware should support: how often configurations are Pareto optimal, and how few of them suffice.

Appendix D of the paper lists the configurations that lie on the frontiers of many tasks. The smallest set
that keeps every task within a given error of its best is a set cover, which is solved exactly.
"""

from dataclasses import dataclass

import numpy as np
import scipy.optimize
from numpy.typing import NDArray

from peppp.errors import TableError
from peppp.learn.completion import filled
from peppp.pareto import nondominated
from peppp.table.matrix import ErrorMatrix


@dataclass(frozen=True, slots=True)
class HardwareView:
    """``frontiers`` [d]: the number of tasks on whose frontier a configuration lies; ``chosen``: the set.

    ``within`` [n] is each task's least error in the set, minus its least error of all.
    """

    frontiers: NDArray[np.intp]
    chosen: tuple[int, ...]
    within: NDArray[np.float64]


def frontier_counts(known: ErrorMatrix) -> NDArray[np.intp]:
    """The number of tasks on whose frontier, of observed errors, each configuration lies: [d]."""
    optimal = [
        nondominated(m, e, k) for m, e, k in zip(known.bytes, known.values, known.observed, strict=True)
    ]
    return np.asarray(np.sum(optimal, axis=0))


def smallest_set(excess: NDArray[np.float64], epsilon: float) -> tuple[int, ...]:
    """The fewest columns such that in each row at least one has an ``excess`` [n, d] up to ``epsilon``.

    Of equally small sets, it has the least summed excess. Each row needs a column of excess 0.

    >>> smallest_set(np.array([[0.0, 0.01, 0.2], [0.3, 0.01, 0.0]]), 0.02)
    (1,)
    >>> smallest_set(np.array([[0.0, 0.01, 0.2], [0.3, 0.01, 0.0]]), 0.0)
    (0, 2)
    """
    covers = (excess <= epsilon).astype(np.float64)
    # The ties sum to less than one, so they decide between sets of equal size only.
    ties = excess.sum(axis=0) / (excess.sum() + 1e-9) / 2
    solved = scipy.optimize.milp(
        1.0 + ties,
        constraints=scipy.optimize.LinearConstraint(covers, lb=1.0),
        integrality=np.ones(excess.shape[1]),
        bounds=scipy.optimize.Bounds(0, 1),
    )
    return tuple(int(j) for j in np.flatnonzero(np.round(solved.x)))


def hardware_view(known: ErrorMatrix, *, epsilon: float = 0.02, most: int | None = None) -> HardwareView:
    """How often each configuration is Pareto optimal, and the smallest set within ``epsilon`` of every best.

    With ``most``, ``epsilon`` is ignored: the set has at most that many configurations, and the least
    worst-case excess that this allows. Errors that were not observed are completed for the set, but do not
    count for frontiers. Raises TableError for an ``epsilon`` outside [0, 1], or a ``most`` below 1.
    """
    if not 0 <= epsilon <= 1 or (most is not None and most < 1):
        raise TableError("epsilon must be in [0, 1] and most 1 or more; for example --epsilon 0.02 --most 4")
    errors = filled(known)
    excess = errors - errors.min(axis=1, keepdims=True)
    if most is None:
        chosen = smallest_set(excess, epsilon)
    else:
        levels = np.unique(excess)
        low, high = 0, len(levels) - 1  # the largest level is met by any single column
        while low < high:
            middle = (low + high) // 2
            if len(smallest_set(excess, float(levels[middle]))) <= most:
                high = middle
            else:
                low = middle + 1
        chosen = smallest_set(excess, float(levels[low]))
    return HardwareView(frontier_counts(known), chosen, excess[:, list(chosen)].min(axis=1))
