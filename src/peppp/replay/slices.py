"""What of a table of measurements is known well enough to try methods on, as a :class:`KnownTable`."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields, replace

import numpy as np
from numpy.typing import NDArray

from peppp.errors import PepppError, TableError
from peppp.formats import Configuration, paper_grid
from peppp.metalearn.completion import complete_values
from peppp.records import Measurement, Recipe
from peppp.replay.known import KnownTable, Lacking

_FEWEST = 10  # configurations of a row that is partly observed
_FIELDS = tuple(f.name for f in fields(Recipe))


def largest_slice(
    measurements: Iterable[Measurement], where: Mapping[str, str] | None = None
) -> list[Measurement]:
    """The measurements of the one way of training that the table holds most of, and that meets ``where``.

    A way of training is a recipe but for the resolution, which belongs to the task. ``where`` fixes fields of
    the recipe by their text, as ``{"rounding": "nearest"}``. fp32 is left out.

    Raises TableError for a field that there is none of, Lacking where nothing meets ``where``.
    """
    wanted = dict(where or {})
    for field in wanted:
        if field not in _FIELDS:
            raise TableError(f"a recipe has no field {field!r}; it has {', '.join(_FIELDS)}")
    kept = [m for m in measurements if not m.configuration.is_fp32 and meets(m.recipe, wanted)]
    if not kept:
        shown = ", ".join(f"{field}={value}" for field, value in wanted.items())
        raise Lacking(f"the table lacks measurements{f' with {shown}' if shown else ''}")
    ways = Counter(replace(m.recipe, resolution=0) for m in kept)
    most = max(ways, key=lambda way: (ways[way], way.to_json()))
    return [m for m in kept if replace(m.recipe, resolution=0) == most]


def meets(recipe: Recipe, where: Mapping[str, str]) -> bool:
    """Whether the recipe's fields have these texts; numbers are compared as numbers."""
    for field, text in where.items():
        value = getattr(recipe, field)
        try:
            same = float(text) == value if isinstance(value, (int, float)) else str(value) == text
        except ValueError:
            same = str(value) == text
        if not same:
            return False
    return True


def known_table(
    measurements: Iterable[Measurement], *, seed: int | None = None, every_row: bool = False
) -> KnownTable:
    """The largest part of the measurements in which every row has every column, on one seed.

    Where that part is less than half of them, as while a campaign runs, it is all rows of ten configurations
    or more, partly observed: see :func:`known_part`.

    Rows are data sets under a recipe, columns configurations. ``seed`` is by default the one with the most
    measurements: to average over seeds where there are several would make some rows less noisy than others.
    ``every_row`` keeps all rows and the columns that they have in common.

    Raises Lacking if nothing is left.
    """
    kept = [m for m in measurements if not m.configuration.is_fp32]
    if not kept:
        raise Lacking("the table lacks measurements at low precision")
    if seed is None:
        seed = main_seed(kept)
    kept = [m for m in kept if m.seed == seed]
    cells: dict[tuple[str, str], dict[Configuration, Measurement]] = defaultdict(dict)
    digests = {recipe: recipe.digest for recipe in {m.recipe for m in kept}}
    for m in sorted(kept, key=lambda m: -m.repeat):  # the first of several repeats stays
        cells[m.fingerprint, digests[m.recipe]][m.configuration] = m
    first = {key: next(iter(row.values())) for key, row in cells.items()}
    keys = sorted(cells, key=lambda key: (first[key].task, key))
    place = {configuration: j for j, configuration in enumerate(paper_grid())}
    columns = sorted({m.configuration for m in kept}, key=lambda c: (place.get(c, len(place)), str(c)))
    observed = np.array([[c in cells[key] for c in columns] for key in keys], dtype=bool)
    observed = observed.reshape(len(keys), len(columns))
    i, j = (
        (np.arange(len(keys)), np.flatnonzero(np.all(observed, axis=0)))
        if every_row
        else known_part(observed)
    )
    if not len(i) or not len(j):
        raise Lacking("the table lacks configurations that its rows have in common")
    chosen = [keys[r] for r in i]
    part = [[cells[key].get(columns[c]) for c in j] for key in chosen]
    rows = [first[key] for key in chosen]
    mask = observed[np.ix_(i, j)]
    errors = np.array([[m.test_error if m else np.nan for m in row] for row in part])
    if not mask.all():
        errors = np.clip(complete_values(errors, mask).estimate, 0.0, 1.0)
    several = len({replace(m.recipe, resolution=0) for m in rows}) > 1
    return KnownTable(
        errors=errors,
        memory=np.array(
            [
                [
                    float(m.footprint.total) if m else scaled(rows[r], columns[c])
                    for m, c in zip(row, j, strict=True)
                ]
                for r, row in enumerate(part)
            ]
        ),
        observed=mask,
        names=tuple(_name(m, rows) if several else m.task for m in rows),
        columns=tuple(str(columns[c]) for c in j),
        families=tuple(m.group or m.task for m in rows),
        tasks=tuple(m.fingerprint for m in rows),
        recipes=tuple(m.recipe for m in rows),
        chance=np.array([m.chance_error for m in rows]),
    )


