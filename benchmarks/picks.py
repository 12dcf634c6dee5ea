"""Replay the regret of peppp's picks after 0 to 6 trainings, judged by noise-free errors. Nothing is trained.

Each task of the shipped table in turn is new, and nothing is learned from its family. The strategies are the
ones that give advice (``peppp.learn.strategy``); they see one run at a time. A pick is judged by the mean of
the runs that they have not seen, among those of equal noise-free error (``peppp.evaluate.judges``). Regret is
the error of the pick above the least possible error, averaged over budgets, then over families. Standard
errors are over families.

Memory is what a budget bounds in ``peppp pick``: the peak of a packed training step, estimated by a
rehearsal, here without recomputation and micro-batches. The budgets of a task are the quantiles 0.25, 0.5 and
0.75 of the peaks of its configurations, each rounded up to the peak of one of them. In the JSON, ``budgets``
has the share of the configurations that they admit, by how much the least error within a budget exceeds the
least error of all, and the share of budgets where this is at most the tolerance of a pick. ``peaks`` has the
range of the peaks of each training.

The settings differ in the rows to learn from, and in the new tasks:

- I: all rows of the commonest recipe, as in a pick.
- IV: a fifth of these rows' entries, in three draws.
- transfer: as I, but the new tasks were trained with another network, learning rate or length.
- nearest: rows that round to nearest.
- runnable: what ``--from runnable`` chooses among, on the tasks where all of it was measured. The peaks of
  fp32 and of precisions by name are those of plain PyTorch. ``simple`` says how often the pick is the
  smallest configuration whose error exceeds the error of fp32 by at most the noise of a run.

    python benchmarks/picks.py [--json FILE] [--only I,IV,transfer,nearest,runnable]
        [--methods "gaussian;two-best"]
"""

import argparse
import json
from collections import Counter, defaultdict
from dataclasses import replace
from functools import cache

import numpy as np

from peppp.evaluate.judges import noise_free
from peppp.evaluate.leave_one_out import leave_one_out
from peppp.formats import FP32_CONFIGURATION, paper_grid
from peppp.learn.belief import GAUSSIAN_90
from peppp.learn.noise_free import TOLERANCE
from peppp.learn.strategy import strategy
from peppp.learn.task import Task, outcomes
from peppp.precisions.known import MEASURED, PRECISIONS, is_of_formats
from peppp.table.matrix import ErrorMatrix, placed
from peppp.table.measured import error_matrix
from peppp.table.select import SHIPPED_TABLE, read_current
from peppp.table.slices import by_seed, known_part, largest_slice, one_run
from peppp.tasks.dataset import Dataset, blank_images
from peppp.training.fitting import fitting
from peppp.training.runs_here import runnable

COUNTS = range(7)
QUANTILES = (0.25, 0.5, 0.75)  # of the peaks of a task's configurations; they are its budgets
FP32 = "gaussian, fp32 known"
METHODS = ("gaussian", FP32, "two-best", "ed-mf")


@cache
def ways(recipe, classes, storage):
    """The Fitting of a row's training. The table does not say how many examples a task has: a full batch."""
    if recipe.network == "transformer":
        text = np.zeros((recipe.batch_size, recipe.resolution), np.int64)
        names = tuple(map(str, range(classes)))
        blank = Dataset("blank", "blank", "", names, text, text, text[:1], text[:1])
    else:
        blank = blank_images(classes, recipe.resolution, recipe.batch_size)
    return fitting(blank, recipe, storage)


def peaks(row, configurations):
    """The estimated peak of a row's step at each configuration, without recomputation: [d]."""
    classes, sizes = round(1 / (1 - row.chance_error)), []
    for c in configurations:
        if is_of_formats(c):
            found = ways(row.recipe, classes, "packed").within(None, c, recompute=False)
        else:
            found = ways(row.recipe, classes, "fp32" if c.is_fp32 else str(c)).within(None, recompute=False)
        sizes.append(found.peak)
    return np.array(sizes, dtype=np.float64)


def kind_of(recipe):
    """Of what kind a row is that does not share the commonest recipe."""
    if recipe.network == "transformer":
        return "a small transformer on texts"
    if recipe.network == "resnet18-w16":
        return "a deeper network: ResNet-18 of width 16 at 32 pixels"
    if recipe.epochs == 100:
        return "ResNet-8 trained to the end: 100 epochs, flips and crops"
    return "ResNet-8 or VGG-11 of width 8, other rates, 50 epochs"


