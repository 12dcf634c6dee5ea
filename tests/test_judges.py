"""Picks judged by other runs than those they were picked for."""

from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from peppp.cli import app
from peppp.errors import TableError
from peppp.evaluate.evaluation import evaluate
from peppp.evaluate.judges import judge, repeated
from peppp.learn.completion import learn
from peppp.paper.synthetic import synthetic_table
from peppp.table.csv import write_table
from peppp.table.matrix import ErrorMatrix, Lacking, Row, averaged
from peppp.table.measured import error_matrix
from peppp.table.slices import by_seed, known_part, largest_slice, one_run

ONE = largest_slice(synthetic_table(8, further=False))


def seeded(seed, shift):
    return [replace(m, seed=seed, test_error=min(1.0, m.test_error + shift)) for m in ONE]


def test_other_seeds_are_averaged_and_the_main_one_is_left_out():
    measurements = [*ONE, *seeded(7, 0.02)[:-3], *seeded(9, 0.04)[:-3]]
    main, *others = by_seed(measurements)
    known = known_part(main)
    found = np.array([judge(known, "seed", others)(i, {}).errors for i in range(len(known.rows))])
    missing = {(m.fingerprint, str(m.configuration)) for m in ONE[-3:]}
    for i, task in enumerate(known.tasks):
        for j, column in enumerate(known.labels):
            if (task, column) in missing:
                assert np.isnan(found[i, j])
            else:
                errors = [min(1.0, known.values[i, j] + shift) for shift in (0.02, 0.04)]
                assert found[i, j] == pytest.approx(np.mean(errors))


def by_hand(known, i, told, same):
    """The mean of the runs that were not told, of the columns for which ``same`` holds."""
    found = []
    for c in known.configurations:
        runs = [
            known.values[i, k]
            for k, other in enumerate(known.configurations)
            if same(c, other) and k not in told
        ]
        found.append(np.mean(runs) if runs else np.nan)
    return found


SAME = {
    "stochastic": lambda a, b: a.format_a == b.format_a,
    "nearest": lambda a, b: (a.format_a, a.format_b.mantissa_bits) == (b.format_a, b.format_b.mantissa_bits),
    "values=nearest,errors=nearest,gradient=stochastic,states=nearest": lambda a, b: a == b,
}


@pytest.mark.parametrize("rounding", SAME)
def test_noise_free_errors_are_means_of_the_runs_that_were_not_told(rounding):
    known = error_matrix(replace(m, recipe=replace(m.recipe, rounding=rounding)) for m in ONE)
    free = judge(known, "noise-free")
    for told in ({}, {3: 0.5}, dict.fromkeys(range(9), 0.5)):
        for i in (0, len(known.rows) - 1):
            np.testing.assert_allclose(free(i, told).errors, by_hand(known, i, told, SAME[rounding]))


def test_a_told_run_leaves_the_other_seeds_of_its_column_to_judge_by():
    measurements = [*ONE, *seeded(7, 0.02), *seeded(9, 0.04)[:-3]]
    known, seeds = error_matrix(measurements), by_seed(measurements)
    told = one_run(seeds, known)
    np.testing.assert_array_equal(told.values, seeds[0].values)
    free = judge(known, "noise-free", seen=told)
    i = 1
    for j, c in enumerate(known.configurations):
        runs = [
            m.test_error
            for m in measurements
            if m.fingerprint == known.tasks[i] and m.configuration.format_a == c.format_a
        ]
        runs.remove(seeds[0].values[i, j])
        assert free(i, {j: 0.123}).errors[j] == pytest.approx(np.mean(runs))
        assert free(i, {j: 0.123}).runs[j] == len(runs)


def test_columns_that_are_no_formats_are_judged_by_their_own_further_runs():
    row = Row("digits", "", "digits")
    one, other = (
        ErrorMatrix([[0.2, 0.6]], [row], ["amp", "fp8"]),
        ErrorMatrix([[0.4, 0.6]], [row], ["amp", "fp8"]),
    )
    known = averaged([one, other])
    free = judge(known, "noise-free", seen=one_run([one, other], known))
    np.testing.assert_allclose(free(0, {0: 0.2}).errors, [0.4, 0.6])
    single = judge(one, "noise-free")
    np.testing.assert_array_equal(single(0, {0: 0.2}).errors, [np.nan, 0.6])
    assert (repeated(known), repeated(one)) == (True, False)


def test_a_pick_that_nothing_judges_has_no_regret():
    rows = [Row(name, "", name) for name in "abcd"]
    known = ErrorMatrix(np.tile([0.6, 0.2, 0.4], (4, 1)), rows, ["x", "y", "z"], np.tile([1.0, 2, 3], (4, 1)))
    found = evaluate(known, methods=("zero",), counts=(0,), judge=judge(known, "noise-free"))
    assert (found.of("regret", "I", "zero", 0) == 0).all()
    found = evaluate(known, methods=("ed-mf",), counts=(3,), judge=judge(known, "noise-free"))
    assert np.isnan(found.of("regret", "I", "ed-mf", 3)).all()
    assert found.judged_share == 0
    assert (found.of("hyperdiff", "I", "ed-mf", 3) == 0).all()  # frontiers are those of the measured errors


def test_a_judge_decides_the_regret_and_changes_no_measurement():
    known = error_matrix(ONE)
    own = evaluate(known, methods=("ed-mf", "zero"), counts=(3,))
    same = evaluate(known, methods=("ed-mf", "zero"), counts=(3,), judge=known.values)
    np.testing.assert_array_equal(own.values, same.values)
    # Where the judge calls all errors equal, nothing can be regretted.
    flat = evaluate(known, methods=("ed-mf", "zero"), counts=(3,), judge=np.full(known.values.shape, 0.5))
    assert flat.interval("regret", "I", "ed-mf", 3).mean == 0
    # By another seed: the regret of the pick there, by hand for no measurement at all.
    other = np.random.default_rng(0).permuted(known.values, axis=1)
    found = evaluate(known, methods=("zero",), counts=(0,), leave="row", judge=other)
    for i in range(len(known.names)):
        others = [k for k in range(len(known.names)) if k != i]
        mean = learn(known, others, relative_to_chance=True).estimate.mean(axis=0)
        by_hand = other[i, np.clip(known.chance[i] * mean, 0, 1).argmin()] - other[i].min()
        assert found.of("regret", "I", "zero", 0)[i] == pytest.approx(by_hand, abs=1e-6)


def test_what_cannot_judge_is_refused(tmp_path):
    known = error_matrix(ONE)
    with pytest.raises(Lacking, match="lacks another seed"):
        judge(known, "seed", [])
    with pytest.raises(TableError, match="judged by same, seed, noise-free"):
        judge(known, "jury")
    write_table(tmp_path / "two.csv.gz", [*ONE, *seeded(1, 0.0)[:-3]])
    line = ["evaluate", str(tmp_path / "two.csv.gz"), "--method", "zero", "--measurements", "1", "--judge"]
    done = CliRunner().invoke(app, [*line, "seed"], catch_exceptions=False)
    assert "judged by seed" in done.stdout.replace("\n", " ")
