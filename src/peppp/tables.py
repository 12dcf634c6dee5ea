"""The error matrix: errors of tasks (rows) at configurations (columns), most of them not observed."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from peppp.errors import TableError
from peppp.formats import Configuration, paper_grid
from peppp.records import Measurement
from peppp.textable import read_table, write_table

__all__ = ["ErrorMatrix", "Row", "error_matrix", "read_table", "write_table"]


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the error matrix: one task under one recipe; rows of one ``group`` are siblings.

    ``fingerprint`` is that of the task's data: names may repeat, contents do not.
    """

    task: str
    recipe_digest: str
    group: str
    chance_error: float = 1.0
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class ErrorMatrix:
    """The paper's P_Omega(E): ``values`` [n, d] in [0, 1], NaN exactly where not ``observed`` [n, d].

    Arrays are read-only copies. Raises TableError where shapes, labels or values contradict each other.
    """

    values: NDArray[np.float64]
    observed: NDArray[np.bool_]
    rows: tuple[Row, ...]
    configurations: tuple[Configuration, ...]

    def __post_init__(self) -> None:
        values = np.array(self.values, dtype=np.float64)
        observed = np.array(self.observed, dtype=bool)
        shape = (len(self.rows), len(self.configurations))
        if values.shape != shape or observed.shape != shape:
            raise TableError(
                f"an error matrix of {values.shape} with a mask of {observed.shape} cannot have "
                f"{shape[0]} rows and {shape[1]} configurations"
            )
        if len(set(self.configurations)) != len(self.configurations):
            raise TableError("a configuration stands twice in the error matrix; each column needs its own")
        if not np.isfinite(values[observed]).all() or not np.isnan(values[~observed]).all():
            raise TableError("an error matrix has a number where observed and NaN everywhere else")
        if ((values[observed] < 0) | (values[observed] > 1)).any():
            raise TableError("errors are fractions between 0 and 1; divide percentages by 100")
        for name, array in (("values", values), ("observed", observed)):
            array.setflags(write=False)
            object.__setattr__(self, name, array)

    @classmethod
    def from_values(
        cls, values: NDArray[np.float64], rows: Sequence[Row], configurations: Sequence[Configuration]
    ) -> "ErrorMatrix":
        """The matrix of ``values`` [n, d] in which NaN means not observed."""
        return cls(values, ~np.isnan(values), tuple(rows), tuple(configurations))

    def without(self, task: str) -> "ErrorMatrix":
        """The matrix without the rows of a task that are known by their name alone.

        Raises TableError where no other row is left.
        """
        others = [bool(row.fingerprint) or row.task != task for row in self.rows]
        if not any(others):
            raise TableError(
                f"the matrix holds only errors of {task!r} itself; give those of other tasks, too"
            )
        rows = tuple(row for row, other in zip(self.rows, others, strict=True) if other)
        return ErrorMatrix(self.values[others], self.observed[others], rows, self.configurations)


def error_matrix(
    measurements: Iterable[Measurement], *, recipe_digest: str | None = None, include_reference: bool = False
) -> ErrorMatrix:
    """The error matrix of measurements: a row for each data set and recipe, a column for each configuration.

    Repeats and seeds of an entry are averaged. Columns stand in the order of the paper's grid, others after
    them by text; rows are sorted by task. ``recipe_digest`` keeps the rows of one recipe. The reference
    fp32/fp32 is no column unless asked for. Different arithmetic versions are different recipes and so
    never meet in a row. Neither does the result depend on the order of the measurements.

    >>> from peppp import Footprint, Outcome, Recipe
    >>> def measured(seed, configuration, error):
    ...     return Measurement("digits", "d1", "digits", Configuration.parse(configuration), Recipe(), seed,
    ...         0.9, error, error, (), Footprint(1, 1, 1, {}), Outcome.FINISHED, 1.0)
    >>> matrix = error_matrix([measured(0, "1-4-1/1-6-7", 0.25), measured(1, "1-4-1/1-6-7", 0.75)])
    >>> matrix.rows[0].task, matrix.values
    ('digits', array([[0.5]]))
    """
    measurements = list(measurements)
    digests = {recipe: recipe.digest for recipe in {m.recipe for m in measurements}}
    return assemble(
        (Row(m.task, digests[m.recipe], m.group, m.chance_error, m.fingerprint) for m in measurements),
        ((m.fingerprint, digests[m.recipe], str(m.configuration), m.test_error) for m in measurements),
        recipe_digest=recipe_digest,
        include_reference=include_reference,
    )


def assemble(
    rows: Iterable[Row],
    entries: Iterable[tuple[str, str, str, float]],
    *,
    recipe_digest: str | None = None,
    include_reference: bool = False,
) -> ErrorMatrix:
    """The error matrix, as of :func:`error_matrix`, of fingerprint, recipe digest, configuration, error.

    ``rows`` describes at least each row with an entry, once or more often.
    """
    fingerprints, digests, texts, errors = tuple(zip(*entries, strict=True)) or ((), (), (), ())
    if recipe_digest is not None and recipe_digest not in digests:
        raise TableError(
            f"no measurement has the recipe {recipe_digest!r}; there are "
            f"{', '.join(sorted(set(digests))) or 'no measurements at all'}"
        )
    parsed = {text: Configuration.parse(text) for text in set(texts)}
    chosen = {text for text, c in parsed.items() if include_reference or not c.is_fp32}
    wanted = np.array([text in chosen for text in texts], dtype=bool)
    if recipe_digest is not None:
        wanted &= np.array([digest == recipe_digest for digest in digests], dtype=bool)
    if not wanted.any():
        raise TableError("an error matrix needs at least one measurement at low precision; there is none")

    named: dict[tuple[str, str], Row] = {}
    for row in rows:
        # One data set under two names, as two groups may have given it: the first by alphabet stays.
        key = (row.fingerprint, row.recipe_digest)
        named[key] = min(named.get(key, row), row, key=lambda row: (row.task, row.group, row.chance_error))

    numbers: dict[tuple[str, str], int] = {}  # each row's, by first appearance
    i = np.array([numbers.setdefault(key, len(numbers)) for key in zip(fingerprints, digests, strict=True)])
    number_of = {text: number for number, text in enumerate(parsed)}
    j = np.array([number_of[text] for text in texts])
    i, j, values = i[wanted], j[wanted], np.array(errors, dtype=np.float64)[wanted]

    all_keys, all_texts = list(numbers), list(parsed)
    keys = sorted((all_keys[row] for row in np.unique(i)), key=lambda key: (named[key].task, key))
    place = {configuration: column for column, configuration in enumerate(paper_grid())}
    columns = sorted(
        {parsed[all_texts[column]] for column in np.unique(j)},
        key=lambda c: (place.get(c, len(place)), str(c)),
    )
    row_of = {key: row for row, key in enumerate(keys)}
    column_of = {configuration: column for column, configuration in enumerate(columns)}
    row_at = np.array([row_of.get(key, -1) for key in all_keys])
    column_at = np.array([column_of.get(parsed[text], -1) for text in all_texts])
    flat = row_at[i] * len(columns) + column_at[j]
    matrix = np.full((len(keys), len(columns)), np.nan)
    matrix.flat[flat] = values
    order = np.argsort(flat, kind="stable")
    cells, starts, counts = np.unique(flat[order], return_index=True, return_counts=True)
    for k in np.flatnonzero(counts > 1):
        matrix.flat[cells[k]] = fmean(values[order[starts[k] : starts[k] + counts[k]]].tolist())
    return ErrorMatrix.from_values(matrix, [named[key] for key in keys], columns)
