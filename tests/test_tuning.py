"""Precision and learning rate together (section 4.3): columns are pairs, and the pick is one."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peppp import Advisor, Configuration, Recipe, pick
from peppp.errors import FormatError, TableError
from peppp.precisions.known import PRECISIONS
from peppp.records import Footprint, Measurement, Outcome
from peppp.table.csv import write_table
from peppp.table.labels import TunedConfiguration, parse_label, parse_rates
from peppp.table.measured import error_matrix

A, B = Configuration.parse("1-4-3/1-6-7"), Configuration.parse("1-5-2/1-6-7")
ERRORS = {(A, 0.1): 0.2, (A, 0.001): 0.6, (B, 0.1): 0.4, (B, 0.001): 0.5}


def measured(task, configuration, rate, error, seed=0):
    recipe = Recipe(learning_rate=rate)
    return Measurement(
        task, task, task, configuration, recipe, seed, 0.9, error, error, (), Footprint(1, 1, 1, {}),
        Outcome.FINISHED, 1.0,
    )  # fmt: skip


TABLE = [
    measured(task, configuration, rate, error * hardness)
    for task, hardness in (("easy", 0.5), ("middle", 0.8), ("hard", 1.0))
    for (configuration, rate), error in ERRORS.items()
]


def test_columns_are_configurations_at_each_rate():
    matrix = error_matrix(TABLE, learning_rates=(0.001, 0.1))
    assert [str(c) for c in matrix.columns] == [
        "1-4-3/1-6-7 at 0.001", "1-5-2/1-6-7 at 0.001", "1-4-3/1-6-7 at 0.1", "1-5-2/1-6-7 at 0.1",
    ]  # fmt: skip
    assert [row.task for row in matrix.rows] == ["easy", "hard", "middle"]
    for (configuration, rate), error in ERRORS.items():
        column = matrix.columns.index(TunedConfiguration(configuration, rate))
        np.testing.assert_allclose(matrix.values[:, column], np.array([0.5, 1.0, 0.8]) * error)


def test_repeats_are_averaged_and_gaps_stay_gaps():
    table = [*TABLE[:-1], measured("easy", A, 0.1, 0.3, seed=1)]
    matrix = error_matrix(table, learning_rates=(0.1, 0.001))
    column = matrix.columns.index(TunedConfiguration(A, 0.1))
    assert matrix.values[0, column] == pytest.approx((0.1 + 0.3) / 2)
    assert (~matrix.observed).sum() == 1


def test_rates_that_the_table_lacks_are_named():
    with pytest.raises(TableError, match=r"no measurement at the learning rate 0.5; it has 0.001, 0.1"):
        error_matrix(TABLE, learning_rates=(0.1, 0.5))
    for text in ("fast", "0.1,", "-1", "inf"):
        with pytest.raises(FormatError, match="not a learning rate"):
            parse_rates(text)


def test_a_pair_is_no_plain_configuration():
    pair = TunedConfiguration(A, 0.1)
    assert pair != A
    assert pair.configuration == A
    assert {pair: 1}[replace(pair)] == 1


@given(st.floats(0, 1e6), st.sampled_from([A, B, Configuration.parse("mx-1-4-3/32/1-6-7")]))
def test_every_label_is_read_back_from_its_text(rate, configuration):
    for label in (
        configuration,
        TunedConfiguration(configuration, rate),
        PRECISIONS["bf16"],
        "cfg17",
        "lr 3 at 2",
    ):
        assert parse_label(str(label)) == label
    assert TunedConfiguration.parse(str(TunedConfiguration(configuration, rate))).learning_rate == rate


@pytest.mark.parametrize(
    "text", ["1-4-1/1-6-7", "1-4-1 at 0.1", "1-4-1/1-6-7 at fast", "1-4-1/1-6-7 at 0.1,1"]
)
def test_a_text_that_is_no_pair_is_refused(text):
    with pytest.raises(FormatError):
        TunedConfiguration.parse(text)


def test_what_is_asked_for_can_be_told_by_its_text():
    matrix = error_matrix(TABLE, learning_rates=(0.1, 0.001))
    advisor = Advisor(
        matrix,
        {c: Footprint(1, 1, 1, {}) for c in matrix.columns},
        10,
        measurements=1,
        rank=1,
        method="ed-mf",
    )
    asked = advisor.ask()
    advisor.tell(str(asked), 0.4)
    assert dict(advisor.observed) == {asked: 0.4}


def test_the_pick_is_a_pair_trained_at_its_own_rate(tmp_path):
    table, store = tmp_path / "table.csv", tmp_path / "runs.db"
    write_table(table, TABLE)
    recipe = Recipe(epochs=1)
    picked = pick(
        "digits", budget="1GB", measurements=2, table=table, recipe=recipe, learning_rates=(0.1, 0.001),
        rank=2, store=store, resolution=8, method="ed-mf",
    )  # fmt: skip
    assert isinstance(picked.configuration, TunedConfiguration)
    assert " at " in str(picked)
    assert {c.learning_rate for c in picked.measured} <= {0.1, 0.001}
    from peppp.table.select import read_measurements

    stored = {(m.configuration, m.recipe.learning_rate): m.test_error for m in read_measurements(store)}
    assert {(c.configuration, c.learning_rate): e for c, e in picked.measured.items()} == stored
    assert picked.to_dict()["configuration"].endswith(f"at {picked.configuration.learning_rate:g}")
    page = tmp_path / "page.html"
    picked.report(page)
    assert " at 0." in page.read_text()
