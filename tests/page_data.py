"""Measurements that pages are drawn from: errors of a planted rank, footprints of a real network."""

import numpy as np

from peppp import Measurement, Outcome, Recipe, paper_grid
from peppp.footprint.counting import ElementCounts
from peppp.formats import FP32_CONFIGURATION

COUNTS = ElementCounts(78_004, 1_301_317, 6532)


def measured(task, configuration, error, counts=COUNTS, recipe=None, seed=0):
    return Measurement(
        task, f"f-{task}", task, configuration, recipe or Recipe(), seed, 0.9, error, error, (),
        counts.footprint(configuration), Outcome.FINISHED, 1.0,
    )  # fmt: skip


def campaign(seed=0, tasks=6, share=0.5, name="task", planned=True):
    """Planted rank 2, more than half of it measured (or only a share); every task of its own size."""
    rng = np.random.default_rng(seed)
    errors = rng.uniform(0.2, 0.45, (tasks, 2)) @ rng.uniform(0.1, 0.9, (2, 99))
    found = [measured(f"{name}{i}", FP32_CONFIGURATION, 0.05) for i in range(tasks)]
    for i in range(tasks):
        counts = ElementCounts(78_000 + i, 400_000 * (i + 1), 500)
        found += [
            measured(f"{name}{i}", c, float(errors[i, j]), counts)
            for j, c in enumerate(paper_grid())
            if rng.random() < share or (planned and (i + j) % 6 < 3)
        ]
    return found
