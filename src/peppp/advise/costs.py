"""What a configuration costs besides error and memory: time, energy, or your own numbers.

=====================  ====================================================================================
memory                 bytes of the training, computed
time                   seconds of the table's trainings, with simulated arithmetic, on the table's processor
energy                 a model, not a measurement: published energies of single operations times their number
FILE.csv:COLUMN        the numbers in that column for the configurations in the column ``configuration``
=====================  ====================================================================================

None of them needs a training. Less is better.
"""

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np

from peppp.errors import FormatError, TableError
from peppp.files import reading
from peppp.floats import FloatFormat
from peppp.formats import Configuration, Format, element_of
from peppp.precisions.known import Precision, is_of_formats, parse_precision
from peppp.precisions.named import NamedPrecision
from peppp.records import Measurement
from peppp.table.labels import Label

# Picojoules of one operation at 45 nm and 0.9 V, by width in bits: Horowitz, "Computing's energy problem
# (and what we can do about it)", ISSCC 2014.
INTEGER_MULTIPLY = {8: 0.2, 32: 3.1}
INTEGER_ADD = {8: 0.03, 32: 0.1}
FLOAT_MULTIPLY = {16: 1.1, 32: 3.7}
FLOAT_ADD = {16: 0.4, 32: 0.9}
# A step of SGD with momentum: weight decay, momentum, learning rate; each a multiplication and an addition.
_OPERATIONS_PER_PARAMETER = 3


@dataclass(frozen=True, slots=True)
class Cost:
    """A number for each configuration, its unit, and its source in words."""

    name: str
    unit: str
    source: str
    values: Mapping[Label, float]

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", MappingProxyType(dict(self.values)))

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.name, self.unit, self.source, dict(self.values))

    def shown(self, configuration: Label) -> str:
        """The cost of a configuration with its unit, such as ``12.5 J``."""
        return f"{self.values[configuration]:.4g} {self.unit}".rstrip()

    def anchored(self, measured: Mapping[Label, float] | Mapping[Configuration, float]) -> "Cost":
        """Scale the cost to what was ``measured`` on the task itself, by the geometric mean of the ratios.

        >>> a, b = Configuration.parse("1-4-1/1-6-7"), Configuration.parse("1-4-2/1-6-7")
        >>> Cost("time", "s", "", {a: 1.0, b: 3.0}).anchored({a: 2.0}).values[b]
        6.0
        """
        ratios = [
            math.log(seconds / self.values[c]) for c, seconds in measured.items() if self.values.get(c, 0) > 0
        ]
        scale = math.exp(math.fsum(ratios) / len(ratios)) if ratios else 1.0
        return replace(self, values={c: scale * value for c, value in self.values.items()})


def memory_cost(sizes: Mapping[Label, int]) -> Cost:
    """The bytes that the budget bounds, in MB."""
    return Cost("memory", "MB", "computed", {c: size / 1e6 for c, size in sizes.items()})


def time_cost(measurements: Iterable[Measurement], configurations: Sequence[Precision]) -> Cost:
    """Seconds of a training on a typical task of a table, fitted to the durations in the table.

    The logarithm of a duration is modelled as a term for its task, recipe and processor, plus one for Format
    A and one for Format B. Single durations would be too noisy to compare configurations. Raises TableError
    if the table has no durations.

    >>> from peppp.records import Footprint, Outcome, Recipe
    >>> a, b = Configuration.parse("1-4-1/1-6-7"), Configuration.parse("1-4-2/1-6-7")
    >>> timed = [Measurement("t", task, "t", c, Recipe(), 0, 0.9, 0.5, 0.5, (), Footprint(1, 1, 1, {}),
    ...     Outcome.FINISHED, seconds, provenance={"device": "cpu", "processor": "Z80"})
    ...     for task, c, seconds in [("x", a, 2.0), ("x", b, 4.0), ("y", a, 8.0)]]
    >>> cost = time_cost(timed, [a, b])
    >>> cost.source, round(cost.values[b] / cost.values[a], 1)
    ('fitted to 3 trainings measured on Z80, with simulated arithmetic', 2.0)
    """
    wanted = set(configurations)
    timed = [
        m
        for m in measurements
        if m.seconds > 0 and (is_of_formats(m.configuration) or m.configuration in wanted)
    ]
    if not timed:
        raise TableError("the table holds no seconds; leave out the cost time")
    places = sorted({(m.fingerprint, m.recipe.digest, _machine(m)) for m in timed})
    formats = sorted({name for m in timed for name in _sides(m.configuration)})
    column = {name: j for j, name in enumerate([*places, *formats])}
    design = np.zeros((len(timed), len(column)))
    for i, m in enumerate(timed):
        for name in ((m.fingerprint, m.recipe.digest, _machine(m)), *_sides(m.configuration)):
            design[i, column[name]] = 1.0
    # Terms are determined up to constants that cancel in the sums below, so the shortest solution will do.
    levels = np.linalg.lstsq(design, np.log([m.seconds for m in timed]), rcond=None)[0]
    typical = levels[: len(places)].mean()
    level = dict(zip(column, levels.tolist(), strict=True))
    typical = float(levels[: len(places)].mean())
    usual = {side: float(np.mean([level[f] for f in formats if f[0] == side])) for side in "AB"}
    logs = {c: typical + sum(level.get(f, usual[f[0]]) for f in _sides(c)) for c in configurations}
    machines = " and ".join(sorted({place[-1] for place in places}))
    return Cost(
        "time",
        "s",
        f"fitted to {len(timed)} trainings measured on {machines}, with simulated arithmetic",
        {c: float(f"{math.exp(log):.6g}") for c, log in logs.items()},  # rounded, so that exact ties are ties
    )


