import json
import subprocess
import sys
from functools import partial

import numpy as np
import pytest

from peppp.advise import advisor as advising
from peppp.errors import BudgetError, PepppError, TableError
from peppp.formats import Configuration, paper_grid
from peppp.learn.design import d_optimal
from peppp.pareto import frontier
from peppp.records import Footprint
from peppp.table.matrix import ErrorMatrix, Row

# Of ED-MF and of what all methods have in common; the default method is tested in test_gaussian.py.
Advisor = partial(advising.Advisor, method="ed-mf")
GRID = paper_grid()[:20]
BYTES = 1000 + 10 * np.random.default_rng(7).permutation(20)  # 1000, 1010, .. 1190 in some order


def footprint(total):
    return Footprint(100, total - 400, 100, {"momentum": 100, "accumulator": 50}, raw=50)


FOOTPRINTS = {c: footprint(int(total)) for c, total in zip(GRID, BYTES, strict=True)}


def table(values, chance_error=1.0):
    rows = [Row(f"task{i}", "", "", chance_error) for i in range(len(values))]
    return ErrorMatrix.from_values(np.asarray(values), rows, GRID)


def errors(rank, tasks=8, seed=0):
    """Errors [tasks, 20] of a planted rank, in (0, 1)."""
    rng = np.random.default_rng(seed)
    return rng.uniform(0.1, 1, (tasks, rank)) @ rng.uniform(0.1, 0.9 / rank, (rank, 20))


def measured(advisor, truth):
    """The advisor after it has been told every error it asked for, and the order it asked in."""
    known, order = dict(zip(GRID, truth, strict=True)), []
    while (configuration := advisor.ask()) is not None:
        order.append(configuration)
        advisor.tell(configuration, known[configuration])
    return advisor, order


def estimates(advisor):
    return np.array([p.estimated_error for p in advisor.predictions()])


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_table_of_planted_rank_predicts_a_new_task_exactly(rank):
    *known, new = errors(rank)
    advisor, _ = measured(Advisor(table(known), FOOTPRINTS, 1190, measurements=rank), new)
    np.testing.assert_allclose(estimates(advisor), new, atol=1e-12)


@pytest.mark.parametrize("method", ["ed-mf", "additive"])
def test_small_errors_are_predicted_as_large_ones_are(method):
    """Errors of half a per cent, as of a digit reader's table: nothing is shrunk to zero."""
    *known, new = errors(2, tasks=20)
    known = np.where(np.random.default_rng(0).random((19, 20)) < 0.5, known, np.nan)
    found = []
    for scale in (1.0, 0.005):
        advisor = Advisor(table(scale * np.asarray(known)), FOOTPRINTS, 1150, measurements=4, method=method)
        advisor, order = measured(advisor, scale * new)
        found.append((order, estimates(advisor) / scale, advisor.recommend().configuration))
    (order, wide, pick), (again, small, small_pick) = found
    assert (order, pick) == (again, small_pick)
    np.testing.assert_allclose(small[wide < 0.99], wide[wide < 0.99], rtol=1e-4)  # others are clipped to 1


def test_a_planted_rank_one_table_with_gaps_is_predicted_closely():
    *known, new = errors(1, tasks=40)
    known = np.where(np.random.default_rng(0).random((39, 20)) < 0.6, known, np.nan)
    advisor, _ = measured(Advisor(table(known), FOOTPRINTS, 1190, rank=1, shrinkage=1e-3), new)
    np.testing.assert_allclose(estimates(advisor), new, atol=0.01)


