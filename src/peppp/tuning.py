"""Choosing more than precision (section 4.3): configurations with the learning rate they are trained at."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np

from peppp.errors import FormatError, TableError
from peppp.formats import Configuration
from peppp.records import Measurement
from peppp.tables import ErrorMatrix, Row


@dataclass(frozen=True, slots=True)
class TunedConfiguration(Configuration):
    """A configuration and a learning rate; as text ``1-4-1/1-6-7 at 0.01``.

    >>> str(TunedConfiguration.of(Configuration.parse("1-4-1/1-6-7"), 0.01))
    '1-4-1/1-6-7 at 0.01'
    """

    learning_rate: float

    @classmethod
    def of(cls, configuration: Configuration, learning_rate: float) -> "TunedConfiguration":
        """The pair of both."""
        return cls(configuration.format_a, configuration.format_b, learning_rate)

    @property
    def plain(self) -> Configuration:
        """The configuration without the learning rate."""
        return Configuration(self.format_a, self.format_b)

    def __str__(self) -> str:
        return f"{self.format_a}/{self.format_b} at {self.learning_rate:g}"


def parse_rates(text: str | float) -> tuple[float, ...]:
    """The learning rates of a text: one, or several to choose from.

    >>> parse_rates("0.01,0.001")
    (0.01, 0.001)
    """
    try:
        rates = tuple(dict.fromkeys(float(part) for part in str(text).split(",")))
    except ValueError:
        rates = ()
    if not rates or not all(0 <= rate < float("inf") for rate in rates):
        raise FormatError(f"not a learning rate: {text!r}; write a number, or several as 0.01,0.001,0.0001")
    return rates


def tuned_matrix(measurements: Iterable[Measurement], rates: Sequence[float]) -> ErrorMatrix:
    """The error matrix whose columns are configurations at each of the learning ``rates``.

    A row is a data set under a recipe, the learning rate apart: learning rate and configuration are one
    dimension. Repeats and seeds are averaged. Raises TableError naming a rate that the table has not.
    """
    everything = list(measurements)
    kept = [m for m in everything if not m.configuration.is_fp32 and m.recipe.learning_rate in rates]
    for rate in rates:
        if not any(m.recipe.learning_rate == rate for m in kept):
            known = sorted({m.recipe.learning_rate for m in everything if not m.configuration.is_fp32})
            raise TableError(
                f"the table has no measurement at the learning rate {rate:g}; it has "
                f"{', '.join(f'{r:g}' for r in known) or 'none'}"
            )
    rows: dict[tuple[str, str], Row] = {}
    cells: defaultdict[tuple[tuple[str, str], TunedConfiguration], list[float]] = defaultdict(list)
    for m in kept:
        digest = replace(m.recipe, learning_rate=0.0).digest
        key = (m.fingerprint, digest)
        row = Row(m.task, digest, m.group, m.chance_error, m.fingerprint)
        rows[key] = min(rows.get(key, row), row, key=lambda row: (row.task, row.group, row.chance_error))
        cells[key, TunedConfiguration.of(m.configuration, m.recipe.learning_rate)].append(m.test_error)
    keys = sorted(rows, key=lambda key: (rows[key].task, key))
    columns = sorted(
        {column for _, column in cells}, key=lambda c: (rates.index(c.learning_rate), str(c.plain))
    )
    values = np.full((len(keys), len(columns)), np.nan)
    row_of = {key: i for i, key in enumerate(keys)}
    column_of = {column: j for j, column in enumerate(columns)}
    for (key, column), errors in cells.items():
        values[row_of[key], column_of[column]] = fmean(errors)
    return ErrorMatrix.from_values(values, [rows[key] for key in keys], columns)
