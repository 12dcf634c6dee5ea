"""Completion of large sparse tables: the same objective as SoftImpute, by exact solves of rows and columns.

A nuclear norm is the least 1/2 (||A||^2 + ||B||^2) over factors with A B^T = Z (Srebro et al., 2005; Hastie
et al., 2015), so with enough columns the factors that minimise

    1/2 sum over observed (E_ij - a_i b_j)^2  +  shrinkage/2 (||A||^2 + ||B||^2)

give SoftImpute's estimate. Each half step solves all rows of one factor exactly; nothing of size n x d is
ever made. For tables of many groups; a small one is simpler with :mod:`peppp.metalearn.completion`.
"""

import numpy as np
import scipy.sparse
from numpy.typing import ArrayLike, NDArray

from peppp.metalearn.threads import single_thread

_ROWS_AT_ONCE = 2000


@single_thread()
def complete_sparse(
    rows: ArrayLike,
    columns: ArrayLike,
    values: ArrayLike,
    shape: tuple[int, int],
    *,
    rank: int = 12,
    shrinkage: float = 0.1,
    iterations: int = 5,
    seed: int = 0,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Factors A [n, rank] and B [d, rank] of the estimate A B^T from ``values`` [m] at ``rows``, ``columns``.

    In float32. Rows and columns without an entry get zero factors. Raises ValueError on indices outside
    ``shape`` and values that are not finite.

    >>> i, j = np.indices((6, 5)).reshape(2, -1)
    >>> E = np.outer(np.arange(1.0, 7.0), np.arange(1.0, 6.0)) / 30
    >>> A, B = complete_sparse(i[:-1], j[:-1], E[i[:-1], j[:-1]], E.shape, rank=1, shrinkage=1e-4)
    >>> round(float(A[5] @ B[4]), 2)
    1.0
    """
    i, j, e = np.asarray(rows), np.asarray(columns), np.asarray(values, dtype=np.float32)
    inside = not len(i) or (min(i.min(), j.min()) >= 0 and i.max() < shape[0] and j.max() < shape[1])
    if not (i.shape == j.shape == e.shape) or not inside or not np.isfinite(e).all():
        raise ValueError(f"rows, columns and finite values [m] must be alike and within {shape}")
    by_row = scipy.sparse.csr_matrix((e, (i, j)), shape=shape)
    by_column = by_row.T.tocsr()
    rng = np.random.default_rng(seed)
    B = rng.normal(size=(shape[1], rank)).astype(np.float32) / np.float32(np.sqrt(rank))
    B[:, 0] = 1.0  # the first solve then begins with the rows' means, which is most of an error matrix
    A = np.zeros((shape[0], rank), dtype=np.float32)
    for _ in range(iterations):
        _solve(by_row, B, shrinkage, A)
        _solve(by_column, A, shrinkage, B)
    return A, B


def _solve(
    matrix: scipy.sparse.csr_matrix,
    other: NDArray[np.float32],
    shrinkage: float,
    out: NDArray[np.float32],
) -> None:
    """Each row's factor given the other side's, by ridge regressions, into ``out``."""
    rank = other.shape[1]
    upper = np.triu_indices(rank)
    products = other[:, upper[0]] * other[:, upper[1]]  # [d, rank (rank + 1) / 2]
    for start in range(0, matrix.shape[0], _ROWS_AT_ONCE):
        block = matrix[start : start + _ROWS_AT_ONCE]
        seen = block.copy()
        seen.data = np.ones_like(seen.data)
        grams = np.empty((block.shape[0], rank, rank), dtype=np.float32)
        packed = seen @ products  # the sum of b b^T over each row's entries
        grams[:, upper[0], upper[1]] = packed
        grams[:, upper[1], upper[0]] = packed
        grams += np.float32(shrinkage) * np.eye(rank, dtype=np.float32)
        out[start : start + _ROWS_AT_ONCE] = np.linalg.solve(grams, (block @ other)[..., None])[..., 0]
