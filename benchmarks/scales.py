"""Error by how blocks of FP4 choose their scale, and by the format of errors: trainings of ResNet-8.

Recipe and tasks are those of the shipped table. FP4: ``mxfp4-all`` with each scale mode and blocks of 16 and
32. Errors: ``mxfp8-all`` and ``fp8-all``, each with errors in E4M3 and in E5M2. A row's number is the mean
over seeds; those of a summary are means over tasks of the error above fp32's, with 95 % intervals over tasks
(bootstrap). ``--json`` is written after each training, and the same line continues from what it holds.

    python benchmarks/scales.py FOLDER_OF_NPZ_FILES [--json benchmarks/results/scales.json]
"""

import argparse
import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import numpy as np
from table import text

from peppp.files import whole
from peppp.formats import parse_format
from peppp.precisions.known import Precision, parse_precision
from peppp.precisions.named import NamedPrecision
from peppp.records import Recipe
from peppp.scaled import SCALE_MODES
from peppp.tasks.readers import load
from peppp.training.measurement import measure, provenance

TASKS = ("mnist", "sign_digits", "hand_drawn_shapes", "cifar10", "math_symbols", "eth80")
SEEDS = (0, 1)
BLOCKS = (16, 32)


def precisions() -> dict[str, Precision]:
    """Each contestant by its text in the results."""
    found = {"fp32": parse_precision("fp32")}
    for block in BLOCKS:
        for mode in SCALE_MODES:
            found[f"FP4, blocks of {block}, {mode}"] = variant("mxfp4-all", values=f"mx-1-2-1/{block}@{mode}")
    found["MXFP8, errors in E4M3"] = variant("mxfp8-all", errors="mx-1-4-3/32@round-up")
    found["MXFP8, errors in E5M2"] = variant("mxfp8-all", errors="mx-1-5-2/32@round-up")
    found["FP8, errors in E4M3"] = variant("fp8-all", errors="scaled-1-4-3")
    found["FP8, errors in E5M2"] = variant("fp8-all", errors="scaled-1-5-2")
    return found


def variant(name: str, **formats: str) -> NamedPrecision:
    """A precision by name, with other formats in its products."""
    precision = parse_precision(name)
    assert isinstance(precision, NamedPrecision)
    assert precision.products is not None
    other = {side: parse_format(text) for side, text in formats.items()}
    return replace(precision, products=replace(precision.products, **other))


def summary(rows: list[dict]) -> dict[str, dict[str, float]]:
    """Each contestant's error above fp32's: the mean over tasks, and its interval."""
    by = defaultdict(dict)
    for row in rows:
        by[row["precision"]].setdefault(row["task"], []).append(row["error"])
    draws = np.random.default_rng(0)
    found = {}
    for name, tasks in by.items():
        more = np.array([fmean(errors) - fmean(by["fp32"][task]) for task, errors in tasks.items()])
        means = more[draws.integers(len(more), size=(10_000, len(more)))].mean(axis=1)
        low, high = np.quantile(means, [0.025, 0.975])
        found[name] = {
            "more": round(float(more.mean()), 4), "low": round(float(low), 4), "high": round(float(high), 4),
            "tasks": len(more), "most": round(float(more.max()), 4),
        }  # fmt: skip
    return found


def keep(path: Path, found: dict) -> None:
    with whole(path) as unfinished:
        unfinished.write_text(json.dumps(found, indent=1) + "\n")


def markdown(found: dict) -> str:
    """The table of docs/numbers.md."""
    lines = ["| products of all layers | more error than fp32 | 95 % interval | most |", "|---|---|---|---|"]
    for name, row in found["summary"].items():
        if name != "fp32":
            interval = f"{row['low']:+.3f} to {row['high']:+.3f}"
            lines.append(f"| {name} | {row['more']:+.3f} | {interval} | {row['most']:+.3f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/scales.json"))
    arguments = parser.parse_args()
    rows = json.loads(arguments.json.read_text())["rows"] if arguments.json.exists() else []
    known = {(row["task"], row["precision"], row["seed"]) for row in rows}
    for seed in SEEDS:
        for task in TASKS:
            data = load(text(arguments.folder, task))
            for name, precision in precisions().items():
                if (task, name, seed) in known:
                    continue
                made = measure(data, precision, Recipe(min_steps=500), seed)
                rows.append({"task": task, "precision": name, "seed": seed, "error": made.test_error})
                print(json.dumps(rows[-1] | {"seconds": made.seconds}), flush=True)
                keep(arguments.json, {"provenance": provenance("cpu"), "rows": rows})
    found = {"provenance": provenance("cpu"), "summary": summary(rows), "rows": rows}
    keep(arguments.json, found)
    print(markdown(found))


if __name__ == "__main__":
    main()
