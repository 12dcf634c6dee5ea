"""Which method to use on a new task: chosen on the table's own tasks, ED-MF unless another clearly wins.

Nothing of the new task is looked at but its memory; in an evaluation the held out family is in no inner loop
either (nested cross-validation: Varma and Simon, 2006). Not in the paper.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from peppp.metalearn.completion import Completion
from peppp.metalearn.inner import inner_folds
from peppp.metalearn.methods import Method, Task, Told, kept
from peppp.metalearn.threads import single_thread
from peppp.pareto import frontier_area_difference

CANDIDATES = tuple(
    map(
        Method.parse,
        ("ed-mf", "ed-mf-rank-1", "ed-mf-rank-2", "ed-mf-rank-5", "i-optimal", "frontier", "ehvi", "ei"),
    )
)
_FEWEST_FAMILIES = 4  # a standard error of fewer means nothing


@single_thread()
def choose_method(
    learned: Completion, task: Task, measurements: int, candidates: Sequence[Method] = CANDIDATES
) -> Method:
    """The method to use for a number of measurements.

    A candidate's loss on a held out task is the mean of two: the area between its estimated and the true
    frontier and the regret of its pick, each as a multiple of ED-MF's average. The least average over
    families wins if it lies below ED-MF's by more than the standard error of the difference; else, or from
    fewer than four families, it is ED-MF (the first candidate). A candidate whose picks alone are regretted
    more than ED-MF's is never taken, however good its frontier. Where a row is partly known it is judged on
    what is known. Of the new task only its memory and what may be measured are looked at.
    """
    losses: list[list[tuple[float, float]]] = []  # of each row [candidates, 2]
    owners: list[int] = []
    for fold in inner_folds(learned):
        for i, owner in zip(fold.rows, fold.families, strict=True):
            within, errors = learned.observed[i] & task.measurable, learned.estimate[i]
            if within.sum() < 3:
                continue
            held = Task(task.memory, within, within)
            row = []
            for method in candidates:
                rule, told = fold.played(method, int(i), errors, held, measurements)
                row.append(_losses(held, errors, rule.predict(told), told))
            losses.append(row)
            owners.append(int(owner))
    names = np.unique(owners)
    if len(names) < _FEWEST_FAMILIES:
        return candidates[0]
    rows, of = np.array(losses), np.array(owners)
    means = np.array([rows[of == name].mean(axis=0) for name in names])  # [families, candidates, 2]
    reference = np.maximum(means[:, 0].mean(axis=0), 1e-12)  # [2]
    loss = (means / reference).mean(axis=-1)  # [families, candidates]
    excess = loss - loss[:, :1]
    average = excess.mean(axis=0)
    error = excess.std(axis=0, ddof=1) / np.sqrt(len(names))
    regretted = means[..., 1].mean(axis=0)  # [candidates]
    average = np.where(regretted > regretted[0], np.inf, average)
    best = int(average.argmin())
    return candidates[best] if average[best] + error[best] < 0 else candidates[0]


def _losses(
    task: Task, errors: NDArray[np.float64], estimate: NDArray[np.float64], told: Told
) -> tuple[float, float]:
    """Area between the frontiers, and regret of the pick."""
    area = frontier_area_difference(task.memory, errors, kept(estimate, told), feasible=task.feasible)
    return area, float(errors[task.pick(estimate, told)] - errors[task.feasible].min())
