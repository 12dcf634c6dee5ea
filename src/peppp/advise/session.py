"""``pick``: from data, a network, a budget and a few measurements to the precision to train at."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from peppp.advise.advisor import Advisor
from peppp.advise.caution import Asked, transfers
from peppp.advise.choices import CHOICES, choosable
from peppp.advise.costs import Cost, check_costs, column_cost, energy_cost, memory_cost, time_cost
from peppp.advise.learned import learned_from
from peppp.advise.limits import Limits
from peppp.advise.peaks import Steps, of_peaks, of_trials, plain_step
from peppp.advise.pick import Pick
from peppp.advise.predictions import Reference
from peppp.advise.requests import check_request
from peppp.advise.running import of_slowness, text_of, train_line
from peppp.advise.trials import Trials, make_trials, training_of
from peppp.arguments import checked
from peppp.campaign.summary import Progress
from peppp.campaign.worker import source
from peppp.errors import BudgetError, TableError
from peppp.formats import FP32_CONFIGURATION
from peppp.learn.methods import DEFAULT_METHOD
from peppp.learn.noise_free import TOLERANCE
from peppp.records import Measurement, Recipe
from peppp.table.labels import Label, TunedConfiguration, plain
from peppp.table.matrix import ErrorMatrix
from peppp.tasks import networks
from peppp.tasks.dataset import Dataset, under
from peppp.tasks.readers import load
from peppp.training.fitting import Fit
from peppp.training.loop import fitted_weights
from peppp.training.sizes import footprint, training_operations, with_resolution
from peppp.training.snippets import snippet

_AT_CHANCE = 0.95  # of the error of guessing: a training with a higher error has learned nothing


@checked
def pick(
    data: str | Path,
    *,
    budget: int | str,
    network: str = "resnet8",
    measurements: int | None = None,
    spend: float | None = None,
    until_sure: float | None = None,
    method: str | None = None,
    tolerance: float = TOLERANCE,
    table: str | Path | ErrorMatrix | None = None,
    recipe: Recipe | None = None,
    learning_rates: Sequence[float] = (),
    resolution: int = 0,
    cap: int | str | None = None,
    rank: int = 3,
    seed: int = 0,
    store: str | Path | None = None,
    workers: int = 0,
    device: str = "cpu",
    fp32_error: float | None = None,
    noise: float | None = None,
    costs: Sequence[str] = (),
    progress: Progress | None = None,
    dry_run: bool = False,
    count: str = "peak",
    recompute: bool = True,
    micro_batch: int | str | None = None,
    choices: str = "runnable",
) -> Pick:
    """Pick the configuration with the least predicted error on ``data`` within a memory ``budget``.

    ``data`` is a text that :func:`peppp.tasks.readers.load` accepts, usually a folder of images. ``table`` is
    a store, a text table or an error matrix of other tasks (default: the shipped table). Its rows of the same
    data are left out; in a matrix, which does not identify data, those with the name of the task are. At most
    ``measurements`` configurations that fit in ``cap`` (default: the budget) are trained, in ``workers``
    processes or, with 0, in this one. They are kept in ``store`` if one is named. All others are predicted.
    With several ``learning_rates``, the columns are configurations at each of these rates, and the pick is a
    :class:`peppp.table.labels.TunedConfiguration`. Raises a subclass of PepppError, whose one line says what
    to change.

    By default, ``measurements`` is 6, or 7 for a recipe that begins from weights, and measuring stops once
    another training is not worth it. ``spend`` limits the seconds of all measurements. No measurement is
    started that would, judging by the longest round so far, overrun this limit. ``until_sure`` is a
    probability: measuring stops as soon as the pick is, with this probability, at most ``tolerance`` above
    the best. With either of them, ``measurements`` is by default the number of configurations that fit.
    ``method`` is a method of :class:`peppp.advise.advisor.Advisor` (default: ``gaussian``). Expected errors
    within ``tolerance`` count as equal, and the least memory is picked.

    The budget bounds the estimated peak of the pick's training step, which is packed for a pair of formats.
    If the peak is higher, blocks are recomputed, unless ``recompute`` is False. ``micro_batch``, a number or
    ``auto``, splits a batch into several passes. With ``count="kept"``, the budget bounds what the paper
    counts instead: the memory kept between the passes of a step and between steps, without a step's working
    memory.

    ``fp32_error`` is the error of an fp32 training on the data, if it is known. ``noise`` is the standard
    deviation of the error over seeds, for tables that it cannot be learned from.

    ``choices`` says which columns of the table are candidates: ``runnable`` are those that this machine
    really trains for this network (fp32, precisions by name such as ``amp-bf16``, and packed pairs of
    formats), ``paper`` all pairs of formats but fp32, and ``all`` all columns. ``line`` and ``snippet`` of
    the pick say how to run it.

    ``costs`` names further costs, see :mod:`peppp.advise.costs`: ``memory``, ``time`` (from the durations in
    the table), ``energy`` (a model) or ``FILE.csv:COLUMN``. The pick then also lists the configurations
    within the budget that are Pareto optimal in error and all of these costs.

    If the table has no rows with the requested network, resolution or rounding, the ``notes`` of the pick say
    so, and how well picks from such rows did on the table's tasks. A ``dry_run`` trains nothing: ``planned``
    lists what it would train, and everything else is what is believed before any training.
    """
    limits = Limits.of(budget, cap, count, recompute=recompute, micro_batch=micro_batch)
    if spend is not None and not 0 < spend < float("inf"):
        raise BudgetError(f"spend is {spend} seconds; give a positive time, such as 90s, 10min or 2h")
    method = method or DEFAULT_METHOD
    check_request(method, until_sure, noise)
    check_costs(costs)
    networks.check_name(network)
    if choices not in CHOICES:
        raise TableError(f"unknown choices {choices!r}; known: {', '.join(CHOICES)}")
    recipe = replace(recipe or Recipe(), network=network)
    if len(learning_rates) == 1:
        recipe = replace(recipe, learning_rate=learning_rates[0])
    rates = learning_rates if len(learning_rates) > 1 else ()

    refuse_small = partial(limits.refuse_small, recipe, choices, device) if table is None else None
    dataset = under(load(str(data), resolution=resolution, seen=refuse_small), _fingerprints_in(store))
    recipe = with_resolution(recipe, dataset)
    learned = learned_from(table, dataset, recipe, choices, rates, method)
    steps = Steps(dataset, recipe, **limits.how)
    sizes = limits.sizes(steps, choosable(learned.errors.columns, choices, dataset, recipe, device))
    priced = [
        _cost(name, sizes.counted, dataset, recipe, learned.measurements) for name in dict.fromkeys(costs)
    ]

    stops = spend is not None or until_sure is not None
    one_more = measurements is None and not stops
    if measurements is None:
        usual = 7 if recipe.pretrained else 6  # the table has only trainings from scratch
        measurements = sum(size <= limits.cap for size in sizes.counted.values()) if stops else usual
    fp32_is_column = FP32_CONFIGURATION in sizes.footprints
    advisor = Advisor(
        learned.errors,
        sizes.footprints,
        limits.budget,
        measurements=measurements,
        cap=limits.cap,
        rank=rank,
        chance_error=learned.chance_error,
        task=dataset.name,
        network=network,
        method=method,
        until_sure=until_sure,
        tolerance=tolerance,
        fp32_error=None if fp32_is_column else fp32_error,
        noise=noise,
        peaks=sizes.peaks,
    )
    if fp32_is_column and fp32_error is not None:
        advisor.tell(FP32_CONFIGURATION, fp32_error)
    notes = [*learned.notes, *_of_weights(dataset, recipe, one_more=one_more)]
    asked = Asked.of(advisor.method, advisor.measurements, rank, advisor.new_task.feasible)
    notes += map(str, transfers(learned.errors, learned.all_rows, recipe, asked, learned.everything))
    if progress is not None:
        progress.read(dataset)

    planned, trials = advisor.plan if dry_run else (), Trials({}, "")
    if not dry_run:
        trials = make_trials(
            advisor,
            source(str(data), dataset),
            recipe,
            seed=seed,
            at_once=max(1, workers) if stops or advisor.sequential else measurements,
            spend=spend,
            store=store,
            workers=workers,
            device=device,
            progress=progress,
        )
    chosen = advisor.recommend()
    if advisor.observed and min(advisor.observed.values()) >= _AT_CHANCE * dataset.chance_error:
        chosen = replace(chosen, warning=_untrained(dataset.chance_error))
    if sizes.fits is not None:
        chosen = _fitted(chosen, sizes.fits[chosen.configuration], steps)
        in_fp32 = plain_step(dataset, recipe, limits.budget, **limits.how)
        notes += of_peaks(sizes.fits, in_fp32, limits.budget)
        if advisor.observed:
            notes += of_trials(dataset, recipe, limits.cap)
    else:
        in_fp32 = footprint(dataset, FP32_CONFIGURATION, recipe).total
    notes += of_slowness(chosen.configuration, chosen.predictions, device)
    (picked,) = plain([chosen.configuration])
    _, as_picked = training_of(chosen.configuration, recipe)
    parts: dict[str, Any] = {"recomputed": chosen.recomputed, "micro_batch": chosen.micro_batch}
    place: dict[str, Any] = {"budget": limits.budget, "seed": seed, "device": device}
    return replace(
        _beside_fp32(chosen, in_fp32),
        stopped=trials.stopped or chosen.stopped,
        costs=tuple(cost.anchored(trials.seconds) if cost.name == "time" else cost for cost in priced),
        notes=(*chosen.notes, *notes),
        planned=planned,
        precision=text_of(picked),
        line=train_line(str(data), picked, as_picked, resolution=resolution, **place, **parts),
        snippet=snippet(picked, as_picked, of_tokens=dataset.kind == "text", **parts),
    )


def _fitted(chosen: Pick, fit: Fit, steps: Steps) -> Pick:
    """Say how the step of a pick fits its budget."""
    (picked,) = plain([chosen.configuration])
    return replace(
        chosen,
        step_peak=fit.peak,
        recomputed=fit.recomputation.blocks,
        micro_batch=fit.micro_batch,
        fitted=f"{fit}; {steps.stored(picked)}, estimated",
    )


def _beside_fp32(chosen: Pick, in_fp32: int) -> Pick:
    """Say what fp32 is expected to reach, and how many bytes it takes."""
    reference = chosen.reference
    own = next((p for p in chosen.predictions if p.configuration == FP32_CONFIGURATION), None)
    if own is not None and chosen.configuration != FP32_CONFIGURATION:
        reference = Reference(own.error, own.interval, own.source)
    return chosen if reference is None else replace(chosen, reference=replace(reference, total=in_fp32))


def _fingerprints_in(store: str | Path | None) -> set[str]:
    if store is None:
        return set()
    from peppp.table.store.store import fingerprints_in  # SQLAlchemy takes time to load

    return fingerprints_in(store)


def _cost(
    name: str,
    sizes: Mapping[Label, int],
    dataset: Dataset,
    recipe: Recipe,
    measurements: Callable[[], Sequence[Measurement]],
) -> Cost:
    """A cost by its name, for the configurations that have ``sizes``."""
    if any(isinstance(c, TunedConfiguration) for c in sizes):
        raise TableError("costs need a single learning rate; give one, or leave the costs out")
    if name == "memory":
        return memory_cost(sizes)
    if name == "energy":
        return energy_cost(plain(sizes), *training_operations(dataset, recipe))
    if name == "time":
        return time_cost(measurements(), plain(sizes))
    return column_cost(name, plain(sizes))


def _of_weights(dataset: Dataset, recipe: Recipe, *, one_more: bool) -> tuple[str, ...]:
    """Notes on a pick for a training that begins from weights."""
    if not recipe.pretrained:
        return ()
    learned = (
        "the table holds trainings from scratch, so the estimates are less accurate for a training that "
        "begins from weights" + ("; one more measurement is made for it" if one_more else "")
    )
    return (learned, *fitted_weights(dataset, recipe))


def _untrained(chance: float) -> str:
    return (
        f"no training got below the error of guessing, {chance:.3f}, so this pick means little; train longer "
        "(--min-steps 1000) or at another --learning-rate"
    )
