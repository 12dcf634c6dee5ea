"""Meta-test figures, predicting a new task from a few measurements: 7, 11, 12, 18, 24, settings."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peppp import pareto
from peppp.evaluate.bootstrap import family_ratio
from peppp.evaluate.evaluation import Evaluation, evaluate
from peppp.evaluate.judges import noise_free
from peppp.evaluate.leave_one_out import SETTINGS, Leave, leave_one_out, new_task
from peppp.learn.methods import PAPER_METHODS
from peppp.learn.strategy import strategy
from peppp.learn.task import run
from peppp.paper.figure import Figure, Panel, above, every, leads, no_worse
from peppp.paper.matrix_figures import MB, example_row
from peppp.paper.study import Study
from peppp.table.matrix import ErrorMatrix, Lacking

RANK = 3  # section 4.2
PAPER: dict[str, Any] = {"rank": RANK, "shrinkage": 0.1, "relative_to_chance": False}
ZERO_MEAN = ("bo-mf-zero-mean", "bo-full-zero-mean")
COUNTS = (1, 2, 3, 4, 5, 6, 8, 10, 12)


def figure_7(study: Study) -> Figure:
    """Treat the example as a new task: measure six configurations under a cap, estimate all, and pick one."""
    known = study.known
    i = example_row(known)
    cap = float(np.median(known.bytes[i])) if study.choice_cap is None else study.choice_cap
    learned = dict(leave_one_out(known, **PAPER)).get(i)
    if learned is None or len(learned.estimate) < 2:
        raise Lacking("the table lacks tasks of other families to learn from")
    task = new_task(known, i, limit=cap, relative_to_chance=False)
    assert task is not None  # the default cap is a quantile of the task's memory, so something fits
    m, feasible = task.memory, task.feasible
    found = strategy("ed-mf", learned, task, 6)
    measured = run(found, known.values[i].item)
    S, estimate = list(measured), found.errors(measured)
    optimal = pareto.frontier(m, estimate, feasible)
    truth = np.where(feasible, study.judge(i, measured).errors, np.nan)
    chosen, judged = optimal[-1], feasible & np.isfinite(truth)
    regret = float(truth[chosen] - np.nanmin(truth))
    truly = pareto.nondominated(m, truth, judged)
    wrong = int((~truly[optimal]).sum())
    records = tuple(
        {
            "configuration": column,
            "memory_mb": m[j] / MB,
            "error": known.values[i, j],
            "estimate": float(estimate[j]),
            "point": "chosen"
            if j == chosen
            else "measured"
            if j in S
            else "beyond the cap"
            if m[j] > cap
            else "estimated Pareto optimal"
            if j in optimal
            else "estimated dominated",
        }
        for j, column in enumerate(known.labels)
        if known.observed[i, j]
    )
    return Figure(
        "7",
        f"Meta-test on {known.names[i]}: 6 measurements below {cap / MB:.3g} MB each",
        "six measurements choose well: the estimated Pareto optimal configuration of the highest allowed "
        "memory, although some of those are truly dominated",
        f"chosen {known.labels[chosen]}: noise-free error {truth[chosen]:.3f}, {regret:.3f} above the best "
        f"within the cap; {wrong} of {len(optimal)} estimated Pareto optimal ones are truly dominated",
        None,  # a single task cannot show that the claim holds in general
        records,
        (Panel("scatter", "memory_mb", "error", "point"),),
        {"cap": cap, "rank": RANK, "measurements": 6},
    )


def _compared(
    study: Study,
    known: ErrorMatrix,
    name: str,
    title: str,
    settings: Sequence[str],
    *,
    claim: str = "ED-MF is steadily among the best, most with few measurements; QR-MF about equal",
    counts: Sequence[int] = COUNTS,
) -> Figure:
    """Compare the paper's methods in some settings: means and intervals of both metrics by memory used."""
    methods = (*PAPER_METHODS, *ZERO_MEAN, "zero")
    study.say(f"figure {name}: settings {', '.join(settings)}")
    found = evaluate(
        known, settings=settings, methods=methods, counts=counts, seeds=range(study.seeds),
        **PAPER, cap=study.cap, leave=study.held_out(known),
        judge=study.judge if known is study.known else noise_free(known),
    )  # fmt: skip
    metrics = ("convergence", "hyperdiff", "hyperdiff_true", "regret", "memory_used")
    records = found.summary(metrics)
    rivals = (*PAPER_METHODS[1:3], *ZERO_MEAN)
    wins, plain, total, shown = 0, 0, 0, []
    for setting in settings:
        for metric in ("convergence", "hyperdiff"):
            for count in counts:
                means = {m: found.interval(metric, setting, m, count).mean for m in methods}
                wins += leads(means["ed-mf"], [means[m] for m in PAPER_METHODS])
                plain += leads(means["ed-mf"], [means[m] for m in (*PAPER_METHODS[:3], *ZERO_MEAN)])
                total += 1
        at = min(counts, key=lambda c: abs(c - 3))
        means = {m: found.interval("hyperdiff", setting, m, at).mean for m in methods}
        shown.append(f"{setting} " + ", ".join(f"{m} {v:.3f}" for m, v in means.items()))
    return Figure(
        name,
        title,
        claim,
        f"ED-MF is best or within 10 % of the best in {plain} of {total} comparisons (two metrics, "
        f"{len(counts)} numbers of measurements) against optimizers with a prior mean of zero, the default "
        f"of libraries, and in {wins} if their prior mean is the columns' means; HyperDiff with {at}: "
        f"{'; '.join(shown)}",
        every(
            no_worse(
                _everywhere(found, "ed-mf", metric),
                [_everywhere(found, rival, metric) for rival in rivals],
                found.families,
            )
            for metric in ("convergence", "hyperdiff")
        ),
        tuple(records),
        tuple(
            Panel(
                "line", "memory_used", metric, "method", f"{metric}_low", f"{metric}_high",
                f"Setting {setting}", (("setting", setting),),
            )
            for setting in settings
            for metric in ("convergence", "hyperdiff")
        ),
        {"rank": RANK, "seeds": study.seeds, "cap": found.cap, "leave": found.leave, "counts": list(counts)},
    )  # fmt: skip


