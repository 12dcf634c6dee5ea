"""The default strategy, ``gaussian``: it picks by noise-free errors, and stops when a run is not worth it.

What is told is one noisy run, so a measured error moves the estimate and never takes its place. Next comes
the run that is expected to improve the pick most (the knowledge gradient: Frazier, Powell and Dayanik, 2009).
Once no run is expected to save more than ``WORTH`` of the error, nothing comes next. Not in the paper.
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
from peppp.learn.methods import Method, Task, Told
from peppp.precisions.named import NamedPrecision
from peppp.table.labels import Label, TunedConfiguration, plain

WORTH = 1e-3  # of the error: a run that is expected to save less is not made
TOLERANCE = 2e-3  # estimates this close tie, and the one of least memory is picked
_SAMPLES = 1000
_FEWEST_TASKS = 3  # of fewer nobody knows how much tasks differ
_DEVIATES = ndtri((np.arange(64) + 0.5) / 64)  # of equal probability


class NoiseFree:
    """A :class:`peppp.learn.strategy.Strategy` by the Gaussian of :mod:`peppp.learn.gaussian`.

    ``columns`` says which of the table's columns are those of the task (all, in order). ``beyond`` are known
    errors at other columns of the table, as that of fp32. ``worth`` and ``tolerance`` are errors, as
    fractions. ``noise`` is the standard deviation of a run's error (None: learned from the table).
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
        beyond: Told | None = None,
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

    def next(self, told: Told, count: int = 1) -> list[int]:
        """The next columns to measure; none once enough were, or none is worth it.

        Several at once are chosen as if those before them had come out as expected.
        """
        believed, chosen = dict(told), list[int]()
        for _ in range(min(count, self._measurements - len(told))):
            now = self._now(believed)
            gains = savings(now, self.task, list(believed))
            best = self._least_memory(np.flatnonzero(gains >= gains.max() - 1e-9))
            if gains[best] <= self._worth:
                break
            chosen.append(best)
            believed[best] = float(now.mean[best])
        return chosen

    def predict(self, told: Told) -> NDArray[np.float64]:
        """The expected noise-free errors [d], of the measured columns too."""
        return np.clip(self._now(told).mean, 0.0, 1.0)

    def errors(self, told: Told) -> NDArray[np.float64]:
        """The same: what was measured is one noisy run, and settles nothing."""
        return self.predict(told)

    def pick(self, told: Told) -> int:
        """The column of least expected error that fits, or of less memory within the tolerance."""
        errors = np.where(self.task.feasible, pareto.settled(self.predict(told)), np.inf)
        near = np.flatnonzero(errors <= errors.min() + self.tolerance)
        return int(near[np.lexsort((errors[near], self.task.memory[near]))[0]])

    def believe(self, told: Told, tolerance: float = 0.01) -> Belief:
        """90 % intervals of the noise-free errors, and probabilities; nothing from fewer than three tasks."""
        now = self._now(told)
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

    def saving(self, told: Told) -> float:
        """The error that the best further run is expected to save; 0 where none may be made."""
        return max(0.0, float(savings(self._now(told), self.task, list(told)).max()))

    def elsewhere(self, told: Told, column: int) -> tuple[float, float, float]:
        """The expected error at a column of the table that is none of the task's, and its 90 % interval."""
        now = self._everywhere(told)
        mean, reach = float(now.mean[column]), GAUSSIAN_90 * float(now.deviation[column])
        low, high = (mean - reach, mean + reach) if self._tasks >= _FEWEST_TASKS else (0.0, 1.0)
        return min(max(mean, 0.0), 1.0), max(low, 0.0), min(high, 1.0)

    def reliable(self, told: Told) -> bool:
        """Always: what little is known shows in the intervals."""
        return True

    def enough(self, told: Told) -> str:
        """Why it stops before it has measured as often as it may."""
        if len(told) >= self._measurements or self.next(told):
            return ""
        return f"another training is not expected to save more than {self._worth:g} of the error"

    def _everywhere(self, told: Told) -> Gaussian:
        return self._prior.given(self._beyond | {self._columns[j]: error for j, error in told.items()})

    def _now(self, told: Told) -> Gaussian:
        return self._everywhere(told).take(self._columns)

    def _least_memory(self, columns: NDArray[np.intp]) -> int:
        return int(columns[self.task.memory[columns].argmin()])


def savings(now: Gaussian, task: Task, told: list[int]) -> NDArray[np.float64]:
    """By how much one run of each column is expected to lower the pick's noise-free error [d].

    -inf for what may not be measured, and for what was: a second run of it is not asked for.

    >>> now = Gaussian(np.array([0.5, 0.4]), np.diag([0.01, 0.0]), np.full(2, 1e-4))
    >>> savings(now, Task(np.ones(2), np.ones(2), np.ones(2)), []).round(3)
    array([0.008, 0.   ])
    """
    open_to = task.measurable.copy()
    open_to[told] = False
    within, j = np.flatnonzero(task.feasible), np.flatnonzero(open_to)
    # What a run at j moves the estimates by, for each standard deviation that it is off.
    spread = np.sqrt(np.maximum(np.diag(now.covariance)[j] + now.noise[j], 1e-18))
    moves = now.covariance[np.ix_(j, within)] / spread[:, None]
    after = np.mean([(now.mean[within] + z * moves).min(axis=1) for z in _DEVIATES], axis=0)
    gains = np.full(len(now.mean), -np.inf)
    gains[j] = now.mean[within].min() - after
    return gains


@lru_cache(maxsize=32)  # by identity: an evaluation asks for the same one for many tasks
def belief_of(learned: Completion, noise: float | None = None) -> Gaussian:
    """What the measured entries of a completed table say of a new task, on the table's scale.

    ``noise`` is a run's variance on that scale, where it need not be learned.
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
    """Whether a column is a precision by name: how its weights take an update no bits tell."""
    precision = label.configuration if isinstance(label, TunedConfiguration) else label
    return isinstance(precision, NamedPrecision)


def coordinates(columns: tuple[Label, ...]) -> NDArray[np.float64] | None:
    """Bits of precision and range of both formats, and the learning rate's logarithm: [d, 4 or 5].

    fp32 lies one bit beyond the largest of the others: with its own 23 bits of precision, those that others
    differ by would look small. So does a side of a precision by name that is float32. None where a column is
    any other text.

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
    """One over the number of rows of each row's family: families count equally."""
    if not learned.families:
        return np.ones(len(learned.estimate))
    _, of, sizes = np.unique(np.array(learned.families), return_inverse=True, return_counts=True)
    return 1.0 / sizes[of]
