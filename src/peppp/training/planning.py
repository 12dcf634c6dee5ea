"""Plan which blocks of a module a training step computes twice, so that its peak fits a budget."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, TypeVar

from torch import Tensor, nn

from peppp.errors import BudgetError, NetworkError
from peppp.footprint.moment import Moment
from peppp.footprint.recipes import MakesOptimizer, training_recipe
from peppp.footprint.rehearsal import Rehearsal, rehearse_on
from peppp.footprint.segments import Cut
from peppp.footprint.training_memory import rehearse_training
from peppp.formats import FP32_CONFIGURATION, Configuration
from peppp.training.blocks import Block, coarse_blocks, compute_again, finer_blocks, observed
from peppp.training.plan import Plan, Planner
from peppp.training.step import StepKey, kept_for
from peppp.units import format_bytes

_T = TypeVar("_T")
_ROUNDS = 8  # most rounds of splitting blocks, and of planning for a tighter limit


@dataclass(frozen=True, slots=True)
class Recomputation:
    """The names of the blocks to recompute, and estimates of the step's memory with them.

    ``peak``, ``kept`` (at the end of the forward pass) and ``peak_without`` (the peak without recomputation)
    are bytes. ``extra`` is the share of a step's operations that are computed twice, which is roughly how
    much longer a step takes. ``draws`` are the blocks that draw random numbers.
    """

    blocks: tuple[str, ...]
    peak: int
    kept: int
    peak_without: int
    extra: float
    draws: tuple[str, ...] = ()

    def apply(self, module: nn.Module) -> None:
        """Make ``module``, or another one with the same blocks, recompute the blocks."""
        compute_again(module, self.blocks, self.draws)

    def __str__(self) -> str:
        without = f"of {format_bytes(self.peak_without)} without recomputation"
        if not self.blocks:
            return f"peak {format_bytes(self.peak)}: no block needs to be recomputed; estimated"
        return (
            f"peak {format_bytes(self.peak)} {without}; recomputed {' '.join(self.blocks)}, about "
            f"{100 * self.extra:.0f} % more operations a step; estimated"
        )


class Planning:
    """Plans the recomputation of one training; all budgets and configurations share the rehearsals.

    ``beside`` is a number of bytes to add to every peak, because they live throughout the step. ``kept_as``
    names all that decides what the rehearsals find; with it, they are kept in the user's cache.
    """

    def __init__(
        self,
        module: nn.Module,
        example_inputs: Tensor | Sequence[Any] | Mapping[str, Any],
        *,
        optimizer: str | MakesOptimizer | None = None,
        precision: str | None = None,
        loss: Callable[[Any], Tensor] | None = None,
        beside: int = 0,
        kept_as: StepKey | None = None,
        **options: Any,
    ) -> None:
        self._module, self._beside, self._kept_as = module, beside, kept_as
        self._how = f"{precision} {sorted(options.items())}"
        pair = _pair(precision)
        if pair is None:
            recipe = training_recipe(module, optimizer, precision or "fp32")
            dtype, context = recipe.cast, recipe.context()
            how: dict[str, Any] = {"optimizer": optimizer, "precision": precision or "fp32"}
            self._rehearse = partial(_plain, module, example_inputs, loss=loss, **how, **options)
        else:
            if optimizer not in (None, "sgd", "adam", "adamw"):
                raise NetworkError(f"{pair} has no optimizer {optimizer!r}; known: sgd, adam, adamw")
            dtype, context = None, nullcontext()
            self._rehearse = partial(
                rehearse_on, module, example_inputs, loss=loss, optimizer=optimizer or "sgd", **options
            )
        self._configuration = pair or FP32_CONFIGURATION
        self._observed = partial(observed, module, example_inputs, dtype, context)
        self._cuts: list[tuple[Cut, Cut]] = []
        self._rehearsals: dict[tuple[str, ...], Rehearsal] = {}  # by the blocks that are recomputed
        self._without: Rehearsal | None = None

    @cached_property
    def _found(self) -> dict[str, Block]:
        """What a forward pass shows about each module that could be a block, by name."""
        return self._kept(
            "shows its blocks",
            self._observed,
            lambda found: {name: [b.calls, b.draws, b.against] for name, b in found.items()},
            lambda data: {name: Block(*parts) for name, parts in data.items()},
        )

    def _rehearsal(self, recomputed: Sequence[str] = (), *, cut_at: Sequence[str] = ()) -> Rehearsal:
        """Rehearse the step with some blocks recomputed, cut at some blocks."""
        change: Callable[[nn.Module], None] | None = None
        if recomputed:
            draws = [name for name in recomputed if self._found[name].draws]
            change = partial(compute_again, names=recomputed, draws=draws)
        return self._kept(
            f"{list(recomputed)} {list(cut_at)}",
            partial(self._rehearse, change=change, blocks=cut_at),
            Rehearsal.to_plain,
            Rehearsal.from_plain,
        )

    def _kept(
        self,
        what: str,
        find: Callable[[], _T],
        to_plain: Callable[[_T], Any],
        from_plain: Callable[[Any], _T],
    ) -> _T:
        if self._kept_as is None:
            return find()
        return kept_for(self._kept_as, f"{self._how} {what}", find, to_plain=to_plain, from_plain=from_plain)

    def without(self, configuration: Configuration | None = None) -> Recomputation:
        """The memory of the step without recomputation."""
        chosen = configuration or self._configuration
        if self._without is None:
            self._without = self._rehearsal()
        peak, kept = self._sizes(self._without, chosen)
        return Recomputation((), peak, kept, peak, 0.0)

    def within(self, budget: int, configuration: Configuration | None = None) -> Recomputation:
        """The recomputation that fits ``budget`` bytes with the fewest operations; else raise BudgetError.

        If ``precision`` is a pair of formats, ``configuration`` may be any pair (default: that one). Plans
        for packed steps can be off by about 1 %, so each plan is rehearsed before it is returned, once for
        all configurations.
        """
        chosen, without = configuration or self._configuration, self.without(configuration)
        if without.peak <= budget:
            return without
        lowest: tuple[int, str] | None = None
        for number in range(_ROUNDS):
            cut = self._cut(number)
            if cut is None:
                break
            planner = self._planner(*cut, chosen)
            found = self._checked(planner, budget, chosen)
            if found is not None:
                return found
            floor = self._rehearsed(planner.lowest(), chosen)
            if floor.peak <= budget:
                return floor
            if lowest is None or floor.peak < lowest[0]:
                lowest = floor.peak, planner.narrowest()
        if lowest is not None:
            lowest = min(lowest[0], without.peak), lowest[1]
        error = BudgetError(_too_small(budget, without.peak, lowest, self._found))
        error.needed = without.peak if lowest is None else lowest[0]
        raise error

    def _rehearsed(self, plan: Plan, chosen: Configuration) -> Recomputation:
        """The recomputation of a plan, with the memory that a rehearsal of it finds."""
        if plan.blocks not in self._rehearsals:
            self._rehearsals[plan.blocks] = self._rehearsal(plan.blocks)
        found = self._rehearsals[plan.blocks]
        draws = tuple(name for name in plan.blocks if self._found[name].draws)
        peak, kept = self._sizes(found, chosen)
        return Recomputation(plan.blocks, peak, kept, self.without(chosen).peak, plan.extra, draws)

    def _sizes(self, found: Rehearsal, chosen: Configuration) -> tuple[int, int]:
        """The peak and the kept memory in bytes, both including ``beside``."""
        return found.peak(chosen) + self._beside, found.kept.bytes(chosen) + self._beside

    def lowest(self, configuration: Configuration | None = None) -> int:
        """The smallest budget in bytes that some plan fits."""
        try:
            return self.within(0, configuration).peak
        except BudgetError as error:
            return error.needed or self.without(configuration).peak

    def _checked(self, planner: Planner, budget: int, chosen: Configuration) -> Recomputation | None:
        """The cheapest plan that fits the budget when rehearsed, planning tighter if necessary; else None."""
        limit = budget - self._beside
        for _ in range(_ROUNDS):
            plan = planner.plan(limit)
            if plan is None:
                return None
            found = self._rehearsed(plan, chosen)
            if found.peak <= budget:
                return found
            limit = min(limit, plan.peak) - (found.peak - budget)
        return None

    def _cut(self, number: int) -> tuple[Cut, Cut] | None:
        """The two rehearsals after splitting the narrowest block ``number`` times; None if there is none."""
        while len(self._cuts) <= number:
            if not self._cuts:
                names = coarse_blocks(self._module, self._found)
            else:
                names = self._split(*self._cuts[-1])
            if not names:
                return None
            none = self._rehearsal(cut_at=names).cut
            every = self._rehearsal(names, cut_at=names).cut
            assert none is not None
            assert every is not None
            self._cuts.append((none, every))
        return self._cuts[number]

    def _planner(self, none: Cut, every: Cut, configuration: Configuration) -> Planner:
        return Planner(none, every, lambda moment: moment.bytes(configuration))

    def _split(self, none: Cut, every: Cut) -> list[str]:
        names, narrowest = none.blocks, self._planner(none, every, self._configuration).narrowest()
        inner = finer_blocks(self._module, self._found, narrowest) if narrowest else []
        return [x for name in names for x in (inner if name == narrowest else [name])] if inner else []


def _pair(precision: str | None) -> Configuration | None:
    """The pair of formats that ``precision`` names; None for other precisions and for plain fp32."""
    if precision is None or "/" not in precision:
        return None
    pair = Configuration.parse(precision)
    return None if pair.is_fp32 else pair


def _plain(
    module: nn.Module,
    example_inputs: Any,
    *,
    change: Callable[[nn.Module], object] | None = None,
    blocks: Sequence[str] = (),
    **how: Any,
) -> Rehearsal:
    """Rehearse a step in plain PyTorch, in the form that the planner reads."""
    found, cut = rehearse_training(module, example_inputs, change=change, blocks=blocks, **how)
    at_rest, kept, peak = (Moment(size, 0, 0) for size in (found.at_rest, found.kept, found.peak))
    return Rehearsal(at_rest, kept, (peak,), cut)


def _too_small(budget: int, peak: int, lowest: tuple[int, str] | None, found: dict[str, Block]) -> str:
    if lowest is None:
        reasons = sorted({f"{name}: {block.against}" for name, block in found.items() if block.against})
        why = f" ({'; '.join(reasons[:3])})" if reasons else ""
        return (
            f"the peak of a step is {format_bytes(peak)}, more than {format_bytes(budget)}, and the network "
            f"has no block that could be recomputed{why}; take a smaller batch"
        )
    floor, narrowest = lowest
    where = f"{narrowest} alone needs it" if narrowest else "what lies beside the blocks needs it"
    return (
        f"no recomputation fits a step into {format_bytes(budget)}: the smallest budget that works is "
        f"{floor} bytes ({format_bytes(floor)}), as {where}; give that, or take a smaller batch"
    )
