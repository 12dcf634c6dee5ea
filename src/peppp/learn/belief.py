"""How sure the predictions for a new task are: intervals and probabilities."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

GAUSSIAN_90 = 1.6449


@dataclass(frozen=True, slots=True)
class Belief:
    """What is believed about the d configurations of a new task, and about the choice among them.

    ``low`` and ``high`` [d] bound the 90 % intervals of the noise-free errors, as fractions. ``on_frontier``
    [d] is the probability that a configuration is Pareto optimal within the budget. ``near_best`` [d] is the
    probability that its error exceeds the least error within the budget by at most the tolerance.
    ``covariance`` [d, d] is the covariance of the noise-free errors, and ``noise`` [d] the variance of one
    run around them. Methods without intervals use :meth:`unknown`.
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    on_frontier: NDArray[np.float64] | None
    near_best: NDArray[np.float64] | None
    covariance: NDArray[np.float64] | None = None
    noise: NDArray[np.float64] | None = None

    @classmethod
    def unknown(cls, d: int) -> "Belief":
        """The belief of a method without intervals: they are all [0, 1], and everything else is None."""
        return cls(np.zeros(d), np.ones(d), None, None)

    @property
    def unsure(self) -> bool:
        """Whether it is unknown how sure the predictions are."""
        return self.near_best is None

    def run_interval(self, errors: NDArray[np.float64], column: int) -> tuple[float, float] | None:
        """The 90 % interval of one training's error, given the expected ``errors`` [d]; None if unknown."""
        if self.covariance is None or self.noise is None:
            return None
        reach = GAUSSIAN_90 * float(self.covariance[column, column] + self.noise[column]) ** 0.5
        return max(float(errors[column]) - reach, 0.0), min(float(errors[column]) + reach, 1.0)

    def enough(self, best: int, until_sure: float, count: int) -> str:
        """Why ``count`` measurements suffice to choose ``best`` with ``until_sure``; empty if they do not."""
        if self.near_best is None or self.near_best[best] < until_sure:
            return ""
        return f"after {counted(count)} the choice is sure enough ({self.near_best[best]:.0%})"


def counted(count: int) -> str:
    """``1 measurement``, ``2 measurements``."""
    return f"{count} measurement{'' if count == 1 else 's'}"


def on_frontier(
    samples: NDArray[np.float64], memory: ArrayLike, feasible: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """The share of the ``samples`` [q, d] in which each configuration is Pareto optimal: [d].

    >>> on_frontier(np.array([[0.5, 0.4], [0.5, 0.6]]), [1, 2], np.array([True, True]))
    array([1. , 0.5])
    """
    m = np.asarray(memory, dtype=np.float64)
    allowed = np.flatnonzero(feasible)
    order = allowed[np.argsort(m[allowed], kind="stable")]
    _, starts, level = np.unique(m[order], return_index=True, return_inverse=True)
    errors = samples[:, order]
    least = np.minimum.reduceat(errors, starts, axis=1)  # [q, levels]
    below = np.minimum.accumulate(least, axis=1)
    below = np.concatenate([np.full((len(samples), 1), np.inf), below[:, :-1]], axis=1)
    optimal = (least < below)[:, level] & (errors == least[:, level])
    shares = np.zeros(len(m))
    shares[order] = optimal.mean(axis=0)
    return shares


def near_best(
    samples: NDArray[np.float64], feasible: NDArray[np.bool_], tolerance: float = 0.0
) -> NDArray[np.float64]:
    """The share of ``samples`` [q, d] in which a feasible column is within ``tolerance`` of the best: [d].

    >>> near_best(np.array([[0.5, 0.4], [0.5, 0.6]]), np.array([True, True]))
    array([0.5, 0.5])
    """
    best = samples[:, feasible].min(axis=1, keepdims=True)
    return np.asarray((samples <= best + tolerance).mean(axis=0) * feasible)
