"""A new task, and how any method is used on it: it asks for measurements until it wants no more.

A :class:`Rule` says what to measure next. :func:`run` follows one rule to its end, and :func:`outcomes` does
so for several numbers of measurements.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from peppp import pareto
from peppp.errors import BudgetError

Measured = Mapping[int, float]  # errors by column


@dataclass(frozen=True, eq=False)
class Task:
    """What is known about a new task before any training: arrays [d] over the table's columns.

    ``memory`` is in bytes; ``feasible`` marks what may be picked, and ``measurable`` what may be measured. On
    the table's scale, errors are multiples of ``scale``: the chance error, or 1. Raises BudgetError if
    nothing is feasible or nothing measurable.
    """

    memory: NDArray[np.float64]
    feasible: NDArray[np.bool_]
    measurable: NDArray[np.bool_]
    scale: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "memory", np.asarray(self.memory, dtype=np.float64))
        for name in ("feasible", "measurable"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=bool))
            if not getattr(self, name).any():
                raise BudgetError(
                    "no configuration is feasible, so none can be measured; raise the memory cap"
                )

    def pick(self, estimate: NDArray[np.float64], measured: Measured) -> int:
        """The feasible configuration of least error, measured or else estimated; ties go to least memory."""
        best = pareto.best(self.memory, pareto.settled(kept(estimate, measured)), self.feasible)
        assert best is not None  # something is feasible
        return best


def kept(estimate: NDArray[np.float64], measured: Measured) -> NDArray[np.float64]:
    """Errors [d] in [0, 1]: measured if possible, else estimated.

    >>> kept(np.array([0.3, -0.1]), {0: 0.25})
    array([0.25, 0.  ])
    """
    errors = np.clip(estimate, 0.0, 1.0)
    errors[list(measured)] = list(measured.values())
    return errors


class Rule(Protocol):
    """A design and a predictor for one completed table and one task; errors are on the table's scale."""

    sequential: bool  # whether the next choice depends on the errors measured so far

    def next(self, measured: Measured, count: int = 1) -> list[int]:
        """The next configurations to measure, at most ``count``; none once enough were measured."""
        ...

    def predict(self, measured: Measured) -> NDArray[np.float64]:
        """Estimated errors [d], also of the measured configurations; not clipped."""
        ...

    def reliable(self, measured: Measured) -> bool:
        """Whether the measured errors determine everything that the prediction rests on."""
        ...


_R = TypeVar("_R", bound=Rule)


def run(rule: Rule, measure: Callable[[int], float], measured: Measured | None = None) -> dict[int, float]:
    """Measure until ``rule`` (or a strategy) wants no more: all errors by column, found by ``measure``.

    >>> from peppp.learn.completion import complete_values
    >>> from peppp.learn.methods import Method, rule_of
    >>> E = np.outer([0.5, 1.0, 0.8], [0.8, 0.4, 0.2])
    >>> task = Task(np.array([1, 2, 3]), [True, True, False], [True, True, False])
    >>> one = rule_of(Method("ed-mf"), complete_values(E, E > 0, rank=1), task, 1)
    >>> run(one, [0.6, 0.3, 0.15].__getitem__), one.predict({0: 0.6}).round(2)
    ({0: 0.6}, array([0.6 , 0.3 , 0.15]))
    """
    found = dict(measured or {})
    while wanted := rule.next(found):
        found |= {j: float(measure(j)) for j in wanted}
    return found


def outcomes(
    build: Callable[[int], _R], measure: Callable[[int], float], counts: Sequence[int]
) -> list[tuple[_R, dict[int, float]]]:
    """For each number of measurements in ``counts``, the rule and the errors it measured.

    A sequential rule continues from the errors that it measured with a smaller number.
    """
    found: dict[int, tuple[_R, dict[int, float]]] = {}
    before: tuple[object, dict[int, float]] = (None, {})
    for count in sorted(set(counts)):
        rule = build(count)
        kind = getattr(rule, "method", type(rule))
        measured = run(rule, measure, before[1] if rule.sequential and before[0] == kind else {})
        found[count], before = (rule, measured), (kind, measured)
    return [found[count] for count in counts]
