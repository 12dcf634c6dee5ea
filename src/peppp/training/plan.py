"""Which blocks to compute again, so that the peak of a step fits and the least is computed twice.

Two rehearsals tell it: one that recomputes no block and one that recomputes all. A moment within a block, or
beside it, differs between choices only by what earlier blocks have left behind, so that the peak of any
choice follows from the two, and the best choice is a dynamic programme over the blocks.
"""

from collections.abc import Callable
from dataclasses import dataclass

from peppp.footprint.moment import Moment
from peppp.footprint.segments import Cut

_LEVELS = 2000  # in so many parts of a step's operations a choice is priced, so that few choices differ


@dataclass(frozen=True, slots=True)
class Plan:
    """Blocks to recompute, the peak of a step in bytes, and which share of its operations is done twice."""

    blocks: tuple[str, ...]
    peak: int
    extra: float


class Planner:
    """Plans for one training at one configuration; ``size`` is the bytes of a moment."""

    def __init__(self, none: Cut, every: Cut, size: Callable[[Moment], int]) -> None:
        assert none.blocks == every.blocks
        self.blocks = none.blocks
        self._saves = [  # bytes that recomputing a block saves from there on
            size(a) - size(b) for a, b in zip(none.left_behind, every.left_behind, strict=True)
        ]
        self._prices = [max(1, round(_LEVELS * count / none.step_operations)) for count in none.operations]
        self._shares = [count / none.step_operations for count in none.operations]
        plain, again = ({p: max(map(size, at)) for p, at in cut.highest.items()} for cut in (none, every))
        self._before = max(plain.get(0, 0), 0)
        self._between = [plain.get(2 * i + 2, 0) for i in range(len(self.blocks))]
        # The highest moments within a block as if no earlier block were recomputed: kept, and recomputed.
        self._within = []
        for i, place in enumerate(range(1, 2 * len(self.blocks), 2)):
            highest = again[place] + sum(self._saves[:i]) if place in again else 0
            self._within.append((plain.get(place, 0), highest))

    def peak(self, chosen: frozenset[str] | tuple[str, ...]) -> int:
        """The peak of the step that recomputes the blocks ``chosen``."""
        highest, saved = self._before, 0
        for i, name in enumerate(self.blocks):
            highest = max(highest, self._within[i][name in chosen] - saved)
            saved += self._saves[i] if name in chosen else 0
            highest = max(highest, self._between[i] - saved)
        return highest

    def plan(self, budget: int) -> Plan | None:
        """The plan of least operations whose peak is within ``budget``, of those the lowest; None if there is
        none. Its peak never rises when the budget falls.
        """
        found = self._cheapest(budget)
        while found is not None:
            lower = self._cheapest(self.peak(found) - 1)
            if lower is None or self._price(lower) > self._price(found):
                break
            found = lower
        return None if found is None else self._as_plan(found)

    def lowest(self) -> Plan:
        """The plan of the lowest peak that any has."""
        low, best = 0, tuple(self.blocks)
        high = min(self.peak(best), self.peak(()))
        while low < high:
            middle = (low + high) // 2
            found = self._cheapest(middle)
            if found is None:
                low = middle + 1
            else:
                high = self.peak(found)
        plan = self.plan(high)
        assert plan is not None
        return plan

    def narrowest(self) -> str:
        """Where the lowest peak is: the block that no choice brings lower; "" where that is beside blocks."""
        chosen = self.lowest().blocks
        limit, saved = self.peak(chosen), 0
        for i, name in enumerate(self.blocks):
            if self._within[i][name in chosen] - saved == limit:
                return name
            saved += self._saves[i] if name in chosen else 0
        return ""

    def _cheapest(self, budget: int) -> tuple[str, ...] | None:
        if self._before > budget:
            return None
        states: list[tuple[int, int, tuple[str, ...]]] = [(0, 0, ())]  # price, saved so far, chosen
        for i, name in enumerate(self.blocks):
            reached = []
            for price, saved, chosen in states:
                for again in (False, True):
                    after = saved + (self._saves[i] if again else 0)
                    if self._within[i][again] - saved <= budget and self._between[i] - after <= budget:
                        more = (price + self._prices[i], after, (*chosen, name))
                        reached.append(more if again else (price, after, chosen))
            reached.sort(key=lambda state: (state[0], -state[1]))
            states = []
            for state in reached:
                if not states or state[1] > states[-1][1]:
                    states.append(state)
        return states[0][2] if states else None

    def _price(self, chosen: tuple[str, ...]) -> int:
        return sum(p for p, name in zip(self._prices, self.blocks, strict=True) if name in chosen)

    def _as_plan(self, chosen: tuple[str, ...]) -> Plan:
        extra = sum(s for s, name in zip(self._shares, self.blocks, strict=True) if name in chosen)
        return Plan(chosen, self.peak(chosen), extra)
