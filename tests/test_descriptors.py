import numpy as np
import pytest

from peppp.advise.advisor import Advisor
from peppp.errors import FormatError
from peppp.evaluate.unseen import left_out_formats
from peppp.formats import Configuration, paper_grid, parse_format
from peppp.learn.descriptors import describe, place
from peppp.records import Footprint
from peppp.table.matrix import ErrorMatrix, Row

GRID = paper_grid()
FOOTPRINTS = {c: Footprint(c.format_a.bits, 0, c.format_b.bits, {}) for c in GRID}


def smooth(tasks=12):
    """Errors that fall with precision and range at a speed of each task's own."""
    rng = np.random.default_rng(0)
    bits = np.array([[*describe(c.format_a), *describe(c.format_b)] for c in GRID])
    speeds = rng.uniform(0.2, 0.5, (tasks, 4)) * [1, 1, 0.1, 0.1]
    return np.clip(0.1 + 0.8 / (1 + np.exp(speeds @ (bits - [2, 4, 9, 7]).T)), 0, 1)


def test_weights_sum_to_one_and_give_back_what_is_there():
    errors = smooth()
    placed = place(GRID, GRID, errors, errors >= 0)
    np.testing.assert_allclose(placed.weights.sum(axis=1), 1.0)
    assert np.abs(placed.weights @ errors.T - errors.T).mean() < 0.01


def test_a_format_that_was_left_out_is_found_again_within_what_is_said():
    errors = smooth()
    out = np.array([str(c.format_a) == "1-4-2" for c in GRID])
    seen = [c for c, gone in zip(GRID, out, strict=True) if not gone]
    missing = [c for c, gone in zip(GRID, out, strict=True) if gone]
    known = errors[:, ~out]
    placed = place(missing, seen, known, known >= 0)
    missed = known @ placed.weights.T - errors[:, out]
    assert np.sqrt((missed**2).mean()) < 2 * placed.deviation.mean()
    assert np.abs(missed).mean() < 0.5 * np.abs(errors[:, out] - known.mean(axis=1, keepdims=True)).mean()


def test_the_further_from_the_table_the_less_is_said():
    errors = smooth()
    wanted = ["1-4-3/1-7-9", "1-5-4/1-7-9", "1-5-7/1-7-9", "1-6-10/1-7-9"]
    out = np.array([str(c.format_a) == "1-4-3" for c in GRID])
    seen = [c for c, gone in zip(GRID, out, strict=True) if not gone]
    placed = place([Configuration.parse(c) for c in wanted], seen, errors[:, ~out], errors[:, ~out] >= 0)
    assert (np.diff(placed.deviation) > 0).all()


@pytest.mark.parametrize("scaled", ["int8", "int5", "fixed-8-6", "mx-1-4-3/32", "nvfp4", "scaled-1-3-2"])
def test_formats_with_a_scale_are_less_certain_than_floats_at_the_same_place(scaled):
    fmt = parse_format(scaled)
    precision, span = (round(bits) for bits in describe(fmt))
    errors = smooth()
    pair = [Configuration.parse(f"{scaled}/1-7-9"), Configuration.parse(f"1-{span}-{precision}/1-7-9")]
    placed = place(pair, GRID, errors, errors >= 0)
    assert placed.deviation[0] > placed.deviation[1]


def test_by_replay_intervals_at_a_missing_format_hold_and_beat_the_nearest():
    rows = smooth() + 0.01 * np.random.default_rng(2).normal(size=(12, 99))
    memory = np.tile([c.format_a.bits + c.format_b.bits for c in GRID], (12, 1))
    known = ErrorMatrix(np.clip(rows, 0, 1), [Row(f"t{i}", "", f"t{i}") for i in range(12)], GRID, memory)
    (found,) = left_out_formats(known.take(range(12), range(0, 99, 3)), counts=(3,)).summary()
    assert found["covered"] > 0.8
    assert found["ratio_high"] < 1
    assert found["width"] < 0.5


@pytest.mark.parametrize(
    "text", ["mx-1-4-3/32", "nvfp4", "scaled-1-4-3", "int8", "fixed-8-6", "bf16", "1-2-1@ocp"]
)
def test_every_kind_of_format_is_described(text):
    precision, span = describe(parse_format(text))
    assert 0 <= precision <= 23
    assert 0 < span <= 8


def advisor():
    rows = [Row(f"task{i}", "", f"family{i}") for i in range(11)]
    errors = smooth() + 0.004 * np.random.default_rng(1).normal(size=(12, 99))
    made = Advisor(ErrorMatrix.from_values(errors[1:], rows, GRID), FOOTPRINTS, 100, measurements=4)
    for c in made.plan:
        made.tell(c, float(errors[0, GRID.index(c)]))
    return made


def test_unseen_formats_are_predicted_with_wider_intervals():
    made = advisor()
    seen = {str(p.configuration): p for p in made.predictions()}
    found = made.predict(["mx-1-4-3/32/1-7-9", "int8/1-7-9"])
    usual = np.median([p.interval[1] - p.interval[0] for p in seen.values() if p.measured_error is None])
    for error, low, high in found.values():
        assert 0 <= low <= error <= high <= 1
        assert high - low > usual
    with pytest.raises(FormatError):
        made.predict(["int8"])


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("1-4-3/1-8-7", "1-4-3@ocp/1-8-7@ieee"),
        ("1-5-2/1-5-10", "1-5-2@ocp/1-5-10@ieee"),
        ("1-3-4/1-6-9", "1-4-3@ocp/1-8-7@ieee"),
        ("1-5-3/1-7-11", "1-5-2@ocp/1-8-7@ieee"),
    ],
)
def test_the_nearest_hardware_format_has_the_range_and_the_closest_precision(text, nearest):
    found = advisor().nearest_hardware(text)
    assert found.configuration == Configuration.parse(nearest)
    assert found.interval[0] <= found.predicted_error <= found.interval[1]


def test_the_pick_names_its_hardware():
    pick = advisor().recommend()
    assert f"nearest is {pick.hardware.configuration}" in str(pick)
    assert pick.to_dict()["hardware"]["predicted_loss"] == pick.hardware.predicted_loss
    # The same bits are in the grid: what is truly lost is known.
    twin = Configuration.parse(str(pick.hardware.configuration).replace("@ocp", "").replace("@ieee", ""))
    truth = smooth()[0]
    lost = truth[GRID.index(twin)] - truth[GRID.index(pick.configuration)]
    assert pick.hardware.predicted_loss == pytest.approx(lost, abs=0.03)
