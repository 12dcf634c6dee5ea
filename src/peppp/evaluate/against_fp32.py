"""What a precision costs in error: the difference to fp32 on the same data with the same recipe."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean

from peppp.arithmetic import current
from peppp.evaluate.bootstrap import Interval, family_mean
from peppp.precisions.known import Precision
from peppp.records import Measurement


@dataclass(frozen=True, slots=True)
class Difference:
    """How much higher the error of a precision is than that of fp32.

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


def differences(measurements: Iterable[Measurement]) -> list[Difference]:
    """The difference of each precision and network that share tasks with fp32, sorted by network and mean.

    Runs of one task and recipe are averaged first, at the precision and at fp32.

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
        reference = next((fmean(y) for c, y in by_precision.items() if c.is_fp32), None)
        for precision, runs in by_precision.items():
            if reference is not None and not precision.is_fp32:
                m = about[key]
                found[m.recipe.network, precision].append((m, fmean(runs) - reference, len(runs)))
    made = [_difference(network, precision, rows) for (network, precision), rows in found.items()]
    return sorted(made, key=lambda d: (d.network, d.mean.mean, str(d.precision)))


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
