"""The advisor: asks for the errors of a few configurations on a new task, is told, and picks one.

Experiment design with matrix factorisation (ED-MF, section 3.2): the low-rank embeddings of a table of other
tasks say which configurations to measure, and least squares predicts the others from them. Training is left
to the caller, so nothing here needs torch.
"""

import html
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peppp import pareto
from peppp.errors import BudgetError, TableError
from peppp.formats import BlockFormat, Configuration, FloatFormat, Format
from peppp.metalearn.completion import complete
from peppp.metalearn.design import d_optimal, determines, least_squares
from peppp.records import Footprint
from peppp.tables import ErrorMatrix
from peppp.units import format_bytes, parse_bytes


@dataclass(frozen=True, slots=True)
class Prediction:
    """What is believed of one configuration: its error in [0, 1], measured or only estimated.

    ``estimated_error`` is the factorisation's, of measured configurations too; ``error`` is the measured one
    where there is one: measurements are never overwritten. ``permissible`` says whether the footprint is
    within the budget (inclusive).
    """

    configuration: Configuration
    estimated_error: float
    measured_error: float | None
    footprint: Footprint
    permissible: bool
    interval: tuple[float, float] | None = None

    @property
    def error(self) -> float:
        """The measured error, or else the estimated one."""
        return self.estimated_error if self.measured_error is None else self.measured_error


