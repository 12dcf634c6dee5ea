"""What a pick learns from: the rows of a table that suit its recipe and its choices."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from peppp.advise.advisor import Advisor
from peppp.advise.choices import known_errors
from peppp.errors import TableError
from peppp.learn.methods import DEFAULT_METHOD, Method
from peppp.records import Measurement, Recipe
from peppp.table.labels import TunedConfiguration
from peppp.table.matrix import ErrorMatrix
from peppp.table.measured import error_matrix
from peppp.table.select import alike, taught_by
from peppp.tasks.dataset import Dataset


@dataclass(frozen=True, slots=True)
class Learned:
    """What a pick learns from: the rows that suit its recipe, and the measurements of all others.

    ``rates`` are the learning rates of the columns, if they have any, and ``with_named`` says whether
    precisions by name are columns.
    """

    errors: ErrorMatrix
    chance_error: float | None
    known: Sequence[Measurement] = ()
    notes: tuple[str, ...] = ()
    rates: Sequence[float] = ()
    with_named: bool = False

    def all_rows(self, advisor: Advisor) -> ErrorMatrix:
        """All rows of the table, at the advisor's columns."""
        everything = self.errors
        if self.known:
            named = self.with_named
            everything = error_matrix(
                self.known, learning_rates=self.rates, include_reference=named, include_named=named
            )
        own = [everything.columns.index(label) for label in advisor.configurations]
        return everything.take(np.arange(len(everything.rows)), own)


def learned_from(
    table: str | Path | ErrorMatrix | None,
    dataset: Dataset,
    recipe: Recipe,
    choices: str,
    rates: Sequence[float],
    method: str,
) -> Learned:
    """Read the table, and select what a pick learns from."""
    if isinstance(table, ErrorMatrix):
        errors = table.without(dataset.name)
        if rates and not any(isinstance(c, TunedConfiguration) for c in errors.columns):
            raise TableError("an error matrix has no learning rates; give one, or a store or a table")
        return Learned(errors, _chance(errors, dataset))
    known, unused = alike(table, recipe, without=(dataset.fingerprint, dataset.former))
    # The errors of fp32 say much about the others, but the paper's methods do not use them.
    fp32 = Method.parse(method).design == DEFAULT_METHOD
    errors = known_errors(
        taught_by(known, recipe, every_rate=bool(rates)), choices, rates=rates, with_fp32=fp32
    )
    notes = (unused,) if unused else ()
    return Learned(errors, _chance(errors, dataset), known, notes, rates, choices != "paper")


def _chance(errors: ErrorMatrix, dataset: Dataset) -> float | None:
    """The error of guessing; None if no row states its own, so that errors are compared as they are."""
    return dataset.chance_error if any(row.chance_error != 1.0 for row in errors.rows) else None
