"""What a reproduced figure is: numbers, the paper's claim, what this table shows, and how to draw it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

_ROUNDING = 1e-9  # scores of exact estimates differ by less
Kind = Literal["bars", "heatmap", "histogram", "labelled", "line", "scatter", "stacked", "steps", "violin"]
Guide = Literal["", "diagonal", "one"]


@dataclass(frozen=True, slots=True)
class Panel:
    """One pair of axes, drawn from the figure's records: ``y`` over ``x``, a colour for each value of ``by``.

    ``low`` and ``high`` name the ends of error bars; ``where`` picks records by the values of their fields;
    ``guide`` is a dotted line to compare with: where both axes are equal, or at a height of one.
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

    ``holds`` is None where the table cannot say whether the claim holds. ``settings`` are the counts and
    parameters used. ``records`` are plain, for CSV and JSON.
    """

    name: str
    title: str
    claim: str
    finding: str
    holds: bool | None
    records: tuple[dict[str, Any], ...]
    panels: tuple[Panel, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """The claim's fate in two or three words."""
        return {True: "holds here", False: "does not hold here", None: "not decided here"}[self.holds]

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
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