def play(measured, known, told, teaches=None, rows=None, sampling="full", seed=0, methods=METHODS):
    """Yield the records of one replay: family, method, count, regret, trainings, and more.

    As in a pick, ``gaussian`` also learns from a column of fp32; the other methods do not.
    """
    free = noise_free(known, told)
    low, reference = list(range(len(known.columns))), len(known.columns)
    if FP32_CONFIGURATION in known.columns:
        wide, reference = known, known.columns.index(FP32_CONFIGURATION)
    else:
        wide = with_fp32(measured, known)
    how = {"teaches": teaches, "sampling": sampling, "seed": seed}
    for (i, learned), (same, broad) in zip(
        leave_one_out(known, **how), leave_one_out(wide, **how), strict=True
    ):
        assert i == same
        if rows is not None and i not in rows:
            continue
        fp32 = wide.values[i, reference]
        truths = {}
        memory, observed = peaks(known.rows[i], known.columns), known.observed[i]
        for limit in np.quantile(memory[observed], QUANTILES, method="higher"):
            fits = observed & (memory <= limit)
            task = Task(memory, fits, fits, float(known.chance[i]))
            for method in methods:
                if method == FP32 and np.isnan(fp32):
                    continue
                beyond = {reference: float(fp32)} if method == FP32 else {}

                def build(count, method=method, learned=learned, broad=broad, task=task, beyond=beyond):
                    if not method.startswith("gaussian"):
                        return strategy(method, learned, task, count, seed=seed)
                    return strategy("gaussian", broad, task, count, columns=low, beyond=beyond)

                played = outcomes(build, told.values[i].item, COUNTS)
                for count, (found, errors) in zip(COUNTS, played, strict=True):
                    truth, runs = truths.setdefault(tuple(errors), free(i, errors))
                    pick = found.pick(errors)
                    record = {"family": known.families[i], "method": method, "count": count}
                    record["rate"] = known.rows[i].recipe.learning_rate
                    record["kind"] = kind_of(known.rows[i].recipe)
                    record["regret"] = truth[pick] - np.nanmin(truth[fits])
                    record["trainings"] = len(errors)
                    record["admitted"] = fits.sum() / observed.sum()
                    record["lost"] = np.nanmin(truth[fits]) - np.nanmin(truth[observed])
                    record["free"] = float(record["lost"] <= TOLERANCE)
                    if method == "gaussian":
                        belief, judged = found.believe(errors), np.isfinite(truth) & fits
                        # The truth is a mean of few runs, so its noise widens the interval.
                        wider = GAUSSIAN_90 * np.sqrt(belief.noise / np.maximum(runs, 1))
                        half = np.hypot((belief.high - belief.low) / 2, wider)
                        middle = found.predict(errors)
                        if reference < len(truth) and np.isfinite(truth[reference]):
                            good = truth <= truth[reference] + np.sqrt(belief.noise[reference])
                            smallest = np.where(good & fits, memory, np.inf).argmin()
                            record["simple"] = float(bool((good & fits).any()) and pick == smallest)
                        record["covered"] = float((abs(truth - middle) <= half)[judged].mean())
                    yield record


def with_fp32(measured, known):
    """The known matrix with the errors of its rows at fp32 as last column."""
    found = error_matrix(measured, include_reference=True)
    parts = []
    for name in ("values", "counts", "squares"):
        column = placed(getattr(found, name), found, known.keys, [FP32_CONFIGURATION])
        own = getattr(known, name)
        parts.append(np.column_stack([own, column if name == "values" else np.nan_to_num(column)]))
    return ErrorMatrix(parts[0], known.rows, (*known.columns, FP32_CONFIGURATION), None, *parts[1:])


