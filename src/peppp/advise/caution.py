"""Learning from rows of another network, resolution or rounding: what the table's own tasks say of it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from peppp.errors import BudgetError
from peppp.evaluate.judges import noise_free
from peppp.evaluate.leave_one_out import leave_one_out
from peppp.learn.belief import counted
from peppp.learn.methods import Task, run
from peppp.learn.strategy import strategy
from peppp.records import Recipe
from peppp.table.matrix import ErrorMatrix

FIELDS = ("network", "learning_rate", "resolution", "rounding", "error_format", "accumulator")
_FEWEST_ROWS, _FEWEST_ERRORS = 3, 10


@dataclass(frozen=True, slots=True)
class Asked:
    """The pick that a leave-one-out speaks for: its method, number of measurements, rank and new task."""

    method: str
    measurements: int
    rank: int
    task: Task


@dataclass(frozen=True, slots=True)
class Transfer:
    """A field of the recipe of which the rows learned from have other values only, and how well that went.

    ``across`` is the mean regret (error of the pick above the least one of its row, a fraction) of picks for
    ``tasks`` tasks of the table, each learned from rows of other families and another value of the field;
    ``within`` that from rows of the same value. None where the table does not have such rows. Each pick is as
    ``asked`` for: within its budget, by its method and number of measurements.
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
        told = f"the table has few or no rows of {name} {self.value}, so the pick learned from {known}"
        if self.across is None:
            return f"{told}; how well it serves another {name} could not be measured on it"
        beside = "" if self.within is None else f", from rows of the same one {self.within:.3f} above it"
        return (
            f"{told}; in leave-one-out within this budget, {self.asked.method} with "
            f"{counted(self.asked.measurements)} and rows of another {name} made picks that erred "
            f"{self.across:.3f} above the best{beside} ({self.tasks} tasks)"
        )


def transfers(taught: ErrorMatrix, matrix: ErrorMatrix, recipe: Recipe, asked: Asked) -> tuple[Transfer, ...]:
    """What ``recipe`` has that no row ``taught`` has, of :data:`FIELDS`, each with its leave-one-out.

    The leave-one-out is over all rows of the ``matrix``, whose columns are the new task's.
    """
    found = []
    for field in FIELDS:
        values = [getattr(row.recipe, field, None) for row in matrix.rows]
        value = getattr(recipe, field)
        known = {getattr(row.recipe, field) for row in taught.rows if row.recipe is not None}
        if known and value not in known:
            texts = tuple(str(one) for one in sorted(known))
            found.append(Transfer(field, str(value), texts, *_leave_one_out(matrix, values, asked), asked))
    return tuple(found)


def _leave_one_out(
    matrix: ErrorMatrix, values: list[object], asked: Asked
) -> tuple[int, float | None, float | None]:
    """Tasks, and the regrets of picks learned from rows of other values and of the same one."""
    own = np.array(list(map(str, values)))
    families = np.array(matrix.families)
    apart = families[:, None] != families
    across, within = (
        _regrets(matrix, apart & mask, asked) for mask in (own[:, None] != own, own[:, None] == own)
    )
    both = np.isfinite(across) & np.isfinite(within)
    if both.any():  # the same tasks for both
        return int(both.sum()), float(across[both].mean()), float(within[both].mean())
    there = np.isfinite(across)
    return int(there.sum()), (float(across[there].mean()) if there.any() else None), None


def _regrets(matrix: ErrorMatrix, teaches: NDArray[np.bool_], asked: Asked) -> NDArray[np.float64]:
    """Error of the pick above the least of its row [n]; NaN for rows that few teach or of few errors."""
    regrets = np.full(len(matrix.rows), np.nan)
    free = noise_free(matrix)
    teaches = teaches & (teaches.sum(axis=1) >= _FEWEST_ROWS)[:, None]
    for i, learned in leave_one_out(matrix, teaches=teaches, rank=asked.rank):
        known = matrix.observed[i]
        if known.sum() < _FEWEST_ERRORS:
            continue
        feasible, measurable = known & asked.task.feasible, known & asked.task.measurable
        try:
            task = Task(asked.task.memory, feasible, measurable, float(matrix.chance[i]))
        except BudgetError:  # nothing of what is known of the row fits
            continue
        found = strategy(asked.method, learned, task, asked.measurements)
        told = run(found, matrix.values[i].item)
        truth = free(i, told).errors
        regrets[i] = truth[found.pick(told)] - np.nanmin(truth[feasible])
    return regrets
