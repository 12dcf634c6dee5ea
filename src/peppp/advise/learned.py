"""What a pick learns from: the rows of a table that suit its recipe and its choices."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from peppp.advise.caution import digest_of
from peppp.advise.choices import known_errors
from peppp.cache import kept
from peppp.errors import TableError
from peppp.formats import FP32_CONFIGURATION
from peppp.learn.methods import DEFAULT_METHOD, Method
from peppp.records import Measurement, Recipe
from peppp.table.labels import TunedConfiguration, parse_label
from peppp.table.matrix import ErrorMatrix, Row
from peppp.table.measured import error_matrix
from peppp.table.select import SHIPPED_TABLE, alike, taught_by
from peppp.tasks.dataset import Dataset, digest


@dataclass(frozen=True, slots=True)
class Learned:
    """What a pick learns from: ``errors``, the rows that suit its recipe, at the columns of its choices.

    ``chance_error`` is that of the new task if the rows state theirs. ``everything`` is a digest of what
    ``all_rows`` returns: all rows of the table, at the columns that may be picked. ``measurements`` returns
    those of all rows; it raises TableError if the table is an error matrix.
    """

    errors: ErrorMatrix
    chance_error: float | None
    everything: str
    all_rows: Callable[[], ErrorMatrix]
    measurements: Callable[[], Sequence[Measurement]]
    notes: tuple[str, ...] = ()


def learned_from(
    table: str | Path | ErrorMatrix | None,
    dataset: Dataset,
    recipe: Recipe,
    choices: str,
    rates: Sequence[float],
    method: str,
) -> Learned:
    """Read the table, and select what a pick learns from.

    What was selected from a text table is kept in the user's cache, because reading one takes half a second.
    """
    named = choices != "paper"
    if isinstance(table, ErrorMatrix):
        errors = table.without(dataset.name)
        if rates and not any(isinstance(c, TunedConfiguration) for c in errors.columns):
            raise TableError("an error matrix has no learning rates; give one, or a store or a table")
        matrix = _at_choices(errors, errors, named=named)
        return Learned(errors, _chance(errors, dataset), digest_of(matrix), lambda: matrix, _no_measurements)

    own = dataset.fingerprint, dataset.former
    read = cache(partial(alike, table, recipe, without=own))
    # The errors of fp32 say much about the others, but the paper's methods do not use them.
    fp32 = Method.parse(method).design == DEFAULT_METHOD

    def all_rows(errors: ErrorMatrix) -> ErrorMatrix:
        everything = error_matrix(
            read()[0], learning_rates=rates, include_reference=named, include_named=named
        )
        return _at_choices(everything, errors, named=named)

    def select() -> tuple[ErrorMatrix, str, str]:
        taught = taught_by(read()[0], recipe, every_rate=bool(rates))
        errors = known_errors(taught, choices, rates=rates, with_fp32=fp32)
        return errors, read()[1], digest_of(all_rows(errors))

    contents = _contents(table)
    if contents is None:
        errors, unused, everything = select()
    else:
        errors, unused, everything = kept(
            "learned",
            (contents, own, recipe.to_json(), choices, tuple(rates), fp32),
            select,
            to_plain=lambda found: [_to_plain(found[0]), *found[1:]],
            from_plain=lambda parts: (_from_plain(parts[0]), parts[1], parts[2]),
        )
    return Learned(
        errors,
        _chance(errors, dataset),
        everything,
        partial(all_rows, errors),
        lambda: read()[0],
        (unused,) if unused else (),
    )


def _at_choices(everything: ErrorMatrix, errors: ErrorMatrix, *, named: bool) -> ErrorMatrix:
    """All rows of a matrix, at the columns of another one that may be picked: fp32 only if names may."""
    chosen = [label for label in errors.columns if named or label != FP32_CONFIGURATION]
    return everything.take(
        np.arange(len(everything.rows)), [everything.columns.index(label) for label in chosen]
    )


def _contents(table: str | Path | None) -> str | None:
    """A digest of a text table; None for a store, whose file may lack what was written last."""
    path = SHIPPED_TABLE if table is None else Path(table)
    if path.name.endswith((".csv", ".csv.gz")):
        with suppress(OSError):  # reading the table says why
            return digest(path.read_bytes())
    return None


def _to_plain(errors: ErrorMatrix) -> dict[str, Any]:
    """The matrix as JSON data."""
    arrays = {name: getattr(errors, name) for name in ("values", "memory", "counts", "squares")}
    rows = [asdict(row) | {"recipe": row.recipe and row.recipe.to_json()} for row in errors.rows]
    found = {name: None if array is None else array.tolist() for name, array in arrays.items()}
    return found | {"rows": rows, "columns": errors.labels}


def _from_plain(data: dict[str, Any]) -> ErrorMatrix:
    rows = tuple(
        Row(**row | {"recipe": row["recipe"] and Recipe.from_json(row["recipe"])}) for row in data["rows"]
    )
    values, *others = (
        None if data[name] is None else np.array(data[name], dtype=np.float64)
        for name in ("values", "memory", "counts", "squares")
    )
    assert values is not None
    return ErrorMatrix(values, rows, tuple(map(parse_label, data["columns"])), *others)


def _no_measurements() -> Sequence[Measurement]:
    raise TableError("an error matrix has no durations; give a store or a table for the cost time")


def _chance(errors: ErrorMatrix, dataset: Dataset) -> float | None:
    """The error of guessing; None if no row states its own, so that errors are compared as they are."""
    return dataset.chance_error if any(row.chance_error != 1.0 for row in errors.rows) else None
