"""The baselines of Appendix E.1 against a library's Gaussian process, and what all methods have in common."""

from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, WhiteKernel

from peppp import paper_grid
from peppp.errors import BudgetError, TableError
from peppp.learn.additive import additive_model
from peppp.learn.bayesopt import GaussianProcess, expected_improvement
from peppp.learn.completion import complete_values
from peppp.learn.effects import row_and_column_effects
from peppp.learn.methods import METHODS, Method, rule_of
from peppp.learn.strategy import strategy
from peppp.learn.task import Task, outcomes
from peppp.paper.convex import relaxed_d_optimal
from reference import log_determinant

GRID = paper_grid()


def low_rank(n, d, rank, seed, noise=0.0):
    rng = np.random.default_rng(seed)
    E = rng.random((n, rank)) @ rng.random((rank, d)) / rank
    return np.clip(E + noise * rng.normal(size=E.shape), 0, 1)


@pytest.mark.parametrize("seed", range(5))
def test_the_process_is_that_of_a_library_with_the_same_fixed_kernel(seed):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(12, 3)) * 15
    S, errors = [3, 7, 1], rng.random(3)
    mean, deviation = GaussianProcess.rbf(features, np.zeros(12)).posterior(S, errors)
    twin = GaussianProcessRegressor(RBF(20.0) + WhiteKernel(1.0), optimizer=None, alpha=0.0)
    expected, spread = twin.fit(features[S], errors).predict(features, return_std=True)
    np.testing.assert_allclose(mean, expected, atol=1e-10)
    np.testing.assert_allclose(deviation**2 + 1.0, spread**2, atol=1e-10)  # theirs counts the noise


def test_a_prior_mean_moves_the_process_by_as_much():
    features, prior = np.arange(10.0)[:, None] * 9, np.linspace(0.9, 0.1, 10)
    errors = np.array([0.7, 0.4])
    moved, _ = GaussianProcess.rbf(features, prior).posterior([2, 6], errors)
    plain, _ = GaussianProcess.rbf(features, np.zeros(10)).posterior([2, 6], errors - prior[[2, 6]])
    np.testing.assert_allclose(moved, plain + prior, atol=1e-12)


def test_expected_improvement_is_the_mean_of_what_is_gained():
    draws = np.random.default_rng(0).normal(0.4, 0.2, 2_000_000)
    gained = np.maximum(0.5 - 0.01 - draws, 0).mean()
    found = expected_improvement(np.array([0.4]), np.array([0.2]), 0.5)[0]
    assert found == pytest.approx(gained, abs=5 * 0.2 / np.sqrt(len(draws)))


def explored(method, training, errors, counts, memory=None, feasible=None, seed=0):
    """What is told and estimated, for each number of measurements."""
    d = training.estimate.shape[1]
    feasible = np.ones(d, bool) if feasible is None else feasible
    task = Task(np.ones(d) if memory is None else memory, feasible, feasible)
    played = outcomes(lambda count: strategy(method, training, task, count, seed=seed), errors.item, counts)
    return [(list(told), rule.predict(told)) for rule, told in played]


def test_bayesian_optimisation_measures_where_improvement_is_expected():
    training = complete_values(low_rank(9, 20, 3, 0), np.ones((9, 20), bool), rank=3)
    errors = low_rank(1, 20, 1, 5)[0]
    found = explored("bo-full", training, errors, [1, 2, 3, 4], seed=4)
    process = GaussianProcess.rbf(training.estimate.T, training.estimate.mean(axis=0))
    for (S, _), (after, _) in pairwise(found):
        assert after[:-1] == S
        gain = expected_improvement(*process.posterior(S, errors[S]), errors[S].min())
        gain[S] = -1
        assert after[-1] == gain.argmax()


RULES = [name for name in METHODS if name not in ("gaussian", "two-best")]


