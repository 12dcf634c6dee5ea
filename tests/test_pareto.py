import moocore
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import reference
from peppp import pareto
from peppp.errors import BudgetError

METRICS = [pareto.convergence, pareto.hyperdiff, pareto.frontier_area_difference, pareto.igd_plus]


@st.composite
def planes(draw):
    """Memories 1..6, errors and estimates in eighths: many ties and duplicates, all sums exact."""
    size = draw(st.integers(1, 9))

    def column(values):
        return np.array(draw(st.lists(values, min_size=size, max_size=size)))

    eighths = st.integers(0, 8).map(lambda k: k / 8)
    feasible = column(st.booleans())
    assume(feasible.any())
    return column(st.integers(1, 6)), column(eighths), column(eighths), feasible


@settings(deadline=None)
@given(planes())
def test_nondominated_is_the_definition(plane):
    memory, error, _, feasible = plane
    assert pareto.nondominated(memory, error, feasible).tolist() == reference.nondominated(
        memory, error, feasible
    )


@settings(deadline=None)
@given(planes())
def test_nondominated_agrees_with_moocore(plane):
    memory, error, _, _ = plane
    points = np.column_stack([memory, error])
    expected = moocore.is_nondominated(points, keep_weakly=True)
    assert pareto.nondominated(memory, error).tolist() == expected.tolist()


def test_of_equal_memories_only_the_least_error_is_optimal():
    assert pareto.nondominated([1, 1, 1], [0.4, 0.2, 0.3]).tolist() == [False, True, False]


def test_of_equal_errors_only_the_least_memory_is_optimal():
    assert pareto.nondominated([3, 1, 2], [0.4, 0.4, 0.4]).tolist() == [False, True, False]


def test_exact_duplicates_are_both_optimal():
    assert pareto.nondominated([2, 1, 2], [0.1, 0.5, 0.1]).tolist() == [True, True, True]


@settings(deadline=None)
@given(planes())
def test_frontier_ascends_in_memory_and_descends_in_error(plane):
    memory, error, _, feasible = plane
    indices = pareto.frontier(memory, error, feasible)
    assert set(indices) == set(np.flatnonzero(reference.nondominated(memory, error, feasible)))
    steps = np.column_stack([np.diff(memory[indices]), -np.diff(error[indices])])
    assert all((step > 0).all() or (step == 0).all() for step in steps)


def test_nothing_feasible_has_an_empty_frontier():
    assert pareto.frontier([1, 2], [0.1, 0.2], [False, False]).tolist() == []


def test_hypervolume_of_two_hand_drawn_steps():
    # From memory 1/4 to 3/4 the area above 1/2, from 3/4 to 1 the area above 1/4.
    assert pareto.hypervolume([0.25, 0.75], [0.5, 0.25]) == 0.5 * 0.5 + 0.25 * 0.75


def test_hypervolume_is_zero_at_and_beyond_the_reference():
    assert pareto.hypervolume([1.0, 0.2, 2.0], [0.0, 1.0, 0.0]) == 0.0
    assert pareto.hypervolume([], []) == 0.0


@settings(deadline=None)
@given(planes())
def test_hypervolume_agrees_with_moocore(plane):
    memory, error, _, _ = plane
    points = np.column_stack([memory, error])
    expected = moocore.hypervolume(points, ref=[5.0, 0.875])
    assert pareto.hypervolume(memory, error, reference=(5.0, 0.875)) == pytest.approx(expected, abs=1e-12)


def frontier_points(memory, chosen_by, placed_at, feasible):
    """Points of a frontier in the unit square, from the definitions."""
    mask = np.array(reference.nondominated(memory, chosen_by, feasible))
    return np.column_stack([memory[mask] / memory[feasible].max(), placed_at[mask]])


@settings(deadline=None)
@given(planes(), st.sampled_from(["estimated", "true"]))
def test_igd_plus_agrees_with_moocore(plane, at):
    memory, true, estimated, feasible = plane
    points = frontier_points(memory, estimated, true if at == "true" else estimated, feasible)
    expected = moocore.igd_plus(points, ref=frontier_points(memory, true, true, feasible))
    assert pareto.igd_plus(memory, true, estimated, feasible=feasible, at=at) == pytest.approx(expected)


@settings(deadline=None)
@given(planes(), st.sampled_from(["estimated", "true"]))
def test_convergence_is_the_mean_distance_to_the_closest_true_point(plane, at):
    memory, true, estimated, feasible = plane
    points = frontier_points(memory, estimated, true if at == "true" else estimated, feasible)
    best = frontier_points(memory, true, true, feasible)
    expected = np.mean([min(np.hypot(*(v - w)) for w in best) for v in points])
    assert pareto.convergence(memory, true, estimated, feasible=feasible, at=at) == pytest.approx(expected)


