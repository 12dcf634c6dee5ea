"""Figures about designs (13) and ways of training: epochs (19), learning rates (20) and ``rounding``."""

from collections.abc import Callable
from time import process_time

import numpy as np
import scipy.stats
from numpy.typing import NDArray

from peppp import pareto
from peppp.evaluate.bootstrap import family_mean, family_ratio
from peppp.evaluate.leave_one_out import leave_one_out
from peppp.learn.completion import filled
from peppp.learn.design import d_optimal, least_squares
from peppp.learn.threads import single_thread
from peppp.paper.convex import relaxed_d_optimal
from peppp.paper.figure import Figure, Panel, above, below, every
from peppp.paper.frontiers import frontier_counts
from peppp.paper.matrix_figures import EXAMPLE, MB
from peppp.paper.study import Study
from peppp.records import Measurement
from peppp.table.matrix import Lacking
from peppp.table.measured import error_matrix
from peppp.table.slices import known_part, main_seed


@single_thread()
def figure_13(study: Study) -> Figure:
    """Compare the convex relaxation (SLSQP) with the greedy design at rank 5, for 20 configurations."""
    known = study.known
    rank = min(5, len(known.names) - 1)
    count = min(20, int(known.observed.sum(axis=1).min()) - 1)
    records, weights = [], []
    designs: dict[str, Callable[[NDArray[np.float64]], NDArray[np.intp]]] = {
        "greedy": lambda Y: d_optimal(Y, count),
        "convex, SLSQP": lambda Y: relaxed_d_optimal(Y, count).chosen,
    }
    errors: dict[str, list[float]] = {name: [] for name in designs}
    seconds = dict.fromkeys(designs, 0.0)
    families = []
    for i, learned in leave_one_out(known, rank=rank, shrinkage=0.1, relative_to_chance=False):
        if len(learned.estimate) <= rank:
            continue
        Y = learned.configuration_embeddings[known.observed[i]]
        truth = known.values[i, known.observed[i]]
        families.append(known.families[i])
        for name, design in designs.items():
            started = process_time()
            S = design(Y)
            seconds[name] += process_time() - started
            estimate = least_squares(Y, S, truth[S])
            errors[name].append(float(np.linalg.norm(estimate - truth) / np.linalg.norm(truth)))
            records.append({"task": known.names[i], "design": name, "relative_error": errors[name][-1]})
        weights += relaxed_d_optimal(Y, count).weights.tolist()
    if not weights:
        raise Lacking(f"the table lacks families: rank {rank} needs more than {rank} tasks of others")
    extreme = float(np.mean([v < 0.05 or v > 0.95 for v in weights]))
    means = {name: float(np.mean(values)) for name, values in errors.items()}
    faster = seconds["convex, SLSQP"] / max(seconds["greedy"], 1e-9)
    shown = ", ".join(f"{name} {value:.4f}" for name, value in means.items())
    records += [{"weight": v} for v in weights]
    return Figure(
        "13",
        f"Convex relaxation and greedy design: rank {rank}, {count} measurements",
        "the relaxed weights are mostly near 0 or 1; greedy has a lower error and is over 10 times faster",
        f"{extreme:.0%} of the weights are within 0.05 of 0 or 1; mean relative error {shown}; greedy is "
        f"{faster:.0f} times faster than SLSQP (with gradients)",
        every(
            [
                extreme > 0.5,
                faster > 10,
                below(family_ratio(errors["greedy"], errors["convex, SLSQP"], families), 1.0),
            ]
        ),
        tuple(records),
        (
            Panel("histogram", "weight", "", title="relaxed weights"),
            Panel("violin", "design", "relative_error"),
        ),
        {"rank": rank, "measurements": count},
    )


def figure_19(study: Study) -> Figure:
    """Compare the errors after few epochs with those after many."""
    varied = study.varied("epochs")
    lengths = sorted(varied, key=float)
    short, long = lengths[0], lengths[-1]
    few, many = study.errors(varied[short]), study.errors(varied[long])
    common = sorted(set(few) & set(many), key=lambda key: (key[0], str(key[1])))
    tasks = sorted({few[key].task for key in common})
    if len(common) < 10:
        raise Lacking(f"the table lacks configurations measured at {short} and {long} epochs: {len(common)}")
    at_short, at_long = f"error_after_{short}_epochs", f"error_after_{long}_epochs"
    records = tuple(
        {
            "task": few[key].task,
            "configuration": str(key[1]),
            at_short: few[key].test_error,
            at_long: many[key].test_error,
        }
        for key in common
    )
    taus = []
    for task in tasks:
        pairs = [(r[at_short], r[at_long]) for r in records if r["task"] == task]
        taus.append(float(scipy.stats.kendalltau(*zip(*pairs, strict=True)).statistic))
    lowest = min(float(str(r[at_long])) for r in records)
    return Figure(
        "19",
        f"Errors after {short} and after {long} epochs",
        "Kendall's tau 0.73 between 10 and 100 epochs on CIFAR-10; lowest error 9.7 % after 100",
        "Kendall's tau "
        + ", ".join(f"{tau:.2f} on {task}" for tau, task in zip(taus, tasks, strict=True))
        + f"; lowest error {lowest:.1%} after {long} epochs (another network, fewer pictures)",
        above(family_mean(taus, tasks), 0.5),
        records,
        (Panel("scatter", at_short, at_long, "task", guide="diagonal"),),
    )