@settings(max_examples=40)
@given(st.sampled_from(RULES), st.integers(0, 10_000))
def test_every_method_measures_only_what_fits_and_touches_nothing(method, seed):
    rng = np.random.default_rng(seed)
    d = 18
    known = rng.random((8, d)) < 0.8
    training = complete_values(low_rank(8, d, 3, seed, 0.02), known, rank=3, columns=GRID[:d])
    errors, memory = rng.random(d), rng.integers(1, 6, d).astype(float)
    feasible = memory <= np.median(memory)
    given_arrays = [training.estimate, errors, memory, feasible]
    before = [a.copy() for a in given_arrays]
    asked = []

    class Errors:
        def item(self, j):
            asked.append(j)
            return errors[j]

    counts = [0, 1, 2, 4, 30]
    found = explored(method, training, Errors(), counts, memory, feasible, seed)
    for count, (S, estimate) in zip(counts, found, strict=True):
        wanted = 0 if method in ("zero", "high-memory") else min(count, feasible.sum())
        if method == "two-best":  # which has no third Format A to measure
            best_two = {c.format_a for c in GRID[:d]}
            assert len({GRID[j].format_a for j in S}) <= min(2, len(best_two))
            wanted = min(wanted, len(S))
        assert len(S) == len(set(S)) <= wanted
        assert len(S) == wanted or method == "gaussian"  # which stops by itself
        assert feasible[S].all()
        assert np.isfinite(estimate).all()
    assert feasible[asked].all()
    for a, b in zip(given_arrays, before, strict=True):
        np.testing.assert_array_equal(a, b)
    again = explored(method, training, errors, counts, memory, feasible, seed)
    assert all((a[1] == b[1]).all() for a, b in zip(found, again, strict=True))


@given(st.sampled_from(METHODS), st.integers(1, 9) | st.none())
def test_every_method_is_read_back_from_its_text(design, rank):
    method = Method(design, rank)
    if rank is None or (design.endswith("-mf") and design != "zero") or design == "bo-mf-zero-mean":
        assert Method.parse(str(method)) == method
    else:
        with pytest.raises(TableError, match="no method"):
            Method.parse(str(method))


def test_planted_low_rank_is_predicted_exactly_from_as_many_measurements():
    E = low_rank(12, 25, 3, 7)
    training = complete_values(E[:-1], np.ones((11, 25), bool), rank=3)
    for method in ("ed-mf", "qr-mf", "random-mf"):
        ((_, estimate),) = explored(method, training, E[-1], [3], seed=1)
        np.testing.assert_allclose(estimate, E[-1], atol=1e-8)


def test_a_rank_of_its_own_is_that_of_a_completion():
    E = low_rank(12, 25, 5, 7)
    two, five = (complete_values(E[:-1], np.ones((11, 25), bool), rank=rank) for rank in (2, 5))
    ((S, one),), ((T, other),) = (
        explored("ed-mf-rank-2", five, E[-1], [4]),
        explored("ed-mf", two, E[-1], [4]),
    )
    assert S == T
    np.testing.assert_allclose(one, other)


def test_pivots_are_those_of_the_feasible_columns():
    E = low_rank(6, 10, 4, 3)
    feasible = np.arange(10) % 2 == 0
    training = complete_values(E, np.ones(E.shape, bool), rank=3)
    ((S, _),) = explored("qr-mf", training, np.ones(10), [2], feasible=feasible)
    first = max(np.flatnonzero(feasible), key=lambda j: np.linalg.norm(E[:, j]))
    q = E[:, first] / np.linalg.norm(E[:, first])
    rest = [j for j in np.flatnonzero(feasible) if j != first]
    second = max(rest, key=lambda j: np.linalg.norm(E[:, j] - q * (q @ E[:, j])))
    assert [first, second] == S


def test_high_memory_draws_among_the_largest_that_fit():
    training = complete_values(low_rank(4, 6, 2, 0), np.ones((4, 6), bool), rank=2)
    memory, feasible = np.array([1, 2, 2, 2, 3, 3]), np.array([1, 1, 1, 1, 0, 0], bool)
    picks = set()
    for seed in range(40):
        ((_, estimate),) = explored("high-memory", training, np.ones(6), [0], memory, feasible, seed)
        picks.add(int(np.where(feasible, estimate, np.inf).argmin()))
    assert picks == {1, 2, 3}


