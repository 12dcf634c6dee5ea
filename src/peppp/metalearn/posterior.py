"""What a table of other tasks says of a new one, with how sure it is: a Gaussian over all its errors.

A task's errors are e = mean + W x + noise, with a few factors x ~ N(0, I) and a noise of its own variance for
each configuration: factor analysis, learned from the observed entries alone by expectation maximisation
(Dempster et al., 1977; Rubin and Thayer, 1982). Configurations of one group, as of equal Format A, have their
mean and loadings around common ones; how closely is learned with the rest. Measuring some configurations
conditions the Gaussian exactly, so that no, one or two measurements are answered like many. Not in the paper.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.linalg
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit, ndtri

from peppp.metalearn.effects import row_and_column_effects
from peppp.metalearn.threads import single_thread

Transform = Literal["identity", "logit"]
_EDGE = 0.005  # logits of errors beyond it would be all noise
_NOISE_COUNT = 3.0  # how many observations the pooled noise stands for in each configuration's own


@dataclass(frozen=True, slots=True)
class Posterior:
    """Belief about the d errors of one task: N(``mean`` [d], ``covariance`` [d, d]) of transformed errors.

    ``noise`` [d] are the variances that no other configuration tells anything of, the run's own among them.
    """

    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]
    transform: Transform = "identity"
    noise: NDArray[np.float64] | None = None

    def take(self, columns: Sequence[int]) -> "Posterior":
        """The belief about some of the configurations, by their indices."""
        j = list(columns)
        noise = None if self.noise is None else self.noise[j]
        return Posterior(self.mean[j], self.covariance[np.ix_(j, j)], self.transform, noise)

    @property
    def errors(self) -> NDArray[np.float64]:
        """The median error of each configuration [d], not clipped."""
        return _back(self.mean, self.transform)

    @property
    def deviation(self) -> NDArray[np.float64]:
        """Standard deviations [d] of the transformed errors; zero where measured."""
        return np.sqrt(np.maximum(np.diag(self.covariance), 0.0))

    @property
    def error_deviation(self) -> NDArray[np.float64]:
        """Standard deviations [d] of the errors: those of the transformed ones times the slope there."""
        return self.deviation * self.slope

    @property
    def error_covariance(self) -> NDArray[np.float64]:
        """The covariance [d, d] of the errors, likewise."""
        return self.covariance * self.slope * self.slope[:, None]

    @property
    def slope(self) -> NDArray[np.float64]:
        """How fast the error changes with its transform [d]."""
        if self.transform == "identity":
            return np.ones_like(self.mean)
        return np.asarray(self.errors * (1 - self.errors))

    def given(self, measured: Sequence[int], errors: ArrayLike) -> "Posterior":
        """The belief after the ``measured`` configurations (indices) turned out to have these ``errors``.

        >>> prior = Posterior(np.array([0.4, 0.6]), np.array([[0.02, 0.01], [0.01, 0.02]]))
        >>> prior.given([0], [0.2]).errors.round(6), prior.given([0], [0.2]).deviation.round(3)
        (array([0.2, 0.5]), array([0.   , 0.122]))
        """
        S = list(measured)
        if not S:
            return self
        K = self.covariance[:, S]  # [d, l]
        jitter = 1e-10 * np.trace(K[S]) / len(S) + 1e-300
        factor = scipy.linalg.cho_factor(K[S] + jitter * np.eye(len(S)), lower=True, check_finite=False)
        gain = scipy.linalg.cho_solve(factor, K.T, check_finite=False).T  # [d, l]
        told = transformed(np.asarray(errors, dtype=np.float64), self.transform)
        mean = self.mean + gain @ (told - self.mean[S])
        covariance = self.covariance - gain @ K.T
        mean[S], covariance[S], covariance[:, S] = told, 0.0, 0.0  # exactly, whatever rounding leaves
        return Posterior(mean, 0.5 * (covariance + covariance.T), self.transform, self.noise)

    def interval(self, quantile: float = 1.6449) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Lower and upper ends [d]: ``quantile`` deviations around the median; 1.6449 are 90 % of a Gaussian.

        >>> Posterior(np.array([0.5]), np.array([[0.01]])).interval(2.0)
        (array([0.3]), array([0.7]))
        """
        reach = quantile * self.deviation
        return _back(self.mean - reach, self.transform), _back(self.mean + reach, self.transform)

    def sample(self, count: int, seed: int | Sequence[int] = 0) -> NDArray[np.float64]:
        """Errors of ``count`` tasks as they may be: [count, d]."""
        values, vectors = np.linalg.eigh(self.covariance)
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        draws = np.random.default_rng(seed).standard_normal((count, len(values)))
        return _back(self.mean + draws @ root.T, self.transform)


