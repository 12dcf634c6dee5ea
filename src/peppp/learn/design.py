"""Choose which configurations to measure on a new task, and predict the others (section 3.2).

The new task's errors are modelled as e = Y x + noise, with the configuration embeddings Y [d, k] and the
task's unknown embedding x [k]. Measuring the configurations S gives x by least squares. Up to a factor, its
covariance is (sum over S of y_j y_j^T)^-1; the D-optimal design makes the determinant of this matrix small.
"""

from collections.abc import Sequence

import numpy as np
import scipy.linalg
from numpy.typing import ArrayLike, NDArray

from peppp.arguments import checked, indices, matrix_of
from peppp.errors import ArgumentError, BudgetError
from peppp.learn.threads import single_thread

# Embeddings count as independent if their Gram matrix is regular at working precision. The Gram matrix
# squares the ratio of their singular values, hence the root.
_DEPENDENT = float(np.sqrt(np.finfo(np.float64).eps))


@checked
@single_thread()
def d_optimal(
    embeddings: NDArray[np.float64], count: int, *, feasible: ArrayLike | None = None
) -> NDArray[np.intp]:
    """Indices of ``count`` configurations to measure, the most informative first: [count] integers.

    This is the greedy D-optimal design (Algorithm 2). It begins with the pivots of a column-pivoted QR
    decomposition, then adds the configuration with the largest y^T X^-1 y, which by the matrix determinant
    lemma raises det X most. It departs from the paper in three ways. It stops at ``count`` (the printed loop
    takes one more). It allows fewer measurements than k, and then uses the leading components. If the
    feasible embeddings span fewer than k dimensions, the design is optimal within their span.

    ``embeddings`` is [d, k], ``feasible`` [d] bool (default: all). If fewer than ``count`` configurations are
    feasible, all of them are returned. Raises BudgetError if none is feasible, ValueError if shapes differ.

    >>> d_optimal(np.array([[1.0, 0.0], [0.9, 0.0], [0.0, 0.5], [0.0, 0.4]]), 3)
    array([0, 2, 1])
    >>> d_optimal(np.array([[1.0, 0.0], [0.9, 0.0], [0.0, 0.5]]), 2, feasible=[False, True, True])
    array([1, 2])
    """
    allowed = candidates(embeddings, feasible)  # [c] indices
    count = min(count, len(allowed))
    rank = min(embeddings.shape[1], count)
    if not count:
        return allowed[:0]
    # Pivoted QR: the columns of R are the candidates, in orthonormal coordinates spanned by the pivots.
    R, order = scipy.linalg.qr(embeddings[allowed, :rank].T, mode="r", pivoting=True)
    diagonal = np.abs(np.diag(R))
    rank = int((diagonal > _DEPENDENT * diagonal[:1]).sum())
    if not rank:  # all embeddings are zero, so any choice will do
        return np.asarray(allowed[:count])
    Y = R[:rank]  # [rank, c], candidates in the order of the pivots: the first ones are S_0
    inverse_root = scipy.linalg.solve_triangular(Y[:, :rank], np.eye(rank))  # regular, by the choice of rank
    X_inverse = inverse_root.T @ inverse_root  # [rank, rank], X = sum over S_0 of y_j y_j^T
    leverage = (Y * (X_inverse @ Y)).sum(axis=0)  # [c], y_j^T X^-1 y_j
    leverage[:rank] = -np.inf  # the pivots are chosen already
    chosen = list(range(rank))
    while len(chosen) < count:
        best = int(leverage.argmax())
        chosen.append(best)
        # The inverse of X + y y^T is X^-1 - u u^T / (1 + y^T u) with u = X^-1 y (Sherman and Morrison, 1950).
        u = X_inverse @ Y[:, best]
        grown = 1.0 + Y[:, best] @ u
        leverage -= (u @ Y) ** 2 / grown
        leverage[best] = -np.inf
        X_inverse -= np.outer(u, u) / grown
    return np.asarray(allowed[order[chosen]])


@checked
@single_thread()
def least_squares(
    embeddings: NDArray[np.float64], measured: Sequence[int] | NDArray[np.intp], errors: ArrayLike
) -> NDArray[np.float64]:
    """Predict the errors [d] of all configurations from the errors of the ``measured`` ones (section 3.2).

    ``embeddings`` is [d, k]; ``measured`` [l] holds indices, and ``errors`` [l] their errors. With l < k,
    only the l leading components are fitted, because all k would be underdetermined and predict wildly.
    Measured configurations get their fitted value, too, and nothing is clipped. Raises ValueError without a
    measurement, or if the lengths differ.

    >>> least_squares(np.array([[1.0, 0.0], [0.5, 0.0], [0.0, 1.0]]), [0, 2], [0.4, 0.3])
    array([0.4, 0.2, 0.3])
    """
    S, e = np.asarray(measured, dtype=np.intp), np.asarray(errors, dtype=np.float64)
    if S.ndim != 1 or S.shape != e.shape or not len(S):
        raise ArgumentError(
            f"least squares needs one error for each measurement, not {e.shape} for {S.shape}"
        )
    matrix_of(e[None], "errors")
    Y = matrix_of(embeddings, "embeddings")[:, : len(S)]  # [d, min(k, l)]
    S = indices(S, len(Y), "measured")
    x, *_ = np.linalg.lstsq(Y[S], e, rcond=_DEPENDENT)  # embedding of the new task
    return np.asarray(Y @ x)


@checked
def determines(embeddings: NDArray[np.float64], measured: Sequence[int] | NDArray[np.intp]) -> bool:
    """Whether measuring these configurations determines all k components of the new task's embedding.

    >>> Y = np.array([[1.0, 0.0], [0.5, 0.0], [0.0, 1.0]])
    >>> determines(Y, [0, 1]), determines(Y, [0, 2])
    (False, True)
    """
    Y = matrix_of(embeddings, "embeddings")[indices(measured, len(embeddings), "measured")]  # [l, k]
    return len(Y) > 0 and int(np.linalg.matrix_rank(Y, rtol=_DEPENDENT)) == embeddings.shape[1]


@checked
def spanned(embeddings: NDArray[np.float64]) -> NDArray[np.float64]:
    """The embeddings [c, k] in orthonormal coordinates of their span: [c, rank], with rank <= k.

    >>> abs(spanned(np.array([[3.0, 4.0], [6.0, 8.0]]))).round(6)
    array([[ 5.],
           [10.]])
    """
    R, order = scipy.linalg.qr(matrix_of(embeddings, "embeddings").T, mode="r", pivoting=True)
    diagonal = np.abs(np.diag(R))
    rank = int((diagonal > _DEPENDENT * diagonal[:1]).sum())
    coordinates = np.empty((len(embeddings), rank))
    coordinates[order] = R[:rank].T
    return coordinates


@checked
def candidates(embeddings: NDArray[np.float64], feasible: ArrayLike | None) -> NDArray[np.intp]:
    """Indices of the feasible configurations. Raises BudgetError if there is none."""
    d = embeddings.shape[:1]
    within = np.ones(d, dtype=bool) if feasible is None else np.asarray(feasible, dtype=bool)
    if embeddings.ndim != 2 or within.shape != embeddings.shape[:1]:
        raise ArgumentError(
            f"embeddings must be [d, k] and feasible [d], not {embeddings.shape} and {within.shape}"
        )
    if not within.any():
        raise BudgetError("no configuration is feasible, so none can be measured; raise the memory cap")
    matrix_of(embeddings, "embeddings")
    return np.flatnonzero(within)
