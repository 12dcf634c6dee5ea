"""What is believed about one configuration, and about fp32."""

from dataclasses import dataclass
from typing import Any

from peppp.arguments import checked
from peppp.formats import Format
from peppp.page.bits import page_format
from peppp.records import Footprint
from peppp.table.labels import Label, formats_of, plain
from peppp.units import format_bytes


@checked
@dataclass(frozen=True, slots=True)
class Prediction:
    """What is believed about one configuration: its error in [0, 1], measured or only estimated.

    ``estimated_error`` is given for measured configurations, too. ``error`` is what the pick goes by: the
    measured error if there is one and it replaces the estimate (``settled``), else the estimate.
    ``permissible`` says whether the memory is within the budget (inclusive). That memory is ``peak``, the
    bytes of a step's peak (the whole budget if blocks are recomputed to fit it), if known, else the
    footprint.

    ``interval`` contains the noise-free error with probability 0.9. ``on_frontier`` is the probability of
    being Pareto optimal within the budget, and ``near_best`` the probability of an error at most the
    tolerance above the best within the budget. All three are None if the method has no probabilities, or the
    table too few rows.
    """

    configuration: Label
    estimated_error: float
    measured_error: float | None
    footprint: Footprint
    permissible: bool
    interval: tuple[float, float] | None = None
    on_frontier: float | None = None
    near_best: float | None = None
    settled: bool = True
    peak: int | None = None

    @property
    def memory(self) -> int:
        """The bytes that the budget bounds."""
        return self.footprint.total if self.peak is None else self.peak

    @property
    def error(self) -> float:
        """The error that the pick goes by."""
        measured = self.measured_error if self.settled else None
        return self.estimated_error if measured is None else measured

    @property
    def source(self) -> str:
        """The source of :attr:`error`: "measured" or "estimated"."""
        return "measured" if self.settled and self.measured_error is not None else "estimated"

    def row(self) -> dict[str, Any]:
        """What JSON and a page say about the configuration."""
        label, sides = self.configuration, _sides(self.configuration)
        return {
            "configuration": str(label),
            "named": formats_of(label) is None,
            "format_a": page_format(sides[0]),
            "format_b": page_format(sides[1]),
            "estimated": self.estimated_error,
            "measured": self.measured_error,
            "interval": self.interval and list(self.interval),
            "memory": memory_parts(self.footprint),
            "total": self.footprint.total,
            "peak": self.peak,
        }


@dataclass(frozen=True, slots=True)
class Reference:
    """fp32 on the same task: its error, 90 % interval (if known), and bytes.

    ``source`` is "given", "measured" or "estimated". ``total`` is the peak of its step in bytes if the budget
    bounds peaks (with recomputation and micro-batches where these are allowed and needed), else its
    footprint.
    """

    error: float
    interval: tuple[float, float] | None
    source: str
    total: int | None = None

    def in_words(self, picked: float, budget: int) -> str:
        """Describe the error, whether fp32 fits, and how much worse the pick is expected to be."""
        interval = "" if self.interval is None else " {:.3f} to {:.3f}".format(*self.interval)
        text = f"error {self.error:.3f}, {self.source}{interval}"
        if self.total is not None:
            fits = self.total <= budget
            needs = f"{'' if fits else 'at least '}{format_bytes(self.total)}"
            text += f"; needs {needs}, which {'fits the budget' if fits else 'does not fit'}"
        lost = picked - self.error
        return f"{text}; the pick is expected to " + (
            f"lose {lost:.3f}" if lost >= 0.0005 else "lose nothing"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "error": self.error,
            "interval": self.interval and list(self.interval),
            "source": self.source,
            "total": self.total,
        }


def memory_parts(footprint: Footprint) -> dict[str, int]:
    """The parts of a footprint's total."""
    return {part: getattr(footprint, part) for part in ("weights", "activations", "optimizer", "raw")}


def _sides(label: Label) -> tuple[Format | str, Format | str]:
    """What a page shows as Formats A and B; a plain text is shown as it is."""
    return (label, "") if isinstance(label, str) else plain([label])[0].sides


def kept_in_words(footprint: Footprint) -> str:
    """What a training keeps, in all and by part."""
    parts = [f"{name} {format_bytes(size)}" for name, size in memory_parts(footprint).items() if size]
    return f"{format_bytes(footprint.total)}: {', '.join(parts)}"