@settings(deadline=None)
@given(planes(), st.sampled_from(["estimated", "true"]))
def test_areas_are_sums_over_cells(plane, at):
    memory, true, estimated, feasible = plane
    placed, largest = (true if at == "true" else estimated), memory[feasible].max()
    chosen = np.array(reference.nondominated(memory, estimated, feasible))

    def height(mask, errors, cell):  # least error at most this much memory buys, 1 if it buys nothing
        return min([1.0, *errors[mask & (memory <= cell)]])

    gaps = [height(feasible, true, cell) - height(chosen, placed, cell) for cell in range(1, largest)]
    area = pareto.frontier_area_difference(memory, true, estimated, feasible=feasible, at=at)
    assert area == pytest.approx(sum(map(abs, gaps)) / largest)
    difference = pareto.hyperdiff(memory, true, estimated, feasible=feasible, at=at)
    assert difference == pytest.approx(abs(sum(gaps)) / largest)


def test_crossing_curves_cancel_in_hyperdiff_but_not_in_the_area_between():
    memory, true, estimated = [1, 2, 3, 4], [0.8, 0.5, 0.2, 0.2], [0.9, 0.4, 0.2, 0.2]
    assert pareto.hyperdiff(memory, true, estimated) == pytest.approx(0.0, abs=1e-15)
    assert pareto.frontier_area_difference(memory, true, estimated) == pytest.approx(0.25 * 0.1 + 0.25 * 0.1)


def test_at_true_places_the_chosen_configurations_at_their_true_errors():
    memory, true, estimated = [1, 2], [0.5, 0.75], [0.5, 0.25]
    # Both are chosen; the second one truly stands at (1, 0.75), 0.5 right of and 0.25 above (0.5, 0.5).
    expected = (0.0 + np.hypot(0.5, 0.25)) / 2
    assert pareto.convergence(memory, true, estimated, at="true") == pytest.approx(expected)
    assert pareto.igd_plus(memory, true, estimated, at="true") == 0.0
    assert pareto.hyperdiff(memory, true, estimated, at="true") == 0.0


@pytest.mark.parametrize("metric", METRICS)
@settings(deadline=None)
@given(plane=planes())
def test_true_errors_as_estimates_are_perfect(metric, plane):
    memory, true, _, feasible = plane
    assert metric(memory, true, true, feasible=feasible) == 0.0


@pytest.mark.parametrize("metric", METRICS)
@settings(deadline=None)
@given(plane=planes())
def test_infeasible_entries_and_the_unit_of_memory_do_not_matter(metric, plane):
    memory, true, estimated, feasible = plane
    hidden = [np.where(feasible, column, np.nan) for column in (memory * 1024.0, true, estimated)]
    expected = metric(memory, true, estimated, feasible=feasible)
    assert metric(*hidden, feasible=feasible) == pytest.approx(expected)


@pytest.mark.parametrize("metric", METRICS)
def test_estimates_are_clipped_to_fractions(metric):
    wild, clipped = [1.5, -0.5, -0.75], [1.0, 0.0, 0.0]
    assert metric([1, 2, 3], [0.5, 0.25, 0.125], wild) == metric([1, 2, 3], [0.5, 0.25, 0.125], clipped)


@pytest.mark.parametrize("metric", METRICS)
def test_inputs_are_left_alone(metric):
    columns = [np.array(column) for column in ([3.0, 1.0], [0.1, 0.5], [-0.2, 0.4])]
    for column in columns:
        column.setflags(write=False)
    metric(*columns, feasible=np.array([True, True]))


@pytest.mark.parametrize("metric", METRICS)
def test_nothing_feasible_is_an_error(metric):
    with pytest.raises(BudgetError, match="no configuration is feasible"):
        metric([1, 2], [0.1, 0.2], [0.1, 0.2], feasible=[False, False])


def test_unusable_columns_are_refused():
    with pytest.raises(ValueError, match="one length"):
        pareto.nondominated([1, 2], [0.1])
    with pytest.raises(ValueError, match="finite"):
        pareto.nondominated([1, 2], [0.1, np.nan])
    with pytest.raises(ValueError, match="finite"):
        pareto.convergence([1, 2], [0.1, 0.2], [np.nan, 0.2])
    with pytest.raises(ValueError, match="not 'somewhere'"):
        pareto.convergence([1, 2], [0.1, 0.2], [0.1, 0.2], at="somewhere")


@given(
    st.lists(st.tuples(st.integers(1, 6), st.integers(0, 6), st.booleans()), max_size=12),
)
def test_the_best_is_the_least_error_then_the_least_memory_then_the_first(points):
    memory, error, feasible = zip(*points, strict=True) if points else ((), (), ())
    allowed = [i for i, fits in enumerate(feasible) if fits]
    expected = min(allowed, key=lambda i: (error[i], memory[i], i), default=None)
    assert pareto.best(memory, error, feasible) == expected
