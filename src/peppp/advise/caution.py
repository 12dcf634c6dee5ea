"""Warn about learning from rows of another network, resolution or rounding, and say how well it works."""

import json
from collections import defaultdict
from collections.abc import Callable
from dataclasses import astuple, dataclass
from fractions import Fraction
from functools import cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from peppp.cache import kept
from peppp.evaluate.judges import noise_free
from peppp.evaluate.leave_one_out import held_together
from peppp.learn.belief import counted
from peppp.learn.completion import learn
from peppp.learn.strategy import strategy
from peppp.learn.task import Task, run
from peppp.records import Recipe
from peppp.table.labels import Label, formats_of
from peppp.table.matrix import ErrorMatrix
from peppp.table.select import SHIPPED_TABLE
from peppp.tasks.dataset import digest

SHIPPED = SHIPPED_TABLE.with_name("transfers.json")
FIELDS = ("network", "learning_rate", "resolution", "rounding", "error_format", "accumulator")
_FEWEST_ROWS, _FEWEST_ERRORS = 3, 10
_FOLDS = 3  # the time is proportional to it
ADMITTED = (1, 3, 10, 30)

Regrets: TypeAlias = tuple[int, float | None, float | None]
"""Of a cross-validation: the number of tasks, the mean regret across values of a field, and within them."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The pick that a cross-validation imitates: its method, number of measurements and rank.

    ``admitted`` is the number of columns within the budget; None if all are.
    """

    method: str
    measurements: int
    rank: int
    admitted: int | None = None

    @classmethod
    def of(cls, method: str, measurements: int, rank: int, fits: NDArray[np.bool_]) -> "Asked":
        """The pick that may choose among some columns [d]; their number is raised to 1, 3, 10 or 30.

        So the result of a cross-validation serves many budgets.
        """
        count = int(fits.sum())
        steps = [step for step in ADMITTED if count <= step < len(fits)]
        return cls(method, measurements, rank, None if count == len(fits) or not steps else steps[0])

    def __str__(self) -> str:
        within = "" if self.admitted is None else f" among the {self.admitted} smallest configurations"
        if self.admitted == 1:
            within = " with nothing but the smallest configuration to choose"
        return f"in cross-validation{within}, the picks of {self.method} with {counted(self.measurements)}"


@dataclass(frozen=True, slots=True)
class Transfer:
    """A recipe field in which all rows learned from differ from the task, and how well such learning works.

    ``across`` is the mean regret (error of the pick above the least error of its row, a fraction) of picks
    for ``tasks`` tasks of the table. Each pick learns from rows of other families with another value of the
    field, by three-fold cross-validation over the families. ``within`` is the mean regret of picks that learn
    from rows with the same value. Either is None if the table has no such rows. ``asked`` is how they pick.
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
            f"{lack}; {self.asked} had on average an error {self.across:.3f} above the best if it learned "
            f"from another {name}{within} ({self.tasks} tasks)"
        )


def transfers(
    taught: ErrorMatrix,
    everything: Callable[[], ErrorMatrix],
    recipe: Recipe,
    asked: Asked,
    digested: str,
) -> tuple[Transfer, ...]:
    """Each of :data:`FIELDS` in which no row ``taught`` has the value of ``recipe``, cross-validated.

    ``everything`` makes the matrix of all rows, whose columns are those of the new task. ``digested`` is its
    :func:`digest_of`. A cross-validation takes seconds. The results for default picks from the shipped table
    ship with it. Others are kept in the user's cache.
    """
    lacking = {}
    for field in FIELDS:
        known = {getattr(row.recipe, field) for row in taught.rows if row.recipe is not None}
        if known and getattr(recipe, field) not in known:
            lacking[field] = tuple(str(one) for one in sorted(known))
    if not lacking:
        return ()
    found = []
    for field, there in lacking.items():
        regrets = _regrets_of(everything, field, asked, digested)
        found.append(Transfer(field, str(getattr(recipe, field)), there, *regrets, asked))
    return tuple(found)


def _regrets_of(everything: Callable[[], ErrorMatrix], field: str, asked: Asked, digested: str) -> Regrets:
    key = key_of(digested, field, asked)
    if key in _shipped():
        return _shipped()[key]
    return kept(
        "transfers",
        key,
        lambda: cross_validated(everything(), field, asked),
        to_plain=list,
        from_plain=lambda parts: (parts[0], parts[1], parts[2]),
    )


def digest_of(matrix: ErrorMatrix) -> str:
    """A digest of everything in a matrix that :func:`cross_validated` depends on."""
    arrays = [part for part in (matrix.values, matrix.counts, matrix.squares) if part is not None]
    recipes = [None if row.recipe is None else row.recipe.to_json() for row in matrix.rows]
    labels = (matrix.labels, matrix.keys, matrix.families, list(matrix.chance), recipes)
    return digest(*arrays, repr(labels))


def key_of(digested: str, field: str, asked: Asked) -> str:
    """The key under which the result of a cross-validation is kept; ``digested`` is the matrix's digest."""
    return digest(digested, field, repr(astuple(asked)))


