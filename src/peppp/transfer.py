"""Learning from rows of another network, resolution or rounding: what the table's own tasks say of it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from peppp.metalearn.completion import complete_values
from peppp.metalearn.methods import explore
from peppp.records import Measurement, Recipe
from peppp.tables import error_matrix

FIELDS = ("network", "resolution", "rounding", "error_format", "accumulator")
MEASUREMENTS = 6
_FEWEST_ROWS, _FEWEST_ERRORS, _RANK = 3, 10, 3


@dataclass(frozen=True, slots=True)
class Transfer:
    """A field of the recipe of which the rows learned from have other values only, and how well that went.

    ``across`` is the mean regret (error of the pick above the least one of its row, a fraction) of picks for
    ``tasks`` tasks of the table, each learned from rows of other families and another value of the field;
    ``within`` that from rows of the same value. None where the table does not have such rows.
    """

    field: str
    asked: str
    known: tuple[str, ...]
    tasks: int
    across: float | None
    within: float | None

    def __str__(self) -> str:
        name = self.field.replace("_", " ")
        told = f"the table has no rows to learn from of {name} {self.asked}, only of {', '.join(self.known)}"
        if self.across is None:
            return f"{told}; how well it serves another {name} could not be measured on it"
        beside = "" if self.within is None else f", from rows of the same one {self.within:.3f} above it"
        return (
            f"{told}; in leave-one-out, {MEASUREMENTS} measurements and rows of another {name} made "
            f"picks that erred {self.across:.3f} above the best{beside} ({self.tasks} tasks)"
        )


def transfers(measurements: Sequence[Measurement], recipe: Recipe) -> tuple[Transfer, ...]:
    """What ``recipe`` has that no row of the table has, of :data:`FIELDS`, each with its leave-one-out."""
    found = []
    for field in FIELDS:
        asked, known = getattr(recipe, field), {getattr(m.recipe, field) for m in measurements}
        if asked not in known:
            tasks, across, within = _leave_one_out(measurements, field)
            found.append(
                Transfer(
                    field, str(asked), tuple(str(value) for value in sorted(known)), tasks, across, within
                )
            )
    return tuple(found)


def _leave_one_out(measurements: Sequence[Measurement], field: str) -> tuple[int, float | None, float | None]:
    """Tasks, and the regrets of picks learned from rows of other values of ``field`` and of the same one."""
    matrix = error_matrix(measurements)
    values = {m.recipe.digest: getattr(m.recipe, field) for m in measurements}
    own = np.array([str(values[row.recipe_digest]) for row in matrix.rows])
    families = np.array([row.group or row.task for row in matrix.rows])
    regrets = []
    for i in np.flatnonzero(matrix.observed.sum(axis=1) >= _FEWEST_ERRORS):
        others = families != families[i]
        across, within = others & (own != own[i]), others & (own == own[i])
        if across.sum() >= _FEWEST_ROWS:
            known = matrix.observed[i]
            pair = [
                _regret(matrix.values[rows], matrix.observed[rows], matrix.values[i], known)
                if rows.sum() >= _FEWEST_ROWS
                else np.nan
                for rows in (across, within)
            ]
            regrets.append(pair)
    both = np.array([pair for pair in regrets if np.isfinite(pair[1])])
    if len(both):  # the same tasks for both
        return len(both), float(both[:, 0].mean()), float(both[:, 1].mean())
    return len(regrets), (float(np.mean([pair[0] for pair in regrets])) if regrets else None), None


def _regret(
    errors: NDArray[np.float64],
    observed: NDArray[np.bool_],
    truth: NDArray[np.float64],
    known: NDArray[np.bool_],
) -> float:
    """Error of the pick above the least, for a task whose errors ``truth`` [d] are known in some places."""
    training = complete_values(errors, observed, rank=_RANK)
    (explored,) = explore(
        "ed-mf", training, truth.item, [MEASUREMENTS], memory=np.ones(len(truth)), feasible=known
    )
    picked = np.flatnonzero(known)[explored.estimate[known].argmin()]
    return float(truth[picked] - truth[known].min())
