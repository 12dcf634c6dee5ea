"""Pareto frontiers of memory and error, and how far an estimated one is from the true one (section 4).

All functions take arrays and never change them. A frontier is a step curve: the least error that is possible
within each memory. The metrics divide memory by the largest permissible one, so that all configurations lie
in the unit square, whose reference point is (1, 1). A configuration at memory 1 adds no area.
"""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from peppp.arguments import checked
from peppp.errors import ArgumentError, BudgetError

Place = Literal["estimated", "true"]


@checked
def nondominated(memory: ArrayLike, error: ArrayLike, feasible: ArrayLike | None = None) -> NDArray[np.bool_]:
    """Which configurations are Pareto optimal among the feasible ones: [d] bool.

    A point is Pareto optimal if every feasible point that is nowhere larger equals it (section 2). Of several
    configurations with the same memory, only those with the least error can therefore be Pareto optimal, and
    exact duplicates of a Pareto optimal point are Pareto optimal, too.

    ``memory`` and ``error`` are [d] real, ``feasible`` is [d] bool (default: all). Raises ValueError if
    shapes differ or a feasible entry is not finite.

    >>> nondominated([1, 2, 2, 2, 4], [0.5, 0.3, 0.3, 0.4, 0.3])
    array([ True,  True,  True, False, False])
    """
    m, e, allowed = _checked(memory, error, feasible)
    levels, level = np.unique(m[allowed], return_inverse=True)  # distinct memories, ascending
    least = np.full(levels.shape, np.inf)  # the least error at each level
    np.minimum.at(least, level, e[allowed])
    least_below = np.concatenate([[np.inf], np.minimum.accumulate(least)[:-1]])
    steps_down = least < least_below[: len(least)]
    mask = np.zeros(m.shape, dtype=bool)
    mask[allowed] = steps_down[level] & (e[allowed] == least[level])
    return mask


@checked
def frontier(memory: ArrayLike, error: ArrayLike, feasible: ArrayLike | None = None) -> NDArray[np.intp]:
    """Indices of the Pareto optimal configurations, by ascending memory: [p] integers.

    Exact duplicates keep the order of their indices. The result is empty if nothing is feasible.

    >>> frontier([4, 1, 2, 3], [0.1, 0.5, 0.3, 0.4])
    array([1, 2, 0])
    >>> frontier([4, 1, 2, 3], [0.1, 0.5, 0.3, 0.4], feasible=[False, True, False, True])
    array([1, 3])
    """
    indices = np.flatnonzero(nondominated(memory, error, feasible))
    return indices[np.argsort(np.asarray(memory)[indices], kind="stable")]


@checked
def settled(errors: ArrayLike) -> NDArray[np.float64]:
    """Round errors [...] to nine decimals, so that ties of exact arithmetic are ties here and on the page.

    >>> settled([0.1 + 0.2]) == settled([0.3])
    array([ True])
    """
    given = np.asarray(errors, dtype=np.float64)
    with np.errstate(over="ignore"):  # what is too large to be scaled has no decimals
        rounded = np.round(given, 9)
    return np.where(np.isfinite(rounded), rounded, given)


@checked
def best(memory: ArrayLike, error: ArrayLike, feasible: ArrayLike | None = None) -> int | None:
    """The index of the least feasible error; ties go to the least memory, then to the first index.

    This is the Pareto optimal point with the highest permissible memory, the paper's pick (section 3.2).
    Returns None if nothing is feasible.

    >>> best([4, 1, 2, 3], [0.1, 0.5, 0.3, 0.3], feasible=[False, True, True, True])
    2
    """
    optimal = frontier(memory, error, feasible)
    if not len(optimal):
        return None
    m = np.asarray(memory, dtype=np.float64)
    return int(optimal[m[optimal] == m[optimal[-1]]][0])


@checked
def hypervolume(memory: ArrayLike, error: ArrayLike, *, reference: tuple[float, float] = (1.0, 1.0)) -> float:
    """The area that the points dominate, up to the ``reference`` (memory, error).

    See Zitzler and Thiele, 1998. The arguments are not normalised. Points beyond the reference dominate
    nothing.

    Two steps, 0.5 wide and 0.5 high, then 0.25 wide and 0.75 high:

    >>> hypervolume([0.25, 0.75], [0.5, 0.25])
    0.4375
    """
    points = _staircase(_columns(memory, error))
    edges = np.append(np.minimum(points[:, 0], reference[0]), reference[0])
    heights = reference[1] - np.minimum(points[:, 1], reference[1])
    return float(np.diff(edges) @ heights)


@checked
def convergence(
    memory: ArrayLike,
    true_error: ArrayLike,
    estimated_error: ArrayLike,
    *,
    feasible: ArrayLike | None = None,
    at: Place = "estimated",
) -> float:
    """Mean distance of the estimated frontier's points to the closest true one (section 4, Figure 8a).

    ``memory``, ``true_error`` and ``estimated_error`` are [d], ``feasible`` is [d] bool (default: all). The
    points of the estimated frontier are placed ``at`` their "estimated" errors, as in the paper, or at the
    "true" errors of the same configurations. Estimates are clipped to [0, 1]. The metric is also known as the
    generational distance with p = 1 (Deb et al., 2002). It can prefer a dominated frontier, so read it
    together with :func:`igd_plus`.

    Raises BudgetError if nothing is feasible, and ValueError if shapes differ or ``at`` is unknown.

    The true frontier is (0.5, 0.5) and (1, 0.25); the estimated one is 0.25 too high, then exact:

    >>> convergence([1, 2], [0.5, 0.25], [0.75, 0.25])
    0.125
    """
    true, estimated = _frontiers(memory, true_error, estimated_error, feasible, at)
    distances = np.linalg.norm(estimated[:, None] - true[None], axis=2)  # [estimated, true]
    return float(distances.min(axis=1).mean())