def summary(records):
    """Mean and standard error over families of each score, by method and number of trainings.

    The scores include the share of configurations that the budgets admit, the error that the budgets cost,
    and the share of budgets that cost none.
    """
    values = defaultdict(lambda: defaultdict(list))
    for r in records:
        for name in ("regret", "covered", "trainings", "admitted", "lost", "free", "simple"):
            if name in r and np.isfinite(r[name]):
                values[r["method"], r["count"], name][r["family"]].append(r[name])
    found = defaultdict(dict)
    for (method, count, name), families in values.items():
        means = np.array([np.mean(v) for v in families.values()])
        error = means.std(ddof=1) / np.sqrt(len(means)) if len(means) > 1 else np.nan
        found[method, name][str(count)] = [round(float(means.mean()), 5), round(float(error), 5)]
    return found


def prepared(setting):
    """What a setting replays: measurements, known errors, the runs shown to methods, ``teaches``, new rows.

    ``teaches`` is None if a row learns from all others; the new rows are None if every row is new in turn.
    """
    measurements = read_current(SHIPPED_TABLE)
    if setting == "runnable":
        return runnable_rows(measurements)
    if setting == "nearest":
        nearest = largest_slice(measurements, {"rounding": "nearest"})
        matrix = known_part(error_matrix(nearest))
        return measurements, matrix, one_run(by_seed(nearest), matrix), None, None
    common = largest_slice(measurements)
    known = known_part(error_matrix(common))
    if setting == "IV":
        return measurements, known, one_run(by_seed(common), known), None, None
    rounding = common[0].recipe.rounding
    alike = [m for m in measurements if m.recipe.rounding == rounding and m.recipe.accumulator]
    alike = [m for m in alike if m.recipe.error_format == common[0].recipe.error_format]
    # Columns of other value sets belong to a separate campaign.
    alike = [m for m in alike if "@" not in str(m.configuration) and not m.configuration.is_fp32]
    everything = error_matrix(alike)
    everything = everything.take(everything.observed.sum(axis=1) >= 10)
    usual = np.array([row.recipe_digest in {r.recipe_digest for r in known.rows} for row in everything.rows])
    teaches = np.broadcast_to(usual, (len(usual), len(usual)))
    whole = everything.observed.sum(axis=1) >= len(known.columns)
    rows = set(np.flatnonzero(usual & whole if setting == "I" else ~usual).tolist())
    return measurements, everything, one_run(by_seed(alike), everything), teaches, rows


def runnable_rows(measurements):
    """``prepared`` for the rows of the commonest recipe on which all that runs here was measured."""
    way = replace(largest_slice(measurements)[0].recipe, resolution=0)
    names = {p for p in runnable() if p.optimizer in ("", way.optimizer)} & {PRECISIONS[n] for n in MEASURED}
    columns = {*paper_grid(), FP32_CONFIGURATION, *names}
    kept = [m for m in measurements if replace(m.recipe, resolution=0) == way and m.configuration in columns]
    every = {"include_reference": True, "include_named": True}
    known = error_matrix(kept, **every)
    named = [j for j, c in enumerate(known.columns) if c in names]
    whole = known.observed[:, named].all(axis=1) & (known.observed.sum(axis=1) >= len(columns))
    known = known.take(whole)
    counts = Counter(m.seed for m in kept)
    seeds = sorted(counts, key=lambda seed: (-counts[seed], seed))
    runs = [error_matrix([m for m in kept if m.seed == seed], **every) for seed in seeds]
    return measurements, known, one_run(runs, known), None, None


def settings(only, methods):
    for name in ROWS:
        if name in only:
            sampling, draws = ("uniform", 3) if name == "IV" else ("full", 1)
            replayed = prepared(name)
            how = {"sampling": sampling, "methods": ["gaussian"] if name == "runnable" else methods}
            yield name, replayed[1], [r for s in range(draws) for r in play(*replayed, seed=s, **how)]


def spread(known):
    """The least and largest peak of each training of a matrix, and their ratio, also that of kept memory.

    Trainings that differ only in the number of classes are represented by the first.
    """
    found = {}
    for i, row in enumerate(known.rows):
        recipe, memory = row.recipe, peaks(row, known.configurations)
        name = f"{recipe.network} at {recipe.resolution} pixels"
        ratios = [round(float(m.max() / m.min()), 3) for m in (memory, known.bytes[i])]
        ends = {"least": int(memory.min()), "largest": int(memory.max())}
        found.setdefault(name, ends | {"ratio": ratios[0], "ratio_kept": ratios[1]})
    return found