def test_an_additive_world_is_predicted_by_the_additive_model():
    rng = np.random.default_rng(0)
    a = {fmt: i for i, fmt in enumerate(dict.fromkeys(c.format_a for c in GRID))}
    b = {fmt: i for i, fmt in enumerate(dict.fromkeys(c.format_b for c in GRID))}
    E = np.array(
        [
            [level + x[a[c.format_a]] + y[b[c.format_b]] for c in GRID]
            for level, x, y in ((rng.random() / 3, rng.random(11) / 3, rng.random(9) / 9) for _ in range(20))
        ]
    )
    formats = [c.format_a for c in GRID], [c.format_b for c in GRID]
    S = np.random.default_rng(1).permutation(99)[:60]  # each format among them
    mean, _ = additive_model(E[:-1], *formats).process.posterior(list(S), E[-1, S])
    assert np.abs(mean - E[-1]).max() < 1e-3
    shares = additive_model(E, *formats).shares
    assert shares["rest"] < 1e-9
    assert sum(shares.values()) == pytest.approx(1)


def test_wrong_requests_are_one_line():
    training = complete_values(low_rank(4, 6, 2, 0), np.ones((4, 6), bool), rank=2)
    every = np.ones(6, bool)
    with pytest.raises(TableError, match="no method 'sgd'; there are gaussian, ed-mf, "):
        Method.parse("sgd")
    for text in ("ed-mf-per-second", "zero-rank-2", "ed-mf-rank-", "ed-mf-rank-0"):
        with pytest.raises(TableError, match="no method"):
            Method.parse(text)
    for text in ("auto", "i-optimal", "frontier", "ehvi", "ei"):
        with pytest.raises(TableError, match=f"the method {text} was removed: .*; use gaussian"):
            Method.parse(text)
    with pytest.raises(TableError, match="0 or more, not -1"):
        rule_of(Method("ed-mf"), training, Task(np.ones(6), every, every), -1)
    with pytest.raises(BudgetError, match="feasible"):
        Task(np.ones(6), ~every, every)
    with pytest.raises(TableError, match="configurations"):
        rule_of(Method("additive"), training, Task(np.ones(6), every, every), 1)


@pytest.mark.parametrize("seed", range(6))
def test_the_relaxation_bounds_every_design_and_rounds_to_a_good_one(seed):
    Y = np.random.default_rng(seed).normal(size=(8, 3))
    feasible = np.arange(8) != seed
    design = relaxed_d_optimal(Y, 4, feasible=feasible)
    v = design.weights
    assert (v >= 0).all()
    assert (v <= 1).all()
    assert v[~feasible].sum() == 0
    assert v.sum() == pytest.approx(4, abs=1e-6)
    best = max(log_determinant(Y, S) for S in combinations(np.flatnonzero(feasible), 4))
    value = np.linalg.slogdet((Y.T * v) @ Y)[1]
    assert value >= best - 2e-4
    assert best - 1.0 < log_determinant(Y, design.chosen) <= best + 1e-9


def test_the_relaxation_works_within_a_span():
    line = np.outer(np.arange(1.0, 7.0), [1.0, 2.0, 0.5])
    assert sorted(relaxed_d_optimal(line, 3).chosen) == [3, 4, 5]
    assert sorted(relaxed_d_optimal(line, 9).chosen) == list(range(6))


def test_effects_are_the_least_squares_of_indicator_columns():
    rng = np.random.default_rng(1)
    E, known = rng.random((7, 5)), rng.random((7, 5)) < 0.7
    level = E[known].mean()
    i, j = np.nonzero(known)
    design = np.concatenate([np.eye(7)[i], np.eye(5)[j]], axis=1)
    ridge = np.linalg.solve(design.T @ design + 0.5 * np.eye(12), design.T @ (E[known] - level))
    found = row_and_column_effects(E, known, ridge=0.5)
    np.testing.assert_allclose(found, level + ridge[:7, None] + ridge[7:], atol=1e-7)
