"""Choose the blocks to recompute so that the peak of a step fits with the fewest extra operations.

Two rehearsals suffice: one that recomputes no block and one that recomputes all. Choices differ in the memory
at a moment, within a block or between blocks, only by what earlier blocks have left behind. So the peak of
any choice follows from the two rehearsals, and dynamic programming over the blocks finds the best choice.
"""

from collections.abc import Callable
from dataclasses import dataclass

from peppp.footprint.moment import Moment
from peppp.footprint.segments import Cut

_LEVELS = 2000  # prices are whole multiples of 1/2000 of a step's operations, so that few choices differ


@dataclass(frozen=True, slots=True)
class Plan:
    """The blocks to recompute, the step's peak in bytes, and the share of its operations done twice."""

    blocks: tuple[str, ...]
    peak: int
    extra: float


class Planner:
    """Makes plans for one training at one configuration; ``size`` gives the bytes of a moment."""

    def __init__(self, none: Cut, every: Cut, size: Callable[[Moment], int]) -> None:
        assert none.blocks == every.blocks
        self.blocks = none.blocks
        self._saves = [  # bytes that recomputing a block saves after it
            size(a) - size(b) for a, b in zip(none.left_behind, every.left_behind, strict=True)
        ]
        self._prices = [max(1, round(_LEVELS * count / none.step_operations)) for count in none.operations]
        self._shares = [count / none.step_operations for count in none.operations]
        plain, again = ({p: max(map(size, at)) for p, at in cut.highest.items()} for cut in (none, every))
        self._before = max(plain.get(0, 0), 0)
        self._between = [plain.get(2 * i + 2, 0) for i in range(len(self.blocks))]
        # The peak within each block if no earlier block is recomputed: (block kept, block recomputed).
        self._within = []
        for i, place in enumerate(range(1, 2 * len(self.blocks), 2)):
            highest = again[place] + sum(self._saves[:i]) if place in again else 0
            self._within.append((plain.get(place, 0), highest))

    def peak(self, chosen: frozenset[str] | tuple[str, ...]) -> int:
        """The peak in bytes of the step that recomputes the ``chosen`` blocks."""
        highest, saved = self._before, 0
        for i, name in enumerate(self.blocks):
            highest = max(highest, self._within[i][name in chosen] - saved)
            saved += self._saves[i] if name in chosen else 0
            highest = max(highest, self._between[i] - saved)
        return highest

    def plan(self, budget: int) -> Plan | None:
        """The plan with the fewest extra operations whose peak is within ``budget`` bytes; None if none fits.

        Among plans with equally many operations it is the one with the lowest peak. The peak never rises when
        the budget falls.
        """
        found = self._cheapest(budget)
        while found is not None:
            lower = self._cheapest(self.peak(found) - 1)
            if lower is None or self._price(lower) > self._price(found):
                break
            found = lower
        return None if found is None else self._as_plan(found)

    def lowest(self) -> Plan:
        """The plan with the lowest peak."""
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
        """The block in which the lowest possible peak occurs; "" if it occurs outside of blocks."""
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
