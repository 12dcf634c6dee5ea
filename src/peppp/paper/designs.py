"""Not in the paper: find out whether a pick depends more on what is measured or on how the rest is predicted.

Every way of choosing what to measure is combined with every way of predicting the rest, on the same tasks
and budgets.
"""

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peppp.evaluate.bootstrap import family_mean
from peppp.evaluate.leave_one_out import leave_one_out, new_task
from peppp.learn.bayesopt import GaussianProcess
from peppp.learn.completion import Completion
from peppp.learn.design import least_squares
from peppp.learn.noise_free import belief_of
from peppp.learn.strategy import strategy
from peppp.learn.task import Measured, Task, outcomes
from peppp.learn.threads import single_thread
from peppp.paper.figure import Figure, Panel
from peppp.paper.head_to_head import BUDGETS
from peppp.paper.study import Study
from peppp.table.matrix import Lacking

COUNTS, SHOWN = (1, 3, 6, 10), 6
GAUSSIAN = "noise-free Gaussian"
Predict = Callable[[Measured], NDArray[np.float64]]


@single_thread()
def designs(study: Study) -> Figure:
    """Compute the pick's regret and the prediction error for each pair of a design and a predictor."""
    known = study.known
    found: dict[tuple[str, str, int], list[tuple[float, float, str]]] = {}
    for i, learned in leave_one_out(known):
        if len(learned.estimate) < 2:
            raise Lacking("the table lacks tasks of other families to learn from")
        predictors = _predictors(learned)
        family, e, m, seen = known.families[i], known.values[i], known.bytes[i], known.observed[i]
        for quantile, seed in product(BUDGETS, range(study.seeds)):
            task = new_task(known, i, limit=float(np.quantile(m[seen], quantile)))
            assert task is not None  # the limit is a quantile of the task's memory, so something fits
            for design, chosen in _designs(learned, e, task, [seed, i]).items():
                for count, S in zip(COUNTS, chosen, strict=True):
                    rest = seen.copy()
                    rest[S] = False
                    measured = dict(zip(S, e[S].tolist(), strict=True))
                    truth = study.judge(i, measured).errors
                    for name, predict in predictors.items():
                        estimate = task.scale * predict({j: x / task.scale for j, x in measured.items()})
                        off = float(np.sqrt(np.mean((estimate - e)[rest] ** 2))) if rest.any() else np.nan
                        # The Gaussian treats a run as noisy and keeps its estimate; the others take a
                        # measured error as exact.
                        pick = task.pick(estimate, {} if name == GAUSSIAN else measured)
                        if np.isfinite(truth[pick]):
                            regret = float(truth[pick] - np.nanmin(truth[task.feasible]))
                            found.setdefault((design, name, count), []).append((regret, off, family))
    records: list[dict[str, Any]] = []
    for (design, name, count), rows in found.items():
        regrets, offs, families = zip(*rows, strict=True)
        record: dict[str, Any] = {"design": design, "predictor": name, "measurements": count}
        for metric, values in (("regret", regrets), ("prediction_error", offs)):
            mean = family_mean(values, families)
            record |= {metric: mean.mean, f"{metric}_low": mean.low, f"{metric}_high": mean.high}
        records.append(record)
    parts = []
    for design in dict.fromkeys(design for design, _, _ in found):
        mine = [r for r in records if (r["design"], r["measurements"]) == (design, SHOWN)]
        parts.append(
            f"{design}: " + ", ".join(f"{r['predictor']} {r['regret']:.3f}" for r in mine)
            + f" (predictions off by {min(r['prediction_error'] for r in mine):.3f} at best)"
        )  # fmt: skip
    return Figure(
        "designs",
        "What decides how good a pick is: what was measured, or how the rest is predicted",
        "not examined in the paper",
        f"regret with {SHOWN} measurements, by what is measured and then how the rest is predicted: "
        + "; ".join(parts) + "; judged by noise-free errors",
        None,
        tuple(records),
        tuple(
            Panel("bars", "design", y, "predictor", f"{y}_low", f"{y}_high", f"{SHOWN} measurements",
                  (("measurements", SHOWN),))
            for y in ("regret", "prediction_error")
        ),
        {"counts": list(COUNTS), "budgets": list(BUDGETS), "seeds": study.seeds},
        claims=False,
    )  # fmt: skip


def _designs(
    learned: Completion, errors: NDArray[np.float64], task: Task, seed: Sequence[int]
) -> dict[str, list[list[int]]]:
    """The configurations that each design measures, one list for each of ``COUNTS``."""
    means = np.where(task.feasible, learned.estimate.mean(axis=0), np.inf)
    best = np.lexsort((task.memory, means))[: task.feasible.sum()].tolist()

    def chosen_by(method: str) -> list[list[int]]:
        played = outcomes(
            lambda count: strategy(method, learned, task, count, seed=seed), errors.item, COUNTS
        )
        return [list(measured) for _, measured in played]

    return {
        "D-optimal": chosen_by("ed-mf"),
        "expected improvement": chosen_by("bo-mf"),
        "table's best in turn": [best[:count] for count in COUNTS],
    }


def _predictors(learned: Completion) -> dict[str, Predict]:
    """Functions that predict all errors [d] from the errors of the measured configurations, by name."""
    Y, mean, prior = learned.configuration_embeddings, learned.estimate.mean(axis=0), belief_of(learned)
    process = GaussianProcess.rbf(Y * learned.singular_values[: Y.shape[1]], mean)
    return {
        "least squares": lambda seen: least_squares(Y, list(seen), np.array(list(seen.values()))),
        "rank 1": lambda seen: least_squares(Y[:, :1], list(seen), np.array(list(seen.values()))),
        "BO's process": lambda seen: process.posterior(list(seen), np.array(list(seen.values())))[0],
        GAUSSIAN: lambda seen: np.array(prior.given(seen).mean),
    }
