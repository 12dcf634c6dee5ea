"""What is allocated at one moment of a step: numbers of Formats A and B, and bytes that no format changes."""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from math import ceil

from peppp.formats import Configuration


@dataclass(frozen=True, slots=True)
class Moment:
    """What is allocated at one moment: ``raw`` bytes, and how many numbers of Formats A and B."""

    raw: int
    numbers_a: int
    numbers_b: int

    def bytes(self, configuration: Configuration) -> int:
        """Return its size in bytes at a configuration.

        >>> Moment(100, 80, 8).bytes(Configuration.parse("1-4-1/1-6-7"))
        174
        """
        bits = self.numbers_a * configuration.format_a.bits + self.numbers_b * configuration.format_b.bits
        return self.raw + ceil(Fraction(bits) / 8)

    def less(self, other: "Moment") -> "Moment":
        """Return the difference of two moments."""
        return Moment(
            self.raw - other.raw, self.numbers_a - other.numbers_a, self.numbers_b - other.numbers_b
        )

    def with_raw(self, nbytes: int) -> "Moment":
        """Return the moment with ``nbytes`` more raw bytes."""
        return Moment(self.raw + nbytes, self.numbers_a, self.numbers_b)

    def exceeds(self, other: "Moment") -> bool:
        """Whether it needs at least as much as another at every configuration."""
        return (
            self.raw >= other.raw and self.numbers_a >= other.numbers_a and self.numbers_b >= other.numbers_b
        )


def highest_of(moments: Iterable[Moment]) -> tuple[Moment, ...]:
    """Return the moments that no other exceeds: at any configuration, one of them is the highest."""
    found: list[Moment] = []
    for m in sorted(moments, key=lambda m: (m.raw, m.numbers_a, m.numbers_b), reverse=True):
        if not any(f.exceeds(m) for f in found):
            found.append(m)
    return tuple(found)
