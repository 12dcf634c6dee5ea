"""What the memory of a pick is bounded by, and the sizes that the bounds are compared with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from peppp.advise.choices import shipped
from peppp.advise.peaks import Steps, bytes_counted
from peppp.advise.requests import check_limit
from peppp.arguments import checked
from peppp.errors import BudgetError
from peppp.formats import paper_grid
from peppp.records import Footprint, Recipe
from peppp.table.labels import Label, plain
from peppp.tasks.dataset import Dataset, blank_images
from peppp.training.fitting import Fit
from peppp.training.sizes import footprint, with_resolution
from peppp.units import parse_bytes

COUNTS = ("peak", "kept")


@checked
def footprints(dataset: Dataset, recipe: Recipe, labels: Sequence[Label]) -> dict[Label, Footprint]:
    """The footprint of a training on ``dataset`` at each of ``labels``, which must not be plain text."""
    plain_ones = plain(labels)
    return {label: footprint(dataset, c, recipe) for label, c in zip(labels, plain_ones, strict=True)}


@dataclass(frozen=True, slots=True)
class Sizes:
    """The footprint of each column and, if peaks are counted, how its step fits; else ``fits`` is None."""

    footprints: Mapping[Label, Footprint]
    fits: Mapping[Label, Fit] | None
    counted: Mapping[Label, int]

    @property
    def peaks(self) -> Mapping[Label, int] | None:
        """The peak of each column's step; None if what is kept is counted."""
        return None if self.fits is None else self.counted


@dataclass(frozen=True, slots=True)
class Limits:
    """The bytes that a pick (``budget``) and its trainings (``cap``) may take.

    ``count`` is ``peak`` or ``kept``, see :func:`peppp.pick`. ``recompute`` and ``micro_batch`` say how a
    step may be made to fit.
    """

    budget: int
    cap: int
    count: str
    recompute: bool
    micro_batch: int | str | None

    @classmethod
    def of(
        cls,
        budget: int | str,
        cap: int | str | None,
        count: str,
        recompute: bool,
        micro_batch: int | str | None,
    ) -> "Limits":
        """Read the limits; the default of ``cap`` is ``budget``. Raises BudgetError for impossible ones."""
        most, at_most = parse_bytes(budget), parse_bytes(budget if cap is None else cap)
        if count not in COUNTS:
            raise BudgetError(f"unknown count {count!r}; known: {', '.join(COUNTS)}")
        if count == "kept" and micro_batch is not None:
            raise BudgetError(
                "micro-batches lower the peak, not what is kept; leave them out, or count the peak"
            )
        return cls(most, at_most, count, recompute, micro_batch)

    @property
    def how(self) -> dict[str, Any]:
        """How a step may be made to fit, as arguments of :class:`peppp.advise.peaks.Steps`."""
        return {"recompute": self.recompute, "micro_batch": self.micro_batch}

    def sizes(self, steps: Steps, labels: Sequence[Label]) -> Sizes:
        """The sizes of the columns of a pick."""
        kept = footprints(steps.dataset, steps.recipe, labels)
        if self.count == "kept":
            return Sizes(kept, None, {label: size.total for label, size in kept.items()})
        fits = steps.all_within(self.budget, list(kept))
        return Sizes(kept, fits, bytes_counted(fits, self.budget))

    def refuse_small(
        self, recipe: Recipe, choices: str, device: str, classes: int, side: int, images: int
    ) -> None:
        """Raise BudgetError for limits below every size of the shipped table, before pixels are decoded.

        The images, ``images`` of ``side`` pixels a side in ``classes`` classes, are to be trained by
        ``recipe``.
        """
        stand_in = blank_images(classes, side, images)
        asked = with_resolution(recipe, stand_in)
        steps = Steps(stand_in, asked, **self.how)
        # The grid takes less time to rehearse than everything that runs here, and mostly suffices.
        for find in (paper_grid, partial(shipped, choices, stand_in, asked, device)):
            columns = list[Label](find())
            if self.count == "kept":
                counted = {label: size.total for label, size in footprints(stand_in, asked, columns).items()}
            else:
                counted = bytes_counted(steps.all_within(self.budget, columns), self.budget)
            if min(counted.values()) <= min(self.budget, self.cap):
                return
        for limit, name in ((self.budget, "a budget"), (self.cap, "a cap")):
            check_limit(limit, name, counted, "peak" if self.count == "peak" else "footprint")
