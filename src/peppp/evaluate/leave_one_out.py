"""Meta-leave-one-out: each task of a known table in turn is the new one (section 4.2, Table 1).

:func:`leave_one_out` is the loop. Every evaluation runs it with the strategies of
:mod:`peppp.learn.strategy`, the same ones that give advice.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from peppp.errors import TableError
from peppp.learn.completion import Completion, inverse_propensity, learn
from peppp.learn.task import Task
from peppp.table.matrix import ErrorMatrix, Lacking
from peppp.table.sampling import nonuniform, uniform

Leave = Literal["family", "row"]
Sampling = Literal["full", "uniform", "nonuniform"]


@dataclass(frozen=True, slots=True)
class Setting:
    """How much of the meta-training table is known, and whether a new task's memory is capped."""

    sampling: Sampling
    capped: bool


# Table 1.
SETTINGS = {
    "I": Setting("full", False),
    "II": Setting("full", True),
    "III": Setting("uniform", False),
    "IV": Setting("uniform", True),
    "V": Setting("nonuniform", False),
    "VI": Setting("nonuniform", True),
}


def leave_one_out(
    matrix: ErrorMatrix,
    *,
    leave: Leave = "family",
    teaches: NDArray[np.bool_] | None = None,
    sampling: Sampling = "full",
    share: float = 0.2,
    rank: int = 3,
    shrinkage: float | None = None,
    relative_to_chance: bool = True,
    seed: int = 0,
) -> Iterator[tuple[int, Completion]]:
    """Yield the index of each row as the new task, and the completion of the rows that it learns from.

    With ``leave="family"``, a row learns from the rows of other families and other data; with ``"row"``, from
    all other rows, as in the paper. With ``teaches`` [n, n], row i learns from row j only where it is true;
    rows that cannot learn from any entry are skipped. ``sampling`` keeps a ``share`` of the entries to learn
    from, drawn anew for each family and ``seed``: uniformly, or with probabilities that fall with memory and
    inverse weights. No error of the row itself is used. Errors are compared as multiples of the chance error,
    as in a pick, or as they are, as in the paper. Raises Lacking if there is no second family.
    """
    labels = held_together(matrix, leave)
    number = {label: split for split, label in enumerate(np.unique(labels))}
    if teaches is None and len(number) < 2:
        raise Lacking(
            "the table lacks a second family to learn from; leave out rows instead of families: --leave row"
        )
    last: tuple[bytes, Completion] | None = None
    for i in np.argsort(labels, kind="stable"):
        others = labels != labels[i]
        if teaches is not None:
            others &= teaches[i]
        if not matrix.observed[others].any():
            continue
        if last is None or last[0] != others.tobytes():
            sampled, weights = _sampled(matrix.take(others), sampling, share, [seed, number[labels[i]]])
            last = others.tobytes(), learn(
                sampled, np.arange(len(sampled.rows)), rank=rank, shrinkage=shrinkage,
                relative_to_chance=relative_to_chance, weights=weights,
            )  # fmt: skip
        yield int(i), last[1]


def new_task(
    matrix: ErrorMatrix,
    i: int,
    *,
    within: NDArray[np.bool_] | None = None,
    limit: float = np.inf,
    relative_to_chance: bool = True,
) -> Task | None:
    """Row i as a new task, on its known columns (among ``within``) that fit the ``limit``; else None."""
    feasible = matrix.observed[i] & (matrix.bytes[i] <= limit)
    if within is not None:
        feasible &= within
    if not feasible.any():
        return None
    scale = float(matrix.chance[i]) if relative_to_chance else 1.0
    return Task(matrix.bytes[i], feasible, feasible, scale)


def held_together(matrix: ErrorMatrix, leave: Leave) -> NDArray[np.intp]:
    """A label for each row [n]; rows with the same label are held out together."""
    if leave not in ("family", "row"):
        raise TableError(f"leave must be 'family' or 'row', not {leave!r}")
    if leave == "row":
        return np.arange(len(matrix.rows))
    # Rows that are connected by a chain of equal families or equal data get the same label.
    labels = np.unique(np.asarray(matrix.families), return_inverse=True)[1].astype(np.intp)
    tasks = np.unique(np.asarray(matrix.tasks), return_inverse=True)[1]
    for task in np.unique(tasks):
        for label in np.unique(labels[tasks == task]):
            labels[labels == label] = labels[tasks == task].min()
    return labels


def _sampled(
    matrix: ErrorMatrix, sampling: Sampling, share: float, seed: Sequence[int]
) -> tuple[ErrorMatrix, NDArray[np.float64] | None]:
    """The matrix with a share of its entries, and their weights (None: equal).

    If the matrix is partly observed, the sample is a share of all entries, drawn from the observed ones.
    """
    if sampling == "full":
        return matrix, None
    if matrix.share < 1:
        share = min(share / matrix.share, 0.5 if sampling == "nonuniform" else 1.0)
    drawn = int(np.random.SeedSequence(list(seed)).generate_state(1)[0])
    weights = None
    if sampling == "uniform":
        mask = uniform(matrix.values.shape, share, seed=drawn)
    else:
        mask, probabilities = nonuniform(matrix.bytes, share=share, seed=drawn)
        weights = inverse_propensity(probabilities)
    mask = mask & matrix.observed
    return (matrix.masked(mask) if mask.any() else matrix), weights
