"""What the budget of a pick bounds: the peak of the training step of each configuration."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from torch import Tensor, nn

from peppp.errors import BudgetError
from peppp.formats import FloatFormat
from peppp.precisions.known import Precision, is_of_formats
from peppp.precisions.named import NamedPrecision
from peppp.records import Recipe
from peppp.table.labels import Label, plain
from peppp.tasks.dataset import Dataset
from peppp.training.fitting import Fit, Fitting, fitting
from peppp.training.step import step_of
from peppp.units import format_bytes


class Steps:
    """The training steps of configurations: pairs of formats are packed if both can be, else simulated.

    ``how`` holds ``recompute`` and ``micro_batch`` of :meth:`Fitting.within`.
    """

    def __init__(self, dataset: Dataset, recipe: Recipe, **how: Any) -> None:
        self.dataset, self.recipe, self._how = dataset, recipe, how
        self._ways: dict[str, Fitting] = {}

    @cached_property
    def _step(self) -> tuple[nn.Module, Callable[[int], Tensor]]:
        """The network and its inputs, which all precisions share."""
        return step_of(self.dataset, self.recipe)

    @staticmethod
    def storage(precision: Precision) -> str:
        """How the step of a precision stores rounded values; fp32 and names are plain PyTorch."""
        if isinstance(precision, NamedPrecision):
            return precision.name
        if precision.is_fp32:
            return "fp32"
        return "packed" if all(isinstance(f, FloatFormat) for f in precision.sides) else "simulated"

    def stored(self, precision: Precision) -> str:
        """:meth:`storage` in words."""
        return self.storage(precision) if is_of_formats(precision) else "in plain PyTorch"

    def within(self, budget: int | None, precision: Precision) -> Fit:
        """How a step fits. Raises BudgetError if it does not."""
        storage = self.storage(precision)
        if storage not in self._ways:
            self._ways[storage] = fitting(self.dataset, self.recipe, storage, self._step)
        pair = precision if is_of_formats(precision) else None
        return self._ways[storage].within(budget, pair, **self._how)

    def all_within(self, budget: int, labels: Sequence[Any]) -> dict[Label, Fit]:
        """How the step of each column fits; if it does not, it has its lowest possible peak."""
        found = {}
        for label, c in zip(labels, plain(labels), strict=True):
            try:
                found[label] = self.within(budget, c)
            except BudgetError as error:
                step = self.within(None, c)
                found[label] = replace(step, peak=error.needed or step.peak)
        return found


def bytes_counted(fits: Mapping[Label, Fit], budget: int) -> dict[Label, int]:
    """The bytes by which a budget compares configurations: the peaks of their steps.

    A step that fits by recomputing blocks counts as the whole budget, which it may use. Of two configurations
    with equal errors, the one without recomputation is better, even if recomputation happens to need less.
    """
    return {
        label: max(fit.peak, budget) if fit.recomputation.blocks else fit.peak for label, fit in fits.items()
    }


def plain_step(dataset: Dataset, recipe: Recipe, budget: int, **how: Any) -> int:
    """The peak of a step in fp32, made to fit like the others; its lowest peak if it does not fit."""
    ways = fitting(dataset, recipe, "fp32")
    try:
        return ways.within(budget, **how).peak
    except BudgetError as error:
        return error.needed or ways.within(None).peak


def of_peaks(fits: Mapping[Label, Fit], in_fp32: int, budget: int) -> tuple[str, ...]:
    """Notes if the budget decides nothing, or low precision saves nothing."""
    peaks = [fit.peak for fit in fits.values()]
    low, high = min(peaks), max(peaks)
    notes = []
    if high <= budget and not any(fit.recomputation.blocks for fit in fits.values()):
        notes.append(
            f"every configuration fits: their peaks are {format_bytes(low)} to {format_bytes(high)} (fp32 "
            f"{format_bytes(in_fp32)}), so the budget decides nothing"
        )
    if in_fp32 <= low:
        notes.append(
            f"no configuration saves memory here: a step in fp32 takes {format_bytes(in_fp32)}, because "
            "working memory outweighs what the formats save"
        )
    return tuple(notes)


def of_trials(dataset: Dataset, recipe: Recipe, cap: int) -> tuple[str, ...]:
    """A note if the trainings of a pick, which are not packed, take more memory than the cap."""
    peak = fitting(dataset, recipe, "simulated").within(None).peak
    if peak <= cap:
        return ()
    sizes = f"{format_bytes(peak)} (estimated), is more than {format_bytes(cap)}"
    return (
        f"the trainings for this pick were simulated in float32; their peak, {sizes}; `peppp train` "
        "keeps to the budget",
    )
