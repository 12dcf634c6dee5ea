"""Intervals for means over tasks that come in families: the bootstrap over families (Efron, 1979)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and its confidence interval at ``level``."""

    mean: float
    low: float
    high: float
    level: float = 0.95

    def __str__(self) -> str:
        return f"{self.mean:.3g} [{self.low:.3g}, {self.high:.3g}]"


def family_mean(
    values: ArrayLike, families: Sequence[str], *, level: float = 0.95, draws: int = 2000, seed: int = 0
) -> Interval:
    """The mean over families of the mean over their rows: every family weighs the same, however large.

    ``values`` [n] are those of rows, and ``families`` [n] name their families; rows with NaN are left out.
    The interval is the percentile bootstrap over whole families, with ``draws`` resamples. It is infinite for
    a single family, and everything is NaN without any.

    >>> family_mean([0.2, 0.2, 0.2, 0.4], ["a", "a", "a", "b"]).mean
    0.30000000000000004
    """
    means = _by_family(np.asarray(values, dtype=np.float64), families)
    if not len(means):
        return Interval(np.nan, np.nan, np.nan, level)
    if len(means) == 1:
        return Interval(float(means[0]), -np.inf, np.inf, level)
    drawn = np.random.default_rng(seed).integers(len(means), size=(draws, len(means)))
    low, high = np.quantile(means[drawn].mean(axis=1), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(means.mean()), float(low), float(high), level)


def family_ratio(
    values: ArrayLike,
    reference: ArrayLike,
    families: Sequence[str],
    *,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> Interval:
    """The ratio of two :func:`family_mean`, resampled together: below 1 if ``values`` [n] are smaller.

    Rows with NaN in ``values`` or ``reference`` [n] are left out. The ratio is NaN if no row is left, or the
    mean of the reference is 0. With a single family the interval is [0, inf].

    >>> family_ratio([0.1, 0.2], [0.2, 0.4], ["a", "b"])
    Interval(mean=0.5, low=0.5, high=0.5, level=0.95)
    """
    top, bottom = np.asarray(values, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    both = np.isfinite(top) & np.isfinite(bottom)
    top = _by_family(np.where(both, top, np.nan), families)
    bottom = _by_family(np.where(both, bottom, np.nan), families)
    if not len(top) or bottom.mean() == 0:
        return Interval(np.nan, np.nan, np.nan, level)
    ratio = float(top.mean() / bottom.mean())
    if len(top) == 1:
        return Interval(ratio, 0.0, np.inf, level)
    drawn = np.random.default_rng(seed).integers(len(top), size=(draws, len(top)))
    below = bottom[drawn].mean(axis=1)
    ratios = top[drawn].mean(axis=1) / np.where(below > 0, below, np.nan)
    low, high = np.nanquantile(ratios, [(1 - level) / 2, (1 + level) / 2])
    return Interval(ratio, float(low), float(high), level)


def _by_family(values: NDArray[np.float64], families: Sequence[str]) -> NDArray[np.float64]:
    """The mean of the rows of each family, without NaN; families with nothing but NaN are left out."""
    labels = np.unique(np.asarray(families), return_inverse=True)[1]
    known = np.isfinite(values)
    sums = np.bincount(labels[known], weights=values[known], minlength=labels.max(initial=-1) + 1)
    counts = np.bincount(labels[known], minlength=labels.max(initial=-1) + 1)
    return np.asarray(sums[counts > 0] / counts[counts > 0])