def _everywhere(found: Evaluation, method: str, metric: str, count: int | None = None) -> NDArray[np.float64]:
    """Each row's [n] mean of a metric over settings and numbers of measurements (or this ``count`` alone)."""
    counts = found.counts if count is None else (count,)
    values = [found.of(metric, s, method, c) for s in found.settings for c in counts]
    return np.asarray(np.nanmean(values, axis=0))


def figure_11(study: Study) -> Figure:
    """Compare the methods in Settings I and IV."""
    return _compared(study, study.known, "11", "Meta-test, Settings I and IV", ("I", "IV"))


def figure_18(study: Study) -> Figure:
    """Compare the methods in Settings II, III, V and VI."""
    claim = "ED-MF is among the best in every setting and under both metrics"
    title = "Meta-test, Settings II, III, V and VI"
    return _compared(study, study.known, "18", title, ("II", "III", "V", "VI"), claim=claim)


def figure_24(study: Study) -> Figure:
    """Compare the methods in all settings, on tasks at several learning rates."""
    title = "Meta-test with several learning rates"
    claim = "ED-MF steadily ahead with learning rates too"
    return _compared(study, study.rates(), "24", title, tuple(SETTINGS), claim=claim)


def figure_12(study: Study) -> Figure:
    """Divide each method's error by ED-MF's: configuration picked in Setting IV after three measurements."""
    known = study.known
    methods = ("ed-mf", "bo-mf", "bo-full", "random-mf", "high-memory")
    found = evaluate(
        known, settings=("IV",), methods=methods, counts=(3,), seeds=range(study.seeds),
        **PAPER, cap=study.cap, leave=study.held_out(known), judge=study.judge,
    )  # fmt: skip
    ours = found.of("pick_error", "IV", "ed-mf", 3)
    records, shown, ratios_of = [], [], []
    for method in methods[1:]:
        theirs = found.of("pick_error", "IV", method, 3)
        both = np.isfinite(ours) & np.isfinite(theirs) & (ours > 0)
        ratios = theirs[both] / ours[both]
        names = [name for name, kept in zip(known.names, both, strict=True) if kept]
        records += [
            {"task": name, "method": method, "relative_error": float(ratio)}
            for name, ratio in zip(names, ratios, strict=True)
        ]
        at_least = float((ratios >= 1).mean())
        groups = known.families if study.leave == "family" else found.families
        ratio = family_ratio(theirs, ours, groups)
        ratios_of.append(ratio)
        shown.append(f"{method} {ratio} (1 or more on {at_least:.0%})")
    return Figure(
        "12",
        "Error of the pick relative to ED-MF's, Setting IV, 3 measurements",
        "the ratios are mostly 1 or more",
        "ratio of mean errors with its 95 % interval: " + "; ".join(shown),
        every(above(ratio, 1.0) for ratio in ratios_of),
        tuple(records),
        (Panel("bars", "task", "relative_error", "method", guide="one"),),
        {"rank": RANK, "seeds": study.seeds, "cap": found.cap},
    )


