"""Merge measurements of several groups, without losing, repeating or mixing up any."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace

from peppp.arithmetic import current
from peppp.records import ARITHMETIC_VERSION, Measurement


@dataclass(frozen=True, slots=True)
class Merged:
    """Merged measurements, and what to know about them.

    ``same`` counts duplicates that were dropped. ``repeats`` counts further runs of the same key, which are
    kept under the next free repeat number. ``several`` lists the fingerprints of task names that belong to
    different data; these stay separate rows. ``versions`` counts, for each other arithmetic version, the
    measurements that the current version would not reproduce; these stay separate rows, too.
    """

    measurements: tuple[Measurement, ...]
    same: int
    repeats: int
    several: dict[str, tuple[str, ...]]
    versions: dict[int, int]

    def notes(self) -> list[str]:
        """Return a line for each of these facts."""
        lines = []
        if self.same:
            lines.append(f"dropped {self.same} duplicates")
        if self.repeats:
            lines.append(f"kept {self.repeats} further runs of measurements in the table as repeats")
        for task, fingerprints in sorted(self.several.items()):
            lines.append(f"{task!r} names {len(fingerprints)} different data sets: {', '.join(fingerprints)}")
        for version, count in sorted(self.versions.items()):
            lines.append(
                f"{count} are from arithmetic version {version} (the current one is {ARITHMETIC_VERSION}) "
                "and stay in rows of their own"
            )
        return lines


def merge(known: Iterable[Measurement], *others: Iterable[Measurement]) -> Merged:
    """Return ``known`` unchanged, followed by the measurements of ``others`` that it lacks, in order.

    Two measurements are the same if outcome, errors, curve, footprint and provenance agree; their durations
    may differ. Another measurement with the same key is kept as a repeat, since it is a run on another
    machine or with other versions.

    >>> from peppp import Configuration, Footprint, Outcome, Recipe
    >>> one = Measurement("digits", "d1", "digits", Configuration.parse("1-4-1/1-6-7"), Recipe(), 0, 0.9,
    ...     0.25, 0.2, (), Footprint(1, 1, 1, {}), Outcome.FINISHED, 2.5)
    >>> merged = merge([one], [one, replace(one, test_error=0.5)])
    >>> [(m.test_error, m.repeat) for m in merged.measurements], merged.same
    ([(0.25, 0), (0.5, 1)], 1)
    """
    groups: defaultdict[tuple[object, ...], dict[int, Measurement]] = defaultdict(dict)
    result: list[Measurement] = []
    same = repeats = 0
    for first, measurements in enumerate((known, *others)):
        for measurement in measurements:
            group = groups[measurement.key[:-1]]
            if first == 0 and measurement.repeat not in group:
                pass  # known measurements keep their repeat numbers
            elif any(_same(measurement, other) for other in group.values()):
                same += 1
                continue
            elif measurement.repeat in group:
                measurement = replace(measurement, repeat=max(group) + 1)
                repeats += 1
            group[measurement.repeat] = measurement
            result.append(measurement)
    prints: defaultdict[str, set[str]] = defaultdict(set)
    versions: defaultdict[int, int] = defaultdict(int)
    for measurement in result:
        prints[measurement.task].add(measurement.fingerprint)
        versions[current(measurement).recipe.arithmetic_version] += 1
    versions.pop(ARITHMETIC_VERSION, None)
    several = {task: tuple(sorted(found)) for task, found in prints.items() if len(found) > 1}
    return Merged(tuple(result), same, repeats, several, dict(versions))


def _same(one: Measurement, other: Measurement) -> bool:
    def plain(measurement: Measurement) -> Measurement:
        return replace(measurement, repeat=0, seconds=0.0, task="", group="")

    return plain(one) == plain(other)
