"""The errors by which a pick is judged, which are not those that it was picked by: the latter involve luck.

The least of many noisy errors lies below the mean error of its configuration, and a method that measures much
finds it. Therefore noise-free errors judge a pick: means of the task's runs that the method did not see.
Under stochastic rounding Format B hardly matters, so all runs of equal Format A count. Under nearest rounding
the mantissa of Format B matters as well. For other columns only further runs of the same column count.
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
    """True ``errors`` [d] of one task (NaN: unknown), and how many ``runs`` [d] each of them averages."""

    errors: Array
    runs: Array


# The truth about a row, given its index and the errors by column that were measured on it.
Judge = Callable[[int, Mapping[int, float]], Truth]


def judge(
    matrix: ErrorMatrix, name: str, others: Sequence[ErrorMatrix] = (), *, seen: ErrorMatrix | None = None
) -> Judge | None:
    """The judge of picks on ``matrix`` with a given name; None if it is the errors of the matrix.

    ``same`` judges by the errors of the matrix, and ``seed`` by the means over ``others``, the matrices of
    other seeds. ``noise-free`` judges by the means of the runs that the method did not see; ``seen`` holds
    the runs that it sees when it measures (default: the means in the matrix). Raises TableError for an
    unknown name, and Lacking if there is nothing to judge by.
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
    free = noise_free(matrix, seen)
    if not any(np.isfinite(free(i, {}).errors).any() for i in range(len(matrix.rows))):
        raise Lacking("the table lacks runs to judge picks by")
    return free


def fixed(errors: Array) -> Judge:
    """The judge that always returns the same ``errors`` [n, d]."""
    return lambda i, measured: Truth(errors[i], np.ones(errors.shape[1]))


def repeated(matrix: ErrorMatrix) -> bool:
    """Whether most known entries have more than one run with the same noise-free error."""
    free = noise_free(matrix)
    runs = np.array([free(i, {}).runs for i in range(len(matrix.rows))])
    return bool((runs > 1)[matrix.observed].mean() > 0.5)


def noise_free(matrix: ErrorMatrix, seen: ErrorMatrix | None = None) -> Judge:
    """The judge of noise-free errors; see :func:`judge`."""
    sums, counts = _summed(matrix)
    seen_sums, seen_counts = _summed(seen or matrix)
    alike = {kind: _alike(matrix.columns, kind) for kind in {_kind(row) for row in matrix.rows}}

    def truth(i: int, measured: Mapping[int, float]) -> Truth:
        total, count = sums[i].copy(), counts[i].copy()
        for j in measured:
            total[j] -= seen_sums[i, j]
            count[j] -= seen_counts[i, j]
        group = alike[_kind(matrix.rows[i])]
        runs = np.bincount(group, count)[group].astype(np.float64)
        errors = np.where(runs > 0, np.bincount(group, total)[group] / np.maximum(runs, 1), np.nan)
        return Truth(errors, runs)

    return truth


def _summed(matrix: ErrorMatrix) -> tuple[Array, Array]:
    """The sum of the runs of each entry, and their number."""
    counts = np.asarray(matrix.observed * (1.0 if matrix.counts is None else matrix.counts), np.float64)
    return np.where(matrix.observed, matrix.values, 0.0) * counts, counts


def _kind(row: Row) -> str:
    """What part of a column determines its noise-free error: Format A, also the mantissa of B, or all."""
    if row.recipe is None:
        return "column"
    modes = RoundingModes.parse(row.recipe.rounding)
    if modes.gradient != modes.states:
        return "column"
    return "A" if modes.gradient == "stochastic" else "A, mantissa of B"


def _alike(columns: Sequence[Label], kind: str) -> NDArray[np.intp]:
    """A number [d] for each column, equal for columns of equal noise-free error."""

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
