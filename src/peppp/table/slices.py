"""Select the part of a table that is observed well enough to evaluate methods on it."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace

import numpy as np
from numpy.typing import NDArray

from peppp.errors import PepppError, TableError
from peppp.precisions.known import is_of_formats
from peppp.records import Measurement, Recipe
from peppp.table.matrix import ErrorMatrix, Lacking, placed
from peppp.table.measured import error_matrix

_SMALLEST = 3  # rows and columns that a complete block needs
_FEWEST = 10  # configurations that a partly observed row needs
_FIELDS = tuple(f.name for f in fields(Recipe))


def largest_slice(
    measurements: Iterable[Measurement], where: Mapping[str, str] | None = None
) -> list[Measurement]:
    """Return the measurements of the recipe that has most of them, among the recipes that meet ``where``.

    Recipes are compared without their resolution, which belongs to the task. ``where`` gives fields of the
    recipe as texts, such as ``{"rounding": "nearest"}``. fp32 and named precisions are left out.

    Raises TableError for an unknown field, and Lacking if nothing meets ``where``.
    """
    wanted = dict(where or {})
    for field in wanted:
        if field not in _FIELDS:
            raise TableError(f"a recipe has no field {field!r}; it has {', '.join(_FIELDS)}")
    kept = [m for m in measurements if is_of_formats(m.configuration) and meets(m.recipe, wanted)]
    if not kept:
        shown = ", ".join(f"{field}={value}" for field, value in wanted.items())
        raise Lacking(f"the table lacks measurements{f' with {shown}' if shown else ''}")
    ways = Counter(replace(m.recipe, resolution=0) for m in kept)
    most = max(ways, key=lambda way: (ways[way], way.to_json()))
    return [m for m in kept if replace(m.recipe, resolution=0) == most]


def meets(recipe: Recipe, where: Mapping[str, str]) -> bool:
    """Whether the recipe's fields equal these texts; numbers are compared as numbers."""
    for field, text in where.items():
        value = getattr(recipe, field)
        try:
            same = float(text) == value if isinstance(value, (int, float)) else str(value) == text
        except ValueError:
            same = str(value) == text
        if not same:
            return False
    return True


def known_part(matrix: ErrorMatrix, *, every_row: bool = False) -> ErrorMatrix:
    """Return the part of a matrix to evaluate methods on: a large block in which every entry is observed.

    If that block is smaller than 3 x 3, or holds less than half of the observed entries, the part is instead
    all rows with at least ten observed columns (or a quarter of the columns, if there are fewer than forty).
    ``every_row`` keeps all rows and the columns that they have in common. Raises Lacking if nothing is left.
    """
    i, j = _part(matrix.observed)
    if every_row:
        i, j = np.arange(len(matrix.rows)), np.flatnonzero(matrix.observed.all(axis=0))
    if not len(i) or not len(j):
        raise Lacking("the table lacks configurations that its rows have in common")
    return matrix.take(i, j)


def by_seed(measurements: Iterable[Measurement]) -> list[ErrorMatrix]:
    """Return an error matrix for each seed: first that of :func:`main_seed`, then by ascending seed."""
    kept = [m for m in measurements if is_of_formats(m.configuration)]
    if not kept:
        return []
    main = main_seed(kept)
    order = [main, *sorted({m.seed for m in kept} - {main})]
    return [error_matrix(kept, seed=seed) for seed in order]


def one_run(seeds: Sequence[ErrorMatrix], known: ErrorMatrix) -> ErrorMatrix:
    """Return ``known`` with each entry replaced by the error of the first of ``seeds`` that observed it."""
    values = np.full(known.values.shape, np.nan)
    counts = np.zeros(known.values.shape)
    for matrix in seeds:
        found = placed(matrix.values, matrix, known.keys, known.columns)
        runs = np.ones(matrix.values.shape) if matrix.counts is None else matrix.counts
        counts = np.where(np.isnan(values), placed(runs, matrix, known.keys, known.columns), counts)
        values = np.where(np.isnan(values), found, values)
    values = np.where(known.observed, values, np.nan)
    return replace(known, values=values, counts=np.nan_to_num(counts), squares=None)


def main_seed(measurements: Iterable[Measurement]) -> int:
    """Return the seed with the most measurements; of several, the lowest."""
    counts = Counter(m.seed for m in measurements)
    return max(counts, key=lambda s: (counts[s], -s))


def complete_block(observed: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Find a large block of a mask [n, d] that is all true, and return its rows and columns.

    The columns of each row are tried with all rows that have these columns. The block with the most entries
    wins, and among equal ones the block with the most rows.

    >>> complete_block(np.array([[True, True, True], [True, True, False], [False, True, True]]))
    (array([0, 1]), array([0, 1]))
    """
    best: tuple[NDArray[np.intp], NDArray[np.intp]] = (np.arange(0), np.arange(0))
    size = (-1, -1)
    for pattern in np.unique(observed, axis=0)[::-1]:
        columns = np.flatnonzero(pattern)
        rows = np.flatnonzero(observed[:, columns].all(axis=1))
        if (len(rows) * len(columns), len(rows)) > size:
            size, best = (len(rows) * len(columns), len(rows)), (rows, columns)
    return best


def _part(observed: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    i, j = complete_block(observed)
    if 2 * len(i) * len(j) < observed.sum() or min(len(i), len(j)) < _SMALLEST <= min(observed.shape):
        quarter = max(_SMALLEST, observed.shape[1] // 4)
        i = np.flatnonzero(observed.sum(axis=1) >= min(_FEWEST, quarter))
        j = np.flatnonzero(observed[i].any(axis=0))
    return i, j


def parse_where(texts: Sequence[str]) -> dict[str, str]:
    """Parse texts such as ``["rounding=nearest", "network=resnet8"]`` into a mapping.

    >>> parse_where(["rounding=nearest,learning_rate=0.01"])
    {'rounding': 'nearest', 'learning_rate': '0.01'}
    """
    found = {}
    for text in ",".join(texts).split(","):
        field, equals, value = text.partition("=")
        if not equals and text:
            raise PepppError(f"not a condition: {text!r}; write field=value, such as rounding=nearest")
        if equals:
            found[field.strip()] = value.strip()
    return found
