"""What picks are worth on a table: methods, unseen formats. The last line is a JSON object.

    python benchmarks/picks.py [TABLE] [--seeds 5] [--only methods,seeds,unseen]

Ratios are to ED-MF at the same number of measurements, with 95 % bootstrap intervals over families; picks are
judged by the runs that were measured and by
the task's other runs of equal Format A. ``seeds``: mean regret on the tasks that were trained at all
configurations with another seed, judged by that. Nothing is trained.
"""

import argparse
import json

import numpy as np

from peppp.known import SHIPPED_TABLE, read_measurements
from peppp.replay.intervals import family_mean, family_ratio
from peppp.replay.judges import judge
from peppp.replay.loocv import evaluate
from peppp.replay.slices import by_seed, known_part, largest_slice
from peppp.replay.unseen import replay_unseen

METHODS = (
    "ed-mf", "auto", "zero", "bo-mf",
    "i-optimal", "frontier", "ehvi", "ei",
)  # fmt: skip
COUNTS = (0, 1, 2, 3, 5, 8)
SETTINGS = ("I", "II", "IV")
JUDGES = ("same", "siblings")


def methods(known, seeds):
    records = []
    for by in JUDGES:
        found = evaluate(
            known,
            settings=SETTINGS,
            methods=METHODS,
            counts=COUNTS,
            seeds=range(seeds),
            judge=judge(known, by),
        )
        for setting in SETTINGS:
            for method in METHODS:
                for count in COUNTS:
                    for metric in ("hyperdiff", "regret"):
                        values = found.of(metric, setting, method, count)
                        reference = found.of(metric, setting, "ed-mf", count)
                        ratio = family_ratio(values, reference, known.families)
                        difference = family_mean(values - reference, known.families)
                        records.append(
                            {
                                "judge": by, "setting": setting, "method": method, "measurements": count,
                                "metric": metric, "mean": family_mean(values, known.families).mean,
                                "ratio": [ratio.mean, ratio.low, ratio.high],
                                "difference": [difference.mean, difference.low, difference.high],
                            }
                        )  # fmt: skip
            for method in METHODS:
                print(by, setting, method, *shown(records, by, setting, method), flush=True)
    return records


def second_seeds(known, others, seeds):
    others = judge(known, "seed", others)
    rows = np.flatnonzero(np.isfinite(others).all(axis=1))
    found = evaluate(
        known, settings=("I", "IV"), methods=("ed-mf", "auto", "zero"), counts=(1, 3, 5),
        seeds=range(seeds), judge=others,
    )  # fmt: skip
    regret = {
        setting: {
            method: [float(found.of("regret", setting, method, count)[rows].mean()) for count in found.counts]
            for method in found.methods
        }
        for setting in found.settings
    }
    print("judged by second seeds", regret, flush=True)
    return {"tasks": [known.names[i] for i in rows], "measurements": list(found.counts), "regret": regret}


def shown(records, by, setting, method):
    for metric in ("hyperdiff", "regret"):
        for count in (1, 3, 5):
            (r,) = (
                r for r in records
                if (r["judge"], r["setting"], r["method"]) == (by, setting, method)
                and (r["metric"], r["measurements"]) == (metric, count)
            )  # fmt: skip
            yield "{:.2f} [{:.2f}, {:.2f}]".format(*r["ratio"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", nargs="?", default=str(SHIPPED_TABLE))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", default="methods,seeds,unseen")
    arguments = parser.parse_args()
    measurements = largest_slice(read_measurements(arguments.table))
    main, *others = by_seed(measurements)
    known = known_part(main)
    result = {
        "measurements": len(measurements), "tasks": len(known.names), "families": len(set(known.families)),
        "configurations": len(known.columns), "known": known.share,
    }  # fmt: skip
    print(result)
    if "methods" in arguments.only:
        result["methods"] = methods(known, arguments.seeds)
    if "seeds" in arguments.only:
        result["seeds"] = second_seeds(known, others, arguments.seeds)
    if "unseen" in arguments.only:
        found = replay_unseen(known, counts=(0, 3))
        result["unseen"] = found.summary() + found.summary(by_format=True)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