def main_seed(measurements: Iterable[Measurement]) -> int:
    """The seed with the most measurements, of equals the lowest."""
    counts = Counter(m.seed for m in measurements)
    return max(counts, key=lambda s: (counts[s], -s))


def scaled(measurement: Measurement, configuration: Configuration) -> float:
    """Bytes of the same training at another configuration: its parts times the ratio of the formats' bits.

    >>> from peppp import Footprint, Outcome
    >>> here = Configuration.parse("1-4-1/1-6-7")
    >>> measured = Measurement("t", "t", "t", here, Recipe(), 0, 0.9, 0.5, 0.5, (),
    ...     Footprint(600, 1200, 1400, {"momentum": 1400}, raw=8), Outcome.FINISHED, 1.0)
    >>> scaled(measured, Configuration.parse("1-4-3/1-7-7"))
    5408.0
    """
    footprint, here = measurement.footprint, measurement.configuration
    in_a = (footprint.weights + footprint.activations) * configuration.format_a.bits / here.format_a.bits
    in_b = footprint.optimizer * configuration.format_b.bits / here.format_b.bits
    return float(in_a + in_b + footprint.raw)


def complete_block(observed: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns of a large part of a mask [n, d] that is all true.

    Each row's columns are tried as the columns of all, with the rows that have them; the most entries win, of
    equals the more rows.

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


def known_part(observed: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns to evaluate of a mask [n, d]: its complete block, if that holds half of what is known.

    Else all rows of ten columns or more (of all, where there are fewer), and the columns that any one has.
    """
    i, j = complete_block(observed)
    if 2 * len(i) * len(j) < observed.sum():
        i = np.flatnonzero(observed.sum(axis=1) >= min(_FEWEST, observed.shape[1]))
        j = np.flatnonzero(observed[i].any(axis=0))
    return i, j


def from_matrices(
    errors: NDArray[np.float64],
    memory: NDArray[np.float64],
    names: Sequence[str],
    columns: Sequence[str],
) -> KnownTable:
    """The known part of an error matrix [n, d] (NaN: not observed) with its memory matrix [n, d].

    It is that of :func:`known_table`: complete, or partly observed where most rows have gaps. Each row is a
    family of its own.
    """
    if np.shape(errors) != np.shape(memory):
        raise TableError(f"errors {np.shape(errors)} and memory {np.shape(memory)} differ in shape")
    if not np.isfinite(memory).all():
        raise TableError("memory is a positive number of bytes in each entry")
    i, j = known_part(np.isfinite(errors))
    if not len(i) or not len(j):
        raise Lacking(
            f"the matrices lack rows with errors at {min(_FEWEST, np.shape(errors)[1])} configurations"
        )
    observed = np.isfinite(errors[np.ix_(i, j)])
    known = errors[np.ix_(i, j)]
    if not observed.all():
        known = np.clip(complete_values(known, observed).estimate, 0.0, 1.0)
    rows = tuple(names[r] for r in i)
    return KnownTable(
        errors=known,
        memory=memory[np.ix_(i, j)],
        observed=observed,
        names=rows,
        columns=tuple(columns[c] for c in j),
        families=rows,
        tasks=rows,
        recipes=(None,) * len(rows),
        chance=np.ones(len(rows)),
    )


def _name(measurement: Measurement, rows: Sequence[Measurement]) -> str:
    """The task and what its recipe does not share with all rows."""
    recipes = [asdict(replace(m.recipe, resolution=0)) for m in rows]
    own = asdict(measurement.recipe)
    differing = [f for f in _FIELDS if f != "resolution" and any(r[f] != recipes[0][f] for r in recipes)]
    return " ".join([measurement.task, *(f"{f}={own[f]}" for f in differing)])


def parse_where(texts: Sequence[str]) -> dict[str, str]:
    """``["rounding=nearest", "network=resnet8"]`` as a mapping.

    >>> parse_where(["rounding=nearest,learning_rate=0.01"])
    {'rounding': 'nearest', 'learning_rate': '0.01'}
    """
    found = {}
    for text in ",".join(texts).split(","):
        field, equals, value = text.partition("=")
        if not equals and text:
            raise PepppError(f"not a condition: {text!r}; write field=value, as rounding=nearest")
        if equals:
            found[field.strip()] = value.strip()
    return found
