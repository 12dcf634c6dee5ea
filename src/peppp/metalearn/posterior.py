"""What is believed of a task's errors, and how sure: a Gaussian over all of them, and what follows of it.

Measuring some configurations conditions it exactly, so that no, one or two measurements are answered like
many. Where it comes from is told in factors.py. Not in the paper.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri


@dataclass(frozen=True, slots=True)
class Posterior:
    """Belief about the d errors of one task: N(``mean`` [d], ``covariance`` [d, d]).

    ``noise`` [d] are the variances that no other configuration tells anything of, the run's own among them.
    """

    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]
    noise: NDArray[np.float64] | None = None

    def take(self, columns: Sequence[int]) -> "Posterior":
        """The belief about some of the configurations, by their indices."""
        j = list(columns)
        noise = None if self.noise is None else self.noise[j]
        return Posterior(self.mean[j], self.covariance[np.ix_(j, j)], noise)

    @property
    def deviation(self) -> NDArray[np.float64]:
        """Standard deviations [d]; zero where measured."""
        return np.sqrt(np.maximum(np.diag(self.covariance), 0.0))

    def given(self, measured: Sequence[int], errors: ArrayLike) -> "Posterior":
        """The belief after the ``measured`` configurations (indices) turned out to have these ``errors``.

        >>> prior = Posterior(np.array([0.4, 0.6]), np.array([[0.02, 0.01], [0.01, 0.02]]))
        >>> prior.given([0], [0.2]).mean.round(6), prior.given([0], [0.2]).deviation.round(3)
        (array([0.2, 0.5]), array([0.   , 0.122]))
        """
        S = list(measured)
        if not S:
            return self
        K = self.covariance[:, S]  # [d, l]
        jitter = 1e-10 * np.trace(K[S]) / len(S) + 1e-300
        factor = scipy.linalg.cho_factor(K[S] + jitter * np.eye(len(S)), lower=True, check_finite=False)
        gain = scipy.linalg.cho_solve(factor, K.T, check_finite=False).T  # [d, l]
        told = np.asarray(errors, dtype=np.float64)
        mean = self.mean + gain @ (told - self.mean[S])
        covariance = self.covariance - gain @ K.T
        mean[S], covariance[S], covariance[:, S] = told, 0.0, 0.0  # exactly, whatever rounding leaves
        return Posterior(mean, 0.5 * (covariance + covariance.T), self.noise)

    def interval(self, quantile: float = 1.6449) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Lower and upper ends [d]: ``quantile`` deviations around the mean; 1.6449 are 90 % of a Gaussian.

        >>> Posterior(np.array([0.5]), np.array([[0.01]])).interval(2.0)
        (array([0.3]), array([0.7]))
        """
        reach = quantile * self.deviation
        return self.mean - reach, self.mean + reach

    def sample(self, count: int, seed: int | Sequence[int] = 0) -> NDArray[np.float64]:
        """Errors of ``count`` tasks as they may be: [count, d]."""
        values, vectors = np.linalg.eigh(self.covariance)
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        draws = np.random.default_rng(seed).standard_normal((count, len(values)))
        return np.asarray(self.mean + draws @ root.T)


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
    """The share of the ``samples`` [q, d] in which each is within ``tolerance`` of the best feasible: [d].

    >>> near_best(np.array([[0.5, 0.4], [0.5, 0.6]]), np.array([True, True]))
    array([0.5, 0.5])
    """
    best = samples[:, feasible].min(axis=1, keepdims=True)
    return np.asarray((samples <= best + tolerance).mean(axis=0) * feasible)


def chance_of_change(
    estimate: NDArray[np.float64],
    covariance: NDArray[np.float64],
    measurable: NDArray[np.bool_],
    feasible: NDArray[np.bool_],
    tolerance: float,
) -> float:
    """How probably the most telling single measurement would change the choice for one better by more.

    Measuring j moves all estimates along column j of the ``covariance`` by one normal deviate. The choice is
    the feasible configuration of least ``estimate``; a change counts if it then lies more than ``tolerance``
    above the new best. What was measured has no variance and so cannot tell any more.

    >>> still = np.array([True, True])
    >>> chance_of_change(np.array([0.2, 0.8]), np.diag([1e-4, 1e-4]), still, still, 0.01)
    0.0
    """
    candidates = np.flatnonzero(measurable & (np.diag(covariance) > 1e-12))
    if not len(candidates):
        return 0.0
    within = np.flatnonzero(feasible)
    deviates = ndtri((np.arange(64) + 0.5) / 64)
    deviation = np.sqrt(np.diag(covariance)[candidates])
    moves = covariance[np.ix_(candidates, within)] / deviation[:, None]  # [c, w]
    pick = int(estimate[within].argmin())
    moved = estimate[within] + deviates[:, None, None] * moves  # [64, c, w]
    changed = moved[..., pick] > moved.min(axis=2) + tolerance  # [64, c]
    return float(changed.mean(axis=0).max())
