"""The data of a reproduced figure: numbers, the paper's claim, what this table shows, and how to draw it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from peppp.evaluate.bootstrap import Interval, family_ratio

_ROUNDING = 1e-9  # rounding errors make the scores of exact estimates differ by less than this
Kind = Literal["bars", "heatmap", "histogram", "labelled", "line", "scatter", "stacked", "steps", "violin"]
Guide = Literal["", "diagonal", "one"]


@dataclass(frozen=True, slots=True)
class Panel:
    """One pair of axes, drawn from a figure's records: ``y`` over ``x``, one colour for each value of ``by``.

    ``x``, ``y`` and ``by`` name fields of the records; ``low`` and ``high`` name the fields that hold the
    ends of error bars. ``where`` selects records by the values of their fields. ``guide`` adds a dotted
    reference line: ``"diagonal"`` where x equals y, ``"one"`` at y = 1.
    """

    kind: Kind
    x: str
    y: str
    by: str = ""
    low: str = ""
    high: str = ""
    title: str = ""
    where: tuple[tuple[str, Any], ...] = ()
    guide: Guide = ""

    def records(self, records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """The records that this panel shows."""
        return [r for r in records if all(r.get(name) == value for name, value in self.where)]


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure, table or list of the paper (or a comparison of ours) on a table of measurements.

    ``holds`` is None if the table does not decide whether the claim holds: the interval that the claim
    depends on does not exclude the opposite (for example with a single family, or with ties). ``claims`` is
    False for an illustration, which makes no claim to test. ``settings`` are the counts and parameters that
    were used. ``records`` are plain dictionaries, ready for CSV and JSON.
    """

    name: str
    title: str
    claim: str
    finding: str
    holds: bool | None
    records: tuple[dict[str, Any], ...]
    panels: tuple[Panel, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    claims: bool = True

    @property
    def verdict(self) -> str:
        """Whether the claim holds, in a few words."""
        if not self.claims:
            return "nothing to decide"
        return {True: "holds here", False: "does not hold here", None: "not shown here"}[self.holds]

    def to_dict(self) -> dict[str, Any]:
        """The figure as plain data for JSON, without its panels and without ``claims``."""
        return {
            "name": self.name,
            "title": self.title,
            "claim": self.claim,
            "finding": self.finding,
            "holds": self.holds,
            "settings": self.settings,
            "records": list(self.records),
        }


def leads(value: float, others: Iterable[float], within: float = 1.1) -> bool:
    """Whether ``value`` is the least, or at most ``within`` times the least of the ``others``.

    >>> leads(0.21, [0.2, 0.3]), leads(2e-16, [1e-16]), leads(0.23, [0.2, 0.3])
    (True, True, False)
    """
    return bool(value <= within * min(others) + _ROUNDING)


def below(found: Interval, bound: float) -> bool | None:
    """True if the whole interval lies below the bound, False if it lies above, None if neither is shown.

    >>> [below(Interval(1, low, high), 1) for low, high in ((0.8, 0.9), (1.1, 1.3), (0.0, np.inf), (1, 1))]
    [True, False, None, None]
    """
    return True if found.high < bound else False if found.low > bound else None


def above(found: Interval, bound: float) -> bool | None:
    """True if the whole interval lies above the bound, False if it lies below, None if neither is shown."""
    shown = below(found, bound)
    return None if shown is None else not shown


def every(shown: Iterable[bool | None]) -> bool | None:
    """Combine findings: False if any is False, True if all are True, None if any is open or there are none.

    >>> every([True, True]), every([True, None]), every([None, False]), every([])
    (True, None, False, None)
    """
    found = list(shown)
    if False in found:
        return False
    return True if found and None not in found else None


def no_worse(
    values: ArrayLike, others: Iterable[ArrayLike], families: Sequence[str], within: float = 1.1
) -> bool | None:
    """Whether the mean of ``values`` [n] is below ``within`` times the mean of each of the ``others`` [n].

    Means weigh families equally. True or False only where the 95 % interval over ``families`` shows it for
    every one of the ``others`` (or refutes it for one), else None.
    """
    exact = np.asarray(values, dtype=np.float64) + _ROUNDING
    return every(
        below(family_ratio(exact, np.asarray(other, dtype=np.float64) + _ROUNDING, families), within)
        for other in others
    )