@dataclass(frozen=True, slots=True)
class Pick:
    """The configuration to train with, and what that rests on.

    ``predictions`` are in the table's order; ``frontier`` lists the configurations that are Pareto optimal
    within the budget, by ascending memory. ``reliable`` is False where the measurements do not determine all
    ``rank`` components of the task's embedding, as when there are fewer than ``rank``.
    """

    configuration: Configuration
    predicted_error: float
    interval: tuple[float, float] | None
    footprint: Footprint
    budget: int
    predictions: tuple[Prediction, ...]
    frontier: tuple[Configuration, ...]
    rank: int
    reliable: bool
    task: str = ""
    network: str = ""

    @property
    def measured(self) -> Mapping[Configuration, float]:
        """The measured errors, in the table's order."""
        return MappingProxyType(
            {p.configuration: p.measured_error for p in self.predictions if p.measured_error is not None}
        )

    @property
    def source(self) -> str:
        """Where the picked configuration's error comes from: "measured" or "estimated"."""
        return "measured" if self.configuration in self.measured else "estimated"

    def __str__(self) -> str:
        subject = " on ".join(filter(None, [self.task, self.network])) or "a new task"
        interval = "" if self.interval is None else " ({:.3f} to {:.3f})".format(*self.interval)
        parts = ", ".join(
            f"{name} {format_bytes(size)}" for name, size in _memory(self.footprint).items() if size
        )
        permissible = sum(prediction.permissible for prediction in self.predictions)
        lines = [
            f"{self.configuration} for {subject} within {format_bytes(self.budget)}",
            f"error     {self.predicted_error:.3f}{interval}, {self.source}",
            f"memory    {format_bytes(self.footprint.total)}: {parts}",
            f"frontier  {len(self.frontier)} of {permissible} configurations within the budget",
            "measured  " + (", ".join(f"{c} {error:.3f}" for c, error in self.measured.items()) or "nothing"),
        ]
        if not self.reliable:
            lines.append(f"unreliable: rank {self.rank} takes {self.rank} or more informative measurements")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain data; ``source`` says whether the error was measured or estimated, as do the predictions."""
        return {
            "configuration": str(self.configuration),
            "predicted_error": self.predicted_error,
            "source": self.source,
            "interval": self.interval and list(self.interval),
            "footprint": self.footprint.to_dict() | {"total": self.footprint.total},
            "budget": self.budget,
            "task": self.task,
            "network": self.network,
            "rank": self.rank,
            "reliable": self.reliable,
            "measured": {str(configuration): error for configuration, error in self.measured.items()},
            "frontier": [str(configuration) for configuration in self.frontier],
            "predictions": [_row(p) | {"permissible": p.permissible} for p in self.predictions],
        }

    def to_json(self) -> str:
        """:meth:`to_dict` as one line of JSON."""
        return json.dumps(self.to_dict(), allow_nan=False)

    def page_data(self) -> dict[str, Any]:
        """What :func:`peppp.page.report.render` draws; frontier and pick are indices of rows."""
        index = {p.configuration: i for i, p in enumerate(self.predictions)}
        return {
            "title": f"{self.configuration} within {format_bytes(self.budget)}",
            "task": self.task,
            "network": self.network,
            "budget": self.budget,
            "rank": self.rank,
            "reliable": self.reliable,
            "rows": [_row(p) for p in self.predictions],
            "frontier": [index[configuration] for configuration in self.frontier],
            "pick": index[self.configuration],
        }

    def report(self, path: str | Path) -> None:
        """Write one self-contained HTML page that shows the pick, the frontier and all predictions."""
        from peppp.page.report import write_report

        write_report(path, self.page_data())

    def _repr_html_(self) -> str:
        from peppp.page.report import render

        # A frame, so that the page's styles and the notebook's do not meet.
        page = html.escape(render(self.page_data()), quote=True)
        return (
            f'<iframe srcdoc="{page}" title="{html.escape(str(self.configuration))}" '
            'sandbox="allow-scripts" style="width: 100%; height: 46em; border: 0"></iframe>'
        )


class Advisor:
    """Chooses what to measure on a new task and, from the errors it is told, the configuration to train with.

    ``table`` holds the errors of other tasks; ``footprints`` the new task's bytes for each configuration.
    Configurations that only one of them knows are left out. ``cap`` bounds the memory of the measurements
    (default: the budget), both inclusive. ``rank`` and ``shrinkage`` are those of the factorisation and of
    the completion of the table. With ``chance_error``, the error of guessing on the new task, errors are
    compared as multiples of it; without, as they are. The arguments are never changed.

    Raises TableError if no configuration is left, and BudgetError if none fits in the budget or fewer than
    ``measurements`` in the cap.

    >>> from peppp.formats import paper_grid
    >>> from peppp.tables import Row
    >>> a, b, c = paper_grid()[:3]
    >>> errors = np.outer([0.5, 1.0], [0.8, 0.4, 0.2])  # the second task is twice as hard throughout
    >>> table = ErrorMatrix.from_values(errors, [Row("easy", "", ""), Row("hard", "", "")], [a, b, c])
    >>> footprints = {x: Footprint(10, 0, 0, {"momentum": i}) for i, x in enumerate([a, b, c])}
    >>> advisor = Advisor(table, footprints, budget=11, measurements=1)
    >>> while (configuration := advisor.ask()) is not None:
    ...     advisor.tell(configuration, error={a: 0.6, b: 0.3}[configuration])  # trained by the caller
    >>> pick = advisor.recommend()  # c is beyond the budget
    >>> dict(pick.measured) == {a: 0.6}, pick.configuration == b, round(pick.predicted_error, 3)
    (True, True, 0.3)
    """

    def __init__(
        self,
        table: ErrorMatrix,
        footprints: Mapping[Configuration, Footprint],
        budget: int | str,
        *,
        measurements: int = 6,
        cap: int | str | None = None,
        rank: int = 3,
        shrinkage: float = 0.1,
        chance_error: float | None = None,
        task: str = "",
        network: str = "",
    ) -> None:
        if chance_error is not None and not 0 < chance_error <= 1:
            raise TableError(f"the chance error is {chance_error}; it lies in (0, 1], as 1 - 1/classes does")
        columns = [j for j, configuration in enumerate(table.configurations) if configuration in footprints]
        if not columns:
            raise TableError("no configuration of the table has a footprint; give footprints for its columns")
        self.configurations = tuple(table.configurations[j] for j in columns)
        self.footprints = {c: footprints[c] for c in self.configurations}
        self.budget, self.measurements = parse_bytes(budget), measurements
        self.task, self.network = task, network
        self._memory = np.array([footprint.total for footprint in self.footprints.values()])  # [d] bytes
        self._permissible = self._within(self.budget, "a budget")
        measurable = self._permissible if cap is None else self._within(parse_bytes(cap), "a cap")
        if not 0 <= measurements <= measurable.sum():
            raise BudgetError(
                f"{measurements} measurements were asked for, but {measurable.sum()} configurations fit in "
                f"the memory; ask for 0 to {measurable.sum()} or allow more memory"
            )
        # All of the table serves to learn the embeddings, the columns without a footprint too.
        completion = complete(
            table, rank=rank, shrinkage=shrinkage, relative_to_chance=chance_error is not None
        )
        self._scale = 1.0 if chance_error is None else chance_error
        self._embeddings = completion.configuration_embeddings[columns]  # [d, k]
        self._column_means = completion.estimate[:, columns].mean(axis=0)  # [d]
        planned = d_optimal(self._embeddings, measurements, feasible=measurable)
        self.plan: tuple[Configuration, ...] = tuple(self.configurations[j] for j in planned)
        self._told: dict[Configuration, float] = {}

    def ask(self) -> Configuration | None:
        """The next of ``plan`` that has not been told, or None once enough is known.

        ``plan`` lists the most informative configurations first; all of them can also be measured at once.
        Asking alone changes nothing, and errors told unasked count as measurements.
        """
        if len(self._told) >= self.measurements:
            return None
        return next(configuration for configuration in self.plan if configuration not in self._told)

    def tell(self, configuration: Configuration | str, error: float) -> None:
        """Take note of a measured error, a fraction in [0, 1], asked for or not.

        Raises TableError for a configuration that is not known, an error that is none, and a second error
        of the same configuration that differs from the first.
        """
        configuration, error = Configuration.parse(configuration), float(error)
        if configuration not in self.footprints:
            raise TableError(
                f"{configuration} is not among the {len(self.configurations)} configurations that have a "
                "column in the table and a footprint; tell the error of one of those"
            )
        if not 0 <= error <= 1:  # refuses NaN as well
            raise TableError(
                f"the error of {configuration} is {error}; give a fraction between 0 and 1, and the error "
                "of guessing where training diverged"
            )
        known = self._told.setdefault(configuration, error)
        if known != error:
            raise TableError(
                f"the error of {configuration} was told to be {known}, now {error}; tell it once"
            )

    def predictions(self) -> tuple[Prediction, ...]:
        """What is believed of each configuration, in the table's order, clipped to [0, 1].

        Without any measurement these are the means of the completed table's columns.
        """
        return tuple(
            Prediction(c, float(error), self._told.get(c), footprint, bool(permissible))
            for error, permissible, (c, footprint) in zip(
                self._estimates(), self._permissible, self.footprints.items(), strict=True
            )
        )

    def recommend(self) -> Pick:
        """The configuration of least error within the budget, of ties the one of least memory.

        It is the Pareto optimal one with the highest allowed memory, as in section 3.2. Errors count as
        measured where they were, else as predicted. It can be asked for at any time.
        """
        predictions = self.predictions()
        errors = pareto.settled([p.error for p in predictions])
        optimal = pareto.frontier(self._memory, errors, self._permissible)
        best = pareto.best(self._memory, errors, self._permissible)
        assert best is not None  # a budget below every footprint is refused at the start
        return Pick(
            configuration=predictions[best].configuration,
            predicted_error=predictions[best].error,
            interval=None,
            footprint=predictions[best].footprint,
            budget=self.budget,
            predictions=predictions,
            frontier=tuple(self.configurations[j] for j in optimal),
            rank=self._embeddings.shape[1],
            reliable=determines(self._embeddings, self._measured_columns()),
            task=self.task,
            network=self.network,
        )

    def _estimates(self) -> NDArray[np.float64]:
        """Estimated errors [d], of measured configurations too."""
        errors = self._column_means
        if self._told:
            measured = np.array(list(self._told.values())) / self._scale
            errors = least_squares(self._embeddings, self._measured_columns(), measured)
        return np.asarray(np.clip(self._scale * errors, 0.0, 1.0))

    def _measured_columns(self) -> list[int]:
        return [self.configurations.index(configuration) for configuration in self._told]

    def _within(self, limit: int, name: str) -> NDArray[np.bool_]:
        within = self._memory <= limit  # [d]
        if not within.any():
            smallest = int(self._memory.min())
            cheapest = self.configurations[int(self._memory.argmin())]
            raise BudgetError(
                f"{name} of {format_bytes(limit)} is below every footprint; the smallest that works is "
                f"{smallest}B ({format_bytes(smallest)}), for {cheapest}"
            )
        return np.asarray(within)


def _memory(footprint: Footprint) -> dict[str, int]:
    """The parts of a footprint's total."""
    return {part: getattr(footprint, part) for part in ("weights", "activations", "optimizer", "raw")}


def _row(prediction: Prediction) -> dict[str, Any]:
    return {
        "configuration": str(prediction.configuration),
        "format_a": page_format(prediction.configuration.format_a),
        "format_b": page_format(prediction.configuration.format_b),
        "estimated": prediction.estimated_error,
        "measured": prediction.measured_error,
        "interval": prediction.interval and list(prediction.interval),
        "memory": _memory(prediction.footprint),
        "total": prediction.footprint.total,
    }


def page_format(fmt: Format) -> dict[str, str | int]:
    """A format as the page draws it: its text and how many bits of each kind its cells show."""
    element = fmt.element if isinstance(fmt, BlockFormat) else fmt
    if not isinstance(element, FloatFormat):  # integers: a sign and the rest
        return {"text": str(fmt), "exponent_bits": 0, "mantissa_bits": element.bits - 1}
    return {
        "text": str(fmt),
        "exponent_bits": element.exponent_bits,
        "mantissa_bits": element.mantissa_bits,
    }