def energy_cost(
    configurations: Iterable[Precision], multiply_adds: float, parameters: int, steps: int
) -> Cost:
    """Joules that the arithmetic of one training takes, by a model that does not count moving data.

    ``multiply_adds`` is their number in one step, forward and backward. Factors are in Format A, and their
    products are added in fp32, as in peppp's trainings. The update of a parameter takes three multiplications
    and additions in Format B. For other widths than the two published ones of each kind (float and integer),
    energies follow a power law through these two.

    >>> a = Configuration.parse("fp16/fp32")
    >>> round(energy_cost([a], 1e9, 1000, 1000).values[a], 6)  # 1e12 x (1.1 + 0.9) pJ, 3e6 x (3.7 + 0.9) pJ
    2.000014
    """
    joules: dict[Label, float] = {}
    for c in configurations:
        a, b = c.sides
        product = multiply_adds * (multiply_energy(a) + FLOAT_ADD[32])
        update = _OPERATIONS_PER_PARAMETER * (multiply_energy(b) + add_energy(b))
        joules[c] = 1e-12 * steps * (product + parameters * update)
    return Cost(
        "energy",
        "J",
        "modelled, not measured: arithmetic only, at 45 nm (Horowitz 2014), other widths by a power law",
        joules,
    )


def multiply_energy(fmt: Format) -> float:
    """Picojoules for multiplying two numbers of a format.

    >>> from peppp.formats import parse_format
    >>> multiply_energy(parse_format("fp16")), multiply_energy(parse_format("int8"))
    (1.1, 0.2)
    """
    return _energy(fmt, FLOAT_MULTIPLY, INTEGER_MULTIPLY)


def add_energy(fmt: Format) -> float:
    """Picojoules for adding two numbers of a format."""
    return _energy(fmt, FLOAT_ADD, INTEGER_ADD)


def _energy(fmt: Format, of_floats: Mapping[int, float], of_integers: Mapping[int, float]) -> float:
    element = element_of(fmt)  # without the scale of a block, which many elements share
    (narrow, low), (wide, high) = (of_floats if isinstance(element, FloatFormat) else of_integers).items()
    power = math.log(high / low) / math.log(wide / narrow)
    return float(low * (element.bits / narrow) ** power)


def check_costs(names: Iterable[str]) -> None:
    """Raise TableError for the name of an unknown cost, before anything is read."""
    for name in names:
        if name not in ("memory", "time", "energy") and ":" not in name:
            raise TableError(
                f"no cost {name!r}; there are memory, time, energy, and your own FILE.csv:COLUMN"
            )


def column_cost(text: str, configurations: Sequence[Precision]) -> Cost:
    """The cost in ``FILE.csv:COLUMN``; the file names its configurations in the column ``configuration``.

    Raises TableError if the file lacks a column, a value is not a finite number, a configuration is unknown
    or has two different costs, or one of ``configurations`` has none.
    """
    path, _, name = text.rpartition(":")
    values: dict[Precision, float] = {}
    with reading(Path(path)) as file:
        rows = csv.DictReader(file, strict=True)
        header = list(rows.fieldnames or [])
        for needed in ("configuration", name):
            if needed not in header:
                raise TableError(f"{path} has no column {needed!r}; it has {', '.join(header) or 'none'}")
        for row in rows:
            where = f"{path}, line {rows.line_num}"
            try:
                configuration, value = parse_precision(row["configuration"] or ""), float(row[name] or "")
            except FormatError as error:
                raise TableError(f"{where}: {error}") from None
            except ValueError:
                raise TableError(f"{where}, column {name}: {row[name]!r} is not a number") from None
            if not math.isfinite(value):
                raise TableError(f"{where}, column {name}: {row[name]!r} is not a finite number")
            if values.setdefault(configuration, value) != value:
                raise TableError(f"{where}: {configuration} is listed twice, with different costs")
    for configuration in configurations:
        if configuration not in values:
            raise TableError(f"{path} has no {name} for {configuration}; give one for each within the budget")
    return Cost(name, "", f"from {Path(path).name}", {c: values[c] for c in configurations})


def _sides(precision: Precision) -> tuple[tuple[str, str], tuple[str, str]]:
    a, b = precision.sides
    named = isinstance(precision, NamedPrecision)  # it is more than its formats
    return ("A", str(precision) if named else str(a)), ("B", str(b))


def _machine(measurement: Measurement) -> str:
    provenance = measurement.provenance
    device = provenance.get("device", "cpu")
    return provenance.get("processor", "an unnamed processor") if device == "cpu" else device


def cost_lines(costs: Sequence[Cost], picked: Label, frontier: Sequence[Label]) -> list[str]:
    """The printed lines on the costs of a pick, and on what is Pareto optimal in error and all of them."""
    *most, last = [cost.name for cost in costs]
    names = f"{', '.join(most)} and {last}" if most else last
    return [
        "costs     " + ", ".join(f"{cost.name} {cost.shown(picked)}" for cost in costs),
        f"          Pareto optimal in error and {names}: {', '.join(map(str, frontier))}",
        *(f"          {cost.name}: {cost.source}" for cost in costs),
    ]
