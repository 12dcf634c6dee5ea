"""The Gaussian over noise-free errors, against slow twins, exact conditioning and simulated tables."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peppp import FP32_CONFIGURATION, Advisor, paper_grid
from peppp.errors import TableError
from peppp.learn.completion import learn as complete
from peppp.learn.gaussian import Gaussian, Runs, learn
from peppp.learn.methods import Method
from peppp.learn.noise_free import NoiseFree, belief_of, coordinates, savings
from peppp.learn.strategy import strategy
from peppp.learn.task import Task
from peppp.paper.synthetic import synthetic_table
from peppp.table.matrix import ErrorMatrix, Row
from peppp.table.measured import error_matrix


def twin(runs, coordinates, groups, steps=30, shape_steps=8):
    """The same learning, a run at a time: dense matrices over each task's runs, nothing summed beforehand.

    ``runs`` are a list for each task: weight, columns of its runs, errors.
    """
    d, G = len(groups), max(groups) + 1
    R = [np.ones((d, d))]
    if coordinates is None:
        R.append(np.eye(d))
    else:
        X = (coordinates - coordinates.mean(0)) / coordinates.std(0)
        single = [np.exp(-0.5 * ((x[:, None] - x[None]) / 1.3) ** 2) for x in X.T]
        R += [*single, *(a * b for a, b in combinations(single, 2))]
        if len(single) > 2:
            R.append(np.prod(single, axis=0))
    tasks = [(w, np.array(j), np.array(y)) for w, j, y in runs if len(j)]
    # The spread and level that learning starts from are those of the columns' means.
    means = [(w, c, y[j == c].mean()) for w, j, y in tasks for c in np.unique(j)]
    level = np.average([m for _, _, m in means], weights=[w for w, _, _ in means])
    spread = np.var([m for _, _, m in means]) + (0.01 * level) ** 2 + 1e-12
    shares, noise = np.full(len(R), spread / len(R)), np.full(G, 0.05 * spread)

    def look(K, noise):
        P, b = np.zeros((d, d)), np.zeros(d)
        for w, j, y in tasks:
            Q = np.linalg.inv(K[np.ix_(j, j)] + np.diag(noise[groups[j]]))
            for a, ja in enumerate(j):
                b[ja] += w * Q[a] @ (y - level)
                for c, jc in enumerate(j):
                    P[ja, jc] += w * Q[a, c]
        unsure = np.linalg.solve(0.3 * np.eye(d) + K @ P, K)
        return level + unsure @ b, unsure

    for _ in range(steps):
        K = sum(c * r for c, r in zip(shares, R, strict=True))
        mean, _ = look(K, noise)
        up, down = np.zeros(len(R)), np.zeros(len(R))
        noise_up, noise_down = np.zeros(G), np.zeros(G)
        for w, j, y in tasks:
            Q = np.linalg.inv(K[np.ix_(j, j)] + np.diag(noise[groups[j]]))
            a = Q @ (y - mean[j])
            for m, r in enumerate(R):
                up[m] += w * a @ r[np.ix_(j, j)] @ a
                down[m] += w * np.trace(Q @ r[np.ix_(j, j)])
            for k, g in enumerate(groups[j]):
                noise_up[g] += w * a[k] ** 2
                noise_down[g] += w * Q[k, k]
        shares = np.maximum(shares * np.sqrt(up / down), 1e-4 * spread)
        noise = np.maximum(noise * np.sqrt(noise_up / noise_down), 1e-4 * spread)
    shares = np.where(shares < 2e-3 * shares.sum(), 0, shares)
    kernel = sum(c * r for c, r in zip(shares, R, strict=True))
    K, total = kernel, sum(w for w, _, _ in tasks)
    for _ in range(shape_steps):
        mean, _ = look(K, noise)
        moments, left, count = np.zeros((d, d)), np.zeros(G), np.zeros(G)
        for w, j, y in tasks:
            gain = K[:, j] @ np.linalg.inv(K[np.ix_(j, j)] + np.diag(noise[groups[j]]))
            f = gain @ (y - mean[j])
            C = K - gain @ K[j]
            moments += w * (C + np.outer(f, f))
            for k, column in enumerate(j):
                left[groups[column]] += w * ((y[k] - mean[column] - f[column]) ** 2 + C[column, column])
                count[groups[column]] += w
        noise = np.maximum((left + 3 * left.sum() / count.sum()) / (count + 3), 1e-4 * spread)
        K = (10 * kernel + moments) / (10 + total)
    mean, unsure = look(K, noise)
    return mean, K + unsure, noise[groups]


def summed(runs, d):
    """The same runs as means, counts and squares."""
    n = len(runs)
    means, counts, squares = np.zeros((n, d)), np.zeros((n, d)), np.zeros((n, d))
    for i, (_, j, y) in enumerate(runs):
        for c in set(j):
            mine = np.array([e for k, e in zip(j, y, strict=True) if k == c])
            means[i, c], counts[i, c], squares[i, c] = (
                mine.mean(),
                len(mine),
                ((mine - mine.mean()) ** 2).sum(),
            )
    return Runs(means, counts, squares, np.array([w for w, _, _ in runs]))


@pytest.mark.parametrize("repeats", [1, 3])
@pytest.mark.parametrize("share", [1.0, 0.4])
@pytest.mark.parametrize("placed", [True, False])
def test_it_learns_what_a_twin_learns_that_takes_a_run_at_a_time(placed, share, repeats):
    rng = np.random.default_rng(5)
    d, groups = 6, np.array([0, 0, 1, 1, 2, 2])
    where = np.array([[a, b] for a in (1.0, 2.0, 4.0) for b in (6.0, 8.0)]) if placed else None
    runs = []
    for _ in range(9):
        f = 0.5 + 0.15 * rng.standard_normal() + 0.1 * np.repeat(rng.standard_normal(3), 2)
        columns = [j for j in range(d) for _ in range(rng.integers(1, repeats + 1)) if rng.random() < share]
        runs.append((1 / rng.integers(1, 3), columns, [f[j] + 0.03 * rng.standard_normal() for j in columns]))
    found = learn(summed(runs, d), where, groups)
    mean, covariance, noise = twin(runs, where, groups)
    close = {"rtol": 1e-6, "atol": 1e-8}
    np.testing.assert_allclose(found.mean, mean, **close)
    np.testing.assert_allclose(found.covariance, covariance, **close)
    np.testing.assert_allclose(found.noise, noise, **close)


def simulated(tasks, noise, rng, grid=None):
    """Tasks whose Format A decides, and whose Format B does not; noise-free errors and one run of each."""
    grid = grid or paper_grid()
    of = np.unique([str(c.format_a) for c in grid], return_inverse=True)[1]
    bits = np.array([c.format_a.bits for c in grid])
    own = 0.05 * rng.standard_normal((tasks, of.max() + 1))
    free = (0.4 + 0.1 * rng.standard_normal((tasks, 1)) - 0.03 * (bits - 7) + own[:, of]).clip(0.02, 0.9)
    return free, (free + noise * rng.standard_normal(free.shape)).clip(0, 1)


def test_noise_is_told_from_what_columns_differ_by_and_format_b_vanishes():
    grid = paper_grid()
    free, runs = simulated(40, 0.03, np.random.default_rng(1))
    of = np.unique([str(c.format_a) for c in grid], return_inverse=True)[1]
    found = learn(Runs(runs, np.ones_like(runs), np.zeros_like(runs), np.ones(40)), coordinates(grid), of)
    assert np.sqrt(found.noise) == pytest.approx(0.03, rel=0.15)
    columns = np.flatnonzero(of == 0)
    told = found.given({int(columns[0]): found.mean[columns[0]] + 0.1})
    moved = (told.mean - found.mean)[columns]
    assert np.ptp(moved) < 0.15 * moved.mean()  # what one Format B tells, all of that Format A take over
    np.testing.assert_allclose(found.mean, free.mean(axis=0), atol=0.03)


@given(st.integers(0, 10**6), st.integers(1, 4))
@settings(max_examples=25, deadline=None)
def test_conditioning_is_that_of_a_gaussian_when_the_scale_is_sure(seed, told):
    rng = np.random.default_rng(seed)
    root = rng.standard_normal((5, 5))
    prior = Gaussian(rng.random(5), root @ root.T, rng.random(5) + 0.1)
    columns = rng.permutation(5)[:told].tolist()
    errors = dict(zip(columns, rng.random(told).tolist(), strict=True))
    found = prior.given(errors)
    A = prior.covariance[:, columns]
    S = prior.covariance[np.ix_(columns, columns)] + np.diag(prior.noise[columns])
    r = np.array(list(errors.values())) - prior.mean[columns]
    stretch = 1.0
    for _ in range(3):  # the task's scale, by its definition
        stretched = stretch * (S - np.diag(prior.noise[columns])) + np.diag(prior.noise[columns])
        stretch = max(0.5, stretch * (8 + r @ np.linalg.inv(stretched) @ r) / (8 + told))
    S = stretch * (S - np.diag(prior.noise[columns])) + np.diag(prior.noise[columns])
    np.testing.assert_allclose(found.mean, prior.mean + stretch * A @ np.linalg.inv(S) @ r, rtol=1e-7)
    expected = stretch * prior.covariance - stretch**2 * A @ np.linalg.inv(S) @ A.T
    np.testing.assert_allclose(found.covariance, expected, rtol=1e-6, atol=1e-9)
    assert (found.deviation[columns] > 0).all()  # one noisy run settles nothing


def test_savings_are_what_one_more_run_saves_on_average():
    rng = np.random.default_rng(3)
    root = 0.1 * rng.standard_normal((4, 4))
    now = Gaussian(np.array([0.30, 0.32, 0.35, 0.2]), root @ root.T, np.full(4, 0.02**2))
    task = Task(np.ones(4), [True, True, True, False], [True, True, True, True])
    found = savings(now, task, [1])
    assert found[1] == -np.inf
    for j in (0, 2, 3):
        f = rng.multivariate_normal(now.mean, now.covariance, 200_000)
        y = f[:, j] + 0.02 * rng.standard_normal(len(f))
        gain = now.covariance[:, j] / (now.covariance[j, j] + now.noise[j])
        after = now.mean + np.outer(y - now.mean[j], gain)
        picked = after[:, :3].argmin(axis=1)  # by the estimates after the run, judged by the truth
        saved = now.mean[:3].min() - f[np.arange(len(f)), picked].mean()
        assert found[j] == pytest.approx(saved, abs=1.5e-3)


@pytest.fixture(scope="module")
def known():
    return error_matrix(synthetic_table(11, further=False))


def new_task(known, i=0, limit=np.inf):
    fits = known.bytes[i] <= limit
    return Task(known.bytes[i], fits, fits, float(known.chance[i]))


def played(found, errors, most=6):
    told = {}
    while wanted := found.next(told):
        told[wanted[0]] = float(errors[wanted[0]])
        assert len(told) <= most
    return told


def test_it_stops_by_itself_and_never_measures_more_than_was_allowed(known):
    learned = complete(known, np.arange(1, len(known.rows)), relative_to_chance=True)
    task = new_task(known)
    told = played(NoiseFree(Method("gaussian"), learned, task, 99), known.values[0], most=99)
    assert 0 < len(told) < 30
    assert played(NoiseFree(Method("gaussian"), learned, task, 99, worth=1.0), known.values[0]) == {}
    assert len(played(NoiseFree(Method("gaussian"), learned, task, 2, worth=-1.0), known.values[0])) == 2


def test_several_at_once_are_those_that_come_one_after_the_other_as_expected(known):
    learned = complete(known, np.arange(1, len(known.rows)), relative_to_chance=True)
    found = NoiseFree(Method("gaussian"), learned, new_task(known), 4, worth=-1.0)
    told = {}
    for j in found.next({}, 4):
        assert found.next(told) == [j]
        told[j] = float(belief_of(learned).times(float(known.chance[0])).given(told).mean[j])
    assert len(told) == 4


def test_the_pick_is_the_least_expected_error_or_less_memory_within_the_tolerance(known):
    learned = complete(known, np.arange(1, len(known.rows)), relative_to_chance=True)
    limit = float(np.quantile(known.bytes[0], 0.5))
    task = new_task(known, limit=limit)
    for tolerance in (0.0, 0.002, 0.05):
        found = NoiseFree(Method("gaussian"), learned, task, 6, tolerance=tolerance)
        told = {3: 0.4, 50: 0.1}
        errors = found.predict(told)
        j = found.pick(told)
        assert task.memory[j] <= limit
        assert errors[j] <= errors[task.feasible].min() + tolerance + 1e-12
        near = task.feasible & (errors <= errors[task.feasible].min() + tolerance)
        assert task.memory[j] == task.memory[near].min()


def test_a_lucky_run_is_not_believed():
    """The demo of the issue: one run of a small format that came out far too well."""
    rng = np.random.default_rng(2)
    grid = paper_grid()
    free, runs = simulated(25, 0.04, rng)
    rows = [Row(f"t{i}", "", f"t{i}") for i in range(24)]
    bits = np.array([c.format_a.bits + c.format_b.bits for c in grid], dtype=float)
    table = ErrorMatrix(runs[:24], rows, grid, np.tile(bits, (24, 1)))
    advisor = Advisor(table, dict(zip(grid, map(int, bits), strict=True)), budget=10**6, method="gaussian")
    best = int(free[24].argmin())
    small = next(j for j, c in enumerate(grid) if free[24, j] > free[24, best] + 0.06)
    advisor.tell(grid[small], float(max(0.0, free[24, best] - 0.02)))
    prediction = advisor.predictions()[small]
    assert prediction.measured_error < prediction.error < free[24, small] + 0.02
    assert prediction.error == prediction.estimated_error


def test_an_answer_names_what_is_as_good_as_the_pick():
    rng = np.random.default_rng(3)
    grid = paper_grid()
    _, runs = simulated(25, 0.03, rng)
    rows = [Row(f"t{i}", "", f"t{i}") for i in range(24)]
    bits = {c: 100 * c.format_a.bits + c.format_b.bits for c in grid}
    table = ErrorMatrix(runs[:24], rows, grid, np.tile(list(map(float, bits.values())), (24, 1)))
    advisor = Advisor(table, bits, budget=10**6)
    before = advisor.recommend()
    assert "measured  nothing: the estimates rest on other tasks alone" in str(before)
    line = "format B  any that fits is expected to err as little (within 0.002); "
    assert line in str(before)  # stochastic rounding: Format B vanishes
    cheapest = min((c for c in grid if c.format_a == before.configuration.format_a), key=bits.get)
    assert before.configuration == cheapest
    # One run of another Format A that comes out as well as it is expected to: no estimate is that sure.
    other = next(p for p in before.predictions if p.configuration.format_a != cheapest.format_a)
    advisor.tell(other.configuration, round(before.predicted_error, 3))
    after = advisor.recommend()
    if after.configuration.format_a != other.configuration.format_a:
        said = [note for note in after.notes if "which was trained, has an expected error" in note]
        assert said[0].startswith(f"{other.configuration}, ")
    # What is trained itself is not set beside itself.
    advisor.tell(after.configuration, after.predicted_error)
    assert not advisor.recommend().notes


def test_two_runs_of_one_format_a_tell_more_than_one(known):
    learned = complete(known, np.arange(1, len(known.rows)), relative_to_chance=True)
    prior = belief_of(learned)
    same = [j for j, c in enumerate(known.configurations) if c.format_a == known.configurations[0].format_a]
    deviations = [
        prior.given(dict.fromkeys(same[:k], prior.mean[0])).deviation[same[-1]] for k in (0, 1, 2, 4)
    ]
    assert deviations == sorted(deviations, reverse=True)


def test_columns_without_formats_have_a_belief_as_well():
    rng = np.random.default_rng(0)
    values = (0.4 + 0.2 * rng.standard_normal((9, 1)) + 0.05 * rng.standard_normal(4)).clip(0, 1)
    rows = [Row(f"t{i}", "", f"t{i}") for i in range(9)]
    table = ErrorMatrix(values, rows, ["amp", "fp8", "int8x", "tf32x"], np.ones((9, 4)))
    advisor = Advisor(table, dict.fromkeys(table.columns, 1), budget=1, method="gaussian", measurements=2)
    while (column := advisor.ask()) is not None:
        advisor.tell(column, 0.5)
    assert all(0 <= p.interval[0] <= p.error <= p.interval[1] <= 1 for p in advisor.predictions())


@pytest.mark.parametrize("level", [0.0, 0.3, 1.0])
def test_a_table_of_equal_errors_leaves_room_for_another(level):
    grid = paper_grid()[:20]
    table = ErrorMatrix(np.full((5, 20), level), [Row(f"t{i}", "", f"t{i}") for i in range(5)], grid)
    advisor = Advisor(table, {c: i + 1 for i, c in enumerate(grid)}, budget=100)
    assert advisor.recommend().predicted_error == pytest.approx(level, abs=1e-6)
    advisor.tell(grid[3], 0.6)
    assert all(
        np.isfinite(p.error) and p.interval[0] <= p.error <= p.interval[1] for p in advisor.predictions()
    )
    assert abs(advisor.predictions()[3].error - 0.6) < 0.5 * abs(level - 0.6)


def test_of_two_tasks_no_interval_is_claimed():
    grid = paper_grid()[:20]
    values = np.random.default_rng(0).random((2, 20))
    table = ErrorMatrix(values, [Row("a", "", "a"), Row("b", "", "b")], grid)
    pick = Advisor(table, {c: i + 1 for i, c in enumerate(grid)}, budget=100).recommend()
    assert pick.interval is None
    assert pick.sureness is None
    assert "90 % interval" not in str(pick)


def test_it_measures_at_most_what_fits_and_says_why_it_stops(known):
    columns = known.columns[:4]
    advisor = Advisor(known.take(np.arange(1, len(known.rows))), dict.fromkeys(columns, 10), budget=10)
    assert advisor.measurements == 4
    while (column := advisor.ask()) is not None:
        advisor.tell(column, float(known.values[0, known.columns.index(column)]))
    pick = advisor.recommend()
    assert len(pick.measured) == 4 or "not expected to save more than 0.001" in pick.stopped


@pytest.mark.parametrize("method", ["gaussian", "ed-mf", "two-best"])
def test_advisor_and_evaluation_agree_on_what_is_measured_and_picked(known, method):
    """What is evaluated is what ships: the same design, errors and pick from both."""
    learned = complete(known, np.arange(1, len(known.rows)), relative_to_chance=True)
    task = new_task(known, limit=float(np.quantile(known.bytes[0], 0.6)))
    ours = strategy(method, learned, task, 5)
    told = played(ours, known.values[0])
    sizes = {c: int(b) for c, b in zip(known.columns, known.bytes[0], strict=True)}
    advisor = Advisor(
        known.take(np.arange(1, len(known.rows))), sizes, int(np.quantile(known.bytes[0], 0.6)),
        measurements=5, method=method, chance_error=float(known.chance[0]),
    )  # fmt: skip
    while (column := advisor.ask()) is not None:
        advisor.tell(column, float(known.values[0, known.columns.index(column)]))
    assert [known.columns.index(c) for c in advisor.observed] == list(told)
    assert advisor.recommend().configuration == known.columns[ours.pick(told)]
    np.testing.assert_allclose([p.error for p in advisor.predictions()], ours.errors(told), atol=1e-9)


def test_two_best_trains_the_two_best_formats_in_turn_and_averages():
    grid = [c for c in paper_grid() if str(c.format_b) in ("1-6-7", "1-7-9", "1-8-11")][:9]
    means = np.repeat([0.5, 0.2, 0.3], 3)
    table = ErrorMatrix(np.tile(means, (3, 1)), [Row(f"t{i}", "", f"t{i}") for i in range(3)], grid)
    advisor = Advisor(table, {c: 10 + i for i, c in enumerate(grid)}, 100, method="two-best", measurements=5)
    assert advisor.recommend().configuration == grid[3]
    for j, error in ((3, 0.30), (6, 0.28), (4, 0.20), (7, 0.28), (5, 0.25)):
        assert advisor.ask() == grid[j]
        advisor.tell(grid[j], error)
    assert advisor.ask() is None
    assert advisor.recommend().configuration == grid[3]  # 0.25 on average beats 0.28
    assert advisor.recommend().predicted_error == pytest.approx(0.25)


def test_nothing_teaches_nothing():
    with pytest.raises(ValueError, match="no run"):
        learn(
            Runs(np.zeros((1, 2)), np.zeros((1, 2)), np.zeros((1, 2)), np.ones(1)),
            None,
            np.zeros(2, dtype=int),
        )


def with_reference(known, errors):
    """The matrix with a column of fp32, whose errors are these."""
    values = np.column_stack([known.values, errors])
    return ErrorMatrix(values, known.rows, (*known.columns, FP32_CONFIGURATION))


def test_the_error_of_fp32_tells_of_the_others_and_its_own_is_estimated(known):
    """fp32 errs a little less than the best of each task; of a new task that is known first."""
    best = known.values.min(axis=1)
    table = with_reference(known, best * 0.9).take(np.arange(1, len(known.rows)))
    sizes = {c: int(b) for c, b in zip(known.columns, known.bytes[0], strict=True)}
    how = {"chance_error": float(known.chance[0]), "measurements": 3}
    low, high = (Advisor(table, sizes, "1GB", fp32_error=error, **how) for error in (0.05, 0.6))
    assert low.recommend().predicted_error + 0.05 < high.recommend().predicted_error
    given = low.recommend().reference
    assert (given.error, given.source, given.interval) == (0.05, "given", None)
    assert not low.observed

    advisor = Advisor(table, sizes, "1GB", **how)
    before = advisor.recommend().reference
    assert before.source == "estimated"
    assert before.interval[0] <= before.error <= before.interval[1]
    assert FP32_CONFIGURATION not in advisor.footprints
    while (column := advisor.ask()) is not None:
        advisor.tell(column, float(known.values[0, known.columns.index(column)]))
    after = advisor.recommend().reference
    assert np.diff(after.interval) < np.diff(before.interval)
    assert f"fp32      error {after.error:.3f}, estimated" in str(advisor.recommend())
    assert advisor.recommend().to_dict()["fp32"]["error"] == after.error


def test_an_error_of_fp32_that_cannot_serve_is_refused(known):
    sizes = {c: int(b) for c, b in zip(known.columns, known.bytes[0], strict=True)}
    table = with_reference(known, known.values.min(axis=1))
    for message, how in (
        ("the error of fp32 is 5.0; give a fraction", {"table": table, "fp32_error": 5.0}),
        ("the error of fp32 needs a column fp32/fp32 in the table", {"table": known, "fp32_error": 0.1}),
        (
            "ed-mf does not learn from the error of fp32",
            {"table": table, "fp32_error": 0.1, "method": "ed-mf"},
        ),
    ):
        with pytest.raises(TableError, match=message):
            Advisor(footprints=sizes, budget="1GB", **how)


def test_fp32_is_placed_beside_the_others_and_not_far_away():
    grid = paper_grid()
    found = coordinates((*grid, FP32_CONFIGURATION))
    np.testing.assert_array_equal(found[:-1], coordinates(grid))
    np.testing.assert_array_equal(found[-1], found[:-1].max(axis=0) + 1)


def test_a_run_scatters_more_than_its_noise_free_error_and_one_more_has_a_worth(known):
    sizes = {c: int(b) for c, b in zip(known.columns, known.bytes[0], strict=True)}
    table = known.take(np.arange(1, len(known.rows)))
    advisor = Advisor(table, sizes, "1GB", chance_error=float(known.chance[0]), measurements=1)
    pick = advisor.recommend()
    assert pick.run_interval[0] <= pick.interval[0] <= pick.interval[1] <= pick.run_interval[1]
    assert np.diff(pick.run_interval) > np.diff(pick.interval)
    assert pick.saving > 0.001
    assert f"another training is expected to save {pick.saving:.3f}" in str(pick)
    assert Advisor(table, sizes, "1GB", method="ed-mf").recommend().saving is None