@pytest.mark.parametrize("chance_error", [None, 0.7])
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("measurements", [0, 1, 2, 3, 6])
@pytest.mark.parametrize("budget", [1000, 1050, 1100, 1190])
def test_the_pick_has_the_least_error_within_the_budget(budget, measurements, seed, chance_error):
    *known, new = np.clip(errors(3, seed=seed) + np.random.default_rng(seed).normal(0, 0.05, (8, 20)), 0, 1)
    within = budget >= BYTES
    advisor = Advisor(
        table(known, 0.9),
        FOOTPRINTS,
        budget,
        measurements=min(measurements, within.sum()),
        chance_error=chance_error,
    )
    pick = measured(advisor, new)[0].recommend()
    believed = [
        (round(p.error, 9), p.footprint.total) for p in pick.predictions if p.footprint.total <= budget
    ]
    assert (round(pick.predicted_error, 9), pick.footprint.total) == min(believed)
    assert pick.footprint == FOOTPRINTS[pick.configuration]
    assert [p.permissible for p in pick.predictions] == within.tolist()
    for p, error in zip(pick.predictions, new, strict=True):
        if p.measured_error is not None:
            assert p.error == p.measured_error == error
            assert p.permissible
    # The chosen one is the Pareto optimal one with the highest allowed memory (section 3.2).
    expected = frontier(BYTES, np.array([p.error for p in pick.predictions]).round(9), within)
    assert pick.frontier == tuple(GRID[j] for j in expected)
    assert pick.configuration == pick.frontier[-1]


def test_ties_in_error_go_to_less_memory():
    constant = np.full((3, 20), 0.5)
    pick = measured(Advisor(table(constant), FOOTPRINTS, 1190), constant[0])[0].recommend()
    assert pick.footprint.total == 1000


def test_the_budget_is_inclusive():
    known = errors(1)
    assert Advisor(table(known), FOOTPRINTS, 1000, measurements=1).recommend().footprint.total == 1000
    assert Advisor(table(known), FOOTPRINTS, "1.19 kB").recommend().budget == 1190


def test_a_measured_error_stands_against_the_prediction():
    known = errors(1)
    advisor, order = measured(Advisor(table(known), FOOTPRINTS, 1190, measurements=6), known[0])
    best = advisor.recommend().configuration
    spoiled = next(c for c in order if c != best)
    again = Advisor(table(known), FOOTPRINTS, 1190, measurements=6)
    for configuration in order:
        again.tell(configuration, 0.0 if configuration == spoiled else known[0][GRID.index(configuration)])
    pick = again.recommend()
    assert (pick.configuration, pick.predicted_error, pick.source) == (spoiled, 0.0, "measured")


def test_without_measurements_the_column_means_are_believed_and_called_unreliable():
    known = errors(3)
    advisor = Advisor(table(known), FOOTPRINTS, 1190)
    np.testing.assert_allclose(estimates(advisor), known.mean(axis=0))
    assert not advisor.recommend().reliable
    assert dict(advisor.recommend().measured) == {}


def test_with_chance_errors_they_are_means_of_multiples_of_chance():
    known = errors(3) / 2
    advisor = Advisor(table(known, chance_error=0.5), FOOTPRINTS, 1190, chance_error=0.9)
    np.testing.assert_allclose(estimates(advisor), np.clip(0.9 * known.mean(axis=0) / 0.5, 0, 1))


def test_a_task_of_another_difficulty_is_predicted_when_errors_are_multiples_of_chance():
    *known, new = errors(2)
    # The same tasks as seen with two and with ten classes.
    advisor = Advisor(
        table(np.array(known) * 0.5, chance_error=0.5), FOOTPRINTS, 1190, chance_error=0.9, rank=2
    )
    advisor, _ = measured(advisor, 0.9 * new)
    np.testing.assert_allclose(estimates(advisor), 0.9 * new, atol=1e-12)


@pytest.mark.parametrize(("measurements", "reliable"), [(1, False), (2, False), (3, True), (4, True)])
def test_fewer_measurements_than_the_rank_are_allowed_and_called_unreliable(measurements, reliable):
    *known, new = errors(3)
    advisor, _ = measured(Advisor(table(known), FOOTPRINTS, 1190, measurements=measurements), new)
    pick = advisor.recommend()
    assert (pick.rank, pick.reliable) == (3, reliable)
    assert ("unreliable" in str(pick)) is not reliable
    assert np.isfinite(estimates(advisor)).all()


def test_predictions_are_clipped_to_fractions():
    # The first component alone, fitted to an error of 1, predicts more than 1 elsewhere.
    known = errors(1)
    advisor = Advisor(table(known), FOOTPRINTS, 1190, measurements=1)
    smallest = GRID[int(known[0].argmin())]
    advisor.tell(smallest, 1.0)
    assert estimates(advisor).max() == 1.0


