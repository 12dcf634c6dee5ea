"""All metrics at once against the definitions one by one, ties and duplicates included."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from peppp import pareto
from peppp.errors import BudgetError
from peppp.evaluate.scores import METRICS, scores

few = st.integers(1, 4).map(lambda level: level * 25)
tenths = st.integers(0, 10).map(lambda tenth: tenth / 10)
PLAIN = {
    "convergence": pareto.convergence,
    "hyperdiff": pareto.hyperdiff,
    "area": pareto.frontier_area_difference,
    "igd_plus": pareto.igd_plus,
}


@st.composite
def tasks(draw):
    d, q = draw(st.integers(1, 9)), draw(st.integers(1, 4))
    feasible = draw(arrays(bool, d).filter(np.any))
    return (
        draw(arrays(np.int64, d, elements=few)),
        draw(arrays(float, d, elements=tenths)),
        draw(arrays(float, (q, d), elements=st.floats(-0.5, 1.5))),
        feasible,
    )


@given(tasks())
def test_scores_are_the_metrics_of_pareto(task):
    memory, true, estimated, feasible = task
    before = [np.copy(a) for a in task]
    found = scores(memory, true, estimated, feasible)
    assert set(found) == set(METRICS)
    for name, metric in PLAIN.items():
        for suffix, place in (("", "estimated"), ("_true", "true")):
            expected = [metric(memory, true, row, feasible=feasible, at=place) for row in estimated]
            np.testing.assert_allclose(found[name + suffix], expected, atol=1e-12)
    for old, new in zip(before, task, strict=True):
        np.testing.assert_array_equal(old, new)


@given(tasks())
def test_the_pick_is_the_least_estimate_and_the_smaller_of_equals(task):
    memory, true, estimated, feasible = task
    found = scores(memory, true, estimated, feasible)
    allowed = np.flatnonzero(feasible)
    for i, row in enumerate(np.round(np.clip(estimated, 0, 1), 9)):
        pick = min(allowed, key=lambda j: (row[j], memory[j], j))
        assert found["pick_error"][i] == true[pick]
        assert found["regret"][i] == true[pick] - true[allowed].min()


def test_infeasible_columns_change_nothing():
    found = scores([1, 2, 3], [0.5, 0.2, 0.1], [[0.4, 0.3, 0.0]], [True, True, False])
    other = scores([1, 2, 9], [0.5, 0.2, 0.9], [[0.4, 0.3, 0.7]], [True, True, False])
    assert all((found[name] == other[name]).all() for name in METRICS)


def test_nothing_feasible_is_an_error():
    with pytest.raises(BudgetError, match="raise the budget"):
        scores([1.0], [0.5], [[0.5]], [False])
