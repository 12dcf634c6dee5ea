"""The default strategy, ``gaussian``: it picks by noise-free errors, and stops when a run is not worth it.

A measured error is one noisy run, so it moves the estimate but does not replace it. The next run is the one
that is expected to improve the pick most (the knowledge gradient: Frazier, Powell and Dayanik, 2009). The
strategy stops once no run is expected to lower the error by more than ``WORTH``. It is not in the paper.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from peppp import pareto
from peppp.formats import FP32
from peppp.learn.belief import GAUSSIAN_90, Belief, near_best, on_frontier
from peppp.learn.completion import Completion
from peppp.learn.descriptors import describe
from peppp.learn.gaussian import Gaussian, Runs, learn
from peppp.learn.methods import Method
from peppp.learn.task import Measured, Task
from peppp.precisions.named import NamedPrecision
from peppp.table.labels import Label, TunedConfiguration, plain

WORTH = 1e-3  # a run must be expected to lower the error by more than this
TOLERANCE = 2e-3  # estimates this close count as equal, and the one with the least memory is picked
_SAMPLES = 1000
_FEWEST_TASKS = 3  # fewer do not show how much tasks differ
_DEVIATES = ndtri((np.arange(64) + 0.5) / 64)  # standard normal deviates of equal probability


class NoiseFree:
    """A :class:`peppp.learn.strategy.Strategy` based on :mod:`peppp.learn.gaussian`.

    ``columns`` lists the table's columns that belong to the task (default: all, in order). ``beyond`` holds
    known errors at other columns of the table, for example at fp32. ``worth`` and ``tolerance`` are errors,
    as fractions. ``noise`` is the standard deviation of a run's error (None: learn it from the table).
    """

    sequential, settles = True, False

    def __init__(
        self,
        method: Method,
        learned: Completion,
        task: Task,
        measurements: int,
        *,
        columns: Sequence[int] | None = None,
        beyond: Measured | None = None,
        worth: float = WORTH,
        tolerance: float = TOLERANCE,
        noise: float | None = None,
    ) -> None:
        self.method, self.task, self.rank = method, task, 0
        self._measurements, self._worth, self.tolerance = measurements, worth, tolerance
        variance = None if noise is None else (noise / task.scale) ** 2
        self._prior = belief_of(learned, variance).times(task.scale)
        self._columns = list(range(len(task.memory))) if columns is None else list(columns)
        self._beyond = dict(beyond or {})
        self._tasks = int(learned.observed.any(axis=1).sum())

    def next(self, measured: Measured, count: int = 1) -> list[int]:
        """The next columns to measure; none once enough were measured, or no run is worth it.

        Each column of a batch is chosen as if the ones before it had come out as expected.
        """
        believed, chosen = dict(measured), list[int]()
        for _ in range(min(count, self._measurements - len(measured))):
            now = self._now(believed)
            gains = savings(now, self.task, list(believed))
            best = self._least_memory(np.flatnonzero(gains >= gains.max() - 1e-9))
            if gains[best] <= self._worth:
                break
            chosen.append(best)
            believed[best] = float(now.mean[best])
        return chosen

    def predict(self, measured: Measured) -> NDArray[np.float64]:
        """The expected noise-free errors [d], also of the measured columns."""
        return np.clip(self._now(measured).mean, 0.0, 1.0)

    def errors(self, measured: Measured) -> NDArray[np.float64]:
        """Like :meth:`predict`: a measured error is one noisy run and settles nothing."""
        return self.predict(measured)

    def pick(self, measured: Measured) -> int:
        """The column of least memory among the feasible ones within the tolerance of the least error."""
        errors = np.where(self.task.feasible, pareto.settled(self.predict(measured)), np.inf)
        near = np.flatnonzero(errors <= errors.min() + self.tolerance)
        return int(near[np.lexsort((errors[near], self.task.memory[near]))[0]])

    def believe(self, measured: Measured, tolerance: float = 0.01) -> Belief:
        """90 % intervals of the noise-free errors, and probabilities; unknown from fewer than three tasks."""
        now = self._now(measured)
        if self._tasks < _FEWEST_TASKS:
            return Belief.unknown(len(now.mean))
        reach = GAUSSIAN_90 * now.deviation
        samples = np.clip(now.sample(_SAMPLES), 0.0, 1.0)
        return Belief(
            np.clip(now.mean - reach, 0.0, 1.0),
            np.clip(now.mean + reach, 0.0, 1.0),
            on_frontier(samples, self.task.memory, self.task.feasible),
            near_best(samples, self.task.feasible, tolerance),
            now.covariance,
            now.noise,
        )

    def saving(self, measured: Measured) -> float:
        """By how much the best further run is expected to lower the error; 0 if none may be made."""
        return max(0.0, float(savings(self._now(measured), self.task, list(measured)).max()))

    def elsewhere(self, measured: Measured, column: int) -> tuple[float, float, float]:
        """The expected error at any column of the table, and its 90 % interval."""
        now = self._everywhere(measured)
        mean, reach = float(now.mean[column]), GAUSSIAN_90 * float(now.deviation[column])
        low, high = (mean - reach, mean + reach) if self._tasks >= _FEWEST_TASKS else (0.0, 1.0)
        return min(max(mean, 0.0), 1.0), max(low, 0.0), min(high, 1.0)

    def reliable(self, measured: Measured) -> bool:
        """Always True: the intervals show how little is known."""
        return True

    def enough(self, measured: Measured) -> str:
        """Why it stops although it may measure more; empty if it does not."""
        if len(measured) >= self._measurements or self.next(measured):
            return ""
        return f"another training is not expected to save more than {self._worth:g} of the error"

    def _everywhere(self, measured: Measured) -> Gaussian:
        return self._prior.given(self._beyond | {self._columns[j]: error for j, error in measured.items()})

    def _now(self, measured: Measured) -> Gaussian:
        return self._everywhere(measured).take(self._columns)

    def _least_memory(self, columns: NDArray[np.intp]) -> int:
        return int(columns[self.task.memory[columns].argmin()])


def savings(now: Gaussian, task: Task, measured: list[int]) -> NDArray[np.float64]:
    """By how much one run at each column is expected to lower the noise-free error of the pick: [d].

    -inf for columns that may not be measured, and for those in ``measured``: they are not run twice.

    >>> now = Gaussian(np.array([0.5, 0.4]), np.diag([0.01, 0.0]), np.full(2, 1e-4))
    >>> savings(now, Task(np.ones(2), np.ones(2), np.ones(2)), []).round(3)
    array([0.008, 0.   ])
    """
    open_to = task.measurable.copy()
    open_to[measured] = False
    within, j = np.flatnonzero(task.feasible), np.flatnonzero(open_to)
    # How far a run at j moves the estimates for each standard deviation by which it differs from its mean.
    spread = np.sqrt(np.maximum(np.diag(now.covariance)[j] + now.noise[j], 1e-18))
    moves = now.covariance[np.ix_(j, within)] / spread[:, None]
    after = np.mean([(now.mean[within] + z * moves).min(axis=1) for z in _DEVIATES], axis=0)
    gains = np.full(len(now.mean), -np.inf)
    gains[j] = now.mean[within].min() - after
    return gains


@lru_cache(maxsize=32)  # by identity: an evaluation uses one completion for many tasks
def belief_of(learned: Completion, noise: float | None = None) -> Gaussian:
    """The belief about a new task that the measured entries of a completed table give, on its scale.

    ``noise`` is the variance of a run on that scale; None to learn it.
    """
    counts = np.where(learned.observed, 1.0 if learned.counts is None else learned.counts, 0.0)
    squares = np.zeros_like(counts) if learned.squares is None else learned.squares
    groups = learned.groups
    return learn(
        Runs(learned.estimate, counts, squares, _weights(learned)),
        coordinates(learned.columns),
        np.zeros(counts.shape[1], dtype=np.intp) if groups is None else groups,
        noise=noise,
        apart=np.array([_is_named(label) for label in learned.columns]),
    )


def _is_named(label: Label) -> bool:
    """Whether a column is a precision by name; its bits do not say how its weights are updated."""
    precision = label.configuration if isinstance(label, TunedConfiguration) else label
    return isinstance(precision, NamedPrecision)


def coordinates(columns: tuple[Label, ...]) -> NDArray[np.float64] | None:
    """Bits of precision and range of both formats, and the logarithm of the learning rate: [d, 4 or 5].

    fp32 is placed one bit beyond the largest of the others: its actual 23 bits of precision would make the
    differences between the others look small. The same holds for float32 in a precision by name. Returns None
    if there is no column, or one is plain text.

    >>> from peppp.formats import Configuration
    >>> coordinates((Configuration.parse("1-4-1/1-6-7"),))
    array([[1., 4., 7., 6.]])
    """
    rows = []
    for label in columns:
        if isinstance(label, str):
            return None
        (precision,) = plain([label])
        beyond = isinstance(precision, NamedPrecision) or precision.is_fp32
        bits = [
            x
            for fmt in precision.sides
            for x in ((np.nan, np.nan) if beyond and fmt == FP32 else describe(fmt))
        ]
        tuned = isinstance(label, TunedConfiguration)
        rows.append([*bits, np.log10(label.learning_rate)] if tuned else bits)  # type: ignore[union-attr]
    found = np.array(rows)
    if not rows or np.isnan(found).all(axis=0).any():
        return np.array([[*describe(FP32), *describe(FP32)]] * len(rows)) if rows else None
    return np.where(np.isnan(found), np.nanmax(found, axis=0) + 1.0, found)


def _weights(learned: Completion) -> NDArray[np.float64]:
    """One over the number of rows in each row's family, so that families count equally."""
    if not learned.families:
        return np.ones(len(learned.estimate))
    _, of, sizes = np.unique(np.array(learned.families), return_inverse=True, return_counts=True)
    return 1.0 / sizes[of]