@checked
def hyperdiff(
    memory: ArrayLike,
    true_error: ArrayLike,
    estimated_error: ArrayLike,
    *,
    feasible: ArrayLike | None = None,
    at: Place = "estimated",
) -> float:
    """Absolute difference between the hypervolumes of the true and the estimated frontier (Figure 8b).

    If the two curves cross, differences cancel; in :func:`frontier_area_difference` they do not. With
    ``at="true"``, it hardly depends on the estimates. For the arguments see :func:`convergence`.

    >>> hyperdiff([1, 2, 4], [0.75, 0.5, 0.25], [0.5, 0.5, 0.25])  # 0.25 too low over 0.25 of the memory
    0.0625
    """
    true, estimated = _frontiers(memory, true_error, estimated_error, feasible, at)
    return abs(hypervolume(true[:, 0], true[:, 1]) - hypervolume(estimated[:, 0], estimated[:, 1]))


@checked
def frontier_area_difference(
    memory: ArrayLike,
    true_error: ArrayLike,
    estimated_error: ArrayLike,
    *,
    feasible: ArrayLike | None = None,
    at: Place = "estimated",
) -> float:
    """Area between the step curves of the true and the estimated frontier in the unit square.

    Left of its first point a curve has error 1. The area is never less than :func:`hyperdiff`, and zero only
    for equal curves. For the arguments see :func:`convergence`.

    Too high over one quarter of the memory and too low over the next, so that HyperDiff is zero:

    >>> arguments = [1, 2, 3, 4], [0.75, 0.5, 0.25, 0.25], [1.0, 0.25, 0.25, 0.25]
    >>> frontier_area_difference(*arguments), hyperdiff(*arguments)
    (0.125, 0.0)
    """
    true, estimated = _frontiers(memory, true_error, estimated_error, feasible, at)
    edges = np.unique(np.concatenate([true[:, 0], estimated[:, 0], [1.0]]))
    gaps = np.abs(_height(_staircase(true), edges[:-1]) - _height(_staircase(estimated), edges[:-1]))
    return float(np.diff(edges) @ gaps)


@checked
def igd_plus(
    memory: ArrayLike,
    true_error: ArrayLike,
    estimated_error: ArrayLike,
    *,
    feasible: ArrayLike | None = None,
    at: Place = "estimated",
) -> float:
    """Mean distance by which the estimated frontier falls short of each point of the true one.

    This is the modified inverted generational distance of Ishibuchi et al., 2015. Unlike :func:`convergence`,
    it never prefers a dominated frontier. For the arguments see :func:`convergence`.

    The estimated frontier lacks the second true point, whose error its only point exceeds by 0.25:

    >>> igd_plus([1, 2], [0.5, 0.25], [0.5, 0.75])
    0.125
    """
    true, estimated = _frontiers(memory, true_error, estimated_error, feasible, at)
    shortfall = np.maximum(estimated[None] - true[:, None], 0.0)  # [true, estimated, 2]
    return float(np.linalg.norm(shortfall, axis=2).min(axis=1).mean())


def _checked(
    memory: ArrayLike, error: ArrayLike, feasible: ArrayLike | None
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    m, e = np.asarray(memory, dtype=np.float64), np.asarray(error, dtype=np.float64)
    allowed = np.ones(m.shape, dtype=bool) if feasible is None else np.asarray(feasible, dtype=bool)
    if m.ndim != 1 or m.shape != e.shape or m.shape != allowed.shape:
        raise ArgumentError(
            f"memory, error and feasible must be arrays [d] of one length, not {m.shape}, {e.shape}, "
            f"{allowed.shape}"
        )
    if not (np.isfinite(m[allowed]).all() and np.isfinite(e[allowed]).all()):
        raise ArgumentError("memory and error must be finite wherever a configuration is feasible")
    return m, e, allowed


def _columns(memory: ArrayLike, error: ArrayLike) -> NDArray[np.float64]:
    """Points [p, 2] of memory and error."""
    return np.column_stack(_checked(memory, error, None)[:2])


def _staircase(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """The Pareto optimal among points [p, 2], by ascending memory."""
    return points[frontier(points[:, 0], points[:, 1])]


def _height(staircase: NDArray[np.float64], memory: NDArray[np.float64]) -> NDArray[np.float64]:
    """Error of a step curve at each memory: the error of the last point at or left of it, else 1."""
    last = np.searchsorted(staircase[:, 0], memory, side="right")
    return np.concatenate([[1.0], np.minimum(staircase[:, 1], 1.0)])[last]


def _frontiers(
    memory: ArrayLike,
    true_error: ArrayLike,
    estimated_error: ArrayLike,
    feasible: ArrayLike | None,
    at: Place,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points [p, 2] of the true and [q, 2] of the estimated frontier, memory as a share of the largest."""
    if at not in ("estimated", "true"):
        raise ArgumentError(f"at is 'estimated' or 'true', not {at!r}: it places the points of the frontier")
    m, true, allowed = _checked(memory, true_error, feasible)
    estimated = np.clip(np.asarray(estimated_error, dtype=np.float64), 0.0, 1.0)
    if not allowed.any():
        raise BudgetError("no configuration is feasible, so there is no frontier; raise the budget")
    if not (m[allowed] > 0).all():
        raise ArgumentError("memory is a positive number of bytes wherever a configuration is feasible")
    share = m / m[allowed].max()
    best, chosen = frontier(m, true, allowed), frontier(m, estimated, allowed)
    placed = true if at == "true" else estimated
    return _columns(share[best], true[best]), _columns(share[chosen], placed[chosen])
