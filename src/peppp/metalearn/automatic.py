"""Which method to use on a new task: chosen on the table's own tasks, ED-MF unless another clearly wins.

Nothing of the new task is looked at but its memory; in an evaluation the held out family is in no inner loop
either (nested cross-validation: Varma and Simon, 2006). Not in the paper.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from peppp.metalearn.inner import Fold
from peppp.metalearn.methods import explore
from peppp.metalearn.threads import single_thread
from peppp.pareto import frontier_area_difference

CANDIDATES = (
    "ed-mf",
    "ed-mf-rank-1",
    "ed-mf-rank-2",
    "ed-mf-rank-5",
    "i-optimal",
    "frontier",
    "ehvi",
    "ei",
)
_FEWEST_FAMILIES = 4  # a standard error of fewer means nothing


@single_thread()
def choose_method(
    values: NDArray[np.float64],
    observed: NDArray[np.bool_],
    folds: Sequence[Fold],
    counts: Sequence[int],
    *,
    memory: ArrayLike,
    feasible: ArrayLike,
    candidates: Sequence[str] = CANDIDATES,
) -> list[str]:
    """The method to use with each number of measurements of ``counts``.

    A candidate's loss on a held out task is the mean of two: the area between its estimated and the true
    frontier and the regret of its pick, each as a multiple of ED-MF's average. The least average over
    families wins if it lies below ED-MF's by more than the standard error of the difference; else, or from
    fewer than four families, it is ED-MF (the first candidate). A candidate whose picks alone are regretted
    more than ED-MF's is never taken, however good its frontier. Where a row is partly known it is judged on
    what is known.
    """
    allowed = np.asarray(feasible, dtype=bool)
    m = np.asarray(memory, dtype=np.float64)
    losses: list[NDArray[np.float64]] = []  # of each row [candidates, counts, 2]
    owners: list[int] = []
    for fold in folds:
        for i, owner in zip(fold.rows, fold.families, strict=True):
            within = observed[i] & allowed
            if within.sum() < 3:
                continue
            row = np.empty((len(candidates), len(counts), 2))
            for c, method in enumerate(candidates):
                found = explore(
                    method, fold.training, values[i].item, counts, memory=m, feasible=within, seed=int(i)
                )
                row[c] = _losses(m, values[i], np.array([f.estimate for f in found]), within)
            losses.append(row)
            owners.append(int(owner))
    names = np.unique(owners)
    if len(names) < _FEWEST_FAMILIES:
        return [candidates[0]] * len(counts)
    rows, of = np.array(losses), np.array(owners)
    means = np.array([rows[of == name].mean(axis=0) for name in names])  # [families, candidates, counts, 2]
    reference = np.maximum(means[:, 0].mean(axis=0), 1e-12)  # [counts, 2]
    loss = (means / reference).mean(axis=-1)  # [families, candidates, counts]
    excess = loss - loss[:, :1]
    average = excess.mean(axis=0)
    error = excess.std(axis=0, ddof=1) / np.sqrt(len(names))
    regretted = means[..., 1].mean(axis=0)  # [candidates, counts]
    average = np.where(regretted > regretted[0], np.inf, average)
    best = average.argmin(axis=0)
    return [candidates[b] if average[b, c] + error[b, c] < 0 else candidates[0] for c, b in enumerate(best)]


def _losses(
    memory: NDArray[np.float64],
    errors: NDArray[np.float64],
    estimates: NDArray[np.float64],
    feasible: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """Area between the frontiers and regret of the pick of each of q estimates [q, d]: [q, 2]."""
    least = errors[feasible].min()
    return np.array(
        [
            [
                frontier_area_difference(memory, errors, estimate, feasible=feasible),
                errors[np.where(feasible, np.clip(estimate, 0.0, 1.0), np.inf).argmin()] - least,
            ]
            for estimate in estimates
        ]
    )