@cache
def _shipped() -> dict[str, Regrets]:
    """The cross-validations that ship with the table; ``benchmarks/transfers.py`` writes them."""
    return {key: (tasks, a, b) for key, (tasks, a, b) in json.loads(SHIPPED.read_text()).items()}


def _values(matrix: ErrorMatrix, field: str) -> list[str]:
    return [str(getattr(row.recipe, field, None)) for row in matrix.rows]


def _size(label: Label) -> tuple[int, int | Fraction, int | Fraction]:
    """What orders columns by memory whatever is trained: the bits of both formats; others come last."""
    pair = formats_of(label)
    return (1, 0, 0) if pair is None else (0, pair.format_a.bits, pair.format_b.bits)


def cross_validated(matrix: ErrorMatrix, field: str, asked: Asked) -> Regrets:
    """Number of tasks, and mean regrets of picks learned from rows with other values and with the same."""
    own = np.array(_values(matrix, field))
    fold = np.unique(held_together(matrix, "family"), return_inverse=True)[1] % _FOLDS
    apart = fold[:, None] != fold
    across, within = (
        _regrets(matrix, apart & mask, asked) for mask in (own[:, None] != own, own[:, None] == own)
    )
    both = np.isfinite(across) & np.isfinite(within)
    if both.any():  # compare both on the same tasks
        return int(both.sum()), float(across[both].mean()), float(within[both].mean())
    there = np.isfinite(across)
    return int(there.sum()), (float(across[there].mean()) if there.any() else None), None


def _regrets(matrix: ErrorMatrix, teaches: NDArray[np.bool_], asked: Asked) -> NDArray[np.float64]:
    """Error of the pick above the least of its row [n]; row i learns from row j where ``teaches`` [n, n].

    NaN for rows with few errors or few to learn from.
    """
    regrets = np.full(len(matrix.rows), np.nan)
    free = noise_free(matrix)
    by_size = sorted(range(len(matrix.columns)), key=lambda j: _size(matrix.columns[j]))
    memory = np.empty(len(by_size))
    memory[by_size] = np.arange(1.0, 1.0 + len(by_size))
    admitted = memory <= (asked.admitted or len(by_size))
    judged = (matrix.observed.sum(axis=1) >= _FEWEST_ERRORS) & (teaches.sum(axis=1) >= _FEWEST_ROWS)
    pupils = defaultdict[bytes, list[int]](list)
    for i in np.flatnonzero(judged).tolist():
        pupils[teaches[i].tobytes()].append(i)
    for together in pupils.values():
        learned = learn(matrix, teaches[together[0]], rank=asked.rank, relative_to_chance=True)
        for i in together:
            feasible = matrix.observed[i] & admitted
            if not feasible.any():
                continue
            task = Task(memory, feasible, feasible, float(matrix.chance[i]))
            found = strategy(asked.method, learned, task, asked.measurements)
            measured = run(found, matrix.values[i].item)
            truth = free(i, measured).errors
            regrets[i] = truth[found.pick(measured)] - np.nanmin(truth[task.feasible])
    return regrets
