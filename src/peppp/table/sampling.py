"""Draw the entries of the error matrix to measure, uniformly or by memory (section 3.2)."""

import numpy as np
from numpy.typing import NDArray

from peppp.errors import BudgetError, TableError


def uniform(
    shape: tuple[int, int], share: float, *, seed: int, every_column: bool = True
) -> NDArray[np.bool_]:
    """Draw a mask [n, d] uniformly, with the same number of entries in each row, ``share`` of d.

    Each row and each column gets at least one entry. If ``share`` is too small for that, it is raised; with
    ``every_column=False`` it is kept, and as many columns as possible are covered. For a given seed, a row's
    draw depends only on its index, and a larger share contains a smaller share's draw, except for the entries
    that are moved to cover every column. Raises BudgetError for a ``share`` outside (0, 1].

    >>> mask = uniform((20, 99), 0.2, seed=0)
    >>> set(mask.sum(axis=1).tolist()), bool(mask.any(axis=0).all())
    ({20}, True)
    """
    n, d = shape
    _check_share(share, 1.0)
    count = max(1, round(share * d))
    if every_column:
        count = max(count, -(-d // n))
    mask = np.zeros((n, d), dtype=bool)
    for i in range(n):
        mask[i, np.random.default_rng([seed, i]).permutation(d)[:count]] = True
    rng = np.random.default_rng([seed, n])
    # Each empty column takes over an entry, in the same row, from a column that has more than one.
    while (counts := mask.sum(axis=0)).min() == 0 and counts.max() > 1:
        i, j = rng.choice(np.argwhere(mask & (counts > 1)))
        mask[i, j] = False
        mask[i, np.flatnonzero(counts == 0)[0]] = True
    return mask


def nonuniform(
    memory: NDArray[np.float64], *, p_max: float | None = None, share: float | None = None, seed: int
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Draw a mask [n, d] that prefers cheap entries; return it with the probabilities P [n, d] of the draw.

    P = p_max * ECDF(1/M) over all entries of the memory M, ``memory`` in bytes (Appendix E.2; ties share
    their average rank). Give either ``p_max``, or ``share``, the mean that P should have. Each row and each
    column without an entry gets one, drawn in proportion to P; P does not include this correction. Raises
    TableError for memory that is not positive, and BudgetError for a ``p_max`` or ``share`` that is no
    probability or too large.

    >>> mask, P = nonuniform(np.array([[10.0, 20.0], [30.0, 40.0]]), p_max=0.8, seed=0)
    >>> P
    array([[0.8, 0.6],
           [0.4, 0.2]])
    """
    if memory.ndim != 2 or not memory.size or not (np.isfinite(memory) & (memory > 0)).all():
        raise TableError("a memory matrix must have a positive number of bytes in each entry")
    _, index, ties = np.unique(-memory, return_inverse=True, return_counts=True)
    ranks = np.cumsum(ties) - (ties - 1) / 2
    ecdf = ranks[index].reshape(memory.shape) / memory.size
    if share is not None and p_max is None:
        _check_share(share, ecdf.mean())
        p_max = share / ecdf.mean()
    elif p_max is None or share is not None:
        raise BudgetError("non-uniform sampling takes either p_max or a share; give one of them")
    elif not 0 < p_max <= 1:
        raise BudgetError(f"p_max {p_max} is not a probability; give a number above 0, up to 1")
    P: NDArray[np.float64] = p_max * ecdf
    rng = np.random.default_rng(seed)
    mask = rng.random(P.shape) < P
    for i in np.flatnonzero(~mask.any(axis=1)):
        mask[i, rng.choice(P.shape[1], p=P[i] / P[i].sum())] = True
    for j in np.flatnonzero(~mask.any(axis=0)):
        mask[rng.choice(P.shape[0], p=P[:, j] / P[:, j].sum()), j] = True
    return mask, P


def _check_share(share: float, largest: float) -> None:
    if not 0 < share <= largest:
        raise BudgetError(f"share {share} cannot be sampled; give a number above 0, up to {largest:.4g}")
