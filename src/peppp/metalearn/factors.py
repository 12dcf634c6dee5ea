"""What a table of other tasks says of a new one: factor analysis of the entries that were observed.

A task's errors are e = mean + W x + noise, with a few factors x ~ N(0, I) and a noise of its own variance for
each configuration, learned by expectation maximisation (Dempster et al., 1977; Rubin and Thayer, 1982).
Configurations of one group, as of equal Format A, have their mean and loadings around common ones; how
closely is learned with the rest. Not in the paper.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from peppp.metalearn.effects import row_and_column_effects
from peppp.metalearn.posterior import Posterior
from peppp.metalearn.threads import single_thread

_ITERATIONS = 40
_NOISE_COUNT = 3.0  # how many observations the pooled noise stands for in each configuration's own


@single_thread()
def learn(
    values: NDArray[np.float64],
    observed: NDArray[np.bool_],
    *,
    groups: NDArray[np.intp] | None = None,
    factors: int | None = None,
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
    >>> told.mean.round(1)
    array([0.6, 0.3])
    """
    mask = np.asarray(observed, dtype=bool)
    if not mask.any():
        raise ValueError("nothing is observed, so nothing can be learned")
    n, d = mask.shape
    rank = max(1, min(5, int(mask.sum()) // (4 * d)) if factors is None else min(factors, n, d))
    Y = np.where(mask, values, 0.5)
    weights = mask.astype(np.float64)  # [n, d]
    group = np.arange(d) if groups is None else np.unique(groups, return_inverse=True)[1]
    model, prior = _begin(Y, mask, group, rank)
    for _ in range(_ITERATIONS):
        x = _expect(model, Y, weights)
        model = _expanded(_maximise(model, prior, x, Y, weights), x)
    mean, W = model.C[:, 0], model.C[:, 1:]
    covariance = W @ W.T + np.diag(model.noise) + _unknown(model, prior)
    return Posterior(mean, covariance, model.noise)


@dataclass(frozen=True, slots=True)
class _Prior:
    """Groups: each configuration's ``group`` [d], as a matrix ``member`` [d, g], where their means and
    loadings are thought to lie (``anchor`` [g, 1 + k]), with the variance ``spread``.
    """

    group: NDArray[np.intp]
    member: NDArray[np.float64]
    anchor: NDArray[np.float64]
    spread: float


@dataclass(frozen=True, slots=True)
class _Model:
    """Means and loadings ``C`` [d, 1 + k], variances ``noise`` [d], and ``within`` [1 + k]: those of C around
    its group's. Covariances of what is not known: ``own`` [d, 1 + k, 1 + k] of C given the group's, and
    ``common`` [g, 1 + k, 1 + k] of the group's.
    """

    C: NDArray[np.float64]
    noise: NDArray[np.float64]
    within: NDArray[np.float64]
    own: NDArray[np.float64]
    common: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Factors:
    """Expectations of (1, x) [n, 1 + k] of the tasks, and of their squares [n, 1 + k, 1 + k]."""

    first: NDArray[np.float64]
    second: NDArray[np.float64]


def _begin(
    Y: NDArray[np.float64], mask: NDArray[np.bool_], group: NDArray[np.intp], rank: int
) -> tuple[_Model, _Prior]:
    """Column means and singular vectors of the table, gaps filled by row and column effects."""
    filled = np.where(mask, Y, row_and_column_effects(np.where(mask, Y, 0.0), mask))
    start = filled.mean(axis=0)  # [d]
    rest = filled - start
    spread = float((rest**2).mean()) + 1e-8  # variance of an entry around its column's mean
    _, S, Vt = np.linalg.svd(rest, full_matrices=False)
    C = np.column_stack([start, (Vt[:rank].T * S[:rank]) / np.sqrt(len(Y))])
    d, size = C.shape  # k may be less than asked for
    member = (group[:, None] == np.arange(group.max() + 1)).astype(np.float64)
    anchor = np.zeros((member.shape[1], size))
    anchor[:, 0] = (member.T @ start) / member.sum(axis=0)
    within = np.full(size, 0.1 * spread)
    own = np.tile(np.diag(within), (d, 1, 1))
    common = np.tile(spread * np.eye(size), (member.shape[1], 1, 1))
    model = _Model(C, np.full(d, 0.1 * spread), within, own, common)
    return model, _Prior(group, member, anchor, spread)


def _expect(model: _Model, Y: NDArray[np.float64], weights: NDArray[np.float64]) -> _Factors:
    """E step: each task's factors, given the model."""
    mean, W = model.C[:, 0], model.C[:, 1:]
    n, (d, rank) = len(Y), W.shape
    outer = (W[:, :, None] * W[:, None, :] / model.noise[:, None, None]).reshape(d, -1)
    covariance = np.linalg.inv((weights @ outer).reshape(n, rank, rank) + np.eye(rank))
    pull = (weights * (Y - mean) / model.noise) @ W  # [n, k]
    x = np.ones((n, rank + 1))
    x[:, 1:] = (covariance @ pull[..., None])[..., 0]
    second = x[:, :, None] * x[:, None, :]
    second[:, 1:, 1:] += covariance
    return _Factors(x, second)


def _maximise(
    model: _Model, prior: _Prior, factors: _Factors, Y: NDArray[np.float64], weights: NDArray[np.float64]
) -> _Model:
    """M step: the groups' means and loadings, around them each configuration's own, and the variances."""
    (d, size), unit = model.C.shape, np.eye(model.C.shape[1])
    noise, within, group, member = model.noise, model.within, prior.group, prior.member
    A = (weights.T @ factors.second.reshape(len(Y), -1)).reshape(d, size, size)
    B = (weights * Y).T @ factors.first  # [d, 1 + k]
    told = A / noise[:, None, None]  # [d, 1 + k, 1 + k], how much is known of each configuration's own
    apart = np.linalg.inv(unit + told * within)  # what of it counts for the group, by the variance within
    common = np.linalg.inv(np.tensordot(member.T, apart @ told, 1) + unit / prior.spread)
    evidence = member.T @ (apart @ (B / noise[:, None])[..., None])[..., 0]
    G = (common @ (evidence + prior.anchor / prior.spread)[..., None])[..., 0]  # [g, 1 + k]
    own = np.linalg.inv(told + unit / within)
    C = (own @ (B / noise[:, None] + G[group] / within)[..., None])[..., 0]
    felt = own @ told  # how a group's uncertainty moves the difference from it
    moved = np.einsum("jab,jbc,jac->ja", felt, common[group], felt)
    apart_by = ((C - G[group]) ** 2 + np.diagonal(own, axis1=1, axis2=2) + moved).mean(axis=0)
    within = np.concatenate([apart_by[:1], np.full(size - 1, apart_by[1:].mean())])
    squares = (weights * Y**2).sum(axis=0) - 2 * (C * B).sum(axis=1)
    squares = np.maximum(squares + np.einsum("ja,jab,jb->j", C, A, C), 0.0)
    counts = weights.sum(axis=0)
    pooled = squares.sum() / counts.sum() + 1e-4 * prior.spread
    noise = (squares + _NOISE_COUNT * pooled) / (counts + _NOISE_COUNT)
    return _Model(C, noise, within, own.astype(np.float64), common.astype(np.float64))


def _expanded(model: _Model, factors: _Factors) -> _Model:
    """The same model of factors that have mean 0 and covariance I again.

    Without, gaps make the loadings grow slowly (PX-EM: Liu, Rubin and Wu, 1998).
    """
    centre = factors.first[:, 1:].mean(axis=0)
    shape = factors.second[:, 1:, 1:].mean(axis=0) - np.outer(centre, centre)
    mean, W = model.C[:, 0], model.C[:, 1:]
    C = np.column_stack([mean + W @ centre, W @ np.linalg.cholesky(shape)])
    return _Model(C, model.noise, model.within, model.own, model.common)


def _unknown(model: _Model, prior: _Prior) -> NDArray[np.float64]:
    """The covariance [d, d] of what is not known: of a configuration alone, and of its group, which all that
    lean on it share.
    """
    shared = (model.own / model.within) @ np.linalg.cholesky(model.common)[prior.group]
    shared = shared.reshape(len(model.C), -1)
    alone = np.trace(model.own, axis1=1, axis2=2)
    return np.asarray((shared @ shared.T) * (prior.member @ prior.member.T) + np.diag(alone))
