"""What the table says about a method before the new task is seen: its own families, each held out in turn.

Used twice: to make intervals honest (:mod:`peppp.metalearn.calibration`) and to choose a method
(:mod:`peppp.metalearn.automatic`). The new task is in none of it.
"""

from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from peppp.metalearn.completion import Completion, complete_values
from peppp.metalearn.methods import Method, Rule, Task, rule_of, run

_FOLDS = 12  # a standard number of folds; each costs a completion
_ROWS = 60  # rows to judge by: more tell little more and take long


@dataclass(frozen=True, slots=True)
class Fold:
    """What some families teach, and the rows [m] of the others, with their family's number [m]."""

    training: Completion
    rows: NDArray[np.intp]
    families: NDArray[np.intp]
    _paths: dict[tuple[Method, int, bytes, bytes], dict[int, float]] = field(default_factory=dict)

    def played(
        self, method: Method, i: int, errors: NDArray[np.float64], task: Task, count: int
    ) -> tuple[Rule, dict[int, float]]:
        """A rule on row i as the new task, and what it is told once it has asked for ``count`` errors.

        What a sequential one was told for another number of measurements is where it goes on.
        """
        rule = rule_of(method, self.training, task, count, seed=i)
        if not rule.sequential:
            return rule, run(rule, errors.item)
        key = method, i, task.memory.tobytes(), task.feasible.tobytes()
        longest = self._paths.get(key, {})
        told = run(rule, errors.item, dict(islice(longest.items(), count)))
        if len(told) > len(longest):
            self._paths[key] = told
        return rule, told


@lru_cache(maxsize=8)  # by identity: an evaluation asks for those of one table for many tasks
def inner_folds(learned: Completion) -> tuple[Fold, ...]:
    """The folds of a completed table, by its observed entries; none of fewer than three rows.

    Each family is a fold, many ones share twelve. Rows of a single family are taken as families of their own:
    then what is found holds for new tasks of that family. Of many rows, 60 are judged by.

    >>> E = np.random.default_rng(0).random((4, 5))
    >>> learned = complete_values(E, E >= 0, families=("a", "b", "a", "c"))
    >>> [fold.rows.tolist() for fold in inner_folds(learned)]
    [[0, 2], [1], [3]]
    """
    mask, values = learned.observed, learned.estimate
    families = learned.families or tuple(map(str, range(len(mask))))
    labels = np.unique(np.asarray(families), return_inverse=True)[1].astype(np.intp)
    if labels.max(initial=0) == 0:
        labels = np.arange(len(mask))
    if len(mask) < 3:
        return ()
    number = labels % _FOLDS
    found = []
    for fold in np.unique(number):
        held = np.flatnonzero((number == fold) & mask.any(axis=1))
        rest = np.flatnonzero((number != fold) & mask.any(axis=1))
        if not len(rest) or not len(held):
            continue
        training = complete_values(
            values[rest], mask[rest], rank=learned.configuration_embeddings.shape[1],
            shrinkage=learned.shrinkage, columns=learned.columns,
        )  # fmt: skip
        judged = held[: max(1, -(-_ROWS * len(held) // len(mask)))]
        found.append(Fold(training, judged, labels[judged]))
    return tuple(found)
