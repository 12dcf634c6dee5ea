"""What the table that ships says, beside the pages that other commands write: the figures of docs/table.md.

Everything is computed from the measurements, without training. The last line is a JSON object.

    python benchmarks/table_facts.py [--json FILE]
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from peppp import Configuration, read_measurements
from peppp.formats import paper_grid
from peppp.learn.completion import complete_values
from peppp.records import Measurement, Recipe
from peppp.table.matrix import ErrorMatrix
from peppp.table.measured import error_matrix
from peppp.table.sampling import uniform
from peppp.table.select import SHIPPED_TABLE

GRID = paper_grid()
USUAL = Recipe(min_steps=500)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    measurements = [m for m in read_measurements(SHIPPED_TABLE) if "@" not in str(m.configuration)]
    found = {
        "rounding": rounding(measurements),
        "noise": noise(measurements),
        "variance": {mode: variance(usual(measurements, mode)) for mode in ("stochastic", "nearest")},
        "shrinkage": shrinkage(usual(measurements, "stochastic")),
        "resnet18": listed(measurements, lambda r: r.network == "resnet18"),
        "to the end": listed(measurements, lambda r: r.epochs == 100),
        "transformer": transformer(measurements),
    }
    text = json.dumps(found, sort_keys=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    print(text)


def of(measurements: Iterable[Measurement], recipe: Recipe) -> list[Measurement]:
    """The measurements of a recipe, at any resolution and under any version of the arithmetic."""

    def way(r: Recipe) -> Recipe:
        return replace(r, resolution=0, arithmetic_version=recipe.arithmetic_version)

    return [m for m in measurements if way(m.recipe) == recipe]


def usual(measurements: Iterable[Measurement], mode: str) -> ErrorMatrix:
    """The tasks at all 99 pairs by the usual recipe, in one mode of rounding, at the first seed."""
    known = error_matrix(of(measurements, replace(USUAL, rounding=mode)), seed=0)
    return known.take(known.observed.all(axis=1))


def rounding(measurements: list[Measurement]) -> dict[str, float]:
    """In which share of the cells that have both modes stochastic rounding errs less, and by how much."""
    cells: dict[Any, dict[str, float]] = defaultdict(dict)
    for mode in ("stochastic", "nearest"):
        matrix = usual(measurements, mode)
        for row, task in enumerate(matrix.tasks):
            for column, label in enumerate(matrix.columns):
                cells[task, label][mode] = float(matrix.values[row, column])
    gains = np.array([both["nearest"] - both["stochastic"] for both in cells.values() if len(both) == 2])
    return {"cells": len(gains), "lower": float((gains > 0).mean()), "mean": float(gains.mean())}


def noise(measurements: list[Measurement]) -> dict[str, Any]:
    """How far seeds move an error: repeated cells, and cells of one task and Format A."""
    groups: dict[Any, list[float]] = defaultdict(list)
    for m in of(measurements, USUAL):
        if m.configuration in GRID:
            groups[m.fingerprint, m.configuration].append(m.test_error)
    repeated = [errors for errors in groups.values() if len(errors) >= 3]
    matrix = usual(measurements, "stochastic")
    formats = [configuration.format_a for configuration in matrix.configurations]
    alike = [
        row[[f == fmt for f in formats]].tolist() for row in matrix.values for fmt in dict.fromkeys(formats)
    ]
    return {"seeds": spread(repeated), "one task and Format A": spread(alike)}


def spread(groups: list[list[float]]) -> dict[str, float]:
    """The pooled standard deviation within groups, and quantiles of the groups' own."""
    own = [float(np.std(errors, ddof=1)) for errors in groups]
    degrees = [len(errors) - 1 for errors in groups]
    pooled = float(np.sqrt(np.average(np.square(own), weights=degrees)))
    high = {"median": float(np.median(own)), "a tenth above": float(np.quantile(own, 0.9))}
    return {"groups": len(groups), "degrees of freedom": sum(degrees), "pooled": pooled} | high


def variance(matrix: ErrorMatrix) -> dict[str, float]:
    """The shares of the variance of errors within a task that Format A, Format B and the rest explain."""
    cube = matrix.values.reshape(len(matrix.rows), 11, 9)  # rows, Formats A, Formats B
    centred = cube - cube.mean(axis=(1, 2), keepdims=True)
    of_a, of_b = centred.mean(axis=2, keepdims=True), centred.mean(axis=1, keepdims=True)
    total = (centred**2).sum()
    share_a, share_b = (float((np.broadcast_to(x, cube.shape) ** 2).sum() / total) for x in (of_a, of_b))
    return {"tasks": len(cube), "A": share_a, "B": share_b, "rest": 1 - share_a - share_b}


def shrinkage(matrix: ErrorMatrix) -> dict[str, dict[str, float]]:
    """The relative error of completions from a share of the entries, by shrinkage as a share of the RMS."""
    scaled = matrix.values / matrix.chance[:, None]
    found: dict[str, dict[str, float]] = {}
    for share in (0.1, 0.2, 0.5):
        for part in (0.01, 0.03, 0.1, 0.3):
            errors = []
            for seed in range(4):
                mask = uniform(matrix.values.shape, share, seed=seed)
                strength = part * float(np.sqrt(np.mean(scaled[mask] ** 2)))
                estimate = complete_values(scaled, mask, rank=3, shrinkage=strength).estimate
                away = (estimate - scaled)[~mask]
                errors.append(float(np.linalg.norm(away) / np.linalg.norm(scaled[~mask])))
            found.setdefault(str(share), {})[str(part)] = float(np.mean(errors))
    return found


def listed(measurements: list[Measurement], wanted: Callable[[Recipe], bool]) -> dict[str, Any]:
    """All errors of some recipes, by task and configuration."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for m in measurements:
        if wanted(m.recipe):
            found[m.task][str(m.configuration)].append(m.test_error)
    return found


def transformer(measurements: list[Measurement]) -> dict[str, Any]:
    """How far the pairs of the small transformer are from the mean of fp32, by their Format A."""
    own = [m for m in measurements if m.recipe.network == "transformer"]
    fp32: dict[str, list[float]] = defaultdict(list)
    for m in own:
        if m.configuration.is_fp32:
            fp32[m.fingerprint].append(m.test_error)
    wide, narrow = [], []
    for m in own:
        if isinstance(m.configuration, Configuration) and not m.configuration.is_fp32:
            more = m.test_error - float(np.mean(fp32[m.fingerprint]))
            a = m.configuration.format_a
            if a.exponent_bits == 3:
                narrow.append(more)
            elif a.mantissa_bits >= 2:
                wide.append(more)
    return {
        "4 or 5 exponent bits, 2 or more mantissa bits": {
            "trainings": len(wide),
            "most": max(map(abs, wide)),
        },
        "3 exponent bits": {"trainings": len(narrow), "least": min(narrow), "most": max(narrow)},
    }


if __name__ == "__main__":
    main()
