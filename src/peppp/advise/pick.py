"""The answer of an advisor: a prediction for each configuration, and the pick with its reasons."""

import html
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from peppp.advise.costs import Cost
from peppp.advise.running import run_lines
from peppp.arguments import checked
from peppp.errors import TableError
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


@checked
@dataclass(frozen=True, slots=True)
class Pick:
    """The configuration to train with, and the reasons for it.

    ``predictions`` are in the table's order; ``frontier`` lists the configurations that are Pareto optimal
    within the budget, by ascending memory. Errors within the ``tolerance`` count as equal, and the least
    memory is picked. With probability 0.9, ``interval`` contains the noise-free error of the pick, and
    ``run_interval`` the error of one training at it. ``sureness`` is the probability that no permissible
    configuration is better by more than the tolerance. These three are None if the method has no
    probabilities, or the table is too small. ``reliable`` is False if the measurements do not determine all
    ``rank`` components of the task's embedding, for example if there are fewer than ``rank``.

    ``stopped`` says why fewer measurements were made than allowed, if so, and ``saving`` by how much another
    training is expected to lower the error. ``planned`` is what a dry run would train first; a sequential
    method plans as if errors came out as predicted. ``costs`` are those that were requested. ``reference`` is
    fp32, if the table has an estimate for it. ``notes`` say what the table lacks for this training and how
    well a pick works nevertheless; ``warning`` says that no training learned anything.

    ``step_peak`` is the peak of the pick's step in bytes, if the budget bounds peaks. ``recomputed`` names
    the blocks that the step computes twice to fit the budget, ``micro_batch`` is the number of images per
    pass if a batch takes several, and ``fitted`` describes the step in words. ``precision`` is the text for
    ``peppp train --precision``, ``line`` the whole command, and ``snippet`` the code for a training loop; all
    three are empty if the advisor does not know the data.
    """

    configuration: Label
    predicted_error: float
    interval: tuple[float, float] | None
    footprint: Footprint
    budget: int
    predictions: tuple[Prediction, ...]
    frontier: tuple[Label, ...]
    rank: int
    reliable: bool
    task: str = ""
    network: str = ""
    sureness: float | None = None
    method: str = "gaussian"
    stopped: str = ""
    costs: tuple[Cost, ...] = ()
    notes: tuple[str, ...] = ()
    planned: tuple[Label, ...] = ()
    tolerance: float = 0.0
    reference: "Reference | None" = None
    run_interval: tuple[float, float] | None = None
    saving: float | None = None
    warning: str = ""
    step_peak: int | None = None
    recomputed: tuple[str, ...] = ()
    micro_batch: int | None = None
    fitted: str = ""
    precision: str = ""
    line: str = ""
    snippet: str = ""

    def __post_init__(self) -> None:
        predicted = {p.configuration for p in self.predictions}
        if not {self.configuration, *self.frontier, *self.planned} <= predicted:
            raise TableError("a pick, its frontier and what it planned are among its predictions")
        for name in ("predicted_error", "saving", "sureness", "tolerance"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise TableError(f"the {name} of a pick is {value}; give a finite number")

    @property
    def peak(self) -> int | None:
        """The estimated peak of the pick's step in bytes; None if the budget bounds kept memory."""
        if self.step_peak is not None:
            return self.step_peak
        return next((p.peak for p in self.predictions if p.configuration == self.configuration), None)

    @property
    def measured(self) -> Mapping[Label, float]:
        """The measured errors, in the table's order."""
        return MappingProxyType(
            {p.configuration: p.measured_error for p in self.predictions if p.measured_error is not None}
        )

    @property
    def source(self) -> str:
        """The source of the predicted error: "measured" or "estimated"."""
        return "measured" if self.settled and self.configuration in self.measured else "estimated"

    def __str__(self) -> str:
        subject = " on ".join(filter(None, [self.task, self.network])) or "a new task"
        interval = "" if self.interval is None else ", 90 % interval {:.3f} to {:.3f}".format(*self.interval)
        name = self.precision.removeprefix("packed:") or str(self.configuration)
        permissible = sum(prediction.permissible for prediction in self.predictions)
        lines = [
            *([f"warning   {self.warning}"] if self.warning else []),
            f"{name} for {subject} within {format_bytes(self.budget)}",
            f"error     {self.predicted_error:.3f}, {self._source}{interval}",
            *self._format_b_lines(),
            *self._memory_lines(),
            f"frontier  {len(self.frontier)} of {permissible} configurations within the budget",
            "measured  "
            + (
                ", ".join(f"{c} {error:.3f}" for c, error in self.measured.items())
                or "nothing: the estimates rest on other tasks alone"
            ),
        ]
        if self.planned:
            total = {p.configuration: p.memory for p in self.predictions}
            planned = ", ".join(f"{c} {format_bytes(total[c])}" for c in self.planned)
            lines.append(f"planned   {planned}")
        if self.costs:
            lines.append(
                "costs     " + ", ".join(f"{c.name} {c.shown(self.configuration)}" for c in self.costs)
            )
            lines.append(
                f"          Pareto optimal in error and {_listed(c.name for c in self.costs)}: "
                + ", ".join(map(str, self.cost_frontier))
            )
            lines += [f"          {cost.name}: {cost.source}" for cost in self.costs]
        if self.reference is not None:
            lines.append(f"fp32      {self.reference.in_words(self.predicted_error, self.budget)}")
        if self.saving is not None and not self.stopped:
            saves = f"{self.saving:.3f}" if self.saving >= 0.001 else "less than 0.001"
            lines.append(f"more      another training is expected to save {saves} of the error")
        if self.stopped:
            lines.append(f"stopped   {self.stopped}")
        lines += [f"note      {note}" for note in self.notes]
        if not self.reliable:
            lines.append(f"unreliable: rank {self.rank} needs {self.rank} or more informative measurements")
        if self.line:
            lines += run_lines(self.line, self.snippet)
        return "\n".join(lines)

    def _format_b_lines(self) -> list[str]:
        """The printed line on other Formats B that are as good."""
        pair = formats_of(self.configuration)
        if pair is None or not (alike := self.equally_good):
            return []
        return [f"format B  {alike}; {pair.format_b} takes the least memory with {pair.format_a}"]

    def _memory_lines(self) -> list[str]:
        """The printed lines on the peak, if the budget bounds it, and on kept memory by part."""
        parts = [f"{name} {format_bytes(size)}" for name, size in _memory(self.footprint).items() if size]
        kept = f"{format_bytes(self.footprint.total)}: {', '.join(parts)}"
        if self.peak is None:
            return [f"memory    {kept}"]
        peak = self.fitted or f"peak {format_bytes(self.peak)}, estimated"
        return [f"memory    {peak}", f"          kept {kept}"]

    @property
    def _source(self) -> str:
        """The source of the error in words, with the measured error if that does not settle it."""
        if self.settled:
            return self.source
        run = self.measured.get(self.configuration)
        return "estimated" if run is None else f"estimated; a run had {run:.3f}"

    @property
    def equally_good(self) -> str:
        """Which Formats B have the same expected error as the pick's, in words; empty if none has."""
        pair = formats_of(self.configuration)
        if pair is None:
            return ""
        own = [
            p
            for p in self.predictions
            if p.permissible and (other := formats_of(p.configuration)) and other.format_a == pair.format_a
        ]
        near = [p for p in own if p.error <= self.predicted_error + self.tolerance]
        if self.settled or len(near) < 2:
            return ""
        which = "any that fits is" if len(near) == len(own) else f"{len(near)} of {len(own)} that fit are"
        return f"{which} expected to err as little (within {self.tolerance:g})"

    @property
    def settled(self) -> bool:
        """Whether measured errors replace estimates."""
        return all(prediction.settled for prediction in self.predictions)

    @property
    def cost_frontier(self) -> tuple[Label, ...]:
        """:meth:`frontier_over` all ``costs``; empty if there are none."""
        return self.frontier_over(*(cost.values for cost in self.costs)) if self.costs else ()

    @checked
    def frontier_over(self, *costs: Mapping[Any, float]) -> tuple[Label, ...]:
        """The permissible configurations that are Pareto optimal in error and all ``costs`` at once.

        A cost maps each configuration to a number to minimise: seconds, joules, money, or
        ``{p.configuration: p.footprint.total for p in pick.predictions}``. The result is sorted by the first
        cost, then by error. Raises TableError if a permissible configuration has no finite cost.
        """
        rows = [p for p in self.predictions if p.permissible]
        points = np.array(
            [[*(float(cost.get(p.configuration, np.nan)) for cost in costs), round(p.error, 9)] for p in rows]
        )
        for p, point in zip(rows, points, strict=True):
            if not np.isfinite(point).all():
                raise TableError(f"{p.configuration} has no finite cost; give one for each within the budget")
        beaten = [((points <= point).all(axis=1) & (points < point).any(axis=1)).any() for point in points]
        order = np.lexsort((points[:, -1], points[:, 0]))
        return tuple(rows[j].configuration for j in order if not beaten[j])

    def to_dict(self) -> dict[str, Any]:
        """The pick as plain data; ``source`` says whether its error was measured or estimated."""
        return {
            "configuration": str(self.configuration),
            "precision": self.precision or None,
            "train": self.line or None,
            "snippet": self.snippet or None,
            "predicted_error": self.predicted_error,
            "source": self.source,
            "interval": self.interval and list(self.interval),
            "run_interval": self.run_interval and list(self.run_interval),
            "saving": self.saving,
            "footprint": self.footprint.to_dict() | {"total": self.footprint.total},
            "peak": self.peak,
            "recomputed": list(self.recomputed),
            "micro_batch": self.micro_batch,
            "budget": self.budget,
            "task": self.task,
            "network": self.network,
            "rank": self.rank,
            "reliable": self.reliable,
            "warning": self.warning,
            "notes": list(self.notes),
            "method": self.method,
            "sureness": self.sureness,
            "stopped": self.stopped,
            "fp32": self.reference and self.reference.to_dict(),
            "measured": {str(configuration): error for configuration, error in self.measured.items()},
            "planned": [str(configuration) for configuration in self.planned],
            "frontier": [str(configuration) for configuration in self.frontier],
            "costs": [{"name": cost.name, "unit": cost.unit, "source": cost.source} for cost in self.costs],
            "cost_frontier": [str(configuration) for configuration in self.cost_frontier],
            "predictions": [
                _row(p)
                | {"costs": {cost.name: cost.values.get(p.configuration) for cost in self.costs}}
                | {"permissible": p.permissible, "on_frontier": p.on_frontier, "near_best": p.near_best}
                for p in self.predictions
            ],
        }

    def to_json(self) -> str:
        """:meth:`to_dict` as one line of JSON."""
        return json.dumps(self.to_dict(), allow_nan=False)

    def page_data(self) -> dict[str, Any]:
        """The data that :func:`peppp.page.report.render` draws; frontier and pick are indices of rows."""
        index = {p.configuration: i for i, p in enumerate(self.predictions)}
        return {
            "title": f"{self.configuration} within {format_bytes(self.budget)}",
            "task": self.task,
            "network": self.network,
            "budget": self.budget,
            "rank": self.rank,
            "reliable": self.reliable,
            "notes": [*filter(None, [self.warning]), *self.notes],
            "counts": "kept" if self.peak is None else "peak",
            # The page draws an interval around the estimate; a measured error that replaces it needs none.
            "rows": [
                _row(p)
                | {"settled": p.settled, "total": p.memory, "kept": p.footprint.total}
                | ({"interval": None} if p.settled and p.measured_error is not None else {})
                for p in self.predictions
            ],
            "tolerance": self.tolerance,
            "frontier": [index[configuration] for configuration in self.frontier],
            "pick": index[self.configuration],
            "costs": [
                {
                    "name": cost.name,
                    "unit": cost.unit,
                    "source": cost.source,
                    "values": [cost.values.get(p.configuration) for p in self.predictions],
                }
                for cost in self.costs
            ],
            "cost_frontier": [index[configuration] for configuration in self.cost_frontier],
        }

    @checked
    def report(self, path: str | Path) -> None:
        """Write one self-contained HTML page that shows the pick, the frontier and all predictions."""
        from peppp.page.report import write_report

        write_report(path, self.page_data())

    def _repr_html_(self) -> str:
        from peppp.page.report import render

        # The frame separates the styles of the page from those of the notebook.
        page = html.escape(render(self.page_data()), quote=True)
        return (
            f'<iframe srcdoc="{page}" title="{html.escape(str(self.configuration))}" '
            'sandbox="allow-scripts" style="width: 100%; height: 46em; border: 0"></iframe>'
        )


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


def _listed(names: Iterable[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def _memory(footprint: Footprint) -> dict[str, int]:
    """The parts of a footprint's total."""
    return {part: getattr(footprint, part) for part in ("weights", "activations", "optimizer", "raw")}


def _sides(label: Label) -> tuple[Format | str, Format | str]:
    """What a page shows as Formats A and B; a plain text is shown as it is."""
    return (label, "") if isinstance(label, str) else plain([label])[0].sides


def _row(prediction: Prediction) -> dict[str, Any]:
    label, sides = prediction.configuration, _sides(prediction.configuration)
    return {
        "configuration": str(label),
        "named": formats_of(label) is None,
        "format_a": page_format(sides[0]),
        "format_b": page_format(sides[1]),
        "estimated": prediction.estimated_error,
        "measured": prediction.measured_error,
        "interval": prediction.interval and list(prediction.interval),
        "memory": _memory(prediction.footprint),
        "total": prediction.footprint.total,
        "peak": prediction.peak,
    }
