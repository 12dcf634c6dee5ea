"""Make the error matrix of measurements: an entry is the mean of the errors measured for it."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import fsum
from statistics import fmean

import numpy as np

from peppp.arguments import checked
from peppp.arithmetic import current
from peppp.errors import TableError
from peppp.formats import FP32_CONFIGURATION, Configuration, Format
from peppp.precisions.known import Precision, is_of_formats
from peppp.records import Footprint, Measurement
from peppp.table.labels import Label, TunedConfiguration, in_order, pairs
from peppp.table.matrix import ErrorMatrix, Lacking, Row


@checked
def error_matrix(
    measurements: Iterable[Measurement],
    *,
    seed: int | None = None,
    learning_rates: Sequence[float] = (),
    recipe_digest: str | None = None,
    include_reference: bool = False,
    include_named: bool = False,
) -> ErrorMatrix:
    """Make an error matrix: a row for each data set and recipe, and a column for each configuration.

    An entry is the mean over repeats and seeds, or over the repeats of one ``seed``. Columns follow the order
    of the paper's grid, and other columns come after it by text; rows are sorted by task. With
    ``learning_rates``, each column is a configuration at one of these rates, and rows ignore the rate of
    their recipes. ``recipe_digest`` keeps the rows of one recipe. The reference fp32/fp32 is a column only
    with ``include_reference``, and named precisions are only with ``include_named``; the matrix then has no
    memory.

    Measurements of different arithmetic versions get different rows, unless :mod:`peppp.arithmetic` knows
    that both versions give the same bits. The result does not depend on the order of the measurements. Memory
    comes from the measured footprints; for entries that were not measured it is computed from the footprint
    of the same row at another configuration.

    Raises TableError for a learning rate or recipe that the measurements lack, and Lacking if none are left.

    >>> from peppp import Footprint, Outcome, Recipe
    >>> def measured(seed, configuration, error):
    ...     return Measurement("digits", "d1", "digits", Configuration.parse(configuration), Recipe(), seed,
    ...         0.9, error, error, (), Footprint(1, 1, 1, {}), Outcome.FINISHED, 1.0)
    >>> matrix = error_matrix([measured(0, "1-4-1/1-6-7", 0.25), measured(1, "1-4-1/1-6-7", 0.75)])
    >>> matrix.rows[0].task, matrix.values
    ('digits', array([[0.5]]))
    """
    everything = [
        current(m)
        for m in measurements
        if is_of_formats(m.configuration) or (include_reference if m.configuration.is_fp32 else include_named)
    ]
    kept = [
        m
        for m in everything
        if (seed is None or m.seed == seed)
        and (not learning_rates or m.recipe.learning_rate in learning_rates)
        and (recipe_digest is None or m.recipe.digest == recipe_digest)
    ]
    _refuse_nothing(kept, everything, learning_rates, recipe_digest)
    rows: dict[tuple[str, str], Row] = {}
    cells: defaultdict[tuple[tuple[str, str], Label], list[float]] = defaultdict(list)
    sizes: defaultdict[tuple[str, str], dict[Precision, Footprint]] = defaultdict(dict)
    for m in kept:
        recipe = m.recipe
        label: Label = m.configuration
        if learning_rates:
            recipe = replace(m.recipe, learning_rate=0.0)
            label = TunedConfiguration(m.configuration, m.recipe.learning_rate)
        key = (m.fingerprint, recipe.digest)
        row = Row(m.task, recipe.digest, m.group, m.chance_error, m.fingerprint, recipe)
        # Two groups may have given one data set different names; the first in alphabetical order is kept.
        rows[key] = min(rows.get(key, row), row, key=lambda row: (row.task, row.group, row.chance_error))
        cells[key, label].append(m.test_error)
        sizes[key].setdefault(m.configuration, m.footprint)
    keys = sorted(rows, key=lambda key: (rows[key].task, key))
    columns = in_order({label for _, label in cells}, learning_rates)
    values = [[fmean(cells[key, c]) if (key, c) in cells else np.nan for c in columns] for key in keys]
    counts = np.array([[len(cells.get((key, c), ())) for c in columns] for key in keys], dtype=np.float64)
    squares = np.array(
        [
            [
                fsum((y - mean) ** 2 for y in cells.get((key, c), ()))  # alike in every version of Python
                for c, mean in zip(columns, means, strict=True)
            ]
            for key, means in zip(keys, values, strict=True)
        ]
    )
    memory = None
    if not include_reference and not include_named:  # footprints_at converts between pairs of formats only
        memory = np.array(
            [[size.total for size in footprints_at(sizes[key], pairs(columns))] for key in keys]
        )
    return ErrorMatrix(
        np.array(values),
        tuple(rows[key] for key in keys),
        tuple(columns),
        memory if memory is not None and memory.min() > 0 else None,
        counts,
        squares,
    )


def _refuse_nothing(
    kept: Sequence[Measurement],
    everything: Sequence[Measurement],
    learning_rates: Sequence[float],
    recipe_digest: str | None,
) -> None:
    for rate in learning_rates:
        if not any(m.recipe.learning_rate == rate for m in kept):
            there = sorted({m.recipe.learning_rate for m in everything})
            raise TableError(
                f"the table has no measurement at the learning rate {rate:g}; it has "
                f"{', '.join(f'{r:g}' for r in there) or 'none'}"
            )
    if recipe_digest is not None and not kept:
        raise TableError(
            f"no measurement has the recipe {recipe_digest!r}; there are "
            f"{', '.join(sorted({m.recipe.digest for m in everything})) or 'no measurements at all'}"
        )
    if not kept:
        raise Lacking("an error matrix needs at least one measurement at low precision; the table has none")


def footprints_at(
    known: Mapping[Precision, Footprint], configurations: Iterable[Configuration]
) -> list[Footprint]:
    """Compute the footprints of a training at configurations from footprints of it at others.

    Only the bits per number change, and the counts of numbers are recovered from the packed bytes. The result
    is exact if a ``known`` configuration has 8 bits or more, and else within a byte for each part. At least
    one of ``known`` must be at low precision.
    """
    low = [c for c in known if isinstance(c, Configuration) and not c.is_fp32]
    source = max(low, key=lambda c: (c.format_a.bits, c.format_b.bits, str(c)), default=FP32_CONFIGURATION)
    return [known.get(c) or _carried(known[source], source, c) for c in configurations]


def _carried(sizes: Footprint, old: Configuration, new: Configuration) -> Footprint:
    of_a, of_b = (old.format_a, new.format_a), (old.format_b, new.format_b)
    return Footprint(
        weights=_bytes(sizes.weights, *of_a),
        activations=_bytes(sizes.activations, *of_a),
        gradients=_bytes(sizes.gradients, *of_b),
        states={name: _bytes(size, *of_b) for name, size in sizes.states.items()},
        raw=sizes.raw,
    )


def _bytes(size: int, old: Format, new: Format) -> int:
    count = 8 * size // old.bits  # down, because packing rounded the bytes up
    return int(-(-count * new.bits // 8))
