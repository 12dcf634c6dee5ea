import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from peppp.learn.belief import Belief, near_best, on_frontier
from peppp.pareto import nondominated


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


def test_a_run_lies_where_the_error_and_its_noise_together_say():
    belief = Belief(
        np.zeros(2), np.ones(2), None, np.ones(2), np.diag([0.0003, 0.0]), np.array([0.0001, 0.0])
    )
    low, high = belief.run_interval(np.array([0.5, 0.2]), 0)
    np.testing.assert_allclose([low, high], [0.5 - 1.6449 * 0.02, 0.5 + 1.6449 * 0.02])
    assert belief.run_interval(np.array([0.5, 0.2]), 1) == (0.2, 0.2)
    assert Belief.unknown(2).run_interval(np.array([0.5, 0.2]), 0) is None
