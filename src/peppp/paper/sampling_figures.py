"""Meta-training figures, completing a table from a part of it: 9, 10, 17, and 22, 23 with learning rates."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from peppp import pareto
from peppp.evaluate.bootstrap import family_mean, family_ratio
from peppp.evaluate.scores import scores
from peppp.learn.completion import complete_values, inverse_propensity
from peppp.learn.threads import single_thread
from peppp.paper.figure import Figure, Panel, below, every
from peppp.paper.matrix_figures import MB, example_row
from peppp.paper.study import Study
from peppp.table.matrix import ErrorMatrix
from peppp.table.sampling import nonuniform, uniform

RANK, SHRINKAGE = 5, 0.1  # section 4.1
RATIOS = tuple(round(0.05 * k, 2) for k in range(1, 11))
P_MAX = tuple(round(0.1 * k, 1) for k in range(1, 11))
SHOWN = ("relative_error", "convergence", "hyperdiff")


def completed(known: ErrorMatrix, sampling: str, amount: float, seed: int) -> tuple[Any, NDArray[np.float64]]:
    """Sample entries, then complete the matrix from them: the mask [n, d] and the errors [n, d].

    ``amount`` is the share of entries for ``"uniform"`` sampling, and p_max for ``"nonuniform"``. Sampled
    entries keep their measured error; the others are estimated at rank 5.
    """
    weights = None
    if sampling == "uniform":
        mask = uniform(known.values.shape, min(1.0, amount / known.share), seed=seed)
    else:
        mask, probabilities = nonuniform(known.bytes, p_max=amount, seed=seed)
        weights = inverse_propensity(probabilities)
    mask = mask & known.observed
    found = complete_values(known.values, mask, rank=RANK, shrinkage=SHRINKAGE, weights=weights)
    Y = found.configuration_embeddings
    return mask, np.where(mask, known.values, found.estimate @ Y @ Y.T)


@single_thread()
def _sampled(study: Study, known: ErrorMatrix, name: str, title: str, sampling: str, example: int) -> Figure:
    """Score every row on one mask, and the example on as many masks as the study takes.

    Uniform samples of a partly known table take at most half of the known entries. Scores include the sampled
    entries, so that a nearly complete sample would leave nothing to estimate.
    """
    amounts = RATIOS if sampling == "uniform" else P_MAX
    if sampling == "uniform" and known.share < 1:
        amounts = tuple(a for a in amounts if a <= 0.5 * known.share) or amounts[:1]
    records: list[dict[str, Any]] = []
    for amount in amounts:
        study.say(f"figure {name}: {amount:g} of {amounts[-1]:g}")
        repeats = []
        for number in range(study.masks):
            mask, estimate = completed(known, sampling, amount, seed=number)
            rows = range(len(known.names)) if number == 0 else [example]
            used = float(known.bytes[mask].sum() / known.bytes.sum())
            for i in rows:
                found = scores(known.bytes[i], known.values[i], estimate[i], known.observed[i])
                values = {metric: float(found[metric][0]) for metric in SHOWN}
                if number == 0:
                    records.append(
                        {"sampled": amount, "memory_used": used, "task": known.names[i], "kind": "task"}
                        | values
                    )
                if i == example:
                    repeats.append(list(values.values()))
        mean, deviation = np.mean(repeats, axis=0), np.std(repeats, axis=0)
        records.append(
            {
                "sampled": amount,
                "memory_used": next(r["memory_used"] for r in records if r["sampled"] == amount),
                "task": known.names[example],
                "kind": f"{known.names[example]}, mean and deviation over {study.masks} masks",
            }
            | {metric: float(v) for metric, v in zip(SHOWN, mean, strict=True)}
            | {f"{metric}_low": float(v) for metric, v in zip(SHOWN, mean - deviation, strict=True)}
            | {f"{metric}_high": float(v) for metric, v in zip(SHOWN, mean + deviation, strict=True)}
        )
    medians = {
        amount: {
            metric: float(
                np.median([r[metric] for r in records if r["sampled"] == amount and r["kind"] == "task"])
            )
            for metric in SHOWN
        }
        for amount in amounts
    }
    first, last = amounts[0], amounts[-1]
    named = (0.1, 0.2, 0.5) if sampling == "uniform" else (0.2, 0.5, 1.0)
    shown = "; ".join(
        f"{'' if sampling == 'uniform' else 'p_max '}{a:g}: {medians[a]['relative_error']:.3f}, "
        f"{medians[a]['convergence']:.3f}, {medians[a]['hyperdiff']:.3f}"
        for a in dict.fromkeys((first, *(a for a in named if a in medians), last))
    )
    of = {
        (amount, metric): [r[metric] for r in records if r["sampled"] == amount and r["kind"] == "task"]
        for amount in amounts
        for metric in SHOWN
    }
    holds = every(below(family_ratio(of[last, m], of[first, m], known.families), 1.0) for m in SHOWN)
    if sampling == "uniform" and holds is not False:
        suffices = (
            below(family_ratio(of[0.2, "hyperdiff"], of[first, "hyperdiff"], known.families), 0.5)
            if 0.2 in amounts
            else None
        )
        holds = every([holds, suffices])
    return Figure(
        name,
        title,
        "estimates improve with more samples; 10 % is good already, 20 % suffices"
        if sampling == "uniform"
        else "estimates improve with more memory",
        f"median relative error, convergence, HyperDiff over {len(known.names)} tasks at {shown}"
        + ("" if amounts[-1] in (RATIOS[-1], P_MAX[-1]) else f" (the table knows {known.share:.0%})"),
        holds,
        tuple(records),
        tuple(
            Panel(
                "violin", "sampled" if sampling == "uniform" else "memory_used", metric,
                low=f"{metric}_low", high=f"{metric}_high",
            )
            for metric in SHOWN
        ),
        {"masks": study.masks, "rank": RANK, "shrinkage": SHRINKAGE, "amounts": list(amounts)},
    )  # fmt: skip


def figure_9(study: Study) -> Figure:
    """Complete the table from uniform samples."""
    known = study.known
    return _sampled(study, known, "9", "Meta-training, uniform sampling", "uniform", example_row(known))


def figure_17(study: Study) -> Figure:
    """Complete the table from samples that prefer small memory."""
    known = study.known
    title = "Meta-training, non-uniform sampling"
    return _sampled(study, known, "17", title, "nonuniform", example_row(known))


def figure_22(study: Study) -> Figure:
    """Repeat Figure 9 on tasks at several learning rates."""
    known = study.rates()
    title = "As Figure 9, several learning rates"
    return _sampled(study, known, "22", title, "uniform", _at_high_rate(known))


def figure_23(study: Study) -> Figure:
    """Repeat Figure 17 on tasks at several learning rates."""
    known = study.rates()
    return _sampled(
        study, known, "23", "As Figure 17, several learning rates", "nonuniform", _at_high_rate(known)
    )


def _at_high_rate(known: ErrorMatrix) -> int:
    """Aquatic mammals at the highest rate, as in the paper (0.01), or else the first row at that rate."""
    rates = [row.recipe.learning_rate if row.recipe else 0.0 for row in known.rows]
    high = [i for i, rate in enumerate(rates) if rate == max(rates)]
    return next((i for i in high if "aquatic" in known.names[i]), high[0])


def figure_10(study: Study) -> Figure:
    """Compare the example's true frontier with those estimated from 5 % and from 20 % of the entries."""
    known = study.known
    i = example_row(known)
    records: list[dict[str, Any]] = []
    found: dict[float, dict[str, float]] = {}
    masks: list[Any] = []
    for ratio in (0.05, 0.2):
        means: list[list[float]] = []
        for number in range(study.masks):
            _, estimate = completed(known, "uniform", ratio, seed=number)
            scored = scores(known.bytes[i], known.values[i], estimate[i], known.observed[i])
            means.append([float(scored[m][0]) for m in ("convergence", "hyperdiff")])
            if number == 0:
                for kind, errors in (("true", known.values[i]), ("estimated", estimate[i])):
                    records += [
                        {
                            "sampled": ratio,
                            "frontier": kind,
                            "configuration": known.labels[j],
                            "memory_mb": known.bytes[i, j] / MB,
                            "error": float(errors[j]),
                        }
                        for j in pareto.frontier(known.bytes[i], errors, known.observed[i])
                    ]
        masks.append(np.array(means))
        found[ratio] = dict(zip(("convergence", "hyperdiff"), np.mean(means, axis=0).tolist(), strict=True))
    shown = "; ".join(
        f"{ratio:.0%}: convergence {f['convergence']:.3f}, HyperDiff {f['hyperdiff']:.3f}"
        for ratio, f in found.items()
    )
    return Figure(
        "10",
        f"True and estimated frontiers, {known.names[i]}",
        "CIFAR-10 at 5 %: convergence 0.09, HyperDiff 0.16; at 20 %: 0.03 and 0.02",
        f"{known.names[i]}, mean of {study.masks} masks, at {shown}",
        # The masks of one seed are nested but for a few entries, so these are paired differences.
        every(
            below(family_mean(gained, list(map(str, range(study.masks)))), 0.0)
            for gained in (masks[1] - masks[0]).T
        ),
        tuple(records),
        tuple(
            Panel("steps", "memory_mb", "error", "frontier", title=f"{r:.0%}", where=(("sampled", r),))
            for r in (0.05, 0.2)
        ),
        {"masks": study.masks},
    )
