"""Labels of an error matrix's columns: a configuration, one at a learning rate, or any other text."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from peppp.arguments import checked
from peppp.errors import FormatError, TableError
from peppp.formats import Configuration, paper_grid
from peppp.precisions.known import Precision, parse_precision


@checked
@dataclass(frozen=True, slots=True)
class TunedConfiguration:
    """A configuration with a learning rate (section 4.3), written as ``1-4-1/1-6-7 at 0.01``.

    >>> pair = TunedConfiguration(Configuration.parse("1-4-1/1-6-7"), 0.01)
    >>> str(pair), TunedConfiguration.parse(str(pair)) == pair
    ('1-4-1/1-6-7 at 0.01', True)
    """

    configuration: Precision
    learning_rate: float

    @classmethod
    @checked
    def parse(cls, text: str) -> "TunedConfiguration":
        """Parse a text such as ``1-4-1/1-6-7 at 0.01``; raise FormatError for any other text."""
        configuration, at, rate = text.partition(" at ")
        if not at:
            raise FormatError(
                f"not a configuration at a learning rate: {text!r}; write 1-4-1/1-6-7 at 0.01, for example"
            )
        rates = parse_rates(rate)
        if len(rates) > 1:
            raise FormatError(f"{text!r} has several learning rates; write one, such as 1-4-1/1-6-7 at 0.01")
        return cls(parse_precision(configuration.strip()), rates[0])

    def __str__(self) -> str:
        return f"{self.configuration} at {self.learning_rate!r}"


Label: TypeAlias = Precision | TunedConfiguration | str


@checked
def parse_label(text: str) -> Label:
    """Parse a text as a precision, with or without a learning rate; return any other text as it is.

    >>> parse_label("1-4-1/1-6-7 at 0.01").learning_rate, parse_label("amp-bf16").name, parse_label("mine")
    (0.01, 'amp-bf16', 'mine')
    """
    text = text.strip()
    for read in (parse_precision, TunedConfiguration.parse):
        with suppress(FormatError):
            return read(text)
    return text


def as_label(label: Label) -> Label:
    """Parse the label if it is a text."""
    return parse_label(label) if isinstance(label, str) else label


def formats_of(label: Label) -> Configuration | None:
    """Return the two formats of a label, or None if it is a named precision or any other text."""
    precision = label.configuration if isinstance(label, TunedConfiguration) else label
    return precision if isinstance(precision, Configuration) else None


def plain(labels: Iterable[Label]) -> tuple[Precision, ...]:
    """Return the precisions of labels, without learning rates; raise TableError for any other text."""
    found = []
    for label in labels:
        if isinstance(label, str):
            raise TableError(
                f"the column {label!r} is not a precision; name it as one, such as 1-4-1/1-6-7 or amp-bf16"
            )
        found.append(label.configuration if isinstance(label, TunedConfiguration) else label)
    return tuple(found)


def pairs(labels: Iterable[Label]) -> tuple[Configuration, ...]:
    """Return the configurations of labels, without learning rates; raise TableError for any other label."""
    found = []
    for label in labels:
        pair = formats_of(label)
        if pair is None:
            raise TableError(
                f"the column {str(label)!r} is not a pair of formats; name it as one, such as 1-4-1/1-6-7"
            )
        found.append(pair)
    return tuple(found)


def in_order(labels: Iterable[Label], rates: Sequence[float] = ()) -> list[Label]:
    """Sort labels by the order of ``rates``, then of the paper's grid; other labels follow, by text."""
    place = {configuration: j for j, configuration in enumerate(paper_grid())}

    def key(label: Label) -> tuple[float, int, str]:
        rate, configuration = 0.0, label
        if isinstance(label, TunedConfiguration):
            rate, configuration = label.learning_rate, label.configuration
        at = rates.index(rate) if rate in rates else rate
        return at, place.get(configuration, len(place)), str(configuration)  # type: ignore[arg-type]

    return sorted(labels, key=key)


def groups(labels: Sequence[Label]) -> NDArray[np.intp] | None:
    """Number the labels [d] so that those that differ only in Format B share a number.

    Returns None if there are no labels, or if one is a mere text.

    >>> groups(paper_grid()[7:11])
    array([0, 0, 1, 1])
    """
    if not labels or any(isinstance(label, str) for label in labels):
        return None
    kinds = [
        (str(pair.format_a if (pair := formats_of(label)) else label), getattr(label, "learning_rate", None))
        for label in labels
    ]
    numbers = {kind: number for number, kind in enumerate(dict.fromkeys(kinds))}
    return np.array([numbers[kind] for kind in kinds], dtype=np.intp)


def parse_rates(text: str | float) -> tuple[float, ...]:
    """Parse one learning rate, or several between commas; raise FormatError for anything else.

    >>> parse_rates("0.01,0.001")
    (0.01, 0.001)
    """
    try:
        rates = tuple(dict.fromkeys(float(part) for part in str(text).split(",")))
    except ValueError:
        rates = ()
    if not rates or not all(0 <= rate < float("inf") for rate in rates):
        raise FormatError(
            f"not a learning rate: {text!r}; write a number, or several, such as 0.01,0.001,0.0001"
        )
    return rates
