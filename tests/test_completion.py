import numpy as np
import pytest
from numpy.testing import assert_allclose
from threadpoolctl import threadpool_info

import reference
from peppp.errors import TableError
from peppp.formats import paper_grid
from peppp.learn.completion import complete, complete_values, factorise, inverse_propensity
from peppp.learn.effects import row_and_column_effects
from peppp.learn.softimpute import soft_impute
from peppp.learn.threads import single_thread
from peppp.table.matrix import ErrorMatrix, Row

SHAPES = [(12, 7), (7, 12)]


def low_rank(shape, rank, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(0, 1, (shape[0], rank)) @ rng.uniform(0, 1 / rank, (rank, shape[1]))


def partly_observed(shape, share=0.5, seed=0):
    """A matrix of low rank plus noise, NaN where it is not observed, its mask, and sampling weights."""
    rng = np.random.default_rng(seed)
    observed = rng.random(shape) < share
    noisy = low_rank(shape, 2, seed) + 0.05 * rng.normal(size=shape)
    return np.where(observed, noisy, np.nan), observed, 1 / rng.uniform(0.1, 1.0, shape)


def table(values, chance_error=1.0):
    rows = [Row(f"task{i}", "", "", chance_error) for i in range(len(values))]
    return ErrorMatrix.from_values(np.array(values), rows, paper_grid()[: len(values[0])])


def objective(Z, E, observed, weights, shrinkage):
    W = np.where(observed, weights, 0.0) / weights[observed].mean()
    misfit = np.where(observed, E - Z, 0.0)
    return 0.5 * (W * misfit**2).sum() + shrinkage * np.linalg.norm(Z, "nuc")


def test_planted_low_rank_is_recovered():
    truth = low_rank((60, 40), 2)
    observed = np.random.default_rng(1).random(truth.shape) < 0.5
    estimate = soft_impute(np.where(observed, truth, np.nan), observed, shrinkage=1e-3, tolerance=1e-7)
    assert_allclose(estimate[~observed], truth[~observed], atol=0.01)


def test_zero_shrinkage_on_a_full_matrix_returns_it():
    E = np.random.default_rng(0).random((8, 5))
    assert_allclose(soft_impute(E, np.ones(E.shape, bool), shrinkage=0.0), E, atol=1e-14)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("accelerate", [False, True])
def test_a_full_matrix_loses_the_shrinkage_from_each_singular_value(shape, accelerate):
    E = np.random.default_rng(0).random(shape)
    estimate = soft_impute(E, np.ones(shape, bool), shrinkage=0.4, accelerate=accelerate, tolerance=1e-10)
    before, after = (np.linalg.svd(matrix, compute_uv=False) for matrix in (E, estimate))
    assert_allclose(after, np.maximum(before - 0.4, 0.0), atol=1e-8)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("shrinkage", [0.02, 0.1, 0.5])
@pytest.mark.parametrize("accelerate", [False, True])
def test_it_converges_to_the_same_estimate_as_algorithm_1(shape, shrinkage, accelerate):
    E, observed, _ = partly_observed(shape)
    estimate = soft_impute(
        E, observed, shrinkage=shrinkage, accelerate=accelerate, tolerance=1e-9, iterations=20_000
    )
    assert_allclose(estimate, reference.soft_impute(E, observed, shrinkage), atol=1e-5)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("weighted", [False, True])
def test_the_objective_never_rises_in_plain_steps(seed, weighted):
    E, observed, weights = partly_observed((15, 10), share=0.4, seed=seed)
    weights = weights if weighted else np.ones(E.shape)
    steps = [
        soft_impute(E, observed, weights=weights, accelerate=False, tolerance=0.0, iterations=count)
        for count in range(40)
    ]
    values = np.array([objective(Z, E, observed, weights, 0.1) for Z in steps])
    assert (np.diff(values) <= 1e-12).all()
    assert values[-1] < values[0]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("accelerate", [False, True])
def test_the_weighted_estimate_satisfies_the_optimality_conditions(seed, accelerate):
    E, observed, weights = partly_observed((9, 14), seed=seed)
    Z = soft_impute(E, observed, weights=weights, accelerate=accelerate, tolerance=1e-10, iterations=20_000)
    # W (E - Z) is a subgradient of the nuclear norm: spectral norm 1 and <G, Z> = |Z|, times the shrinkage.
    G = np.where(observed, weights / weights[observed].mean() * (E - Z), 0.0) / 0.1
    assert np.linalg.norm(G, 2) == pytest.approx(1.0, abs=1e-5)
    assert np.vdot(G, Z) == pytest.approx(np.linalg.norm(Z, "nuc"), rel=1e-5)


@pytest.mark.parametrize("shape", [(86, 99), (60, 40)])
@pytest.mark.parametrize("weighted", [False, True])
def test_steps_that_begin_with_the_singular_vectors_before_end_where_exact_ones_do(shape, weighted):
    E, observed, weights = partly_observed(shape, share=0.3)
    weights = weights if weighted else np.ones(shape)
    arguments = {"weights": weights, "tolerance": 1e-9, "iterations": 20_000}
    # Plain steps are exact ones, of whole decompositions.
    exact = soft_impute(E, observed, accelerate=False, **arguments)
    assert np.linalg.matrix_rank(exact, tol=1e-8) < min(shape) / 2  # else no step begins with them
    assert_allclose(soft_impute(E, observed, **arguments), exact, atol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_what_it_stops_at_is_moved_by_an_exact_step_no_further_than_the_tolerance(seed):
    E, observed, _ = partly_observed((86, 99), share=0.3, seed=seed)
    Z = soft_impute(E, observed)
    U, S, Vt = np.linalg.svd(np.where(observed, E, Z), full_matrices=False)  # Algorithm 1's step
    step = (U * np.maximum(S - 0.1, 0.0)) @ Vt
    assert np.linalg.norm(step - Z) <= 1e-4 * np.linalg.norm(Z)


def test_weights_are_relative():
    E, observed, weights = partly_observed((9, 14))
    expected = soft_impute(E, observed, weights=weights)
    assert_allclose(soft_impute(E, observed, weights=7 * weights), expected, atol=1e-12)
    constant = soft_impute(E, observed, weights=np.full(E.shape, 3.0))
    assert_allclose(constant, soft_impute(E, observed), atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("iterations", [1, 2, 5, 60])
def test_momentum_follows_the_textbook(seed, iterations):
    E, observed, weights = partly_observed((15, 10), share=0.4, seed=seed)
    estimate = soft_impute(E, observed, weights=weights, tolerance=0.0, iterations=iterations)
    expected = reference.accelerated_soft_impute(E, observed, weights, 0.1, iterations)
    assert_allclose(estimate, expected, atol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_momentum_gets_further_in_as_many_steps(seed):
    E, observed, weights = partly_observed((40, 30), share=0.2, seed=seed)
    plain, accelerated = (
        soft_impute(E, observed, weights=weights, accelerate=accelerate, tolerance=0.0, iterations=60)
        for accelerate in (False, True)
    )
    assert objective(accelerated, E, observed, weights, 0.1) < objective(plain, E, observed, weights, 0.1)


def test_a_start_at_the_solution_stays_there():
    E, observed, _ = partly_observed((12, 7))
    solution = soft_impute(E, observed, tolerance=1e-10, iterations=20_000)
    assert_allclose(soft_impute(E, observed, start=solution, iterations=1), solution, atol=1e-8)


def test_values_that_are_not_observed_do_not_matter_and_inputs_are_left_alone():
    E, observed, weights = partly_observed((12, 7))
    arrays = [E, observed, weights, np.zeros(E.shape)]
    for array in arrays:
        array.setflags(write=False)
    expected = soft_impute(E, observed, weights=weights, start=arrays[3])
    other = np.where(observed, E, -1e9)
    assert (soft_impute(other, observed, weights=weights) == expected).all()


def test_unusable_arguments_are_refused():
    E, observed = np.ones((2, 3)), np.ones((2, 3), bool)
    with pytest.raises(ValueError, match="one shape"):
        soft_impute(E, observed.T)
    with pytest.raises(ValueError, match="one shape"):
        soft_impute(E, observed, weights=np.ones(3))
    with pytest.raises(ValueError, match="nothing is observed"):
        soft_impute(E, ~observed)
    with pytest.raises(ValueError, match="finite"):
        soft_impute(np.full((2, 3), np.nan), observed)
    with pytest.raises(ValueError, match="positive"):
        soft_impute(E, observed, weights=np.zeros((2, 3)))
    with pytest.raises(ValueError, match="rank"):
        factorise(E, 0)


def test_propensities_have_a_floor():
    assert inverse_propensity(np.array([1.0, 0.25, 0.001])).tolist() == [1.0, 4.0, 50.0]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rank", [1, 3, 7])
def test_embeddings_are_orthonormal_and_span_the_best_approximation(shape, rank):
    E = np.random.default_rng(0).random(shape)
    Y = factorise(E, rank)  # [d, k]
    assert_allclose(Y.T @ Y, np.eye(rank), atol=1e-12)
    # Eckart and Young: what the best rank-k approximation misses are the other singular values.
    missed = np.linalg.svd(E, compute_uv=False)[rank:]
    assert np.linalg.norm(E - E @ Y @ Y.T) == pytest.approx(np.sqrt((missed**2).sum()), abs=1e-12)


def test_a_matrix_of_lower_rank_has_no_more_components():
    assert factorise(low_rank((12, 7), 2), rank=5).shape == (7, 2)
    assert factorise(np.random.default_rng(0).random((2, 7)), rank=5).shape == (7, 2)


def test_a_full_table_is_its_own_completion():
    E = np.random.default_rng(0).random((6, 9))
    completion = complete(table(E), rank=3)
    assert (completion.estimate == E).all()
    assert_allclose(completion.singular_values, np.linalg.svd(E, compute_uv=False))
    assert (completion.configuration_embeddings == factorise(E, 3)).all()


def test_measured_entries_are_kept_and_the_rest_is_soft_imputed():
    E, observed, _ = partly_observed((12, 7))
    E = np.clip(E, 0, 1)
    completion = complete(table(E), shrinkage=0.2)
    assert (completion.estimate[observed] == E[observed]).all()
    start = row_and_column_effects(E, observed)
    expected = soft_impute(E, observed, shrinkage=0.2, start=start)
    assert (completion.estimate[~observed] == expected[~observed]).all()


def test_keeping_measured_entries_changes_no_embedding():
    E, observed, _ = partly_observed((30, 20))
    fitted = soft_impute(E, observed, tolerance=1e-9, iterations=20_000)
    kept = np.where(observed, E, fitted)
    projections = [Y @ Y.T for Y in (factorise(fitted, 2), factorise(kept, 2))]
    assert_allclose(projections[0], projections[1], atol=1e-4)


def test_errors_can_be_taken_as_multiples_of_chance():
    E, _, _ = partly_observed((12, 7))
    E = np.clip(E, 0, 1) / 2
    halves = complete(table(E, chance_error=0.5), relative_to_chance=True)
    wholes = complete(table(2 * E))
    for name in ("estimate", "singular_values", "configuration_embeddings"):
        assert (getattr(halves, name) == getattr(wholes, name)).all()


@pytest.mark.parametrize("scale", [0.5, 0.005])
@pytest.mark.parametrize("weighted", [False, True])
def test_errors_of_any_size_are_completed_alike(scale, weighted):
    E, observed, _ = partly_observed((30, 20))
    weights = np.random.default_rng(2).uniform(1, 5, E.shape) if weighted else None
    whole, small = (complete_values(s * np.abs(E), observed, weights=weights) for s in (1.0, scale))
    assert_allclose(small.estimate, scale * whole.estimate, rtol=1e-6)
    assert_allclose(small.configuration_embeddings, whole.configuration_embeddings, atol=1e-6)


def test_a_completion_is_read_only():
    completion = complete(table([[0.1, 0.2], [0.3, 0.4]]))
    with pytest.raises(ValueError, match="read-only"):
        completion.estimate[0, 0] = 1.0


def test_rows_and_columns_without_an_error_are_named():
    nan = np.nan
    with pytest.raises(TableError, match="no error of task1;"):
        complete(table([[0.1, 0.2], [nan, nan]]))
    with pytest.raises(TableError, match="no error of 1-3-1/1-6-9;"):
        complete(table([[0.1, nan], [0.2, nan]]))
    with pytest.raises(TableError, match="empty"):
        complete(table([[nan, nan]]))
    with pytest.raises(TableError, match="chance error of task0 is 0"):
        complete(table([[0.1]], chance_error=0.0), relative_to_chance=True)


def blas_threads():
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


def test_small_linear_algebra_runs_on_one_thread_and_the_number_before_returns():
    before = blas_threads()
    with single_thread():
        assert set(blas_threads()) == {1}
        with single_thread():
            pass
        assert set(blas_threads()) == {1}
    assert blas_threads() == before
