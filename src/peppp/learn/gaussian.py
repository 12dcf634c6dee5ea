"""Learn a Gaussian over a new task's noise-free errors from a table of noisy runs.

The error of a run of task t at column j is y = f_t(j) + e. The noise e has a separate variance for each group
of columns (each Format A). A pick is about the noise-free errors f_t ~ N(mu, K). The prior of the mean ``mu``
is a constant level with covariance K / 0.3. The covariance ``K`` is learned in two steps. First, the weights
of an analysis-of-variance kernel over the bits of the formats, and the noise variances, are fitted to
maximise the marginal likelihood (by minorise-maximise: Zhou et al., 2019). Then a few steps of expectation
maximisation let K deviate from that kernel (an inverse-Wishart prior: Schwaighofer, Tresp and Yu, 2005). The
posterior of a new task's f is an exact Gaussian. This model is not in the paper.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, groupby

import numpy as np
from numpy.typing import NDArray

from peppp.errors import ArgumentError
from peppp.learn.threads import single_thread

Array = NDArray[np.float64]

LEVEL_WEIGHT = 0.3  # weight of the prior that the mean is a constant level, in tasks
KERNEL_WEIGHT = 10.0  # weight of the kernel in the covariance, in tasks
NOISE_WEIGHT = 3.0  # weight of the pooled noise variance in each group's variance, in runs
SCALE_WEIGHT = 8.0  # weight of the prior that a new task varies as the table's do, in measured errors
LENGTH = 1.3  # length scale of the kernel, in standard deviations of a coordinate
LEAST_SHARE = 2e-3  # components with a smaller share of the covariance are dropped
_KERNEL_STEPS, _SHAPE_STEPS = 30, 8


@dataclass(frozen=True, slots=True, eq=False)
class Runs:
    """Runs of n tasks at d columns: their means [n, d], ``counts`` [n, d], and each task's weight [n].

    ``squares`` [n, d] sums the squared distances of the runs from their mean. Means and squares are ignored
    where the count is 0.
    """

    means: Array
    counts: Array
    squares: Array
    weights: Array


@dataclass(frozen=True, slots=True, eq=False)
class Gaussian:
    """The belief N(``mean`` [d], ``covariance`` [d, d]) about noise-free errors; a run adds ``noise`` [d]."""

    mean: Array
    covariance: Array
    noise: Array

    @property
    def deviation(self) -> Array:
        """The standard deviation of the noise-free errors [d]."""
        return np.sqrt(np.maximum(np.diag(self.covariance), 0.0))

    def times(self, scale: float) -> "Gaussian":
        """The belief about the errors times ``scale``."""
        return Gaussian(scale * self.mean, scale**2 * self.covariance, scale**2 * self.noise)

    def take(self, columns: Sequence[int]) -> "Gaussian":
        """The belief about some of the columns."""
        j = list(columns)
        return Gaussian(self.mean[j], self.covariance[np.ix_(j, j)], self.noise[j])

    @single_thread()
    def given(self, measured: Mapping[int, float]) -> "Gaussian":
        """The belief after one run at each of some columns, whose errors are in ``measured``.

        Runs are noisy, so none settles an error. A task that varies more or less than the table's tasks
        stretches the covariance by one factor with an inverse-gamma prior, estimated from the measured
        errors (a Student-t process: Shah et al., 2014).

        >>> prior = Gaussian(np.array([0.4, 0.6]), np.array([[0.02, 0.01], [0.01, 0.02]]), np.full(2, 0.02))
        >>> prior.given({0: 0.2}).mean.round(3)
        array([0.3 , 0.55])
        """
        if not measured:
            return self
        j, errors = list(measured), np.array(list(measured.values()))
        r, inner, noise = errors - self.mean[j], self.covariance[np.ix_(j, j)], np.diag(self.noise[j])
        stretch = 1.0
        for _ in range(3):
            distance = r @ np.linalg.solve(stretch * inner + noise, r)
            stretch = max(0.5, stretch * float(SCALE_WEIGHT + distance) / (SCALE_WEIGHT + len(j)))
        K = stretch * self.covariance
        gain = np.linalg.solve(stretch * inner + noise, K[j]).T
        covariance = K - gain @ K[j]
        return replace(self, mean=self.mean + gain @ r, covariance=0.5 * (covariance + covariance.T))

    def sample(self, count: int, seed: int = 0) -> Array:
        """Draw ``count`` samples of the noise-free errors: [count, d]."""
        values, vectors = np.linalg.eigh(self.covariance)
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        draws = np.random.default_rng(seed).standard_normal((count, len(values)))
        return np.asarray(self.mean + draws @ root.T)


@single_thread()
def learn(
    runs: Runs,
    coordinates: Array | None,
    groups: NDArray[np.intp],
    *,
    noise: float | None = None,
    apart: NDArray[np.bool_] | None = None,
) -> Gaussian:
    """Learn the belief about a new task's errors from the runs of other tasks.

    ``coordinates`` [d, k] describe the columns, for example by the bits of their formats; None if nothing
    describes them. Columns with the same number in ``groups`` [d] have equally noisy runs. ``noise`` is the
    variance of a run if it is known; otherwise it is learned. Columns marked in ``apart`` [d] may also differ
    in ways that their coordinates do not describe. The covariance includes the uncertainty of the mean, which
    is larger where the table has gaps. Raises ValueError if there is no run.
    """
    if not (runs.counts > 0).any():
        raise ArgumentError("there is no run, so nothing can be learned")
    table = _Table(runs, groups)
    d = runs.counts.shape[1]
    alone = np.full(d, coordinates is None or noise is not None)
    components = _components(coordinates, alone if apart is None else alone | apart)
    shares = np.full(len(components), table.spread / len(components))
    variance = np.full(groups.max() + 1, 0.05 * table.spread if noise is None else max(noise, table.least))
    for _ in range(_KERNEL_STEPS):
        found = table.look(np.tensordot(shares, components, 1), variance)
        up, down = (np.tensordot(components, s, 2) for s in (found.pulls, found.precision))
        shares = np.maximum(shares * np.sqrt(np.maximum(up, 0.0) / np.maximum(down, 1e-300)), table.least)
        if noise is None:
            variance = table.noise_by_likelihood(found, variance)
    shares = np.where(shares < LEAST_SHARE * shares.sum(), 0.0, shares)
    kernel = np.tensordot(shares, components, 1)
    K = kernel
    for _ in range(_SHAPE_STEPS):
        found = table.look(K, variance)
        total = table.tasks * K + K @ (found.pulls - found.precision) @ K
        if noise is None:
            variance = table.noise_by_residuals(found, variance)
        K = (KERNEL_WEIGHT * kernel + 0.5 * (total + total.T)) / (KERNEL_WEIGHT + table.tasks)
    found = table.look(K, variance)
    return Gaussian(found.mean, K + found.unsure, variance[groups])


def _components(coordinates: Array | None, alone: NDArray[np.bool_]) -> Array:
    """Kernels [c, d, d]: a constant, one for each coordinate, each pair and all, and one for ``alone`` [d].

    The last makes each marked column vary independently. It is meant for columns that have a known noise, no
    coordinates, or coordinates that do not describe them fully; elsewhere such variation counts as noise.
    """
    d = len(alone)
    found = [np.ones((d, d))]
    if coordinates is not None:
        spread = coordinates.std(axis=0)
        X = (coordinates - coordinates.mean(axis=0))[:, spread > 0] / spread[spread > 0]
        single = [np.exp(-0.5 * ((x[:, None] - x) / LENGTH) ** 2) for x in X.T]
        found += single + [a * b for a, b in combinations(single, 2)]
        if len(single) > 2:
            found.append(np.prod(single, axis=0))
    if alone.any():
        found.append(np.diag(alone.astype(np.float64)))
    return np.array(found)


@dataclass(frozen=True, slots=True)
class _Look:
    """What follows from the table at one covariance and noise. Sums are over tasks, weighted.

    ``mean`` [d] is the estimated mean of all tasks, and ``unsure`` [d, d] its covariance. Let Q be the
    inverse covariance of a task's entries, and r their distances from the mean. ``precision`` [d, d] sums Q,
    and ``pulls`` [d, d] sums Q r (Q r)'. ``a`` and ``q`` [entries] are Q r and the diagonals of Q.
    """

    mean: Array
    unsure: Array
    precision: Array
    pulls: Array
    a: Array
    q: Array


@dataclass(frozen=True, slots=True)
class _Batch:
    """Tasks with runs at m columns each, as kinds: tasks with equally many runs at the same columns.

    ``columns`` [kinds, m] are the columns of each kind, and ``entries`` [kinds] the slice of its entries.
    ``place`` [kinds * m * m] says where a matrix over the columns of each kind lies in one over all columns.
    """

    columns: NDArray[np.intp]
    entries: tuple[slice, ...]
    place: NDArray[np.intp]


class _Table:
    """The runs, kind by kind: the tasks of a kind share a covariance, so one inverse serves them all."""

    def __init__(self, runs: Runs, groups: NDArray[np.intp]) -> None:
        known = runs.counts > 0
        self.d, self.groups = runs.counts.shape[1], groups
        self.tasks = float(runs.weights[known.any(axis=1)].sum())
        kinds = defaultdict[bytes, list[int]](list)
        for row in np.flatnonzero(known.any(axis=1)).tolist():
            kinds[runs.counts[row].tobytes()].append(row)
        sizes = known.sum(axis=1)
        by_size = sorted(kinds.values(), key=lambda rows: int(sizes[rows[0]]))
        self._row = np.concatenate([np.repeat(rows, sizes[rows[0]]) for rows in by_size])
        self._column = np.concatenate(
            [np.tile(np.flatnonzero(known[rows[0]]), len(rows)) for rows in by_size]
        )
        self._batches = []
        start = 0
        for m, of_size in groupby(by_size, key=lambda rows: int(sizes[rows[0]])):
            entries = []
            for rows in of_size:
                entries.append(slice(start, start + len(rows) * m))
                start += len(rows) * m
            columns = np.array([self._column[its.start : its.start + m] for its in entries])
            place = (columns[:, :, None] * self.d + columns[:, None, :]).ravel()
            self._batches.append(_Batch(columns, tuple(entries), place))
        at = self._row, self._column
        self._y, self._count, self._square = runs.means[at], runs.counts[at], runs.squares[at]
        self._weight, self._group = runs.weights[self._row], groups[self._column]
        self.level = float(np.average(self._y, weights=self._weight))
        # If all errors are equal, assume that they vary by a hundredth of their level.
        self.spread = float(self._y.var()) + (0.01 * self.level) ** 2 + 1e-12
        self.least = 1e-4 * self.spread

    def look(self, K: Array, noise: Array) -> _Look:
        """Compute what the learning steps need, at the covariance K and the noise of each group."""
        d, variance = self.d, noise[self._group] / self._count
        inverses = []
        P = np.zeros((d, d))
        for batch in self._batches:
            m = batch.columns.shape[1]
            inner = K[batch.columns[:, :, None], batch.columns[:, None, :]]  # [kinds, m, m]
            inner[:, np.arange(m), np.arange(m)] += [
                variance[its.start : its.start + m] for its in batch.entries
            ]
            Q = np.linalg.inv(inner).astype(np.float64)
            inverses.append(Q)
            weights = np.array([self._weight[its].sum() / m for its in batch.entries])
            P += self._placed(batch, Q * weights[:, None, None])
        pull = np.bincount(self._column, self._weight * self._through(inverses, self._y - self.level), d)
        unsure = np.linalg.solve(LEVEL_WEIGHT * np.eye(d) + K @ P, K)
        unsure = 0.5 * (unsure + unsure.T)
        mean = self.level + unsure @ pull
        a = self._through(inverses, self._y - mean[self._column])
        half = np.sqrt(self._weight) * a
        pulls = np.zeros((d, d))
        for batch in self._batches:
            rows = [half[its].reshape(-1, batch.columns.shape[1]) for its in batch.entries]
            pulls += self._placed(batch, np.array([of.T @ of for of in rows]))
        q = np.concatenate(
            [
                np.tile(np.diagonal(of_kind), (its.stop - its.start) // len(of_kind))
                for batch, Q in zip(self._batches, inverses, strict=True)
                for its, of_kind in zip(batch.entries, Q, strict=True)
            ]
        )
        return _Look(mean, unsure, P, pulls, a, q)

    def noise_by_likelihood(self, found: _Look, noise: Array) -> Array:
        """The noise variance of each group after one step towards the maximum marginal likelihood."""
        old, w, k = noise[self._group], self._weight, self._count
        up = self._by_group(w * (found.a**2 / k + self._square / old**2))
        down = self._by_group(w * (found.q / k + (k - 1) / old))
        return np.maximum(noise * np.sqrt(up / np.maximum(down, 1e-300)), self.least)

    def noise_by_residuals(self, found: _Look, noise: Array) -> Array:
        """The expected squared residual of a run in each group, shrunk towards the average of all groups."""
        old, k = noise[self._group], self._count
        variance = old / k
        off = (variance * found.a) ** 2 + variance - variance**2 * found.q
        squares = self._by_group(self._weight * (self._square + k * off))
        counts = self._by_group(self._weight * k)
        pooled = squares.sum() / counts.sum()
        own = (squares + NOISE_WEIGHT * pooled) / (counts + NOISE_WEIGHT)
        return np.asarray(np.maximum(own, self.least))

    def _by_group(self, values: Array) -> Array:
        return np.bincount(self._group, values, self.groups.max() + 1).astype(np.float64)

    def _through(self, inverses: list[Array], values: Array) -> Array:
        """Multiply the inverse covariance of each task by its values [entries]."""
        found = np.empty_like(values)
        for batch, Q in zip(self._batches, inverses, strict=True):
            for its, of_kind in zip(batch.entries, Q, strict=True):
                found[its] = (values[its].reshape(-1, len(of_kind)) @ of_kind).ravel()
        return found

    def _placed(self, batch: _Batch, matrices: Array) -> Array:
        """The sum [d, d] of matrices [kinds, m, m], each over the columns of its kind."""
        summed = np.bincount(batch.place, matrices.ravel(), self.d**2)
        return summed.astype(np.float64).reshape(self.d, self.d)
