"""Meta-leave-one-out: nothing leaks, caps hold, intervals cover, tables of any shape give what they have."""

from dataclasses import replace

import numpy as np
import pytest

from peppp.errors import BudgetError, PepppError, TableError
from peppp.evaluate.bootstrap import family_mean, family_ratio
from peppp.evaluate.evaluation import evaluate
from peppp.evaluate.leave_one_out import held_together, leave_one_out, new_task
from peppp.learn.methods import METHODS
from peppp.learn.strategy import strategy
from peppp.paper.pooled import merged
from peppp.paper.synthetic import synthetic_table
from peppp.table.matrix import ErrorMatrix, Lacking, Row, averaged
from peppp.table.measured import error_matrix
from peppp.table.slices import by_seed, complete_block, known_part, largest_slice, main_seed, parse_where

TABLE = synthetic_table(12, seed=3)  # invented errors


def part_of(measurements, **how):
    """What is known of the measurements on the seed with most of them."""
    return known_part(error_matrix(measurements, seed=main_seed(measurements)), **how)


def regrouped(matrix, **fields):
    """The matrix with other values for fields of its rows."""
    rows = [
        replace(row, **{name: values[i] for name, values in fields.items()})
        for i, row in enumerate(matrix.rows)
    ]
    return replace(matrix, rows=tuple(rows))


@pytest.fixture(scope="module")
def known():
    return part_of(largest_slice(TABLE))


@pytest.mark.parametrize("leave", ["family", "row"])
@pytest.mark.parametrize("sampling", ["full", "uniform", "nonuniform"])
@pytest.mark.parametrize("relative", [True, False])
def test_the_held_out_row_changes_no_mask_embedding_or_design(known, leave, sampling, relative):
    held = 4
    errors = np.array(known.values)
    errors[held] = np.random.default_rng(0).random(errors.shape[1])
    how = {"leave": leave, "sampling": sampling, "relative_to_chance": relative}
    one, other = (dict(leave_one_out(table, **how))[held] for table in (known, replace(known, values=errors)))
    np.testing.assert_array_equal(one.estimate, other.estimate)
    np.testing.assert_array_equal(one.configuration_embeddings, other.configuration_embeddings)
    assert one.shrinkage == other.shrinkage
    task = new_task(known, held)
    for method in METHODS:
        first = [strategy(method, learned, task, 4, seed=1).next({}, 4) for learned in (one, other)]
        assert first[0] == first[1]


def test_a_family_is_held_out_together_with_all_that_shares_its_data(known):
    siblings = regrouped(
        known, group=("a", "b", *known.families[2:]), fingerprint=("t", "t", *known.tasks[2:])
    )
    labels = held_together(siblings, "family")
    for i in range(12):
        for j in range(12):
            assert (labels[i] == labels[j]) == (
                {i, j} <= {0, 1} or siblings.families[i] == siblings.families[j]
            )
    assert len(set(held_together(known, "row"))) == 12
    for i, learned in leave_one_out(siblings):
        assert len(learned.estimate) == (labels != labels[i]).sum()


def test_a_row_learns_only_from_those_that_teach_it(known):
    teaches = np.zeros((12, 12), dtype=bool)
    teaches[0, 5:8] = teaches[1, 9] = True
    found = dict(leave_one_out(known, teaches=teaches, leave="row", relative_to_chance=False))
    assert set(found) == {0, 1}
    np.testing.assert_array_equal(found[0].estimate, known.values[5:8])
    np.testing.assert_array_equal(found[1].estimate, known.values[9:10])


def test_masks_differ_between_splits_and_seeds_but_not_between_runs(known):
    for kind in ("uniform", "nonuniform"):
        one, again, seed = (dict(leave_one_out(known, leave="row", sampling=kind, seed=s)) for s in (0, 0, 1))
        np.testing.assert_array_equal(one[3].observed, again[3].observed)
        assert (one[3].observed != one[4].observed).any()
        assert (one[3].observed != seed[3].observed).any()
        assert 0.1 < one[3].observed.mean() < 0.3


