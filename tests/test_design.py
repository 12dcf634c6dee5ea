from itertools import combinations
from math import factorial, log

import numpy as np
import pytest
from numpy.testing import assert_allclose

import reference
from peppp.errors import BudgetError
from peppp.learn.design import d_optimal, determines, least_squares


def embeddings(d, k, seed=0):
    """Orthonormal columns, as a factorisation has them."""
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(d, k)))[0]


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("k", [1, 2, 3])
def test_each_greedy_choice_is_the_best_single_addition(seed, k):
    Y = embeddings(12, k, seed)
    S = d_optimal(Y, 9).tolist()
    for size in range(k, 9):
        others = [j for j in range(12) if j not in S[:size]]
        best = max(reference.log_determinant(Y, [*S[:size], j]) for j in others)
        assert reference.log_determinant(Y, S[: size + 1]) == pytest.approx(best, abs=1e-9)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_the_pivots_are_near_the_best_k_configurations(seed, k):
    Y = embeddings(10, k, seed)
    best = max(reference.log_determinant(Y, S) for S in combinations(range(10), k))
    # Greedy volume maximisation, which pivoted QR is, comes within k! of the largest volume, whose square
    # is the determinant (Civril and Magdon-Ismail, 2009).
    assert reference.log_determinant(Y, d_optimal(Y, k)) >= best - 2 * log(factorial(k)) - 1e-9


@pytest.mark.parametrize("seed", range(10))
def test_greedy_is_close_to_brute_force(seed):
    Y = embeddings(9, 2, seed)
    best = max(reference.log_determinant(Y, S) for S in combinations(range(9), 5))
    # The variance of an estimate, det^(-1/k), is at most a fifth above the smallest there is.
    assert reference.log_determinant(Y, d_optimal(Y, 5)) >= best - 2 * log(1.2)


@pytest.mark.parametrize("count", range(8))
def test_it_stops_at_count_different_configurations(count):
    S = d_optimal(embeddings(7, 3), count)
    assert len(S) == len(set(S.tolist())) == count


@pytest.mark.parametrize("seed", range(20))
def test_nothing_infeasible_is_chosen(seed):
    rng = np.random.default_rng(seed)
    feasible = rng.random(20) < 0.3
    feasible[rng.integers(20)] = True
    for count in (1, 2, 3, 6, 20):
        S = d_optimal(embeddings(20, 4, seed), count, feasible=feasible)
        assert feasible[S].all()
        assert len(set(S.tolist())) == min(count, feasible.sum())


@pytest.mark.parametrize("seed", range(5))
def test_it_is_the_design_of_the_feasible_configurations_alone(seed):
    Y, feasible = embeddings(20, 3, seed), np.arange(20) % 3 == 0
    alone = np.flatnonzero(feasible)[d_optimal(Y[feasible], 5)]
    assert (d_optimal(Y, 5, feasible=feasible) == alone).all()


def test_more_measurements_continue_the_same_design():
    Y = embeddings(20, 3)
    assert (d_optimal(Y, 8)[:5] == d_optimal(Y, 5)).all()


def test_fewer_measurements_than_components_are_chosen_by_the_leading_ones():
    Y = embeddings(20, 5)
    assert (d_optimal(Y, 2) == d_optimal(Y[:, :2], 2)).all()
    assert d_optimal(Y, 1).tolist() == [np.abs(Y[:, 0]).argmax()]


def test_a_design_within_the_span_of_alike_configurations_is_found():
    Y = np.outer([1.0, 3.0, 2.0, 4.0], [0.6, 0.8])  # one direction only
    assert d_optimal(Y, 3).tolist() == [3, 1, 2]  # the longest tell most
    assert d_optimal(np.zeros((4, 2)), 3).tolist() == [0, 1, 2]


def test_nothing_feasible_is_an_error():
    with pytest.raises(BudgetError, match="no configuration is feasible"):
        d_optimal(embeddings(5, 2), 3, feasible=np.zeros(5, bool))


def test_unusable_shapes_are_refused():
    with pytest.raises(ValueError, match=r"embeddings must be \[d, k\]"):
        d_optimal(embeddings(5, 2), 3, feasible=np.ones(4, bool))
    with pytest.raises(ValueError, match="one error for each"):
        least_squares(embeddings(5, 2), [0, 1], [0.1])
    with pytest.raises(ValueError, match="one error for each"):
        least_squares(embeddings(5, 2), [], [])


@pytest.mark.parametrize("count", [3, 4, 8])
def test_errors_that_follow_the_model_are_predicted_exactly(count):
    Y = embeddings(20, 3)
    e = Y @ [0.5, -0.2, 0.1]
    S = d_optimal(Y, count)
    assert_allclose(least_squares(Y, S, e[S]), e, atol=1e-12)


def test_least_squares_solves_the_normal_equations():
    rng = np.random.default_rng(0)
    Y, S, e = embeddings(20, 3), np.array([3, 1, 4, 15, 9, 2]), rng.random(6)
    x = np.linalg.inv(Y[S].T @ Y[S]) @ Y[S].T @ e
    assert_allclose(least_squares(Y, S, e), Y @ x, atol=1e-12)


@pytest.mark.parametrize("count", [1, 2])
def test_fewer_measurements_than_components_fit_the_leading_ones(count):
    Y = embeddings(20, 5)
    e = Y[:, :count] @ np.array([0.5, 0.2])[:count]
    S = d_optimal(Y, count)
    assert_allclose(least_squares(Y, S, e[S]), e, atol=1e-12)


def test_measurements_that_are_alike_give_the_smallest_solution():
    Y = np.array([[1.0, 0.0], [1.0, 0.0], [0.5, 0.5]])
    assert_allclose(least_squares(Y, [0, 1], [0.2, 0.4]), [0.3, 0.3, 0.15])


def test_inputs_are_left_alone():
    Y, S, e = embeddings(6, 2), np.array([0, 3]), np.array([0.1, 0.2])
    for array in (Y, S, e):
        array.setflags(write=False)
    least_squares(Y, S, e)
    d_optimal(Y, 3, feasible=e[[0] * 6] > 0)


def test_measurements_determine_the_model_if_they_span_its_components():
    Y = np.array([[1.0, 0.0], [2.0, 0.0], [1.0, 1.0]])
    assert determines(Y, [0, 2])
    assert not determines(Y, [0, 1])
    assert not determines(Y, [2])
    assert not determines(Y, [])