def test_it_asks_for_the_d_optimal_design_within_the_cap_in_its_order():
    known = errors(3)
    Y = np.linalg.svd(known, full_matrices=False)[2][:3].T
    expected = [GRID[j] for j in d_optimal(Y, 5, feasible=BYTES <= 1100)]
    for _ in range(2):
        advisor = Advisor(table(known), FOOTPRINTS, 1190, measurements=5, cap=1100)
        assert list(advisor.plan) == expected
        assert measured(advisor, known[0])[1] == expected


def test_asking_twice_is_asking_once():
    advisor = Advisor(table(errors(3)), FOOTPRINTS, 1190)
    assert advisor.ask() == advisor.ask() == advisor.plan[0]


def test_errors_told_unasked_count_as_measurements():
    known = errors(3)
    advisor = Advisor(table(known), FOOTPRINTS, 1190, measurements=3)
    other = next(c for c in GRID if c not in advisor.plan)
    advisor.tell(other, 0.25)
    _, order = measured(advisor, known[0])
    assert tuple(order) == advisor.plan[:2]
    assert advisor.recommend().measured[other] == 0.25


def test_a_configuration_can_be_told_by_its_text_and_twice_alike():
    advisor = Advisor(table(errors(3)), FOOTPRINTS, 1190)
    advisor.tell(str(GRID[3]), 0.5)
    advisor.tell(GRID[3], 0.5)
    assert dict(advisor.recommend().measured) == {GRID[3]: 0.5}


@pytest.mark.parametrize("error", [float("nan"), float("inf"), -0.01, 1.01, 35.0])
def test_an_error_that_is_no_fraction_is_refused(error):
    advisor = Advisor(table(errors(3)), FOOTPRINTS, 1190)
    with pytest.raises(TableError, match="fraction between 0 and 1"):
        advisor.tell(GRID[0], error)
    assert advisor.recommend().measured == {}


def test_a_second_error_of_a_configuration_is_refused_and_the_first_is_kept():
    advisor = Advisor(table(errors(3)), FOOTPRINTS, 1190)
    advisor.tell(GRID[0], 0.5)
    with pytest.raises(TableError, match=r"1-3-1/1-6-7 was 0\.5 before and is 0\.6 now"):
        advisor.tell(GRID[0], 0.6)
    assert advisor.recommend().measured[GRID[0]] == 0.5


@pytest.mark.parametrize("text", ["fp32/fp32", str(GRID[0])])
def test_an_unknown_configuration_is_refused(text):
    footprints = {c: f for c, f in FOOTPRINTS.items() if c != GRID[0]}
    advisor = Advisor(table(errors(3)), footprints, 1190)
    with pytest.raises(TableError, match="not among the 19 configurations"):
        advisor.tell(text, 0.5)


def test_configurations_that_only_the_table_or_only_the_footprints_know_are_left_out():
    stranger = Configuration.parse("fp32/fp32")
    footprints = {stranger: footprint(400)} | {c: FOOTPRINTS[c] for c in GRID[5:15]}
    advisor, order = measured(Advisor(table(errors(3)), footprints, 1190), errors(3)[0])
    assert advisor.configurations == GRID[5:15]
    assert set(order) <= set(GRID[5:15])
    assert [p.configuration for p in advisor.recommend().predictions] == list(GRID[5:15])
    with pytest.raises(TableError, match="no configuration of the table has a footprint"):
        Advisor(table(errors(3)), {stranger: footprint(400)}, 1190)


def test_a_budget_below_every_footprint_names_the_smallest_that_works():
    smallest = GRID[int(BYTES.argmin())]
    with pytest.raises(BudgetError, match=rf"a budget of 999 B .* 1000B \(1\.00 kB\), for {smallest}"):
        Advisor(table(errors(3)), FOOTPRINTS, 999)
    with pytest.raises(BudgetError, match=r"a cap of 500 B .* 1000B"):
        Advisor(table(errors(3)), FOOTPRINTS, 1190, cap=500)


