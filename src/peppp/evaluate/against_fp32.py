"""What a precision costs in error: its difference to fp32, or to another, on the same data and recipe."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean

from peppp.arithmetic import current
from peppp.evaluate.bootstrap import Interval, family_mean
from peppp.formats import FP32_CONFIGURATION, Configuration
from peppp.precisions.known import Precision
from peppp.records import Measurement


@dataclass(frozen=True, slots=True)
class Difference:
    """How much higher the error of a precision is than that of fp32, or of another reference.

    ``mean`` averages the differences over the tasks of each family, then over families, and has a 95 %
    interval from a bootstrap over families. ``worst`` is the task with the largest difference, and that
    difference. ``runs`` is the number of trainings at the precision.
    """

    precision: Precision
    network: str
    mean: Interval
    tasks: int
    families: int
    runs: int
    worst: tuple[str, float]


def differences(
    measurements: Iterable[Measurement], reference: Precision = FP32_CONFIGURATION
) -> list[Difference]:
    """The difference of each precision and network to the reference, sorted by network and mean.

    Only tasks that were measured at both count. Runs of one task and recipe are averaged first, at the
    precision and at the reference.

    >>> from peppp import Footprint, Outcome, Recipe
    >>> from peppp.precisions.known import parse_precision
    >>> def measured(precision, error):
    ...     return Measurement("digits", "d1", "digits", parse_precision(precision), Recipe(), 0, 0.9, error,
    ...         error, (), Footprint(1, 1, 1, {}), Outcome.FINISHED, 1.0)
    >>> (found,) = differences([measured("fp32", 0.25), measured("bf16", 0.5)])
    >>> str(found.precision), found.mean.mean, found.worst
    ('bf16', 0.25, ('digits', 0.25))
    """
    errors: defaultdict[tuple[str, str], defaultdict[Precision, list[float]]]
    errors = defaultdict(lambda: defaultdict(list))
    about: dict[tuple[str, str], Measurement] = {}
    for m in map(current, measurements):
        key = m.fingerprint, m.recipe.digest
        errors[key][m.configuration].append(m.test_error)
        about[key] = m
    found: defaultdict[tuple[str, Precision], list[tuple[Measurement, float, int]]] = defaultdict(list)
    for key, by_precision in errors.items():
        if reference not in by_precision:
            continue
        base, m = fmean(by_precision[reference]), about[key]
        for precision, runs in by_precision.items():
            if precision != reference:
                found[m.recipe.network, precision].append((m, fmean(runs) - base, len(runs)))
    made = [_difference(network, precision, rows) for (network, precision), rows in found.items()]
    return sorted(made, key=lambda d: (d.network, d.mean.mean, str(d.precision)))


@dataclass(frozen=True, slots=True)
class OfFormatB:
    """How much higher errors are with a Format B than with the one of most bits, under one rounding mode.

    ``mean`` averages over tasks and Formats A in each family, then over families.
    """

    rounding: str
    format_b: str
    mean: Interval
    cells: int


def of_format_b(measurements: Iterable[Measurement], network: str, widest: str = "1-8-11") -> list[OfFormatB]:
    """What a Format B of fewer bits costs, by rounding mode: the difference at equal task and Format A.

    Runs of one cell are averaged first. Sorted by rounding mode and by mean, the most costly first.
    """
    errors: defaultdict[tuple[str, str, str], defaultdict[str, list[float]]]
    errors = defaultdict(lambda: defaultdict(list))
    about: dict[tuple[str, str, str], Measurement] = {}
    for m in map(current, measurements):
        if m.recipe.network == network and isinstance(m.configuration, Configuration):
            key = m.fingerprint, m.recipe.digest, str(m.configuration.format_a)
            errors[key][str(m.configuration.format_b)].append(m.test_error)
            about[key] = m
    more: defaultdict[tuple[str, str], list[tuple[str, float]]] = defaultdict(list)
    for key, by_format in errors.items():
        if widest not in by_format:
            continue
        for format_b, runs in by_format.items():
            if format_b != widest:
                row = about[key].group, fmean(runs) - fmean(by_format[widest])
                more[about[key].recipe.rounding, format_b].append(row)
    made = [
        OfFormatB(rounding, format_b, family_mean([x for _, x in rows], [g for g, _ in rows]), len(rows))
        for (rounding, format_b), rows in more.items()
    ]
    return sorted(made, key=lambda one: (one.rounding, -one.mean.mean))


def _difference(network: str, precision: Precision, rows: list[tuple[Measurement, float, int]]) -> Difference:
    most = max(rows, key=lambda row: (row[1], row[0].task))
    groups = [m.group for m, _, _ in rows]
    return Difference(
        precision=precision,
        network=network,
        mean=family_mean([more for _, more, _ in rows], groups),
        tasks=len({m.fingerprint for m, _, _ in rows}),
        families=len(set(groups)),
        runs=sum(count for _, _, count in rows),
        worst=(most[0].task, most[1]),
    )
