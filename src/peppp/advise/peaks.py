"""What a pick's budget counts: the peak of the packed training step that each configuration stands for."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from peppp.errors import BudgetError
from peppp.records import Recipe
from peppp.table.labels import Label, plain
from peppp.tasks.dataset import Dataset
from peppp.training.fitting import Fit, Fitting, fitting
from peppp.units import format_bytes


def fitted(
    ways: Fitting,
    labels: Sequence[Any],
    budget: int,
    recompute: bool,
    micro_batch: int | str | None,
) -> dict[Label, Fit]:
    """How each column's step fits the budget; where it does not, the lowest peak that it can have."""
    found = {}
    for label, c in zip(labels, plain(labels), strict=True):
        how: dict[str, Any] = {"recompute": recompute, "micro_batch": micro_batch, "check": False}
        try:
            found[label] = ways.within(budget, c, **how)
        except BudgetError as error:
            step = ways.within(None, c, recompute=False)
            found[label] = replace(step, peak=error.needed or step.peak)
    return found


def plain_step(
    dataset: Dataset, recipe: Recipe, budget: int, recompute: bool, micro_batch: int | str | None
) -> int:
    """The peak of a step in fp32, made to fit as the others are; the lowest where it does not."""
    ways = fitting(dataset, recipe, "fp32")
    try:
        return ways.within(budget, recompute=recompute, micro_batch=micro_batch).peak
    except BudgetError as error:
        return error.needed or ways.within(None).peak


def of_peaks(peaks: Mapping[Label, int], in_fp32: int, budget: int) -> tuple[str, ...]:
    """Where the budget decides nothing, or low precision saves nothing."""
    low, high = min(peaks.values()), max(peaks.values())
    notes = []
    if high <= budget:
        notes.append(
            f"every configuration fits: their peaks are {format_bytes(low)} to {format_bytes(high)} (fp32 "
            f"{format_bytes(in_fp32)}), so that the budget decides nothing"
        )
    if in_fp32 <= low:
        notes.append(
            f"no configuration saves memory here: a step in fp32 takes {format_bytes(in_fp32)}, as working "
            "memory outweighs what the formats save"
        )
    return tuple(notes)


def of_trials(dataset: Dataset, recipe: Recipe, cap: int) -> tuple[str, ...]:
    """That the trainings of a pick are not packed, where they take more than the budget."""
    peak = fitting(dataset, recipe, "simulated").within(None).peak
    if peak <= cap:
        return ()
    return (
        f"the trainings for this pick were simulated in float32, with a peak of {format_bytes(peak)} "
        "(estimated): more than the budget, which is kept by the packed training of `peppp train`",
    )
