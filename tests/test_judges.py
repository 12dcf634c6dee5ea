"""Picks judged by other runs than those they were picked for."""

from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from peppp.cli import app
from peppp.errors import TableError
from peppp.metalearn.completion import learn
from peppp.replay.judges import judge
from peppp.replay.loocv import evaluate
from peppp.replay.slices import by_seed, known_part, largest_slice
from peppp.replay.synthetic import synthetic_table
from peppp.tables import Lacking, error_matrix
from peppp.textable import write_table

ONE = largest_slice(synthetic_table(8, further=False))


def seeded(seed, shift):
    return [replace(m, seed=seed, test_error=min(1.0, m.test_error + shift)) for m in ONE]


def test_other_seeds_are_averaged_and_the_main_one_is_left_out():
    measurements = [*ONE, *seeded(7, 0.02)[:-3], *seeded(9, 0.04)[:-3]]
    main, *others = by_seed(measurements)
    known = known_part(main)
    found = judge(known, "seed", others)
    missing = {(m.fingerprint, str(m.configuration)) for m in ONE[-3:]}
    for i, task in enumerate(known.tasks):
        for j, column in enumerate(known.labels):
            if (task, column) in missing:
                assert np.isnan(found[i, j])
            else:
                errors = [min(1.0, known.values[i, j] + shift) for shift in (0.02, 0.04)]
                assert found[i, j] == pytest.approx(np.mean(errors))


def test_siblings_are_the_other_configurations_of_equal_format_a():
    known = error_matrix(ONE)
    found = judge(known, "siblings")
    for j, c in enumerate(known.configurations):
        others = [k for k, o in enumerate(known.configurations) if o.format_a == c.format_a and k != j]
        np.testing.assert_allclose(found[:, j], known.values[:, others].mean(axis=1))


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
    with pytest.raises(TableError, match="judged by same, seed, siblings"):
        judge(known, "jury")
    write_table(tmp_path / "two.csv.gz", [*ONE, *seeded(1, 0.0)[:-3]])
    line = ["evaluate", str(tmp_path / "two.csv.gz"), "--method", "zero", "--measurements", "1", "--judge"]
    done = CliRunner().invoke(app, [*line, "seed"], catch_exceptions=False)
    assert "judged by seed" in done.stdout.replace("\n", " ")
