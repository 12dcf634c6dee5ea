"""Unfinished trainings as less certain measurements: what is learned of them, and what they are asked for."""

from dataclasses import replace

import numpy as np
import pytest

from peppp import choice
from peppp.advisor import Advisor
from peppp.errors import BudgetError, TableError
from peppp.metalearn.looks import LookModel, learn_looks, next_training
from peppp.metalearn.posterior import Posterior
from peppp.records import Footprint, Measurement, Outcome, Recipe
from peppp.replay.looks import replay_looks
from peppp.replay.slices import known_table, largest_slice
from peppp.replay.synthetic import synthetic_table
from peppp.tasks.readers import load
from peppp.training.measurement import measure
from test_spending import GRID, RECIPE, table


def run(task, j, final, curve, seed=0):
    return Measurement(
        task, task, task, GRID[j], Recipe(epochs=10), seed, 1.0, final, final, (*curve, (10, final)),
        Footprint(1, 1, 1, {}), Outcome.FINISHED, 1.0,
    )  # fmt: skip


def planted(tasks=60, runs=30, seed=0):
    """Curves of the model itself: x1 = .7 + u1 + (.3 + v1)(y - .5) + noise, x3 alike, noises correlated."""
    rng = np.random.default_rng(seed)
    found = []
    for t in range(tasks):
        u = rng.normal(0, [0.04, 0.03])
        v = rng.normal(0, [0.05, 0.05])
        noises = rng.multivariate_normal([0, 0], [[4e-4, 2e-4], [2e-4, 3e-4]], runs)
        for j, (y, noise) in enumerate(zip(rng.uniform(0.2, 0.8, runs), noises, strict=True)):
            x = np.array([0.7, 0.6]) + u + (np.array([0.3, 0.6]) + v) * (y - 0.5) + noise
            # Several seeds of a cell are as good as several cells.
            seed = j % 2 + 2 * (j // 48)
            found.append(run(f"t{t}", j // 2 % 24, y, [(1, x[0]), (3, x[1])], seed))
    return found


def test_a_planted_model_is_found_again():
    model = learn_looks(planted(), (1, 3))
    assert model.epochs == (1, 3)
    at_half = model.coefficients[[0, 2]] + model.coefficients[[1, 3]] * (0.5 - model.centre)
    np.testing.assert_allclose(at_half, [0.7, 0.6], atol=0.015)
    np.testing.assert_allclose(model.coefficients[[1, 3]], [0.3, 0.6], atol=0.02)
    np.testing.assert_allclose(model.of_runs, [[4e-4, 2e-4], [2e-4, 3e-4]], atol=4e-5)
    np.testing.assert_allclose(np.sqrt(np.diag(model.of_tasks)), [0.04, 0.05, 0.03, 0.05], rtol=0.35)


def test_conditioning_on_looks_is_that_of_samples():
    """Twin: draw tasks from the model, weighed by how well they fit what was told (importance sampling)."""
    prior = Posterior(np.array([0.5, 0.4]), np.array([[0.02, 0.015], [0.015, 0.02]]))
    model = LookModel(
        (1, 3), np.array([0.8, 0.3, 0.6, 0.6]), np.diag([0.002, 0.0, 0.001, 0.0]),
        np.array([[0.002, 0.001], [0.001, 0.002]]), 0.45,
    )  # fmt: skip
    looks = {(0, 1): 0.85, (0, 3): 0.7, (1, 3): 0.62}
    found = model.given(prior, looks, [], [])
    rng = np.random.default_rng(0)
    y = rng.multivariate_normal(prior.mean, prior.covariance, 400_000)
    u = rng.normal(0, np.sqrt([0.002, 0.001]), (len(y), 2))
    noise = rng.multivariate_normal([0, 0], model.of_runs, (len(y), 2))  # [samples, configuration, epoch]
    x = np.stack(
        [
            0.8 + u[:, 0] + 0.3 * (y[:, 0] - 0.45) + noise[:, 0, 0],
            0.6 + u[:, 1] + 0.6 * (y[:, 0] - 0.45) + noise[:, 0, 1],
            0.6 + u[:, 1] + 0.6 * (y[:, 1] - 0.45) + noise[:, 1, 1],
        ],
        axis=1,
    )
    weights = np.exp(-0.5 * ((x - list(looks.values())) ** 2).sum(axis=1) / 0.01**2)
    mean = weights @ y / weights.sum()
    deviation = np.sqrt(weights @ (y - mean) ** 2 / weights.sum())
    np.testing.assert_allclose(found.errors, mean, atol=0.004)
    np.testing.assert_allclose(found.deviation, deviation, atol=0.004)


def test_a_look_tells_less_than_the_whole_and_nothing_after_it():
    prior = Posterior(np.full(3, 0.5), np.full((3, 3), 0.018) + 0.002 * np.eye(3))
    model = learn_looks(planted(), (1, 3))
    deviations = [
        model.given(prior, looks, told, errors).deviation.sum()
        for looks, told, errors in (
            ({}, [], []), ({(0, 1): 0.7}, [], []), ({(0, 3): 0.6}, [], []), ({}, [0], [0.5]),
        )
    ]  # fmt: skip
    assert deviations == sorted(deviations, reverse=True)
    whole = model.given(prior, {(0, 3): 0.9}, [0], [0.5])
    assert whole.errors[0] == 0.5
    assert whole.deviation[0] == 0


def test_what_tells_most_per_epoch_is_asked_for():
    prior = Posterior(np.full(3, 0.5), np.full((3, 3), 0.018) + 0.002 * np.eye(3))
    three = np.ones(3, dtype=bool)
    how = {"memory": np.array([1.0, 2.0, 3.0]), "measurable": three, "feasible": three, "epochs": 10}

    def asked(model, told=(), looks=(), **more):
        return next_training(model, prior, "i-optimal", dict(told), dict(looks), **(how | more))

    exact = LookModel((3,), np.array([0.5, 1.0]), np.zeros((2, 2)), np.array([[1e-9]]), 0.5)
    assert asked(exact)[1] == 3  # as good as the whole, and cheaper
    blind = LookModel((3,), np.array([0.9, 0.0]), np.zeros((2, 2)), np.array([[0.01]]), 0.5)
    assert asked(blind)[1] == 10
    assert asked(blind, left=9)[1] == 3  # what can be afforded
    assert asked(blind, left=2) is None
    assert (
        asked(exact, told={0: 0.5}, looks={(1, 3): 0.5, (2, 3): 0.5})[1] == 10
    )  # no look twice, or too late
    assert asked(exact, told={0: 0.5, 1: 0.5, 2: 0.5}) is None


def advisor(**how):
    errors, _ = table()
    footprints = {c: Footprint(1000 + i, 0, 0, {}) for i, c in enumerate(GRID)}
    how = {"looks": learn_looks(planted(), (1, 3)), "epochs": 10, "method": "frontier"} | how
    return Advisor(errors, footprints, "1.1KB", measurements=2, **how)


def test_an_advisor_spends_epochs_not_trainings():
    mine, furthest = advisor(), {}
    while wanted := mine.trainings(4):
        ((configuration, epochs),) = wanted
        assert (epochs or 10) > furthest.get(configuration, 0)
        furthest[configuration] = epochs or 10  # a training may go on from its look
        mine.tell(configuration, 0.5, epochs)
        assert sum(furthest.values()) <= 20
    assert sum(furthest.values()) > 10
    pick = mine.recommend()
    assert {epochs for _, epochs in pick.looked} <= {1, 3}
    assert "looked" in str(pick)
    assert pick.to_dict()["looked"]
    assert all(0 <= p.interval[0] <= p.interval[1] <= 1 for p in pick.predictions)


def test_a_look_moves_what_is_believed_but_is_no_measurement():
    mine = advisor()
    before = mine.recommend().predictions[5].error
    mine.tell(GRID[5], 0.99, epochs=3)
    after = mine.recommend()
    assert after.predictions[5].error > before
    assert not after.measured
    mine.tell(GRID[5], 0.4)
    assert mine.recommend().measured == {GRID[5]: 0.4}


def test_what_is_no_look_is_refused():
    with pytest.raises(TableError, match="looks after 2 epochs; this advisor takes 1 or 3"):
        advisor().tell(GRID[0], 0.5, epochs=2)
    with pytest.raises(TableError, match="takes none: it was given no model"):
        advisor(looks=None).tell(GRID[0], 0.5, epochs=3)
    with pytest.raises(TableError, match="looks take one of the methods frontier"):
        advisor(method="ed-mf")
    with pytest.raises(TableError, match="takes the curves of 3 tasks; the table has 2"):
        learn_looks(planted(tasks=2), (1, 3))
    mine = advisor()
    mine.tell(GRID[0], 0.5, epochs=3)
    with pytest.raises(TableError, match=r"told to be 0\.5, now 0\.6"):
        mine.tell(GRID[0], 0.6, epochs=3)


def test_picking_with_looks_trains_them_as_recipes_of_their_own(monkeypatch, tmp_path):
    seen = []
    _, truth = table()

    def measured(cell):
        curve = [(e, 0.5) for e in (1, 3) if e <= cell.recipe.epochs]
        found = run("digits", 0, truth[cell.configuration], curve, cell.seed)
        asked = {"configuration": cell.configuration, "recipe": cell.recipe}
        return replace(found, fingerprint=cell.fingerprint, **asked)

    def measure_cells(cells, **_):
        seen.extend(cell.recipe.epochs for cell in cells)
        return [measured(cell) for cell in cells]

    others = [
        replace(m, configuration=GRID[i % 24], recipe=RECIPE, repeat=i)
        for i, m in enumerate(planted(tasks=6))
    ]
    monkeypatch.setattr(choice, "measure_cells", measure_cells)
    monkeypatch.setattr(choice, "alike", lambda *_, **__: others)
    how = {"budget": "1MB", "network": "resnet8-w4", "resolution": 8, "recipe": RECIPE, "table": tmp_path}
    chosen = choice.pick("digits:01", measurements=2, looks=(1, 3), **how)
    assert set(seen) <= {1, 3, 10}
    assert min(seen) < 10
    assert sum(seen) <= 2 * 10 + 3  # a look and then the whole of it counts once
    assert (chosen.method, bool(chosen.looked)) == ("frontier", True)
    with pytest.raises(BudgetError, match="ends before the 10 epochs of a whole training; give 1 to 9"):
        choice.pick("digits:01", looks=(10,), **how)


def test_a_short_training_is_bit_for_bit_the_beginning_of_a_long_one():
    dataset = load("digits:0123?train=120&test=60")
    recipe = Recipe(network="resnet8-w4", epochs=4)
    whole = measure(dataset, GRID[0], recipe)
    look = measure(dataset, GRID[0], replace(recipe, epochs=3))
    assert dict(whole.curve)[3] == look.test_error
    assert whole.key != look.key


def test_a_replay_with_looks_spends_the_same_epochs():
    rng = np.random.default_rng(0)
    ms = []
    for m in largest_slice(synthetic_table(8, further=False)):
        early = float(np.clip(0.3 + 0.7 * m.test_error + rng.normal(0, 0.01), 0, 1))
        ms.append(replace(m, curve=((3, early), (10, m.test_error))))
    found = replay_looks(known_table(ms), ms, epochs=(3,), settings=("I",), counts=(1, 3))
    assert found.values.shape == (2, 1, 2, 8, 3)
    assert np.isfinite(found.values).all()
    looks, whole = found.looked[0, ..., 0], found.looked[0, ..., 1]
    assert (3 * looks + 10 * whole <= 10 * np.array([[1], [3]])).all()
    assert looks.max() > 0
    records = found.summary()
    assert {r["metric"] for r in records} == {"hyperdiff", "regret", "relative_error"}
