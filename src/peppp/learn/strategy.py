"""A strategy: one method for one completed table and one new task. Advice and evaluation use the same ones.

:class:`peppp.advise.advisor.Advisor` wraps a strategy and gets errors from its caller; an evaluation
(:mod:`peppp.evaluate.evaluation`) wraps the same strategy and gets them from a table of known errors.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from peppp.errors import TableError
from peppp.learn.belief import Belief
from peppp.learn.completion import Completion
from peppp.learn.methods import Method, Seed, rule_of
from peppp.learn.noise_free import TOLERANCE, NoiseFree
from peppp.learn.points import PointStrategy
from peppp.learn.task import Measured, Task, kept
from peppp.learn.threads import single_thread
from peppp.learn.two_best import TwoBest


class Strategy(Protocol):
    """What to measure on a task, and what to believe about it. Measured errors, by column, are fractions.

    ``settles`` says whether a measured error replaces its estimate. Errors within the ``tolerance`` count as
    equal, and the least memory is picked. ``sequential`` says whether the next choice depends on the errors
    measured so far. ``rank`` is the number of components that measurements have to determine.
    """

    method: Method
    task: Task
    sequential: bool
    settles: bool
    tolerance: float
    rank: int

    def next(self, measured: Measured, count: int = 1) -> list[int]:
        """The next columns to measure, at most ``count``; none once enough were measured."""
        ...

    def predict(self, measured: Measured) -> NDArray[np.float64]:
        """Estimated errors [d] in [0, 1], also of the measured columns."""
        ...

    def errors(self, measured: Measured) -> NDArray[np.float64]:
        """The errors [d] that the pick goes by."""
        ...

    def pick(self, measured: Measured) -> int:
        """The column to train with."""
        ...

    def believe(self, measured: Measured, tolerance: float = 0.01) -> Belief:
        """How sure that is: intervals and probabilities."""
        ...

    def saving(self, measured: Measured) -> float | None:
        """By how much the best further run is expected to lower the error; None if the method cannot say."""
        ...

    def elsewhere(self, measured: Measured, column: int) -> tuple[float, float, float] | None:
        """The expected error at any column of the table, and its 90 % interval; None if unknown."""
        ...

    def reliable(self, measured: Measured) -> bool:
        """Whether the measured errors determine everything that the prediction rests on."""
        ...

    def enough(self, measured: Measured) -> str:
        """Why it stops although it may measure more; empty if it does not."""
        ...


def strategy(
    method: str | Method,
    learned: Completion,
    task: Task,
    measurements: int,
    *,
    seed: Seed = 0,
    tolerance: float = TOLERANCE,
    columns: Sequence[int] | None = None,
    beyond: Measured | None = None,
    noise: float | None = None,
) -> Strategy:
    """The strategy of a method that makes at most ``measurements``.

    ``learned`` is the completed table of other tasks; its errors times ``task.scale`` are fractions.
    ``gaussian`` treats estimates within the ``tolerance`` as equal and picks the least memory. ``columns``
    lists the table's columns that belong to the task (default: all, in order). ``beyond`` holds known errors
    at other columns of the table. ``noise`` is the standard deviation of a run's error; without it,
    ``gaussian`` learns it from the table, and the other methods ignore it. Raises TableError for an unknown
    method, or for ``beyond`` with another method than ``gaussian``, the only one that learns from it.

    >>> from peppp.learn.completion import complete_values
    >>> learned = complete_values(np.array([[0.8, 0.4, 0.2], [0.4, 0.2, 0.1]]), np.ones((2, 3), dtype=bool))
    >>> fits = np.array([True, True, False])
    >>> found = strategy("ed-mf", learned, Task(np.array([1, 2, 3]), fits, fits), 1)
    >>> found.next({}), found.predict({0: 0.6}).round(2), found.pick({0: 0.6})
    ([0], array([0.6 , 0.3 , 0.15]), 1)
    """
    chosen = Method.parse(method)
    if chosen.design == "gaussian":
        return NoiseFree(
            chosen, learned, task, measurements, columns=columns, beyond=beyond, tolerance=tolerance,
            noise=noise,
        )  # fmt: skip
    if beyond:
        raise TableError(f"{chosen} does not learn from errors beyond the task's columns; use gaussian")
    learned = learned if columns is None else learned.take(columns)
    if chosen.design == "two-best":
        return TwoBest(chosen, learned, task, measurements)
    return _FromTable(chosen, learned, task, measurements, seed)


class _FromTable(PointStrategy):
    """A rule of :mod:`peppp.learn.methods` whose errors are fractions."""

    settles = True

    @single_thread()
    def __init__(
        self, method: Method, learned: Completion, task: Task, measurements: int, seed: Seed
    ) -> None:
        self.method, self.task = method, task
        self.rank = learned.configuration_embeddings.shape[1] if method.rank is None else method.rank
        self._rule = rule_of(method, learned, task, measurements, seed=seed)
        self.sequential = self._rule.sequential

    @single_thread()
    def next(self, measured: Measured, count: int = 1) -> list[int]:
        return self._rule.next(self._scaled(measured), count)

    @single_thread()
    def predict(self, measured: Measured) -> NDArray[np.float64]:
        return np.clip(self.task.scale * self._rule.predict(self._scaled(measured)), 0.0, 1.0)

    def errors(self, measured: Measured) -> NDArray[np.float64]:
        return kept(self.predict(measured), measured)

    def pick(self, measured: Measured) -> int:
        return self.task.pick(self.predict(measured), measured)

    def reliable(self, measured: Measured) -> bool:
        return self._rule.reliable(measured)

    def _scaled(self, measured: Measured) -> dict[int, float]:
        return {j: error / self.task.scale for j, error in measured.items()}
