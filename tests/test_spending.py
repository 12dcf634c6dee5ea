"""How far ``pick`` goes: a number of measurements, a time, or a sureness. What is trained is replaced."""

from types import SimpleNamespace

import numpy as np
import pytest

from peppp.advise import session as choice
from peppp.advise import trials
from peppp.errors import BudgetError
from peppp.formats import paper_grid
from peppp.records import Recipe
from peppp.table.matrix import ErrorMatrix, Row

GRID = paper_grid()[:24]
RECIPE = Recipe(network="resnet8-w4", resolution=8)


def table(tasks=16):
    rng = np.random.default_rng(0)
    values = rng.uniform(0.1, 0.9, (tasks, 2)) @ rng.uniform(0.1, 0.5, (2, 24))
    values = np.clip(values + rng.normal(0, 0.004, values.shape), 0, 1)
    rows = [Row(f"task{i}", "", f"family{i}", 0.9, f"f{i}") for i in range(tasks)]
    return ErrorMatrix.from_values(values[1:], rows[1:], GRID), dict(zip(GRID, values[0], strict=True))


@pytest.fixture
def lab(monkeypatch):
    """Trainings of 10 s a round by a clock of their own; what rounds there were."""
    known, truth = table()
    state = SimpleNamespace(now=0.0, rounds=[], table=known)

    def measure_cells(cells, **_):
        state.now += 10
        state.rounds.append(len(cells))
        return [SimpleNamespace(key=c.key, test_error=truth[c.configuration], seconds=10.0) for c in cells]

    monkeypatch.setattr(trials, "measure_cells", measure_cells)
    monkeypatch.setattr(trials, "monotonic", lambda: state.now)
    return state


def pick(lab, method="ed-mf", **how):
    return choice.pick(
        "digits:01",
        budget="1MB",
        network="resnet8-w4",
        resolution=8,
        table=lab.table,
        recipe=RECIPE,
        method=method,
        **how,
    )


def test_by_default_six_are_measured_at_once(lab):
    chosen = pick(lab)
    assert lab.rounds == [6]
    assert len(chosen.measured) == 6
    assert not chosen.stopped


def test_a_dry_run_trains_nothing_and_plans_what_would_be(lab):
    planned = pick(lab, measurements=4, dry_run=True)
    assert (lab.rounds, dict(planned.measured)) == ([], {})
    assert planned.predicted_error == pick(lab, measurements=0).predicted_error
    assert set(planned.planned) == set(pick(lab, measurements=4).measured)
    for configuration in planned.planned:
        assert f"{configuration} " in next(x for x in str(planned).splitlines() if x.startswith("planned "))
    assert planned.to_dict()["planned"] == [str(configuration) for configuration in planned.planned]
    assert not pick(lab, measurements=4).planned


@pytest.mark.parametrize("measurements", [0, 1, 2])
def test_none_one_or_two_measurements_are_answered(lab, measurements):
    chosen = pick(lab, measurements=measurements)
    assert len(chosen.measured) == measurements
    assert 0 <= chosen.predicted_error <= 1


@pytest.mark.parametrize(("workers", "rounds"), [(0, [1, 1, 1]), (2, [2, 2, 2])])
def test_no_more_time_is_spent_than_given(lab, workers, rounds):
    chosen = pick(lab, spend=35.0, method="ed-mf", workers=workers)
    assert lab.rounds == rounds
    assert len(chosen.measured) == sum(rounds)
    assert chosen.stopped == f"after {sum(rounds)} measurements another one would exceed the limit of 35 s"


def test_time_is_not_spent_where_nothing_would_change(lab):
    chosen = pick(lab, spend=1e6, method="gaussian")
    assert sum(lab.rounds) < 24
    assert "not expected to save" in chosen.stopped


def test_until_sure_stops_early_and_never_beyond_the_measurements(lab):
    chosen = pick(lab, until_sure=0.5, tolerance=0.02, method="gaussian")
    assert chosen.sureness >= 0.5 or "not expected to save" in chosen.stopped
    assert len(chosen.measured) < 24
    lab.rounds.clear()
    pick(lab, until_sure=0.999999, tolerance=0.0, measurements=2, method="gaussian")
    assert sum(lab.rounds) <= 2


def test_a_sequential_design_measures_one_after_the_other(lab):
    chosen = pick(lab, method="bo-mf", measurements=4, workers=2)
    assert lab.rounds == [2, 2]
    assert (chosen.method, len(chosen.measured)) == ("bo-mf", 4)


def test_a_time_that_is_none_is_refused(lab):
    with pytest.raises(BudgetError, match="90s, 10min or 2h"):
        pick(lab, spend=0.0)


def test_trainings_that_learned_nothing_are_said_first(lab, monkeypatch):
    chance = 0.5  # of two digits
    monkeypatch.setattr(
        trials,
        "measure_cells",
        lambda cells, **_: [SimpleNamespace(key=c.key, test_error=chance, seconds=1.0) for c in cells],
    )
    chosen = pick(lab, measurements=2)
    first = str(chosen).splitlines()[0]
    assert first.startswith("warning   no training got below the error of guessing, 0.500")
    assert "--min-steps" in first
    assert "--learning-rate" in first
    assert chosen.page_data()["notes"][0] == chosen.to_dict()["warning"] == chosen.warning
    assert not pick(lab, measurements=0).warning
