"""Compare peppp with what a reader would use instead: Optuna, random search, the largest fit, no training.
The simplest use of a table is compared too: measure its best columns in turn and keep the best measured one.

Every method may ask for the errors of a few configurations within a budget and then picks one within it. The
pick's regret is its noise-free error minus the least one within the budget. A noise-free error is the mean of
the task's runs that the method did not see, because the error for which a configuration was picked is lucky.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peppp import pareto
from peppp.errors import PepppError
from peppp.evaluate.bootstrap import family_mean
from peppp.evaluate.leave_one_out import leave_one_out, new_task
from peppp.learn.completion import Completion
from peppp.learn.strategy import strategy
from peppp.learn.task import Task, outcomes
from peppp.paper.figure import Figure, Panel, below, every
from peppp.paper.study import Study
from peppp.table.matrix import ErrorMatrix, Lacking

COUNTS = (1, 2, 3, 6, 10)
BUDGETS = (0.25, 0.5, 1.0)  # quantiles of the task's memory
SAMPLERS = ("tpe", "gp")
MOST_TRIALS = 30  # includes repeated trials and those beyond the budget: a sampler may repeat itself forever


def head_to_head(study: Study) -> Figure:
    """Compute each method's regret after 1, 2, 3, 6 and 10 measurements under three budgets.

    Raises PepppError if Optuna is not installed, Lacking if fewer than two tasks of other families are left
    to learn from.
    """
    optuna = _optuna()
    known = study.known
    records: list[dict[str, Any]] = []
    families = known.families
    for i, learned in leave_one_out(known):
        task = known.names[i]
        study.say(f"head to head: {task}")
        if len(learned.estimate) < 2:
            raise Lacking("the table lacks tasks of other families to learn from")
        for quantile in BUDGETS:
            budget = float(np.quantile(known.bytes[i, known.observed[i]], quantile))
            new = new_task(known, i, limit=budget)
            assert new is not None  # the budget is a quantile of the task's memory, so something fits
            for seed in range(study.seeds):
                for method, picks in _picks(known, i, learned, new, budget, seed, optuna).items():
                    regrets = [
                        _regret(study.judge(i, dict.fromkeys(S, 0.0)).errors, j, new) for j, S in picks
                    ]
                    records += [
                        {
                            "task": task,
                            "family": families[i],
                            "method": method,
                            "budget": f"{quantile:.0%} of configurations fit",
                            "measurements": count,
                            "seed": seed,
                            "regret": regret,
                        }
                        for count, regret in zip(COUNTS, regrets, strict=True)
                        if np.isfinite(regret)
                    ]
    return _figure(study, known, records)


def _regret(truth: NDArray[np.float64], pick: int, task: Task) -> float:
    """The pick's noise-free error minus the least feasible one; NaN where the pick's is unknown."""
    return float(truth[pick] - np.nanmin(truth[task.feasible])) if np.isfinite(truth[pick]) else np.nan


def _figure(study: Study, known: ErrorMatrix, records: list[dict[str, Any]]) -> Figure:
    methods = list(dict.fromkeys(r["method"] for r in records))
    budgets = list(dict.fromkeys(r["budget"] for r in records))
    means: dict[tuple[str, str, int], float] = {}
    summary = []
    for method in methods:
        for budget in [*budgets, "all budgets"]:
            for count in COUNTS:
                mine = [
                    r
                    for r in records
                    if r["method"] == method
                    and r["measurements"] == count
                    and budget in (r["budget"], "all budgets")
                ]
                found = family_mean([r["regret"] for r in mine], [r["family"] for r in mine])
                means[method, budget, count] = found.mean
                summary.append(
                    {"method": method, "budget": budget, "measurements": count, "regret": found.mean,
                     "regret_low": found.low, "regret_high": found.high, "tasks": len(known.names)}
                )  # fmt: skip
    shown = "; ".join(
        f"{count}: " + ", ".join(f"{m} {means[m, 'all budgets', count]:.3f}" for m in methods)
        for count in (1, 3, 10)
    )
    rivals = [m for m in methods if m != "peppp"]
    first = [min(means[m, "all budgets", c] for m in rivals) for c in COUNTS]
    ahead = [c for c, least in zip(COUNTS, first, strict=True) if means["peppp", "all budgets", c] <= least]
    better = [every(_less(records, method, count) for method in rivals) for count in COUNTS]
    return Figure(
        "head-to-head",
        "Regret of the pick after a few measurements",
        "(ours) peppp picks better than a general optimizer when measurements are few",
        f"mean regret over {len(known.names)} tasks, three budgets, after {shown} measurements; peppp has "
        f"the least regret of all after {', '.join(map(str, ahead)) or 'none of these'}; "
        "judged by noise-free errors",
        next((shown for shown in (True, False) if better.count(shown) > len(COUNTS) / 2), None),
        tuple(summary),
        (
            Panel(
                "labelled", "measurements", "regret", "method", "regret_low", "regret_high",
                f"mean over {len(known.names)} tasks and {len(budgets)} budgets, by noise-free errors; "
                "shaded: 95 % interval over families",
                (("budget", "all budgets"),),
            ),
        ),
        {"seeds": study.seeds, "budgets": list(BUDGETS), "counts": list(COUNTS), "rank": 3},
    )  # fmt: skip


def _less(records: list[dict[str, Any]], method: str, count: int) -> bool | None:
    """Whether peppp's mean regret is below another method's on the same tasks, budgets and seeds."""
    ours, theirs = (
        [r for r in records if r["method"] == name and r["measurements"] == count]
        for name in ("peppp", method)
    )
    place = ("task", "budget", "seed")
    other = {tuple(r[k] for k in place): r["regret"] for r in theirs}
    both = [(r, other[key]) for r in ours if (key := tuple(r[k] for k in place)) in other]
    differences = [r["regret"] - regret for r, regret in both]
    return below(family_mean(differences, [r["family"] for r, _ in both]), 0.0)


def _picks(
    known: ErrorMatrix,
    i: int,
    learned: Completion,
    task: Task,
    budget: float,
    seed: int,
    optuna: Any,
) -> dict[str, list[tuple[int, list[int]]]]:
    """For each method, its pick after each number of measurements, and the configurations it measured."""
    errors, memory, feasible = known.values[i], task.memory, task.feasible
    allowed = np.flatnonzero(feasible)
    rng = np.random.default_rng([seed, i])

    def least(estimate: NDArray[np.float64], among: NDArray[np.intp] = allowed) -> int:
        best = pareto.best(memory, pareto.settled(estimate), np.isin(np.arange(len(memory)), among))
        assert best is not None
        return best

    def advised(method: str) -> list[tuple[int, list[int]]]:
        played = outcomes(
            lambda count: strategy(method, learned, task, count, seed=[seed, i]), errors.item, COUNTS
        )
        return [(found.pick(measured), list(measured)) for found, measured in played]

    def kept(order: Sequence[int]) -> list[tuple[int, list[int]]]:
        """Measure in this order and pick the measured configuration of least error."""
        return [(least(errors, np.array(order[:count])), list(order[:count])) for count in COUNTS]

    picks = {
        "peppp": advised("gaussian"),
        "two-best": advised("two-best"),
        "ED-MF (the paper's)": advised("ed-mf"),
        "no training": advised("zero"),
        "largest that fits": advised("high-memory"),
        "random search": kept(rng.permutation(allowed).tolist()),
    }
    means = learned.estimate.mean(axis=0)
    in_turn = allowed[np.lexsort((memory[allowed], means[allowed]))]
    picks["table's best in turn"] = kept(in_turn.tolist())
    warm = least(means)
    for sampler in SAMPLERS:
        for enqueued in (None, warm):
            measured = _search(optuna, known, i, feasible, budget, sampler, seed, enqueued)
            name = f"optuna {sampler}" + ("" if enqueued is None else ", warm")
            picks[name] = kept(measured)
    return picks


def _search(
    optuna: Any,
    known: ErrorMatrix,
    i: int,
    feasible: NDArray[np.bool_],
    budget: float,
    sampler: str,
    seed: int,
    enqueued: int | None,
) -> list[int]:
    """The configurations that an Optuna sampler measures, in order.

    Formats A and B are the two categorical parameters; the relative excess of memory over the budget is the
    constraint. Trials beyond the budget, and repeated ones, do not count as measurements, but Optuna receives
    a result for them: 1.0 beyond the budget, the known error for a repeat. Configurations that the table does
    not hold are treated as beyond the budget, since there is no error to return; no other method may choose
    them either.
    """
    formats = [(str(c.format_a), str(c.format_b)) for c in known.configurations]
    column = {pair: j for j, pair in enumerate(formats)}
    choices_a, choices_b = (sorted({pair[k] for pair in formats}) for k in (0, 1))

    startup = {"n_startup_trials": 2} if enqueued is not None else {}
    kind = {"tpe": optuna.samplers.TPESampler, "gp": optuna.samplers.GPSampler}[sampler]
    search = optuna.create_study(sampler=kind(seed=seed, **startup))
    if enqueued is not None:
        search.enqueue_trial(dict(zip("ab", formats[enqueued], strict=True)))
    measured: list[int] = []
    wanted = min(max(COUNTS), int(feasible.sum()))
    for _ in range(MOST_TRIALS):
        trial = search.ask()
        pair = (trial.suggest_categorical("a", choices_a), trial.suggest_categorical("b", choices_b))
        j = column.get(pair)
        # Cap the excess at one budget, because a huge violation would dominate the sampler's model of it.
        excess = float(known.bytes[i, j] / budget) - 1.0 if j is not None and known.observed[i, j] else 1.0
        trial.set_constraint("memory", min(excess, 1.0))
        search.tell(trial, float(known.values[i, j]) if j is not None and feasible[j] else 1.0)
        if j is not None and feasible[j] and j not in measured:
            measured.append(j)
        if len(measured) == wanted:
            break
    # Fill up at random where a sampler only repeats itself, as a user would.
    rest = np.setdiff1d(np.flatnonzero(feasible), measured)
    measured += np.random.default_rng([seed, i]).permutation(rest)[: wanted - len(measured)].tolist()
    return measured


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise PepppError("the comparison needs Optuna; install it: pip install 'peppp[optuna]'") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna
