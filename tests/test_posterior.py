import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peppp.metalearn.calibration import calibrate
from peppp.metalearn.completion import complete_values
from peppp.metalearn.factors import learn
from peppp.metalearn.inner import inner_folds
from peppp.metalearn.methods import Method, Task, rule_of, run
from peppp.metalearn.posterior import Posterior, chance_of_change, near_best, on_frontier
from peppp.metalearn.sequential import DESIGNS, hypervolume_gain, propose
from peppp.pareto import hypervolume, nondominated


def planted(tasks, d=12, factors=2, noise=0.02, seed=0):
    """Errors [tasks, d] of the model itself: its mean, its covariance and the errors."""
    rng = np.random.default_rng(seed)
    mean, W = rng.uniform(0.3, 0.6, d), 0.06 * rng.normal(size=(d, factors))
    errors = mean + rng.normal(size=(tasks, factors)) @ W.T + noise * rng.normal(size=(tasks, d))
    return mean, W @ W.T + noise**2 * np.eye(d), errors


def full(values):
    return np.ones(values.shape, dtype=bool)


@given(seed=st.integers(0, 50), told=st.integers(0, 5))
def test_conditioning_is_that_of_the_textbook(seed, told):
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(6, 6))
    mean, K = rng.normal(size=6), root @ root.T + 0.1 * np.eye(6)
    S = rng.permutation(6)[:told]
    rest = np.setdiff1d(np.arange(6), S)
    e = rng.normal(size=told)
    found = Posterior(mean, K).given(S.tolist(), e)
    inverse = np.linalg.inv(K[np.ix_(S, S)])
    gain = K[np.ix_(rest, S)] @ inverse
    np.testing.assert_allclose(found.mean[rest], mean[rest] + gain @ (e - mean[S]), atol=1e-5)
    expected = K[np.ix_(rest, rest)] - gain @ K[np.ix_(S, rest)]
    np.testing.assert_allclose(found.covariance[np.ix_(rest, rest)], expected, atol=1e-5)
    np.testing.assert_array_equal(found.mean[S], e)
    assert not found.deviation[S].any()


def test_one_after_the_other_is_all_at_once():
    _, K, errors = planted(1)
    prior = Posterior(np.full(12, 0.5), K)
    at_once = prior.given([3, 7, 1], errors[0, [3, 7, 1]])
    apart = prior.given([3], errors[0, [3]]).given([7], errors[0, [7]]).given([1], errors[0, [1]])
    np.testing.assert_allclose(at_once.mean, apart.mean, atol=1e-6)
    np.testing.assert_allclose(at_once.covariance, apart.covariance, atol=1e-8)


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_the_planted_mean_and_covariance_are_learned_from_incomplete_tables(share):
    mean, K, errors = planted(600)
    observed = np.random.default_rng(1).random(errors.shape) < share
    prior = learn(np.where(observed, errors, np.nan), observed, factors=2)
    np.testing.assert_allclose(prior.mean, mean, atol=0.015)
    assert np.linalg.norm(prior.covariance - K) < 0.15 * np.linalg.norm(K)


def test_what_is_not_observed_is_never_looked_at():
    _, _, errors = planted(20)
    observed = np.random.default_rng(1).random(errors.shape) < 0.6
    one, other = (learn(np.where(observed, errors, filler), observed) for filler in (0.9, np.nan))
    np.testing.assert_array_equal(one.mean, other.mean)
    np.testing.assert_array_equal(one.covariance, other.covariance)


def test_gaps_in_the_table_widen_what_is_believed():
    _, _, errors = planted(24)
    observed = full(errors)
    observed[3:, 5] = False
    others = [j for j in range(12) if j != 5]
    known, lacking = (
        learn(errors, mask).given(others, errors[0, others]) for mask in (full(errors), observed)
    )
    assert lacking.deviation[5] > 1.1 * known.deviation[5]


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_tiny_tables_give_finite_beliefs(rows):
    _, _, errors = planted(rows)
    found = learn(errors, full(errors)).given([0], [0.9])
    assert np.isfinite(found.mean).all()
    assert (np.diag(found.covariance) >= -1e-12).all()


def test_an_empty_table_teaches_nothing():
    with pytest.raises(ValueError, match="nothing is observed"):
        learn(np.full((2, 3), np.nan), np.zeros((2, 3), dtype=bool))


def alike(seed, within):
    """Tasks of one level each and 6 groups of 6 configurations, of which a fifth of the errors is known."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(6), 6)
    mean = rng.uniform(0.2, 0.7, 6)[groups] + within * rng.normal(size=36)
    errors = mean + 0.1 * rng.normal(size=(24, 1)) + 0.02 * rng.normal(size=(24, 36))
    return groups, mean, errors, rng.random(errors.shape) < 0.2


def missed(values, truth):
    return float(np.sqrt(np.mean((values - truth - (values - truth).mean()) ** 2)))


@pytest.mark.parametrize(("within", "most"), [(0.0, 0.6), (0.15, 1.1)])
def test_configurations_that_are_alike_tell_of_each_other_and_others_are_left_alone(within, most):
    tied, alone = [], []
    for seed in range(5):
        groups, mean, errors, observed = alike(seed, within)
        tied.append(missed(learn(errors, observed, groups=groups).mean, mean))
        alone.append(missed(learn(errors, observed).mean, mean))
    assert np.mean(tied) < most * np.mean(alone)


def test_a_configuration_that_no_task_knows_is_as_unsure_as_its_group():
    groups, mean, errors, observed = alike(0, within=0.02)
    observed[:, 3] = False
    prior = learn(errors, observed, groups=groups)
    assert abs(prior.mean[3] - mean[groups == 0].mean()) < 0.1
    assert prior.deviation[3] > prior.deviation[groups == 0].min()
    told = prior.given([0, 1], [mean[0], mean[1]])
    assert told.deviation[3] < 0.7 * prior.deviation[3]


def test_without_groups_each_configuration_is_one():
    _, _, errors, observed = alike(0, within=0.02)
    one, other = learn(errors, observed), learn(errors, observed, groups=np.arange(36))
    np.testing.assert_array_equal(one.covariance, other.covariance)


@given(seed=st.integers(0, 30))
def test_probabilities_are_counts_of_samples(seed):
    rng = np.random.default_rng(seed)
    samples, memory = rng.choice([0.1, 0.2, 0.3], size=(7, 5)), rng.integers(1, 4, 5)
    feasible = memory <= 2
    feasible[int(memory.argmin())] = True
    slow = np.mean([nondominated(memory, sample, feasible) for sample in samples], axis=0)
    np.testing.assert_allclose(on_frontier(samples, memory, feasible), slow)
    near = np.mean([feasible & (s <= s[feasible].min() + 0.1) for s in samples], axis=0)
    np.testing.assert_allclose(near_best(samples, feasible, 0.1), near)


@pytest.mark.parametrize("told", [{}, {1: 0.5}, {0: 0.4, 4: 0.2}])
def test_the_expected_gain_in_hypervolume_is_that_of_simulation(told):
    rng = np.random.default_rng(0)
    root = 0.1 * rng.normal(size=(6, 6))
    memory = np.array([1.0, 2.0, 2.0, 3.0, 4.0, 9.0])
    feasible = memory <= 4
    belief = Posterior(rng.uniform(0.3, 0.6, 6), root @ root.T).given(list(told), np.array([*told.values()]))
    gains = hypervolume_gain(belief, told, memory, feasible)
    share, S = memory / 4, list(told)
    before = hypervolume(share[S], [told[j] for j in S])
    for j in np.flatnonzero(feasible):
        drawn = belief.mean[j] + belief.deviation[j] * rng.normal(size=1000)
        after = [hypervolume([*share[S], share[j]], [*told.values(), error]) for error in drawn]
        assert gains[j] == pytest.approx(np.mean(after) - before, abs=0.008)
    assert gains[5] == 0


@pytest.mark.parametrize("told", [{}, {1: 0.5}, {0: 0.4, 5: 0.1}])
def test_expected_improvement_is_that_of_simulation_below_the_least_error_that_may_be_chosen(told):
    rng = np.random.default_rng(1)
    root = 0.1 * rng.normal(size=(6, 6))
    memory, feasible = np.arange(1.0, 7.0), np.arange(6) < 5
    prior = Posterior(rng.uniform(0.3, 0.6, 6), root @ root.T)
    belief = prior.given(list(told), np.array([*told.values()]))
    least = min([told[j] for j in told if feasible[j]], default=1.0)
    drawn = belief.mean + belief.deviation * rng.normal(size=(20_000, 6))
    gains = np.maximum(least - drawn, 0.0).mean(axis=0)
    left = [j for j in range(5) if j not in told]
    slow = max(left, key=lambda j: gains[j])
    assert sorted(gains[left])[-2] < gains[slow] - 0.002  # a clear winner, or simulation could err
    every = np.ones(6, dtype=bool)
    assert propose(prior, told, "ei", 1, memory=memory, measurable=every, feasible=feasible) == [slow]


def test_the_i_optimal_design_lowers_the_summed_variance_most():
    _, K, errors = planted(1)
    prior, memory, every = Posterior(errors[0], K), np.arange(1.0, 13.0), np.ones(12, dtype=bool)
    left = [np.trace(prior.given([j], [0.5]).covariance) for j in range(12)]
    arguments = {"memory": memory, "measurable": every, "feasible": every}
    assert propose(prior, {}, "i-optimal", 1, **arguments) == [int(np.argmin(left))]


@pytest.mark.parametrize("design", DESIGNS)
def test_batches_are_distinct_measurable_and_never_told_before(design):
    _, K, errors = planted(1)
    memory, measurable = np.arange(1.0, 13.0), np.arange(12) < 8
    found = propose(
        Posterior(errors[0], K), {2: 0.4}, design, 12,
        memory=memory, measurable=measurable, feasible=np.ones(12, dtype=bool),
    )  # fmt: skip
    assert sorted(found) == [0, 1, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("method", DESIGNS)
def test_every_design_stands_behind_the_same_call_and_learns_a_new_task(method):
    _, _, errors = planted(60, noise=0.005)
    training = complete_values(errors[:-1], full(errors[:-1]), rank=2)
    memory, fits = np.arange(1.0, 13.0), np.arange(1.0, 13.0) <= 10
    rule = rule_of(Method(method), training, Task(memory, fits, fits), 4)
    told = run(rule, errors[-1].item)
    assert len(told) == 4
    assert max(told) < 10
    none, four = (np.abs(rule.predict(known) - errors[-1]).mean() for known in ({}, told))
    assert four < 0.5 * none


def test_a_measurement_that_cannot_matter_changes_nothing_and_one_that_decides_does():
    every = np.ones(2, dtype=bool)
    assert chance_of_change(np.array([0.2, 0.8]), 0.0001 * np.eye(2), every, every, 0.01) == 0
    assert chance_of_change(np.array([0.2, 0.21]), 0.01 * np.eye(2), every, every, 0.01) > 0.4
    assert chance_of_change(np.array([0.2, 0.21]), 0.01 * np.eye(2), ~every, every, 0.01) == 0


def test_calibrated_intervals_cover_new_families_as_often_as_they_say():
    _, _, errors = planted(80, noise=0.02, seed=3)
    errors = errors + 0.04 * np.random.default_rng(5).standard_t(3, size=errors.shape)  # not what is modelled
    families = [f"family{i // 4}" for i in range(40)]
    observed = np.random.default_rng(2).random((40, 12)) < 0.7
    training = complete_values(errors[:40], observed, rank=2, families=tuple(families))
    task = Task(np.arange(1.0, 13.0), np.ones(12, dtype=bool), np.ones(12, dtype=bool))
    found = calibrate(Method("ed-mf"), training, task, 3)
    prior = learn(errors[:40], observed)
    covered = []
    for truth in errors[40:]:
        rule = rule_of(Method("ed-mf"), training, task, 3)
        told = run(rule, truth.item)
        deviation = prior.given(list(told), list(told.values())).deviation
        rest = np.setdiff1d(np.arange(12), list(told))
        covered += (np.abs(truth - rule.predict(told)) <= found.quantile(0.9) * deviation)[rest].tolist()
    assert 0.85 < np.mean(covered) < 0.95


def test_too_few_rows_calibrate_nothing():
    _, _, errors = planted(2)
    learned = complete_values(errors, full(errors), families=("a", "b"))
    assert inner_folds(learned) == ()
    task = Task(np.arange(1.0, 13.0), np.ones(12, dtype=bool), np.ones(12, dtype=bool))
    nothing = calibrate(Method("ed-mf"), learned, task, 1)
    assert (len(nothing.distances), len(nothing.weights), nothing.families) == (0, 0, 0)
    assert nothing.quantile() == float("inf")


def test_folds_hold_out_whole_families_and_learn_from_no_row_of_theirs():
    _, _, errors = planted(30)
    families = [f"{i % 15}" for i in range(30)]
    seen = []
    for fold in inner_folds(complete_values(errors, full(errors), families=tuple(families))):
        assert {families[i] for i in fold.rows}.isdisjoint(
            families[i] for i in range(30) if (fold.training.estimate == errors[i]).all(axis=1).any()
        )
        seen += fold.rows.tolist()
    assert sorted(seen) == list(range(30))