@single_thread()
def learn(
    values: NDArray[np.float64],
    observed: NDArray[np.bool_],
    *,
    groups: NDArray[np.intp] | None = None,
    factors: int | None = None,
    transform: Transform = "identity",
    iterations: int = 40,
) -> Posterior:
    """The belief about a new task's errors before any of them is measured, from a table [n, d].

    Only the ``observed`` entries of ``values`` are looked at. ``groups`` [d] number the configurations that
    are thought alike (default: none are). Means, loadings and noise are shrunk: a configuration of which
    little is known takes them from its group, a group its mean from the row and column effects. What is not
    known of them, as where the table has gaps, is added to the covariance (completion variance).
    ``factors`` is by default a quarter of the observations that a configuration has, from 1 to 5.

    Raises ValueError on an empty table.

    >>> E = np.outer(np.linspace(0.2, 0.8, 9), [1.0, 0.5])  # tasks differ in one factor
    >>> told = learn(E, np.ones_like(E, dtype=bool)).given([0], [0.6])
    >>> told.errors.round(1)
    array([0.6, 0.3])
    """
    mask = np.asarray(observed, dtype=bool)
    if not mask.any():
        raise ValueError("nothing is observed, so nothing can be learned")
    n, d = mask.shape
    rank = max(1, min(5, int(mask.sum()) // (4 * d)) if factors is None else min(factors, n, d))
    Y = transformed(np.where(mask, values, 0.5), transform)
    weights = mask.astype(np.float64)  # [n, d]
    filled = np.where(mask, Y, row_and_column_effects(np.where(mask, Y, 0.0), mask))
    start = filled.mean(axis=0)  # [d]
    rest = filled - start
    spread = float((rest**2).mean()) + 1e-8  # variance of an entry around its column's mean
    _, S, Vt = np.linalg.svd(rest, full_matrices=False)
    C = np.column_stack([start, (Vt[:rank].T * S[:rank]) / np.sqrt(n)])  # [d, 1 + k]: mean and loadings
    rank = C.shape[1] - 1
    noise = np.full(d, 0.1 * spread)
    counts = weights.sum(axis=0)
    group = np.arange(d) if groups is None else np.unique(groups, return_inverse=True)[1]
    member = (group[:, None] == np.arange(group.max() + 1)).astype(np.float64)  # [d, g]
    anchor = np.zeros((member.shape[1], rank + 1))
    anchor[:, 0] = (member.T @ start) / member.sum(axis=0)
    within = np.full(rank + 1, 0.1 * spread)  # variance of mean and loadings around their group's
    unit = np.eye(rank + 1)
    for _ in range(iterations):
        mean, W = C[:, 0], C[:, 1:]
        outer = (W[:, :, None] * W[:, None, :] / noise[:, None, None]).reshape(d, -1)
        covariance = np.linalg.inv((weights @ outer).reshape(n, rank, rank) + np.eye(rank))
        pull = (weights * (Y - mean) / noise) @ W  # [n, k]
        x = np.ones((n, rank + 1))
        x[:, 1:] = (covariance @ pull[..., None])[..., 0]
        second = x[:, :, None] * x[:, None, :]  # [n, 1 + k, 1 + k], E[x x^T] with the covariance
        second[:, 1:, 1:] += covariance
        A = (weights.T @ second.reshape(n, -1)).reshape(d, rank + 1, rank + 1)
        B = (weights * Y).T @ x  # [d, 1 + k]
        told = A / noise[:, None, None]  # [d, 1 + k, 1 + k], how much is known of each configuration's own
        apart = np.linalg.inv(unit + told * within)  # what of it counts for the group, by the variance within
        common = np.linalg.inv(np.tensordot(member.T, apart @ told, 1) + unit / spread)  # [g, 1 + k, 1 + k]
        evidence = member.T @ (apart @ (B / noise[:, None])[..., None])[..., 0]
        G = (common @ (evidence + anchor / spread)[..., None])[..., 0]  # [g, 1 + k]
        own = np.linalg.inv(told + unit / within)  # [d, 1 + k, 1 + k]
        C = (own @ (B / noise[:, None] + G[group] / within)[..., None])[..., 0]
        felt = own @ told  # how a group's uncertainty moves the difference from it
        moved = np.einsum("jab,jbc,jac->ja", felt, common[group], felt)
        apart_by = ((C - G[group]) ** 2 + np.diagonal(own, axis1=1, axis2=2) + moved).mean(axis=0)
        within[0], within[1:] = apart_by[0], apart_by[1:].mean()
        squares = (weights * Y**2).sum(axis=0) - 2 * (C * B).sum(axis=1)
        squares = np.maximum(squares + np.einsum("ja,jab,jb->j", C, A, C), 0.0)
        pooled = squares.sum() / counts.sum() + 1e-4 * spread
        noise = (squares + _NOISE_COUNT * pooled) / (counts + _NOISE_COUNT)
        # Expand the parameters, else gaps make the loadings grow slowly (PX-EM: Liu, Rubin and Wu, 1998).
        centre = x[:, 1:].mean(axis=0)
        shape = second[:, 1:, 1:].mean(axis=0) - np.outer(centre, centre)
        C[:, 0] += C[:, 1:] @ centre
        C[:, 1:] = C[:, 1:] @ np.linalg.cholesky(shape)
    # What is unknown of a configuration alone, and of its group: shared by those that lean on it.
    shared = ((own / within) @ np.linalg.cholesky(common)[group]).reshape(d, -1)
    unknown = (shared @ shared.T) * (member @ member.T) + np.diag(np.trace(own, axis1=1, axis2=2))
    mean, W = C[:, 0], C[:, 1:]
    return Posterior(mean, W @ W.T + np.diag(noise) + unknown, transform, noise)


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


def transformed(errors: NDArray[np.float64], transform: Transform) -> NDArray[np.float64]:
    """Errors, or their logits."""
    return errors if transform == "identity" else np.asarray(logit(np.clip(errors, _EDGE, 1 - _EDGE)))


def _back(values: NDArray[np.float64], transform: Transform) -> NDArray[np.float64]:
    return values if transform == "identity" else np.asarray(expit(values))