def figure_20(study: Study) -> Figure:
    """Compare error against memory at a fixed learning rate and at the best of several."""
    known = study.rates(2)
    tasks = list(dict.fromkeys(known.tasks))
    names = [known.names[known.tasks.index(task)].split(" ")[0] for task in tasks]
    chosen = next((i for i, name in enumerate(names) if name.startswith(EXAMPLE)), 0)
    base = study.recipe.learning_rate
    records = []
    better, tuned, frontiers, wins = [], [], [], dict[float, int]()
    for i, task in enumerate(tasks):
        rows = [r for r, other in enumerate(known.tasks) if other == task]
        recipes = [known.rows[r].recipe for r in rows]
        rates = [recipe.learning_rate if recipe else 0.0 for recipe in recipes]
        if base not in rates:
            continue
        fixed, best = known.values[rows[rates.index(base)]], known.values[rows].min(axis=0)
        for k in known.values[rows].argmin(axis=0):
            wins[rates[k]] = wins.get(rates[k], 0) + 1
        better.append(float((fixed - best).mean()))
        tuned.append(task)
        frontiers.append(len(pareto.frontier(known.bytes[rows[0]], best)))
        if i == chosen:
            for kind, errors in (("fixed", fixed), ("tuned", best)):
                optimal = pareto.frontier(known.bytes[rows[0]], errors)
                records += [
                    {
                        "task": names[i],
                        "learning_rate": kind,
                        "configuration": column,
                        "memory_mb": known.bytes[rows[0], j] / MB,
                        "error": float(errors[j]),
                        "point": "Pareto optimal" if j in optimal else "dominated",
                    }
                    for j, column in enumerate(known.labels)
                ]
    if not better:
        raise Lacking(f"the table lacks tasks measured at the learning rate {base:g} and at others")
    total = sum(wins.values())
    shown = ", ".join(f"{rate:g} for {n / total:.0%}" for rate, n in sorted(wins.items()))
    return Figure(
        "20",
        f"Tuned learning rate, {names[chosen]}",
        "the trade-off remains when the learning rate is tuned, and errors are lower",
        f"the best rate is {shown} of task x configuration; tuning lowers the mean error by "
        f"{np.mean(better):.3f} on {len(better)} tasks; frontiers then have {min(frontiers)} to "
        f"{max(frontiers)} configurations",
        every([above(family_mean(better, tuned), 0.0), min(frontiers) > 1]),
        tuple(records),
        tuple(
            Panel(
                "scatter",
                "memory_mb",
                "error",
                "point",
                title=f"{kind} rate",
                where=(("learning_rate", kind),),
            )
            for kind in ("fixed", "tuned")
        ),
    )


def rounding(study: Study) -> Figure:
    """Compare stochastic rounding with rounding to nearest: errors, effect of Format B, frontiers."""
    varied = study.varied("rounding")
    if not {"stochastic", "nearest"} <= set(varied):
        raise Lacking("the table lacks rows that differ in rounding: it needs both stochastic and nearest")
    one, other = study.errors(varied["stochastic"]), study.errors(varied["nearest"])
    common = sorted(set(one) & set(other), key=lambda key: (key[0], str(key[1])))
    if not common:
        raise Lacking("the table lacks tasks and configurations measured with both ways of rounding")
    records = tuple(
        {
            "task": one[key].task,
            "configuration": str(key[1]),
            "error_stochastic": one[key].test_error,
            "error_nearest": other[key].test_error,
        }
        for key in common
    )
    lower = float(np.mean([r["error_stochastic"] < r["error_nearest"] for r in records]))  # type: ignore[operator]
    gain = float(np.mean([r["error_nearest"] - r["error_stochastic"] for r in records]))  # type: ignore[operator]
    parts = []
    for mode in ("stochastic", "nearest"):
        parts.append(f"{mode}: {_format_b(varied[mode])}")
    return Figure(
        "rounding",
        "Stochastic rounding and rounding to nearest",
        "the paper does not say which it used",
        f"stochastic rounding has the lower error in {lower:.0%} of {len(records)} cells, and a mean error "
        f"lower by {gain:.3f}; " + "; ".join(parts),
        None,
        records,
        (Panel("scatter", "error_stochastic", "error_nearest", "task", guide="diagonal"),),
        claims=False,
    )


def _format_b(measurements: list[Measurement]) -> str:
    """In words: how much Format B matters, and the configurations on the most frontiers."""
    try:
        known = known_part(error_matrix(measurements, seed=main_seed(measurements)))
    except Lacking as error:
        return str(error)
    formats = [str(c.format_b) for c in known.configurations]
    if len(known.names) < 2 or len(set(formats)) < 2:
        return "too few complete rows to say more"
    a = np.array([str(c.format_a) for c in known.configurations])
    b = np.array(formats)
    means = filled(known).mean(axis=0)
    rest = means - np.array([means[a == x].mean() for x in a])
    share = float(np.array([rest[b == x].mean() for x in b]).var() / means.var()) if means.var() else 0.0
    top = ", ".join(f"{column} {n}" for column, n in frontier_counts(known).most_common(3))
    return f"Format B explains {share:.1%} of the column means' variance, most frontiers {top}"