def test_more_measurements_than_permissible_configurations_are_refused_with_both_numbers():
    with pytest.raises(BudgetError, match=r"6 measurements .* 5 configurations"):
        Advisor(table(errors(3)), FOOTPRINTS, 1040, measurements=6)
    with pytest.raises(BudgetError, match=r"6 measurements .* 2 configurations"):
        Advisor(table(errors(3)), FOOTPRINTS, 1190, measurements=6, cap=1010)
    with pytest.raises(BudgetError, match="-1 measurements"):
        Advisor(table(errors(3)), FOOTPRINTS, 1190, measurements=-1)


@pytest.mark.parametrize("chance_error", [0.0, 1.5, float("nan")])
def test_a_chance_error_that_is_none_is_refused(chance_error):
    with pytest.raises(TableError, match="the chance error is"):
        Advisor(table(errors(3)), FOOTPRINTS, 1190, chance_error=chance_error)


def test_every_error_message_is_one_line():
    attempts = [
        lambda: Advisor(table(errors(3)), FOOTPRINTS, 999),
        lambda: Advisor(table(errors(3)), FOOTPRINTS, 1040),
        lambda: Advisor(table(errors(3)), {}, 1190),
        lambda: Advisor(table(errors(3)), FOOTPRINTS, 1190).tell(GRID[0], np.nan),
        lambda: Advisor(table(errors(3)), FOOTPRINTS, 1190).tell("fp32/fp32", 0.1),
    ]
    for attempt in attempts:
        with pytest.raises(PepppError) as caught:
            attempt()
        assert "\n" not in str(caught.value)


def test_measurements_may_take_more_memory_than_the_budget_if_the_cap_says_so():
    advisor, order = measured(Advisor(table(errors(3)), FOOTPRINTS, 1000, cap=1190), errors(3)[0])
    assert any(FOOTPRINTS[c].total > 1000 for c in order)
    assert advisor.recommend().footprint.total == 1000


def test_inputs_are_never_changed():
    known, footprints = table(errors(3)), dict(FOOTPRINTS)
    before = known.values.copy()
    advisor, _ = measured(Advisor(known, footprints, 1190), errors(3)[0])
    footprints.clear()
    assert len(advisor.recommend().predictions) == 20
    assert (known.values == before).all()


def test_what_is_recommended_earlier_is_not_changed_by_telling_more():
    advisor = Advisor(table(errors(3)), FOOTPRINTS, 1190)
    advisor.tell(GRID[0], 0.5)
    pick = advisor.recommend()
    text = pick.to_json()
    advisor.tell(GRID[1], 0.5)
    assert pick.to_json() == text


def finished_pick(**names):
    *known, new = errors(3)
    return measured(Advisor(table(known), FOOTPRINTS, 1100, measurements=4, **names), new)[0].recommend()


def test_the_summary_says_what_was_measured_and_what_only_predicted():
    pick = finished_pick(task="digits", network="resnet8")
    text = str(pick)
    assert f"{pick.configuration} for digits on resnet8 within 1.10 kB" in text
    assert f"{pick.predicted_error:.3f}, {pick.source}" in text
    for configuration, error in pick.measured.items():
        assert f"{configuration} {error:.3f}" in text
    unmeasured = Advisor(table(errors(3)), FOOTPRINTS, 1100).recommend()
    assert "for a new task within" in str(unmeasured)
    assert ", estimated" in str(unmeasured)
    assert "measured  nothing" in str(unmeasured)


def test_a_pick_is_plain_data_as_json():
    pick = finished_pick(task="digits")
    data = json.loads(pick.to_json())
    assert data == pick.to_dict()
    assert data["configuration"] == str(pick.configuration)
    assert data["predicted_error"] == pick.predicted_error
    assert data["source"] in ("measured", "estimated")
    assert data["measured"] == {str(c): error for c, error in pick.measured.items()}
    assert data["footprint"]["total"] == pick.footprint.total
    assert data["frontier"] == [str(c) for c in pick.frontier]
    assert [row["permissible"] for row in data["predictions"]] == [p.permissible for p in pick.predictions]
    for row in data["predictions"]:
        assert row["measured"] == data["measured"].get(row["configuration"])


