"""What a column of an error matrix is called: a configuration, one at a learning rate, or any other text."""

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
    """A configuration and the learning rate it is trained at (section 4.3); as text ``1-4-1/1-6-7 at 0.01``.

    >>> pair = TunedConfiguration(Configuration.parse("1-4-1/1-6-7"), 0.01)
    >>> str(pair), TunedConfiguration.parse(str(pair)) == pair
    ('1-4-1/1-6-7 at 0.01', True)
    """

    configuration: Precision
    learning_rate: float

    @classmethod
    @checked
    def parse(cls, text: str) -> "TunedConfiguration":
        """The pair of its text; FormatError for a text that is none."""
        configuration, at, rate = text.partition(" at ")
        if not at:
            raise FormatError(f"not a pair with a learning rate: {text!r}; write one as 1-4-1/1-6-7 at 0.01")
        rates = parse_rates(rate)
        if len(rates) > 1:
            raise FormatError(f"{text!r} has several learning rates; write one as 1-4-1/1-6-7 at 0.01")
        return cls(parse_precision(configuration.strip()), rates[0])

    def __str__(self) -> str:
        return f"{self.configuration} at {self.learning_rate!r}"


Label: TypeAlias = Precision | TunedConfiguration | str


@checked
def parse_label(text: str) -> Label:
    """The label of a text: a precision, with or without a rate, where it reads as one; else the text itself.

    >>> parse_label("1-4-1/1-6-7 at 0.01").learning_rate, parse_label("amp-bf16").name, parse_label("mine")
    (0.01, 'amp-bf16', 'mine')
    """
    text = text.strip()
    for read in (parse_precision, TunedConfiguration.parse):
        with suppress(FormatError):
            return read(text)
    return text


def as_label(label: Label) -> Label:
    """The label itself, or that of a text."""
    return parse_label(label) if isinstance(label, str) else label


def formats_of(label: Label) -> Configuration | None:
    """The two formats of a label; None where it is a name or any other text."""
    precision = label.configuration if isinstance(label, TunedConfiguration) else label
    return precision if isinstance(precision, Configuration) else None


def plain(labels: Iterable[Label]) -> tuple[Precision, ...]:
    """The precisions of labels, without learning rates; TableError where one is any other text."""
    found = []
    for label in labels:
        if isinstance(label, str):
            raise TableError(f"the column {label!r} is no precision, as 1-4-1/1-6-7 or amp-bf16 would be")
        found.append(label.configuration if isinstance(label, TunedConfiguration) else label)
    return tuple(found)


def pairs(labels: Iterable[Label]) -> tuple[Configuration, ...]:
    """The configurations of labels, without learning rates; TableError where one is not two formats."""
    found = []
    for label in labels:
        pair = formats_of(label)
        if pair is None:
            raise TableError(f"the column {str(label)!r} is no pair of formats, as 1-4-1/1-6-7 would be")
        found.append(pair)
    return tuple(found)


def in_order(labels: Iterable[Label], rates: Sequence[float] = ()) -> list[Label]:
    """Labels in the order of the ``rates``, then of the paper's grid; others after those, by their text."""
    place = {configuration: j for j, configuration in enumerate(paper_grid())}

    def key(label: Label) -> tuple[float, int, str]:
        rate, configuration = 0.0, label
        if isinstance(label, TunedConfiguration):
            rate, configuration = label.learning_rate, label.configuration
        at = rates.index(rate) if rate in rates else rate
        return at, place.get(configuration, len(place)), str(configuration)  # type: ignore[arg-type]

    return sorted(labels, key=key)


def groups(labels: Sequence[Label]) -> NDArray[np.intp] | None:
    """A number [d] for each label, equal for those that differ in Format B only; None for mere texts.

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
