"""By which errors a pick is judged: those that it was picked by are lucky, too.

Of many noisy errors the least is less than its configuration errs on average, and a method that measures much
finds it. So a pick is judged by noise-free errors: means of the task's runs that were not told. Under
stochastic rounding Format B hardly matters, so that all runs of equal Format A count. Under nearest rounding
the mantissa of Format B matters as well. Of other columns only further runs of the same one count.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from peppp.errors import TableError
from peppp.floats import FloatFormat
from peppp.records import RoundingModes
from peppp.table.labels import Label, TunedConfiguration, formats_of
from peppp.table.matrix import ErrorMatrix, Lacking, Row, averaged, placed

JUDGES = ("same", "seed", "noise-free")
Array = NDArray[np.float64]


class Truth(NamedTuple):
    """True ``errors`` [d] of one task (NaN: not known), and how many ``runs`` [d] each is the mean of."""

    errors: Array
    runs: Array


# The truth of a row (by its index) once some errors of it (by column) were told.
Judge = Callable[[int, Mapping[int, float]], Truth]


def judge(
    matrix: ErrorMatrix, name: str, others: Sequence[ErrorMatrix] = (), *, told: ErrorMatrix | None = None
) -> Judge | None:
    """What judges picks on ``matrix``; None for its own errors.

    ``same`` are its own, ``seed`` the means over the matrices of ``others``, the other seeds. ``noise-free``
    are the means of the runs that were not told; ``told`` says which run of each entry is told, by default
    all that the matrix has averaged. Raises Lacking where there is nothing to judge by.
    """
    if name not in JUDGES:
        raise TableError(f"picks are judged by {', '.join(JUDGES)}, not by {name!r}")
    if name == "same":
        return None
    if name == "seed":
        found = _other_seeds(matrix, others)
        if not np.isfinite(found).any():
            raise Lacking("the table lacks another seed to judge picks by")
        return fixed(found)
    free = noise_free(matrix, told)
    if not any(np.isfinite(free(i, {}).errors).any() for i in range(len(matrix.rows))):
        raise Lacking("the table lacks runs to judge picks by")
    return free


def fixed(errors: Array) -> Judge:
    """The judge that finds the same errors [n, d], whatever was told."""
    return lambda i, told: Truth(errors[i], np.ones(errors.shape[1]))


def repeated(matrix: ErrorMatrix) -> bool:
    """Whether most of the known entries have more than one run of equal noise-free error."""
    free = noise_free(matrix)
    runs = np.array([free(i, {}).runs for i in range(len(matrix.rows))])
    return bool((runs > 1)[matrix.observed].mean() > 0.5)


def noise_free(matrix: ErrorMatrix, told: ErrorMatrix | None = None) -> Judge:
    """The judge of noise-free errors; see :func:`judge`."""
    sums, counts = _summed(matrix)
    told_sums, told_counts = _summed(told or matrix)
    alike = {kind: _alike(matrix.columns, kind) for kind in {_kind(row) for row in matrix.rows}}

    def truth(i: int, given: Mapping[int, float]) -> Truth:
        total, count = sums[i].copy(), counts[i].copy()
        for j in given:
            total[j] -= told_sums[i, j]
            count[j] -= told_counts[i, j]
        group = alike[_kind(matrix.rows[i])]
        runs = np.bincount(group, count)[group].astype(np.float64)
        errors = np.where(runs > 0, np.bincount(group, total)[group] / np.maximum(runs, 1), np.nan)
        return Truth(errors, runs)

    return truth


def _summed(matrix: ErrorMatrix) -> tuple[Array, Array]:
    """The sums of each entry's runs, and how many these are."""
    counts = np.asarray(matrix.observed * (1.0 if matrix.counts is None else matrix.counts), np.float64)
    return np.where(matrix.observed, matrix.values, 0.0) * counts, counts


def _kind(row: Row) -> str:
    """What of a column decides its noise-free error: Format A, also the mantissa of B, or all of it."""
    if row.recipe is None:
        return "column"
    modes = RoundingModes.parse(row.recipe.rounding)
    if modes.gradient != modes.states:
        return "column"
    return "A" if modes.gradient == "stochastic" else "A, mantissa of B"


def _alike(columns: Sequence[Label], kind: str) -> NDArray[np.intp]:
    """A number [d] for each column, equal for those of equal noise-free error."""

    def key(label: Label) -> str:
        configuration = formats_of(label)
        if kind == "column" or configuration is None:
            return str(label)
        rate = str(label.learning_rate) if isinstance(label, TunedConfiguration) else ""
        of_b = configuration.format_b
        if kind == "A":
            return f"{configuration.format_a} {rate}"
        if isinstance(of_b, FloatFormat):
            return f"{configuration.format_a} {of_b.mantissa_bits} {rate}"
        return str(label)

    return np.unique([key(label) for label in columns], return_inverse=True)[1].astype(np.intp)


def _other_seeds(matrix: ErrorMatrix, others: Sequence[ErrorMatrix]) -> Array:
    if not others:
        return np.full(matrix.values.shape, np.nan)
    mean = averaged(others)
    return placed(mean.values, mean, matrix.keys, matrix.columns)
