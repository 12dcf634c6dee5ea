import subprocess
import sys

import numpy as np
import optuna
import pytest

from peppp.advise.advisor import Advisor
from peppp.advise.optuna import PrecisionSampler
from peppp.errors import TableError
from peppp.formats import paper_grid
from peppp.records import Footprint
from peppp.table.matrix import ErrorMatrix, Row

optuna.logging.set_verbosity(optuna.logging.ERROR)
GRID = paper_grid()[:20]
FOOTPRINTS = {c: Footprint(1000 + 10 * i, 0, 0, {}) for i, c in enumerate(GRID)}


def advisor(**how):
    rng = np.random.default_rng(0)
    values = np.clip(rng.uniform(0.2, 1, (9, 2)) @ rng.uniform(0.1, 0.45, (2, 20)), 0, 1)
    rows = [Row(f"task{i}", "", "") for i in range(8)]
    how = {"method": "ed-mf"} | how
    made = Advisor(ErrorMatrix.from_values(values[1:], rows, GRID), FOOTPRINTS, 1150, rank=2, **how)
    return made, {str(c): float(e) for c, e in zip(GRID, values[0], strict=True)}


@pytest.mark.parametrize("method", ["ed-mf", "gaussian"])
def test_it_proposes_what_the_advisor_asks_for_and_then_its_pick(method):
    twin, truth = advisor(measurements=3, method=method)
    expected = []
    while (configuration := twin.ask()) is not None:
        expected.append(str(configuration))
        twin.tell(configuration, truth[str(configuration)])
    sampler = PrecisionSampler(advisor(measurements=3, method=method)[0])
    study = optuna.create_study(sampler=sampler)
    study.optimize(lambda trial: truth[trial.suggest_categorical("precision", sampler.choices)], n_trials=5)
    found = [trial.params["precision"] for trial in study.trials]
    assert found == [*expected, *[str(twin.recommend().configuration)] * 5][:5]
    assert dict(sampler.advisor.recommend().measured).keys() >= dict(twin.recommend().measured).keys()


def test_what_does_not_fit_is_known_before_any_trial():
    sampler = PrecisionSampler(advisor(measurements=3)[0])
    assert sampler.choices == [str(c) for c in GRID[:16]]


def test_trials_at_once_are_at_different_configurations():
    sampler = PrecisionSampler(advisor(measurements=4)[0])
    study = optuna.create_study(sampler=sampler)
    asked = [study.ask() for _ in range(4)]
    texts = [trial.suggest_categorical("precision", sampler.choices) for trial in asked]
    assert len(set(texts)) == 4
    for trial in asked:
        study.tell(trial, 0.5)
    assert len(sampler.advisor.observed) == 4


def test_failures_tell_nothing_and_are_not_proposed_again():
    sampler = PrecisionSampler(advisor(measurements=3)[0])
    study = optuna.create_study(sampler=sampler)
    first = study.ask()
    text = first.suggest_categorical("precision", sampler.choices)
    study.tell(first, state=optuna.trial.TrialState.FAIL)
    assert not sampler.advisor.observed
    second = study.ask()
    assert second.suggest_categorical("precision", sampler.choices) != text
    with pytest.warns(UserWarning, match="nan is not acceptable"):
        study.tell(second, float("nan"))
    assert not sampler.advisor.observed


def test_other_parameters_are_left_to_another_sampler():
    sampler = PrecisionSampler(advisor(measurements=1)[0], others=optuna.samplers.RandomSampler(seed=0))
    trial = optuna.create_study(sampler=sampler).ask()
    assert 0 <= trial.suggest_float("dropout", 0, 1) <= 1


def test_a_parameter_without_the_configuration_is_refused():
    trial = optuna.create_study(sampler=PrecisionSampler(advisor()[0])).ask()
    with pytest.raises(TableError, match=r"suggest it among sampler\.choices"):
        trial.suggest_categorical("precision", ["a", "b"])


def test_an_error_that_is_none_is_said_to_be():
    sampler = PrecisionSampler(advisor(measurements=1)[0])
    study = optuna.create_study(sampler=sampler)
    with pytest.raises(TableError, match="fraction between 0 and 1"):
        study.optimize(lambda t: t.suggest_categorical("precision", sampler.choices) and 37.0, n_trials=1)


def test_without_optuna_it_says_how_to_get_it():
    code = "import sys; sys.modules['optuna'] = None; import peppp.advise.optuna"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install 'peppp[optuna]'" in done.stderr.strip().splitlines()[-1]
