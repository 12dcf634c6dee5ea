"""The answer of an advisor: the pick with its reasons."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from peppp.advise.costs import Cost, cost_lines
from peppp.advise.predictions import Prediction, Reference, kept_in_words
from peppp.advise.running import run_lines
from peppp.arguments import checked
from peppp.errors import TableError
from peppp.records import Footprint
from peppp.table.labels import Label, formats_of
from peppp.units import format_bytes


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
    reference: Reference | None = None
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
        intervals = [self.interval, self.run_interval, *(p.interval for p in self.predictions)]
        if not all(map(math.isfinite, chain.from_iterable(filter(None, intervals)))):
            raise TableError("an interval of a pick or of its predictions is not finite; give two numbers")

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
            lines += cost_lines(self.costs, self.configuration, self.cost_frontier)
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

    def _memory_lines(self) -> list[str]:
        """The printed lines on the peak, if the budget bounds it, and on kept memory by part."""
        kept = kept_in_words(self.footprint)
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

    def _format_b_lines(self) -> list[str]:
        """The printed line on other Formats B whose expected error is as low as the pick's."""
        pair = formats_of(self.configuration)
        if pair is None or self.settled:
            return []
        own = [
            p
            for p in self.predictions
            if p.permissible and (other := formats_of(p.configuration)) and other.format_a == pair.format_a
        ]
        near = [p for p in own if p.error <= self.predicted_error + self.tolerance]
        if len(near) < 2:
            return []
        which = "any that fits is" if len(near) == len(own) else f"{len(near)} of {len(own)} that fit are"
        alike = f"{which} expected to err as little (within {self.tolerance:g})"
        return [f"format B  {alike}; {pair.format_b} takes the least memory with {pair.format_a}"]

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
                p.row()
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
                p.row()
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
        from peppp.page.report import framed

        return framed(self.page_data())