def test_measurements_keep_the_cap_and_the_metrics_too(known):
    cap = float(np.quantile(known.memory, 0.3))
    found = evaluate(known, settings=("II", "IV"), methods=("ed-mf", "random-mf"), counts=(3, 200), cap=cap)
    for i in range(12):
        fits = (known.memory[i] <= cap).sum()
        measured = found.values[:, :, :, 0, i, found.metrics.index("measured")]
        if not fits:
            assert np.isnan(measured).all()
            continue
        assert (measured[..., 0] == min(3, fits)).all()
        assert (measured[..., 1] == fits).all()
        used = found.values[:, :, 1, 0, i, found.metrics.index("memory_used")]
        np.testing.assert_allclose(used, 1.0)
        assert (found.values[:, :, 1, 0, i, found.metrics.index("hyperdiff")] < 1e-12).all()
    with pytest.raises(BudgetError, match="below every footprint"):
        evaluate(known, settings=("II",), cap=1.0)


def test_measuring_nothing_is_predicting_the_means_of_the_training_rows(known):
    found = evaluate(known, methods=("zero",), counts=(0,), leave="row")
    for i in range(12):
        multiples = np.delete(known.values / known.chance[:, None], i, axis=0)
        mean = np.clip(known.chance[i] * multiples.mean(axis=0), 0, 1)
        error = np.linalg.norm(mean - known.values[i]) / np.linalg.norm(known.values[i])
        assert found.of("relative_error", "I", "zero", 0)[i] == pytest.approx(error)


def test_seeds_change_only_what_is_drawn(known):
    found = evaluate(
        known, settings=("I", "III"), methods=("ed-mf", "random-mf", "bo-mf"), counts=(4,), seeds=(0, 1)
    )
    hyperdiff = found.values[
        ..., found.metrics.index("hyperdiff")
    ]  # [settings, methods, counts, seeds, rows]
    same = (hyperdiff[:, :, 0, 0] == hyperdiff[:, :, 0, 1]).all(axis=-1)
    assert same.tolist() == [[True, False, False], [False, False, False]]
    alone = evaluate(known, settings=("I",), methods=("ed-mf",), counts=(4,), seeds=(1,))
    np.testing.assert_array_equal(alone.values[0, 0, 0, 0], found.values[0, 0, 0, 1])


def test_results_are_records_of_rows_and_of_means(known):
    found = evaluate(known, methods=("ed-mf", "random-mf"), counts=(1, 3), seeds=(0, 1))
    rows, summary = found.rows(), found.summary()
    assert len(rows) == 2 * 2 * 2 * 12
    assert len(summary) == 4
    mine = [r["regret"] for r in rows if r["method"] == "random-mf" and r["measurements"] == 3]
    families = {}
    for record in (r for r in rows if r["method"] == "random-mf" and r["measurements"] == 3):
        families.setdefault(record["family"], []).append(record["regret"])
    mean = np.mean([np.mean(values) for values in families.values()])
    record = next(r for r in summary if r["method"] == "random-mf" and r["measurements"] == 3)
    assert record["regret"] == pytest.approx(mean)
    assert record["regret_low"] <= mean <= record["regret_high"]
    assert len(mine) == 24


def test_wrong_names_and_poor_tables_are_one_line(known):
    for wrong in ({"settings": ()}, {"methods": ()}, {"counts": ()}):
        with pytest.raises(TableError, match="needs a setting, a method and a number"):
            evaluate(known, **wrong)
    for share in (0.0, 1.5):
        with pytest.raises(TableError, match="share of the table"):
            evaluate(known, settings=("III",), share=share)
    with pytest.raises(TableError, match="no setting 'VII'; there are I, II"):
        evaluate(known, settings=("VII",))
    with pytest.raises(TableError, match="no method 'best'"):
        evaluate(known, methods=("best",))
    with pytest.raises(TableError, match="0 or more"):
        evaluate(known, counts=(-1,))
    with pytest.raises(Lacking, match="lacks rows: it has 2 at"):
        evaluate(known.take([0, 1]))
    with pytest.raises(Lacking, match="second family"):
        evaluate(regrouped(known, group=("one",) * 12))
    with pytest.raises(TableError, match="'family' or 'row'"):
        evaluate(known, leave="none")  # type: ignore[arg-type]