def test_page_data_is_what_the_page_reads():
    pick = finished_pick(task="digits", network="resnet8")
    page = pick.page_data()
    assert set(page) == {
        "title", "task", "network", "budget", "rank", "reliable", "rows", "frontier", "pick", "costs",
        "cost_frontier", "notes", "tolerance", "counts",
    }  # fmt: skip
    assert (page["task"], page["network"], page["budget"], page["rank"]) == ("digits", "resnet8", 1100, 3)
    assert page["rows"][page["pick"]]["configuration"] == str(pick.configuration)
    assert [page["rows"][i]["configuration"] for i in page["frontier"]] == [str(c) for c in pick.frontier]
    row = page["rows"][0]
    assert row["format_a"] == {"text": "1-3-1", "exponent_bits": 3, "mantissa_bits": 1}
    assert row["format_b"] == {"text": "1-6-7", "exponent_bits": 6, "mantissa_bits": 7}
    total = FOOTPRINTS[GRID[0]].total
    assert row["memory"] == {"weights": 100, "activations": total - 400, "optimizer": 250, "raw": 50}
    assert row["total"] == sum(row["memory"].values()) == total
    assert row["interval"] is None
    assert json.loads(json.dumps(page, allow_nan=False)) == page


def test_the_report_is_one_html_page(tmp_path):
    pick = finished_pick(task="digits & letters")
    pick.report(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert str(pick.configuration) in page
    assert "digits &amp; letters" in page
    assert pick._repr_html_().startswith("<iframe srcdoc=")


def test_the_advisor_needs_no_torch():
    code = "import sys, peppp.advise.advisor; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def noisy_table(tasks=16, seed=0, noise=0.01):
    """A table of families of two, with gaps, and one more task of the same kind."""
    values = np.clip(
        errors(3, tasks + 1, seed) + np.random.default_rng(seed).normal(0, noise, (tasks + 1, 20)), 0, 1
    )
    known = np.where(np.random.default_rng(1).random((tasks, 20)) < 0.8, values[:-1], np.nan)
    rows = [Row(f"task{i}", "", f"family{i // 2}") for i in range(tasks)]
    return ErrorMatrix.from_values(known, rows, GRID), values[-1]


@pytest.mark.parametrize("method", ["ed-mf", "ed-mf-rank-1", "two-best", "zero"])
def test_a_method_without_intervals_claims_none(method):
    known, new = noisy_table()
    advisor = Advisor(known, FOOTPRINTS, 1100, measurements=2, method=method)
    pick = measured(advisor, new)[0].recommend()
    assert (pick.interval, pick.run_interval, pick.sureness, pick.saving) == (None, None, None, None)
    assert {(p.interval, p.near_best, p.on_frontier) for p in pick.predictions} == {(None, None, None)}
    assert "interval" not in str(pick)
    with pytest.raises(TableError, match="does not know how sure it is"):
        Advisor(known, FOOTPRINTS, 1100, method=method, until_sure=0.9)


@pytest.mark.parametrize("measurements", [0, 1, 2, 5])
def test_every_pick_says_how_sure_it_is(measurements):
    known, new = noisy_table()
    advisor = advising.Advisor(known, FOOTPRINTS, 1100, measurements=measurements)
    pick = measured(advisor, new)[0].recommend()
    assert len(pick.measured) <= measurements
    for p in pick.predictions:
        low, high = p.interval
        assert 0 <= low <= p.error <= high <= 1
        assert 0 <= p.near_best <= p.permissible
        assert 0 <= p.on_frontier <= p.permissible
    assert pick.interval == next(
        p.interval for p in pick.predictions if p.configuration == pick.configuration
    )
    assert 0 < pick.sureness <= 1
    assert f"90 % interval {pick.interval[0]:.3f} to {pick.interval[1]:.3f}" in str(pick)


def test_it_stops_once_it_is_sure_and_says_so():
    known, new = noisy_table(noise=0.003)
    advisor = advising.Advisor(known, FOOTPRINTS, 1190, measurements=20, until_sure=0.9, tolerance=0.01)
    advisor, order = measured(advisor, new)
    pick = advisor.recommend()
    assert len(order) < 20
    assert pick.stopped
    assert f"stopped   {pick.stopped}" in str(pick)
    assert advisor.batch(4) == []
    assert pick.sureness >= 0.9 or "not expected to save" in pick.stopped
    assert not Advisor(known, FOOTPRINTS, 1190, measurements=2).recommend().stopped


def test_batches_are_what_would_be_asked_next():
    known, _ = noisy_table()
    advisor = Advisor(known, FOOTPRINTS, 1190, measurements=5)
    assert tuple(advisor.batch(3)) == advisor.plan[:3]
    advisor.tell(advisor.plan[0], 0.5)
    assert tuple(advisor.batch(9)) == advisor.plan[1:]
    other = Advisor(known, FOOTPRINTS, 1190, measurements=5, method="bo-mf")
    assert len(set(other.batch(9))) == 5
    assert other.ask() == other.batch(3)[0]


def test_what_cannot_be_asked_for_is_refused():
    known, _ = noisy_table()
    with pytest.raises(TableError, match="no method 'best'"):
        Advisor(known, FOOTPRINTS, 1190, method="best")
    with pytest.raises(BudgetError, match=r"probability between 0 and 1, such as 0\.9"):
        Advisor(known, FOOTPRINTS, 1190, until_sure=1.5)


def test_a_frontier_over_memory_is_the_frontier_and_over_more_costs_holds_it():
    known, new = noisy_table()
    pick = measured(Advisor(known, FOOTPRINTS, 1150, measurements=4), new)[0].recommend()
    memory = {c: f.total for c, f in FOOTPRINTS.items()}
    assert pick.frontier_over(memory) == pick.frontier
    joules = {c: float(cost) for c, cost in zip(GRID, np.random.default_rng(3).permutation(20), strict=True)}
    both = pick.frontier_over(memory, joules)
    assert set(pick.frontier) <= set(both)
    for c in both:  # by definition: no other is nowhere worse and somewhere better
        mine = (memory[c], joules[c], pick.predictions[GRID.index(c)].error)
        for p in pick.predictions:
            other = (memory[p.configuration], joules[p.configuration], p.error)
            if p.permissible and all(a <= b for a, b in zip(other, mine, strict=True)):
                assert other == mine
    with pytest.raises(TableError, match="has no finite cost"):
        pick.frontier_over({})


@pytest.mark.parametrize("count", [0, 2, 6])
def test_with_the_noise_stated_intervals_hold_whatever_the_columns_share(count):
    """What these columns share is not in their bits, so one run each cannot tell the noise."""
    covered = []
    for seed in range(12):
        known, new = noisy_table(seed=seed, noise=0.01)
        advisor = advising.Advisor(known, FOOTPRINTS, 1190, measurements=count, noise=0.01)
        for j in np.linspace(0, 19, count).astype(int):
            advisor.tell(GRID[j], new[j])
        free = errors(3, 17, seed)[-1]
        for p, e in zip(advisor.predictions(), free, strict=True):
            if p.measured_error is None:
                covered.append(p.interval[0] <= e <= p.interval[1])
    assert 0.8 < np.mean(covered) < 0.99


def test_the_noise_is_stated_or_said_to_be_a_guess():
    values = np.random.default_rng(0).random((5, 4))
    rows = [Row(f"task{i}", "", f"family{i}") for i in range(5)]
    columns = ["amp", "bf16", "fp8", "int8"]
    texts = ErrorMatrix(values, rows, columns)
    sizes = {c: i + 1 for i, c in enumerate(columns)}
    guessed = advising.Advisor(texts, sizes, budget=9).recommend()
    assert "so the noise of a training is a guess; state it with --noise" in str(guessed)
    stated = advising.Advisor(texts, sizes, budget=9, noise=0.03).recommend()
    assert "note      the noise of a training, 0.03, was given, not learned from the table" in str(stated)
    low, high = stated.run_interval
    assert high - low > 2 * 1.6449 * 0.03 or low == 0 or high == 1
    assert advising.Advisor(noisy_table()[0], FOOTPRINTS, 1190).recommend().notes == ()
    with pytest.raises(TableError, match="noise of a training is 3; give a standard deviation"):
        advising.Advisor(texts, sizes, budget=9, noise=3)
    with pytest.raises(TableError, match="ed-mf takes a training's error as it is"):
        Advisor(texts, sizes, budget=9, noise=0.03)
