"""Measurements of several groups put together: nothing lost, nothing twice, nothing mixed that differs."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace

from peppp.arithmetic import current
from peppp.records import ARITHMETIC_VERSION, Measurement


@dataclass(frozen=True, slots=True)
class Merged:
    """Measurements put together, and what to know about them.

    ``same`` were there twice and are once. ``repeats`` are further runs of what was measured already, kept
    under the next number. ``several`` holds the fingerprints of tasks whose data differ under one name, which
    stay rows of their own. ``versions`` counts those of other arithmetic versions, which also stay rows of
    their own unless today's version would repeat them.
    """

    measurements: tuple[Measurement, ...]
    same: int
    repeats: int
    several: dict[str, tuple[str, ...]]
    versions: dict[int, int]

    def notes(self) -> list[str]:
        """One line for each thing to know."""
        lines = []
        if self.same:
            lines.append(f"{self.same} stood there twice and are kept once")
        if self.repeats:
            lines.append(f"{self.repeats} further runs of what was measured already are kept as repeats")
        for task, fingerprints in sorted(self.several.items()):
            lines.append(f"{task!r} names {len(fingerprints)} different data sets: {', '.join(fingerprints)}")
        for version, count in sorted(self.versions.items()):
            lines.append(
                f"{count} are of arithmetic version {version} (this is {ARITHMETIC_VERSION}): "
                "rows of their own"
            )
        return lines


def merge(known: Iterable[Measurement], *others: Iterable[Measurement]) -> Merged:
    """``known`` as it is, and of ``others`` what it lacks, in order.

    Two measurements are the same if all that was found and where (outcome, errors, curve, footprint,
    provenance) agrees; the clock may differ. Else one of equal key is a repeat: a run on another machine,
    or by other versions.

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
                pass  # what is known keeps its numbers
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