def test_the_bootstrap_draws_families_and_weighs_them_equally():
    families = ["a"] * 50 + ["b"] * 2 + ["c"]
    values = np.array([0.1] * 50 + [0.4, np.nan] + [0.7])
    found = family_mean(values, families)
    assert found.mean == pytest.approx(0.4)
    assert 0.1 - 1e-9 <= found.low < found.mean < found.high <= 0.7 + 1e-9
    assert family_mean([0.1, 0.3], ["a", "a"]).high == np.inf
    assert np.isnan(family_mean([np.nan], ["a"]).mean)
    assert str(family_ratio([1, 2], [2, 4], ["a", "b"])) == "0.5 [0.5, 0.5]"


def test_bootstrap_intervals_hold_the_mean_about_as_often_as_they_say():
    rng = np.random.default_rng(0)
    held = 0
    for trial in range(200):
        values = np.repeat(rng.normal(size=30), 3) + 0.1 * rng.normal(size=90)
        found = family_mean(values, [str(i // 3) for i in range(90)], draws=500, seed=trial)
        held += found.low <= 0 <= found.high
    assert 0.88 <= held / 200 <= 0.99


def test_a_slice_is_one_way_of_training_whatever_the_resolution(known):
    chosen = largest_slice(TABLE)
    assert {replace(m.recipe, resolution=0).to_json() for m in chosen} == {
        replace(chosen[0].recipe, resolution=0).to_json()
    }
    assert len({m.recipe.resolution for m in chosen}) == 2
    nearest = largest_slice(TABLE, {"rounding": "nearest"})
    assert {str(m.recipe.rounding) for m in nearest} == {"nearest"}
    assert {m.recipe.learning_rate for m in largest_slice(TABLE, {"learning_rate": "1e-2"})} == {0.01}
    with pytest.raises(Lacking, match="lacks measurements with epochs=7"):
        largest_slice(TABLE, {"epochs": "7"})
    with pytest.raises(TableError, match="no field 'format'"):
        largest_slice(TABLE, {"format": "7"})
    assert known.values.shape == (12, 99)
    assert known.labels[0] == "1-3-1/1-6-7"


def test_rows_of_several_recipes_are_told_apart_by_what_differs():
    rates = [m for m in TABLE if m.task == "synthetic-01" and str(m.recipe.rounding) == "stochastic"]
    rates = [m for m in rates if m.recipe.network == "resnet18" and m.recipe.epochs == 10]
    names = part_of(rates).names
    assert names == tuple(f"synthetic-01 learning_rate={rate}" for rate in (0.001, 0.01, 0.0001)) or set(
        names
    ) == {f"synthetic-01 learning_rate={rate}" for rate in (0.001, 0.01, 0.0001)}


def test_one_seed_is_taken_and_sparse_rows_are_left_out():
    chosen = largest_slice(TABLE)
    sparse = [m for k, m in enumerate(chosen) if m.task != "synthetic-05" or k % 5 == 0]
    assert "synthetic-05" not in part_of(sparse).names
    other = known_part(error_matrix(chosen, seed=1))
    assert other.names == tuple(f"synthetic-0{i}" for i in range(1, 5))
    with pytest.raises(Lacking, match="low precision"):
        error_matrix([])
    common = part_of(sparse, every_row=True)
    assert len(common.names) == 12
    assert len(common.columns) < 99


def test_a_campaign_that_still_runs_is_judged_on_what_it_knows():
    rng = np.random.default_rng(0)
    few = synthetic_table(7, seed=3, further=False)
    running = [m for m in few if rng.random() < 0.5]
    known = part_of(running)
    assert known.values.shape == (7, 99)
    assert known.share == pytest.approx(0.5, abs=0.05)
    truth = part_of(few)
    np.testing.assert_array_equal(known.values[known.observed], truth.values[known.observed])
    np.testing.assert_allclose(known.memory, truth.memory, rtol=1e-5)  # scaled from a measured one
    measured = evaluate(known, methods=("ed-mf",), counts=(200,)).of("measured", "I", "ed-mf", 200)
    np.testing.assert_array_equal(measured, known.observed.sum(axis=1))


def test_the_block_is_all_known_and_large():
    rng = np.random.default_rng(0)
    for _ in range(50):
        observed = rng.random((8, 6)) < 0.7
        i, j = complete_block(observed)
        assert observed[np.ix_(i, j)].all()
        best = max(((observed[:, p].all(axis=1).sum()) * p.sum() for p in observed if p.any()), default=0)
        assert len(i) * len(j) == best


def test_columns_that_differ_in_format_b_pool_to_those_of_format_a(known):
    pooled = merged(known)
    assert pooled.values.shape == (12, 11)
    for j, column in enumerate(pooled.configurations):
        same = [k for k, c in enumerate(known.configurations) if c.format_a == column.format_a]
        np.testing.assert_allclose(pooled.values[:, j], known.values[:, same].mean(axis=1))
        assert pooled.memory[0, j] == known.memory[0, same].min()


def test_a_part_may_have_any_labels():
    E = np.array([[0.1, 0.2, np.nan], [0.3, 0.4, 0.5]])
    rows = [Row("a", "", "a"), Row("b", "", "b")]
    known = known_part(ErrorMatrix(E, rows, ["x", "y", "z"], np.ones((2, 3))))
    assert known.names == ("a", "b")
    assert known.columns == ("x", "y")
    with pytest.raises(Lacking, match="configurations"):
        _ = known.configurations
    with pytest.raises(TableError, match="memory has the shape \\(2, 2\\); it must be \\(2, 3\\)"):
        ErrorMatrix(E, rows, ["x", "y", "z"], np.ones((2, 2)))
    with pytest.raises(TableError, match="positive"):
        ErrorMatrix(E, rows, ["x", "y", "z"], np.zeros((2, 3)))


@pytest.mark.case("AD")
@pytest.mark.parametrize("shape", [(8, 6), (12, 12), (20, 20), (20, 40), (15, 99)])
@pytest.mark.parametrize("seed", range(4))
def test_a_matrix_of_which_half_is_missing_is_evaluated(shape, seed):
    draw = np.random.default_rng([seed, *shape])
    E = np.outer(draw.uniform(0.2, 0.8, shape[0]), draw.uniform(0.3, 1, shape[1]))
    E[draw.random(shape) < 0.5] = np.nan
    rows = [Row(f"t{i}", "", f"t{i}") for i in range(shape[0])]
    known = known_part(ErrorMatrix(E, rows, [f"c{j}" for j in range(shape[1])], np.ones(shape))).require()
    assert known.observed.sum() >= np.isfinite(E).sum() / 2


def test_a_matrix_with_gaps_is_known_as_the_table_it_came_from():
    rng = np.random.default_rng(0)
    there = [m for m in largest_slice(TABLE) if rng.random() < 0.75]
    expected = part_of(there)
    assert not expected.observed.all()
    again = known_part(expected)
    assert again.names == expected.names
    np.testing.assert_array_equal(again.values, expected.values)
    scores = evaluate(expected, methods=("ed-mf", "zero"), counts=(4,))
    assert scores.interval("relative_error", "I", "ed-mf", 4).mean < 0.5


def test_seeds_are_averaged_by_their_labels_and_one_may_be_taken():
    chosen = largest_slice(TABLE)
    both = error_matrix(chosen)
    one, other = by_seed(chosen)
    assert one.share == 1
    assert other.names == tuple(f"synthetic-0{i}" for i in range(1, 5))
    np.testing.assert_allclose(averaged([one, other]).values, both.values)
    np.testing.assert_allclose(both.values[:4], (one.values[:4] + other.values) / 2)
    np.testing.assert_array_equal(both.values[4:], one.values[4:])


def test_conditions_are_read():
    assert parse_where(["rounding=nearest", "epochs=10"]) == {"rounding": "nearest", "epochs": "10"}
    assert parse_where([]) == {}
    with pytest.raises(PepppError, match="field=value"):
        parse_where(["nearest"])


def test_the_synthetic_table_is_named_so_and_has_the_papers_shape():
    table = synthetic_table(87, further=False)
    known = part_of(table)
    assert known.values.shape == (87, 99)
    assert all("synthetic" in m.task and m.provenance["synthetic"] for m in table)
    assert (known.values <= known.chance[:, None] + 0.2).all()
    squares = np.linalg.svd(known.values, compute_uv=False) ** 2
    assert squares[0] / squares.sum() > 0.95
    assert squares[3:].sum() > 0  # nearly, not exactly, of low rank
