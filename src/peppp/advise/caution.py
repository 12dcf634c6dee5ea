"""Warn about learning from rows of another network, resolution or rounding, and say how well it works."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from peppp.cache import kept
from peppp.errors import BudgetError
from peppp.evaluate.judges import noise_free
from peppp.evaluate.leave_one_out import leave_one_out
from peppp.learn.belief import counted
from peppp.learn.strategy import strategy
from peppp.learn.task import Task, run
from peppp.records import Recipe
from peppp.table.matrix import ErrorMatrix
from peppp.tasks.dataset import digest

FIELDS = ("network", "learning_rate", "resolution", "rounding", "error_format", "accumulator")
_FEWEST_ROWS, _FEWEST_ERRORS = 3, 10
_MOST_FAMILIES = 12  # as many as are judged; each takes a third of a second


@dataclass(frozen=True, slots=True)
class Asked:
    """The pick that a leave-one-out imitates: its method, number of measurements, rank and new task."""

    method: str
    measurements: int
    rank: int
    task: Task


@dataclass(frozen=True, slots=True)
class Transfer:
    """A recipe field in which all rows learned from differ from the task, and how well such learning works.

    ``across`` is the mean regret (error of the pick above the least error of its row, a fraction) of picks
    for ``tasks`` tasks of the table. Each pick learns from rows of other families with another value of the
    field. ``within`` is the mean regret if it learns from rows with the same value. Either is None if the
    table has no such rows. Each pick has the budget, method and number of measurements in ``asked``.
    """

    field: str
    value: str
    known: tuple[str, ...]
    tasks: int
    across: float | None
    within: float | None
    asked: Asked

    def __str__(self) -> str:
        name = self.field.replace("_", " ")
        known = ", ".join(self.known)
        lack = f"the table has few or no rows with {name} {self.value}, so the pick learned from {known}"
        if self.across is None:
            return f"{lack}; how well that works could not be measured on the table"
        within = "" if self.within is None else f", and {self.within:.3f} if it learned from the same {name}"
        return (
            f"{lack}; in leave-one-out within this budget, the picks of {self.asked.method} with "
            f"{counted(self.asked.measurements)} had on average an error {self.across:.3f} above the best "
            f"if it learned from another {name}{within} ({self.tasks} tasks)"
        )


def transfers(
    taught: ErrorMatrix, everything: Callable[[], ErrorMatrix], recipe: Recipe, asked: Asked
) -> tuple[Transfer, ...]:
    """Each of :data:`FIELDS` in which no row ``taught`` has the value of ``recipe``, with its leave-one-out.

    ``everything`` makes the matrix of all rows, whose columns are those of the new task. The leave-one-out
    judges the rows of the twelve families with the most errors. It takes seconds, so its result is kept in
    the user's cache.
    """
    lacking = {}
    for field in FIELDS:
        known = {getattr(row.recipe, field) for row in taught.rows if row.recipe is not None}
        if known and getattr(recipe, field) not in known:
            lacking[field] = tuple(str(one) for one in sorted(known))
    if not lacking:
        return ()
    matrix = everything()
    found = []
    for field, known_texts in lacking.items():
        values = [str(getattr(row.recipe, field, None)) for row in matrix.rows]
        regrets = kept(
            "transfers",
            (_digest(matrix, asked), asked.method, asked.measurements, asked.rank, values),
            partial(_leave_one_out, matrix, values, asked),
            to_plain=list,
            from_plain=lambda parts: (parts[0], parts[1], parts[2]),
        )
        found.append(Transfer(field, str(getattr(recipe, field)), known_texts, *regrets, asked))
    return tuple(found)


def _digest(matrix: ErrorMatrix, asked: Asked) -> str:
    """A digest of everything in a matrix and a task that a leave-one-out looks at."""
    arrays = (
        matrix.values,
        matrix.counts,
        matrix.squares,
        asked.task.memory,
        asked.task.feasible,
        asked.task.measurable,
    )
    parts = [part for part in arrays if part is not None]
    return digest(*parts, repr((matrix.labels, matrix.keys, matrix.families, list(matrix.chance))))


def _leave_one_out(
    matrix: ErrorMatrix, values: list[str], asked: Asked
) -> tuple[int, float | None, float | None]:
    """Number of tasks, and mean regrets of picks learned from rows with other values and with the same."""
    own = np.array(values)
    families = np.array(matrix.families)
    apart = families[:, None] != families
    across, within = (
        _regrets(matrix, apart & mask, asked) for mask in (own[:, None] != own, own[:, None] == own)
    )
    both = np.isfinite(across) & np.isfinite(within)
    if both.any():  # compare both on the same tasks
        return int(both.sum()), float(across[both].mean()), float(within[both].mean())
    there = np.isfinite(across)
    return int(there.sum()), (float(across[there].mean()) if there.any() else None), None


def _regrets(matrix: ErrorMatrix, teaches: NDArray[np.bool_], asked: Asked) -> NDArray[np.float64]:
    """Error of the pick above the least of its row [n]; NaN for rows with few errors or few to learn from."""
    regrets = np.full(len(matrix.rows), np.nan)
    free = noise_free(matrix)
    judged = np.isin(matrix.families, _best_known(matrix)) & (teaches.sum(axis=1) >= _FEWEST_ROWS)
    teaches = teaches & judged[:, None]
    for i, learned in leave_one_out(matrix, teaches=teaches, rank=asked.rank):
        known = matrix.observed[i]
        if known.sum() < _FEWEST_ERRORS:
            continue
        feasible, measurable = known & asked.task.feasible, known & asked.task.measurable
        try:
            task = Task(asked.task.memory, feasible, measurable, float(matrix.chance[i]))
        except BudgetError:  # none of the known entries of the row fits
            continue
        found = strategy(asked.method, learned, task, asked.measurements)
        measured = run(found, matrix.values[i].item)
        truth = free(i, measured).errors
        regrets[i] = truth[found.pick(measured)] - np.nanmin(truth[feasible])
    return regrets


def _best_known(matrix: ErrorMatrix) -> list[str]:
    """The families with the most observed errors."""
    count = Counter[str]()
    for family, known in zip(matrix.families, matrix.observed.sum(axis=1).tolist(), strict=True):
        count[family] += known
    return sorted(count, key=lambda family: (-count[family], family))[:_MOST_FAMILIES]
