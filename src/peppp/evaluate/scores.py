"""All metrics of many estimated frontiers of one task at once; :mod:`peppp.pareto` defines them.

An evaluation scores tens of thousands of estimates, most of them with the same memory. Sorting the memory
once and sharing the grid of its distinct values reduces this to a few array operations per task.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from peppp.errors import BudgetError

# Computed at the estimated errors, as in the paper's figures, and at the true errors of the same points.
FRONTIER_METRICS = ("convergence", "hyperdiff", "area", "igd_plus")
METRICS = (
    *FRONTIER_METRICS,
    *(f"{metric}_true" for metric in FRONTIER_METRICS),
    "relative_error",
    "pick_error",
    "regret",
)


def scores(
    memory: ArrayLike, true_error: ArrayLike, estimated_error: ArrayLike, feasible: ArrayLike | None = None
) -> dict[str, NDArray[np.float64]]:
    """Compute each of ``METRICS`` for q estimates of one task's errors: arrays [q] by name.

    ``memory`` and ``true_error`` are [d], ``estimated_error`` is [q, d] or [d], ``feasible`` [d] bool
    (default: all). Only feasible configurations count. ``relative_error`` is ||estimate - true|| / ||true||
    (section 4). ``pick_error`` is the true error of the configuration with the least estimated error; ties go
    to the least memory. ``regret`` is ``pick_error`` minus the least true error. Raises BudgetError if
    nothing is feasible.

    >>> found = scores([1, 2], [0.5, 0.25], [[0.75, 0.25], [0.5, 0.75]])
    >>> found["convergence"], found["regret"]
    (array([0.125, 0.   ]), array([0.  , 0.25]))
    """
    m, e = np.asarray(memory, dtype=np.float64), np.asarray(true_error, dtype=np.float64)
    raw = np.atleast_2d(np.asarray(estimated_error, dtype=np.float64))
    allowed = np.flatnonzero(np.ones(len(m), dtype=bool) if feasible is None else feasible)
    if not len(allowed):
        raise BudgetError("no configuration is feasible, so there is no frontier; raise the budget")
    order = allowed[np.argsort(m[allowed], kind="stable")]
    share, e, raw = m[order] / m[order[-1]], e[order], raw[:, order]  # [c], [c], [q, c]
    estimated = np.clip(raw, 0.0, 1.0)
    levels, starts, level = np.unique(share, return_index=True, return_inverse=True)  # distinct memories
    widths = np.diff(levels, append=1.0)

    best = _nondominated(e[None], starts, level)  # [1, c]
    chosen = _nondominated(estimated, starts, level)  # [q, c]
    true_curve = _curve(e[None], best, starts)  # [1, levels]
    goals = np.column_stack([share, e])[best[0]]  # [p, 2], the true frontier
    of, where = np.nonzero(chosen)  # of: which estimate, ascending; each has at least one point
    first = np.searchsorted(of, np.arange(len(raw)))
    sizes = np.bincount(of, minlength=len(raw))
    found = {}
    for suffix, errors in (("", estimated), ("_true", np.broadcast_to(e, raw.shape))):
        gaps = true_curve - _curve(errors, chosen, starts)
        points = np.column_stack([share[where], errors[of, where]])  # [t, 2]
        apart = points[:, None] - goals[None]  # [t, p, 2]
        nearest = np.sqrt((apart**2).sum(axis=2).min(axis=1))
        shortfall = np.sqrt((np.maximum(apart, 0.0) ** 2).sum(axis=2))
        found["convergence" + suffix] = np.bincount(of, weights=nearest, minlength=len(raw)) / sizes
        found["hyperdiff" + suffix] = np.abs(gaps @ widths)
        found["area" + suffix] = np.abs(gaps) @ widths
        found["igd_plus" + suffix] = np.minimum.reduceat(shortfall, first, axis=0).mean(axis=1)
    found["relative_error"] = np.linalg.norm(raw - e, axis=1) / (np.linalg.norm(e) or 1.0)
    # Rounding restores the ties of exact arithmetic; argmin then takes the first, of least memory.
    found["pick_error"] = e[np.round(estimated, 9).argmin(axis=1)]
    found["regret"] = found["pick_error"] - e.min()
    return found


def _nondominated(
    errors: NDArray[np.float64], starts: NDArray[np.intp], level: NDArray[np.intp]
) -> NDArray[np.bool_]:
    """Which configurations, in the order of their memory, are Pareto optimal: [q, c]."""
    least = np.minimum.reduceat(errors, starts, axis=1)  # [q, levels]
    below = np.minimum.accumulate(least, axis=1)
    below = np.concatenate([np.full((len(errors), 1), np.inf), below[:, :-1]], axis=1)
    return np.asarray((least < below)[:, level] & (errors == least[:, level]))


def _curve(
    errors: NDArray[np.float64], points: NDArray[np.bool_], starts: NDArray[np.intp]
) -> NDArray[np.float64]:
    """The step curve of the points at each distinct memory, at most 1: [q, levels]."""
    placed = np.where(points, errors, 1.0)
    return np.minimum.accumulate(np.minimum.reduceat(placed, starts, axis=1), axis=1)
