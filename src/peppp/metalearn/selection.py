"""The shrinkage and the rank of a completion, by the error on entries held out of it (section 4.1)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from peppp.metalearn.softimpute import soft_impute
from peppp.metalearn.threads import single_thread

# The paper's "logarithmic scale", which holds its 0.1.
SHRINKAGES = tuple(float(10.0**exponent) for exponent in (0.5, 0, -0.5, -1, -1.5, -2))


@dataclass(frozen=True, slots=True)
class Selection:
    """Relative errors on held-out entries [shrinkages, ranks], their means over folds, and the best pair."""

    shrinkages: tuple[float, ...]
    ranks: tuple[int, ...]
    errors: NDArray[np.float64]

    @property
    def shrinkage(self) -> float:
        """The shrinkage of the least held-out error, whatever the rank."""
        return self.shrinkages[int(self.errors.min(axis=1).argmin())]

    @property
    def rank(self) -> int:
        """The rank of the least held-out error, whatever the shrinkage."""
        return self.ranks[int(self.errors.min(axis=0).argmin())]


@single_thread()
def cross_validate(
    values: NDArray[np.float64],
    observed: NDArray[np.bool_],
    *,
    shrinkages: Sequence[float] = SHRINKAGES,
    ranks: Sequence[int] = (1, 2, 3, 5, 8),
    weights: NDArray[np.float64] | None = None,
    folds: int = 5,
    seed: int = 0,
) -> Selection:
    """Held-out errors of :func:`peppp.metalearn.completion.soft_impute`, cut off at each of the ``ranks``.

    The observed entries of ``values`` [n, d] are split into ``folds``; each is predicted from the others. The
    shrinkages are gone through from the largest, each starting from the estimate of the one before (warm
    starts). ``weights`` [n, d] are those of the completion.

    >>> rng = np.random.default_rng(0)
    >>> E = np.outer(rng.random(20), rng.random(15))  # of rank 1, all the same with any rank above
    >>> chosen = cross_validate(E, rng.random(E.shape) < 0.6, ranks=(1, 2))
    >>> chosen.shrinkage, chosen.rank
    (0.01, 1)
    """
    mask = np.asarray(observed, dtype=bool)
    if mask.sum() < folds or folds < 2:
        raise ValueError(f"{mask.sum()} observed entries cannot be split into {folds} folds")
    fold = np.full(mask.shape, -1)
    fold[mask] = np.random.default_rng(seed).permutation(np.arange(mask.sum()) % folds)
    path = sorted(shrinkages, reverse=True)
    squared = np.zeros((len(path), len(ranks)))
    for held in range(folds):
        hidden = fold == held
        known = mask & ~hidden
        truth = values[hidden]
        estimate = None
        for s, shrinkage in enumerate(path):
            estimate = soft_impute(
                np.where(known, values, 0.0),
                known,
                shrinkage=shrinkage,
                weights=weights,
                start=estimate,
            )
            U, S, Vt = np.linalg.svd(estimate, full_matrices=False)
            for r, rank in enumerate(ranks):
                guess = ((U[:, :rank] * S[:rank]) @ Vt[:rank])[hidden]
                squared[s, r] += ((guess - truth) ** 2).sum()
    errors = np.sqrt(squared / (values[mask] ** 2).sum())
    return Selection(tuple(path), tuple(ranks), errors)