def settings_table(study: Study) -> Figure:
    """Compare all methods in all six settings, including zero measurements and the additive model."""
    known = study.known
    methods: tuple[str, ...] = (
        *PAPER_METHODS,
        "bo-mf-zero-mean",
        "bo-full-zero-mean",
        "additive",
        "zero",
        "high-memory",
    )
    counts = (3, 6, 12)
    metrics = ("convergence", "hyperdiff", "area", "igd_plus", "hyperdiff_true", "relative_error", "regret")
    records: list[dict[str, Any]] = []
    parts: list[str] = []
    best = []
    ways: tuple[Leave, ...] = ("family", "row") if study.held_out(known) == "family" else ("row",)
    for leave in ways:
        study.say(f"settings: all methods, Settings I to VI, each {leave} held out")
        found = evaluate(
            known, settings=tuple(SETTINGS), methods=methods, counts=counts, seeds=range(study.seeds),
            **PAPER, cap=study.cap, leave=leave,
        )  # fmt: skip
        records += [{"leave": leave} | record for record in found.summary((*metrics, "memory_used"))]
        parts.append(f"{leave} held out, 6 measurements, multiples of ED-MF's: {_ahead_of_zero(found, 6)}")
        best.append(_best_everywhere(found, 6))
    return Figure(
        "settings",
        "Every method in Settings I to VI, and without any measurement",
        "among all approaches and across all memory usage ED-MF outperforms, most with few measurements",
        ". ".join(parts),
        every(best),
        tuple(records),
        tuple(
            Panel(
                "bars", "method", "regret", "setting", "regret_low", "regret_high", f"{c} measurements",
                (("measurements", c), ("leave", ways[0])),
            )
            for c in counts
        ),
        {"rank": RANK, "seeds": study.seeds, "cap": found.cap, "counts": list(counts)},
    )  # fmt: skip


def _ahead_of_zero(found: Evaluation, count: int) -> str:
    """In words: the other methods' mean HyperDiff and regret over settings, as multiples of ED-MF's."""
    parts = []
    for metric in ("hyperdiff", "regret"):

        def mean(method: str, metric: str = metric) -> Any:
            return np.mean([found.of(metric, s, method, count) for s in found.settings], axis=0)

        ratios = {
            m: family_ratio(mean(m), mean("ed-mf"), found.families) for m in found.methods if m != "ed-mf"
        }
        parts.append(f"{metric} " + ", ".join(f"{m} {r}" for m, r in ratios.items() if m != "high-memory"))
    return "; ".join(parts)


def _best_everywhere(found: Evaluation, count: int) -> bool | None:
    others = [m for m in found.methods if m != "ed-mf"]
    return every(
        no_worse(
            _everywhere(found, "ed-mf", metric, count),
            [_everywhere(found, method, metric, count) for method in others],
            found.families,
            within=1.05,
        )
        for metric in ("hyperdiff", "regret")
    )
