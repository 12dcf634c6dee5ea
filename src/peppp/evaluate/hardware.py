"""What hardware would have to offer: how often configurations are Pareto optimal, and how few of them do.

Appendix D of the paper lists the configurations that lie on the frontiers of many tasks; the smallest set
that keeps every task within some error of its best is a set cover, solved exactly.
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
    """``frontiers`` [d]: on how many tasks' frontiers each configuration lies; ``chosen``: the smallest set.

    ``within`` [n] is how much more each task errs at the best of the set than at its best of all.
    """

    frontiers: NDArray[np.intp]
    chosen: tuple[int, ...]
    within: NDArray[np.float64]


def frontier_counts(known: ErrorMatrix) -> NDArray[np.intp]:
    """On how many tasks' frontiers each configuration lies [d], among those observed on the task."""
    optimal = [
        nondominated(m, e, k) for m, e, k in zip(known.bytes, known.values, known.observed, strict=True)
    ]
    return np.asarray(np.sum(optimal, axis=0))


def smallest_set(excess: NDArray[np.float64], epsilon: float) -> tuple[int, ...]:
    """The fewest columns of which each row has one with ``excess`` [n, d] of at most ``epsilon``.

    Of equally small sets it is one whose summed excess is least. Each row needs a column of excess 0.

    >>> smallest_set(np.array([[0.0, 0.01, 0.2], [0.3, 0.01, 0.0]]), 0.02)
    (1,)
    >>> smallest_set(np.array([[0.0, 0.01, 0.2], [0.3, 0.01, 0.0]]), 0.0)
    (0, 2)
    """
    covers = (excess <= epsilon).astype(np.float64)
    # Less than one in all, so that it decides between equal sizes only.
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

    With ``most`` the set has at most so many, and the least worst excess that this allows. Errors that were
    not observed are those of the completion.
    """
    if not 0 <= epsilon <= 1 or (most is not None and most < 1):
        raise TableError("epsilon lies in [0, 1] and a set has 1 or more; as --epsilon 0.02 --most 4")
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