def key(method):
    """A method's name in the JSON."""
    return "fp32_known" if method == FP32 else method.replace("-", "_")


ROWS = {
    "I": "the whole table is known (I)",
    "IV": "a fifth of it is known (IV)",
    "transfer": "another network, rate or length",
    "nearest": "nearest rounding",
    "runnable": "what runs here, with fp32 and names",
}


def markdown(result):
    """The table of docs/picking.md: regret by maximum number of trainings, with standard errors."""
    shown = ("0", "1", "2", "3", "6")
    lines = ["| what is known | method | " + " | ".join(shown) + " | trainings | coverage |"]
    lines.append("|---" * (len(shown) + 4) + "|")
    for setting, about in ROWS.items():
        for method in METHODS:
            if setting not in result["regret" if method == "gaussian" else key(method)]:
                continue
            regret = (result["regret"] if method == "gaussian" else result[key(method)])[setting]
            cells = [f"{regret[n][0]:.4f} ± {regret[n][1]:.4f}" for n in shown]
            last = ["", ""]
            if method == "gaussian":
                number = result["trainings"][setting]["number"][0]
                coverage = [result["coverage"][setting][n][0] for n in shown]
                last = [f"{number:.1f}", f"{min(coverage):.2f} to {max(coverage):.2f}"]
            row = [about if method == "gaussian" else "", method, *cells, *last]
            lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


def transfers(result):
    """The table of docs/picking.md by kind of transfer: regrets after 0 to 3 trainings."""
    shown = ("0", "1", "2", "3")
    lines = ["| picked for | families | method | " + " | ".join(shown) + " |"]
    lines.append("|---" * (len(shown) + 3) + "|")
    for kind, found in result["transfers"].items():
        for number, method in enumerate(m for m in METHODS if m in found):
            cells = [f"{found[method][n][0]:.4f} ± {found[method][n][1]:.4f}" for n in shown]
            about = [kind, str(found["families"])] if number == 0 else ["", ""]
            lines.append("| " + " | ".join([*about, method, *cells]) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", default="")
    parser.add_argument("--only", default="I,IV,transfer,nearest,runnable")
    parser.add_argument("--methods", default=";".join(METHODS))
    arguments = parser.parse_args()
    methods = tuple(arguments.methods.split(";"))
    names = ("regret", "coverage", "trainings", "budgets", "peaks", "transfers", *map(key, methods[1:]))
    result = {name: {} for name in names}
    for name, known, records in settings(arguments.only.split(","), methods):
        found = summary(records)
        abouts = ("admitted", "lost", "free")
        result["budgets"][name] = {about: found["gaussian", about]["0"] for about in abouts}
        if known.memory is not None:
            result["peaks"] = spread(known) | result["peaks"]
        own = ("gaussian",) if name == "runnable" else methods
        if name == "runnable":
            result["simple"] = found["gaussian", "simple"]
        result["regret"][name] = found["gaussian", "regret"]
        result["coverage"][name] = found["gaussian", "covered"]
        if name == "transfer":  # the hardest for intervals
            apart = summary([r for r in records if r["rate"] == 0.01])
            result["coverage"]["rate 0.01"] = apart["gaussian", "covered"]
            for kind in dict.fromkeys(r["kind"] for r in records):
                apart = summary([r for r in records if r["kind"] == kind])
                result["transfers"][kind] = {
                    method: apart[method, "regret"] for method in methods if (method, "regret") in apart
                } | {"families": len({r["family"] for r in records if r["kind"] == kind})}
        most = str(max(COUNTS))
        result["trainings"][name] = {
            "number": found["gaussian", "trainings"][most], "regret": found["gaussian", "regret"][most]
        }  # fmt: skip
        for method in own[1:]:
            result[key(method)][name] = found[method, "regret"]
        for method in own:
            print(name, method, *(f"{found[method, 'regret'][str(c)][0]:.4f}" for c in COUNTS), flush=True)
        print(name, "trainings", *result["trainings"][name]["number"], "coverage",
              *(v[0] for v in result["coverage"][name].values()),
              "budgets", result["budgets"][name], flush=True)  # fmt: skip
    print(markdown(result))
    if result["transfers"]:
        print(transfers(result))
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(result, file, indent=1)
            file.write("\n")


if __name__ == "__main__":
    main()
