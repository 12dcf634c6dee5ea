"""``pick``: from data, a network, a budget and a few measurements to the precision to train at."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any

import numpy as np

from peppp.advise.advisor import Advisor, check_limit, check_request
from peppp.advise.caution import Asked, transfers
from peppp.advise.choices import CHOICES, choosable, known_errors, shipped
from peppp.advise.costs import Cost, check_costs, column_cost, energy_cost, memory_cost, time_cost
from peppp.advise.peaks import Steps, bytes_counted, of_peaks, of_trials, plain_step
from peppp.advise.pick import Pick, Reference
from peppp.advise.running import text_of, train_line
from peppp.arguments import checked
from peppp.arithmetic import current
from peppp.campaign.cells import Cell
from peppp.campaign.local import local
from peppp.campaign.runner import Progress, run_campaign
from peppp.campaign.worker import measure_cell, source
from peppp.errors import BudgetError, PepppError, TableError
from peppp.formats import FP32_CONFIGURATION, paper_grid
from peppp.learn.belief import counted
from peppp.learn.methods import DEFAULT_METHOD, Method
from peppp.learn.noise_free import TOLERANCE
from peppp.precisions.known import Precision
from peppp.records import Footprint, Measurement, Recipe
from peppp.table.labels import Label, TunedConfiguration, plain
from peppp.table.matrix import ErrorMatrix, error_matrix
from peppp.table.select import alike, taught_by
from peppp.table.store.store import Store, fingerprints_in
from peppp.tasks import networks
from peppp.tasks.dataset import Dataset, blank_images, under
from peppp.tasks.readers import load
from peppp.training.loop import fitted_weights
from peppp.training.measurement import footprint, training_operations, with_resolution
from peppp.training.snippets import snippet
from peppp.units import parse_bytes

COUNTS = ("peak", "kept")
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
    budget, cap = parse_bytes(budget), parse_bytes(budget if cap is None else cap)
    if spend is not None and not 0 < spend < float("inf"):
        raise BudgetError(f"spend is {spend} seconds; give a positive time, such as 90s, 10min or 2h")
    check_request(method or DEFAULT_METHOD, until_sure, noise)
    check_costs(costs)
    networks.check_name(network)
    how: dict[str, Any] = {"recompute": recompute, "micro_batch": micro_batch}
    if choices not in CHOICES:
        raise TableError(f"unknown choices {choices!r}; known: {', '.join(CHOICES)}")
    if count not in COUNTS:
        raise BudgetError(f"unknown count {count!r}; known: {', '.join(COUNTS)}")
    if count == "kept" and micro_batch is not None:
        raise BudgetError("micro-batches lower the peak, not what is kept; leave them out, or count the peak")

    def seen(classes: int, side: int, images: int) -> None:
        """Refuse limits below every size of the shipped table, before pixels are decoded."""
        if table is not None:
            return
        stand_in = blank_images(classes, side, images)
        asked = with_resolution(replace(recipe or Recipe(), network=network), stand_in)
        steps = Steps(stand_in, asked, **how)
        for find in (paper_grid, partial(shipped, choices, stand_in, asked, device)):
            columns = list[Label](find())
            if count == "kept":
                sizes = {c: size.total for c, size in footprints(stand_in, asked, columns).items()}
            else:
                sizes = bytes_counted(steps.all_within(budget, columns), budget)
            if min(sizes.values()) <= min(budget, cap):
                return
        for limit, name in ((budget, "a budget"), (cap, "a cap")):
            check_limit(limit, name, sizes, "peak" if count == "peak" else "footprint")

    dataset = under(load(str(data), resolution=resolution, seen=seen), fingerprints_in(store))
    recipe = with_resolution(replace(recipe or Recipe(), network=network), dataset)
    if len(learning_rates) == 1:
        recipe = replace(recipe, learning_rate=learning_rates[0])
    known: list[Measurement] = []
    every = choices != "paper"
    unused, rates = "", learning_rates if len(learning_rates) > 1 else ()
    if not isinstance(table, ErrorMatrix):
        known, unused = alike(table, recipe, without=(dataset.fingerprint, dataset.former))
    if isinstance(table, ErrorMatrix):
        errors = table.without(dataset.name)
        if rates and not any(isinstance(c, TunedConfiguration) for c in errors.columns):
            raise TableError("an error matrix has no learning rates; give one, or a store or a table")
    else:
        # The errors of fp32 say much about the others, but the paper's methods do not use them.
        fp32 = Method.parse(method or DEFAULT_METHOD).design == DEFAULT_METHOD
        taught = taught_by(known, recipe, every_rate=bool(rates))
        errors = known_errors(taught, choices, rates=rates, with_fp32=fp32)
    # If no row states its chance error, errors are compared as they are.
    stated = any(row.chance_error != 1.0 for row in errors.rows)
    chance_error = dataset.chance_error if stated else None
    sizes = footprints(dataset, recipe, choosable(errors.columns, choices, dataset, recipe, device))
    steps = Steps(dataset, recipe, **how)
    fits = steps.all_within(budget, list(sizes)) if count == "peak" else {}
    peaks = bytes_counted(fits, budget) or None
    counted_bytes = peaks or {label: size.total for label, size in sizes.items()}
    priced = [_cost(name, counted_bytes, dataset, recipe, known) for name in dict.fromkeys(costs)]
    stops = spend is not None or until_sure is not None
    one_more = measurements is None and not stops
    if measurements is None:
        usual = 7 if recipe.pretrained else 6  # the table has only trainings from scratch
        measurements = sum(size <= cap for size in counted_bytes.values()) if stops else usual
    advisor = Advisor(
        errors,
        sizes,
        budget,
        measurements=measurements,
        cap=cap,
        rank=rank,
        chance_error=chance_error,
        task=dataset.name,
        network=network,
        method=method or DEFAULT_METHOD,
        until_sure=until_sure,
        tolerance=tolerance,
        fp32_error=None if FP32_CONFIGURATION in sizes else fp32_error,
        noise=noise,
        peaks=peaks,
    )
    if FP32_CONFIGURATION in sizes and fp32_error is not None:
        advisor.tell(FP32_CONFIGURATION, fp32_error)
    everything = (
        error_matrix(known, learning_rates=rates, include_reference=every, include_named=every)
        if known
        else errors
    )
    of_weights = _of_weights(dataset, recipe, one_more=one_more)
    notes = (*([unused] if unused else ()), *of_weights, *_notes(errors, everything, recipe, advisor, rank))
    task = source(str(data), dataset)
    if progress is not None:
        progress.read(dataset)
    started, longest, stopped = monotonic(), 0.0, ""
    seconds: dict[Label, float] = {}
    planned = advisor.plan if dry_run else ()
    at_once = max(1, workers) if stops or advisor.sequential else measurements
    while not dry_run and (wanted := advisor.batch(at_once)):
        begun = monotonic()
        if spend is not None and begun - started + longest > spend:
            stopped = _spent(len(advisor.observed), spend)
            break
        plan = {task.cell(*training_of(c, recipe), seed): c for c in wanted}
        asked = {cell.key: configuration for cell, configuration in plan.items()}
        for measurement in measure_cells(
            list(plan), store=store, workers=workers, device=device, progress=progress
        ):
            configuration = asked[measurement.key]
            advisor.tell(configuration, measurement.test_error)
            seconds[configuration] = measurement.seconds
        longest = max(longest, monotonic() - begun)
    chosen = advisor.recommend()
    if advisor.observed and min(advisor.observed.values()) >= _AT_CHANCE * dataset.chance_error:
        chosen = replace(chosen, warning=_untrained(dataset.chance_error))
    in_fp32 = plain_step(dataset, recipe, budget, **how) if count == "peak" else None
    own = next((p for p in chosen.predictions if p.configuration == FP32_CONFIGURATION), None)
    if own is not None and chosen.configuration != FP32_CONFIGURATION:
        chosen = replace(chosen, reference=Reference(own.error, own.interval, own.source))
    if chosen.reference is not None:
        total = in_fp32 or footprint(dataset, FP32_CONFIGURATION, recipe).total
        chosen = replace(chosen, reference=replace(chosen.reference, total=total))
    if peaks is not None and in_fp32 is not None:
        fit = fits[chosen.configuration]
        chosen = replace(
            chosen,
            step_peak=fit.peak,
            recomputed=fit.recomputation.blocks,
            micro_batch=fit.micro_batch,
            fitted=f"{fit}; {steps.stored(*plain([chosen.configuration]))}, estimated",
        )
        notes = (*notes, *of_peaks(fits, in_fp32, budget))
        if advisor.observed:
            notes = (*notes, *of_trials(dataset, recipe, cap))
    (picked,) = plain([chosen.configuration])
    _, as_picked = training_of(chosen.configuration, recipe)
    parts: dict[str, Any] = {"recomputed": chosen.recomputed, "micro_batch": chosen.micro_batch}
    found = [cost.anchored(seconds) if cost.name == "time" else cost for cost in priced]
    return replace(
        chosen,
        stopped=stopped or chosen.stopped,
        costs=tuple(found),
        notes=(*chosen.notes, *notes),
        planned=planned,
        precision=text_of(picked),
        line=train_line(
            str(data),
            picked,
            as_picked,
            resolution=resolution,
            budget=budget,
            seed=seed,
            device=device,
            **parts,
        ),
        snippet=snippet(picked, as_picked, of_tokens=dataset.kind == "text", **parts),
    )


def _cost(
    name: str,
    sizes: Mapping[Label, int],
    dataset: Dataset,
    recipe: Recipe,
    known: Sequence[Measurement],
) -> Cost:
    """A cost by its name, for the configurations that have ``sizes``."""
    if any(isinstance(c, TunedConfiguration) for c in sizes):
        raise TableError("costs need a single learning rate; give one, or leave the costs out")
    if name == "memory":
        return memory_cost(sizes)
    if name == "energy":
        return energy_cost(plain(sizes), *training_operations(dataset, recipe))
    if name == "time":
        if not known:
            raise TableError("an error matrix has no durations; give a store or a table for the cost time")
        return time_cost(known, plain(sizes))
    return column_cost(name, plain(sizes))


def _notes(
    errors: ErrorMatrix, everything: ErrorMatrix, recipe: Recipe, advisor: Advisor, rank: int
) -> tuple[str, ...]:
    """Notes on what the rows learned from lack for this training, and how well picks work without it."""
    asked = Asked(advisor.method, advisor.measurements, rank, advisor.new_task)
    own = [everything.columns.index(label) for label in advisor.configurations]
    known = everything.take(np.arange(len(everything.rows)), own)
    return tuple(map(str, transfers(errors, known, recipe, asked)))


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


def _spent(count: int, seconds: float) -> str:
    return f"after {counted(count)} another one would exceed the limit of {seconds:.0f} s"


def training_of(label: Label, recipe: Recipe) -> tuple[Precision, Recipe]:
    """The precision and recipe to train for a column, with the column's learning rate if it has one."""
    (configuration,) = plain([label])
    if isinstance(label, TunedConfiguration):
        return configuration, replace(recipe, learning_rate=label.learning_rate)
    return configuration, recipe


def measure_cells(
    cells: Sequence[Cell],
    *,
    store: str | Path | None = None,
    workers: int = 0,
    device: str = "cpu",
    progress: Progress | None = None,
) -> list[Measurement]:
    """Measurements of all cells, made or found in the store. Raises PepppError if one fails."""
    with TemporaryDirectory() as folder, Store.open(store or Path(folder) / "measurements.db") as kept:
        engine = local(partial(measure_cell, device=device), workers)
        summary = run_campaign(kept, cells, engine, progress=progress)
        if summary.interrupted:
            raise KeyboardInterrupt
        for cell, failure in (*summary.failed, *summary.lost):
            raise PepppError(f"{cell.configuration} on {cell.task} could not be measured: {failure.message}")
        wanted = {cell.key for cell in cells}
        return [m for m in map(current, kept) if m.key in wanted]


@checked
def footprints(dataset: Dataset, recipe: Recipe, labels: Sequence[Label]) -> dict[Label, Footprint]:
    """The footprint of a training on ``dataset`` at each of ``labels``, which must not be plain text."""
    plain_ones = plain(labels)
    return {label: footprint(dataset, c, recipe) for label, c in zip(labels, plain_ones, strict=True)}
