"""Exact row solves reach the estimate of SoftImpute, and never make anything of the size of the table."""

import numpy as np
import pytest

from peppp.metalearn.sparse import complete_sparse
from reference import soft_impute


@pytest.mark.parametrize("seed", range(4))
def test_the_factors_give_the_estimate_of_algorithm_1(seed):
    rng = np.random.default_rng(seed)
    E = rng.random((14, 3)) @ rng.random((3, 11)) / 3
    known = rng.random(E.shape) < 0.6
    known[np.arange(14), np.arange(14) % 11] = True
    i, j = np.nonzero(known)
    A, B = complete_sparse(i, j, E[known], E.shape, rank=11, shrinkage=0.05, iterations=300, seed=seed)
    np.testing.assert_allclose(A @ B.T, soft_impute(E, known, 0.05), atol=2e-3)


def test_a_planted_matrix_is_recovered_from_a_few_entries():
    rng = np.random.default_rng(0)
    U, V = rng.normal(size=(3000, 4)), rng.normal(size=(400, 4))
    i, j = rng.integers(3000, size=120_000), rng.integers(400, size=120_000)
    pairs = np.unique(np.stack([i, j]), axis=1)
    i, j = pairs
    A, B = complete_sparse(i, j, (U[i] * V[j]).sum(axis=1), (3000, 400), rank=6, iterations=8)
    error = np.linalg.norm(A @ B.T - U @ V.T) / np.linalg.norm(U @ V.T)
    assert error < 0.02


def test_unknown_rows_are_zero_and_bad_entries_are_refused():
    A, _ = complete_sparse([0, 1], [0, 1], [0.5, 0.5], (3, 2), rank=1)
    assert (A[2] == 0).all()
    for bad in (([3], [0], [0.5]), ([0], [-1], [0.5]), ([0], [0], [np.nan]), ([0, 1], [0], [0.5])):
        with pytest.raises(ValueError, match="alike and within"):
            complete_sparse(*bad, (3, 2))
