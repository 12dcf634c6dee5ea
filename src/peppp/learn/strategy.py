"""A strategy: one method on one completed table and one new task. What advises is what is evaluated.

:class:`peppp.advise.advisor.Advisor` wraps one and gets errors from its caller; an evaluation
(:mod:`peppp.evaluate.leave_one_out`) wraps the same and gets them from a table whose errors are known.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from peppp.errors import TableError
from peppp.learn.belief import Belief
from peppp.learn.completion import Completion
from peppp.learn.methods import Method, Seed, Task, Told, kept, rule_of
from peppp.learn.noise_free import TOLERANCE, NoiseFree
from peppp.learn.points import PointStrategy
from peppp.learn.threads import single_thread
from peppp.learn.two_best import TwoBest


class Strategy(Protocol):
    """What to measure on a task, and what is believed of it. Errors told, by column, are fractions.

    ``settles`` says whether a measured error takes the place of its estimate. Errors within the ``tolerance``
    tie, and the least memory is picked. ``sequential`` says whether
    what is asked for next depends on the errors told; ``rank`` is the number of components that measurements
    have to determine.
    """

    method: Method
    task: Task
    sequential: bool
    settles: bool
    tolerance: float
    rank: int

    def next(self, told: Told, count: int = 1) -> list[int]:
        """The next columns to measure, at most ``count``; none once enough were."""
        ...

    def predict(self, told: Told) -> NDArray[np.float64]:
        """Estimated errors [d] in [0, 1], of the measured columns too."""
        ...

    def errors(self, told: Told) -> NDArray[np.float64]:
        """The errors [d] that the pick goes by."""
        ...

    def pick(self, told: Told) -> int:
        """The column to train with."""
        ...

    def believe(self, told: Told, tolerance: float = 0.01) -> Belief:
        """How sure that is: intervals and probabilities."""
        ...

    def saving(self, told: Told) -> float | None:
        """The error that the best further run is expected to save; None where the method does not know."""
        ...

    def elsewhere(self, told: Told, column: int) -> tuple[float, float, float] | None:
        """The expected error at a column of the table that is none of the task's, and its 90 % interval."""
        ...

    def reliable(self, told: Told) -> bool:
        """Whether what was told determines all that the prediction rests on."""
        ...

    def enough(self, told: Told) -> str:
        """Why nothing more is measured although more might be; nothing where that is not so."""
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
    beyond: Told | None = None,
    noise: float | None = None,
) -> Strategy:
    """The strategy of a method, given how many measurements are made at most.

    ``learned`` is the completed table of other tasks, on the scale that ``task.scale`` returns from. Errors
    that ``gaussian`` estimates within the ``tolerance`` tie, and the least memory is picked. ``columns`` says
    which of the table's columns are those of the task (all, in order). ``beyond`` are known errors at others
    of the table, which only ``gaussian`` learns from: TableError for the other methods. ``noise`` is the
    standard deviation of a run's error, which ``gaussian`` else learns from the table.

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
        raise TableError(f"{chosen} does not learn from errors beyond the task's columns; gaussian does")
    learned = learned if columns is None else learned.take(columns)
    if chosen.design == "two-best":
        return TwoBest(chosen, learned, task, measurements)
    return _FromTable(chosen, learned, task, measurements, seed)


class _FromTable(PointStrategy):
    """A rule on the scale of the task."""

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
    def next(self, told: Told, count: int = 1) -> list[int]:
        return self._rule.next(self._scaled(told), count)

    @single_thread()
    def predict(self, told: Told) -> NDArray[np.float64]:
        return np.clip(self.task.scale * self._rule.predict(self._scaled(told)), 0.0, 1.0)

    def errors(self, told: Told) -> NDArray[np.float64]:
        return kept(self.predict(told), told)

    def pick(self, told: Told) -> int:
        return self.task.pick(self.predict(told), told)

    def reliable(self, told: Told) -> bool:
        return self._rule.reliable(told)

    def _scaled(self, told: Told) -> dict[int, float]:
        return {j: error / self.task.scale for j, error in told.items()}
