from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from peppp.cli import app
from peppp.evaluate.hardware import frontier_counts, hardware_view, smallest_set
from peppp.formats import paper_grid
from peppp.table.matrices import write_matrix
from peppp.table.matrix import ErrorMatrix, Row


@given(seed=st.integers(0, 40), epsilon=st.sampled_from([0.0, 0.1, 0.3]))
def test_no_smaller_set_serves_all_tasks(seed, epsilon):
    excess = np.random.default_rng(seed).uniform(0, 1, (5, 7))
    excess -= excess.min(axis=1, keepdims=True)
    found = smallest_set(excess, epsilon)
    assert (excess[:, found].min(axis=1) <= epsilon).all()
    for smaller in combinations(range(7), len(found) - 1):
        assert not len(smaller) or (excess[:, smaller].min(axis=1) > epsilon).any()


@pytest.mark.parametrize("most", [1, 2, 3])
def test_a_set_of_bounded_size_is_the_best_there_is(most):
    rng = np.random.default_rng(0)
    errors = rng.uniform(0, 1, (6, 8))
    known = ErrorMatrix(errors, [Row(t, "", t) for t in "abcdef"], paper_grid()[:8], np.ones((6, 8)))
    view = hardware_view(known, most=most)
    excess = errors - errors.min(axis=1, keepdims=True)
    best = min(excess[:, s].min(axis=1).max() for s in combinations(range(8), most))
    assert len(view.chosen) <= most
    assert view.within.max() == pytest.approx(best)


def test_frontiers_are_counted_by_hand_and_on_the_command_line(tmp_path):
    errors = np.array([[0.5, 0.4, 0.45], [0.3, 0.3, 0.2]])
    memory = np.array([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]])
    grid = paper_grid()[:3]
    known = ErrorMatrix(errors, [Row("a", "", "a"), Row("b", "", "b")], grid, memory)
    assert frontier_counts(known).tolist() == [2, 1, 1]
    for name, values in (("E", errors), ("M", memory)):
        write_matrix(tmp_path / f"{name}.csv", values, ["a", "b"], grid)
    line = ["hardware", "--errors", str(tmp_path / "E.csv"), "--memory", str(tmp_path / "M.csv")]
    shown = CliRunner().invoke(app, [*line, "--epsilon", "0.05"]).stdout
    served = "1 configuration keeps every task within 0.050 of its best error (up to 0.05 allowed): "
    assert served + str(grid[2]) in shown
    bounded = CliRunner().invoke(app, [*line, "--most", "2"]).stdout
    assert "2 configurations keep every task within 0.000 of its best error (at most 2 allowed): " in bounded
    assert '"epsilon": null' in CliRunner().invoke(app, [*line, "--most", "2", "--json"]).stdout
    both = CliRunner().invoke(app, [*line, "--most", "2", "--epsilon", "0.1"])
    assert "give one of them" in str(both.exception)
    assert '"set": ["1-3-1/1-6-11"]' in CliRunner().invoke(app, [*line, "--epsilon", "0.06", "--json"]).stdout
