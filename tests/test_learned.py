"""What a pick learns from a text table is kept, and read as it was selected, until anything changes."""

import json
from dataclasses import replace

import numpy as np
import pytest

from peppp.advise import caution, learned
from peppp.advise.caution import SHIPPED, Asked, digest_of, key_of
from peppp.advise.choices import CHOICES
from peppp.advise.learned import learned_from
from peppp.errors import StoreError, TableError
from peppp.formats import FP32_CONFIGURATION, paper_grid
from peppp.learn.methods import DEFAULT_METHOD
from peppp.records import Footprint, Measurement, Outcome, Recipe
from peppp.table.csv import write_table
from peppp.table.store.store import Store
from peppp.tasks.dataset import blank_images

IMAGES = blank_images(10, 32, 100)


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("PEPPP_CACHE", str(tmp_path / "cache"))


def read(table=None, dataset=IMAGES, choices="paper", rates=(), method=DEFAULT_METHOD, **fields):
    recipe = replace(Recipe(), network="resnet8", **fields)
    return learned_from(table, dataset, recipe, choices, rates, method)


def measurement(task, configuration, error, **fields):
    return Measurement(
        f"task{task}", f"f{task}", f"g{task}", configuration, replace(Recipe(), resolution=16, **fields),
        0, 0.9, error, error, (), Footprint(1, 1, 1, {}), Outcome.FINISHED, 2.0,
    )  # fmt: skip


def measurements(tasks=4, **fields):
    draw = np.random.default_rng(0)
    return [
        measurement(task, configuration, float(draw.uniform(0.1, 0.9)), **fields)
        for task in range(tasks)
        for configuration in (*paper_grid()[:12], FP32_CONFIGURATION)
    ]


def refuse(*_, **__):
    raise AssertionError("the table is read")


def same(a, b):
    arrays = ("values", "memory", "counts", "squares")
    recipes_a, recipes_b = ([row.recipe for row in matrix.rows] for matrix in (a, b))
    arrays_a, arrays_b = ([getattr(matrix, name) for name in arrays] for matrix in (a, b))
    return (a.rows, a.columns, recipes_a) == (b.rows, b.columns, recipes_b) and all(
        np.array_equal(x, y, equal_nan=True) if x is not None and y is not None else x is y
        for x, y in zip(arrays_a, arrays_b, strict=True)
    )


@pytest.mark.parametrize("choices", CHOICES)
@pytest.mark.parametrize("method", [DEFAULT_METHOD, "ed-mf"])
def test_the_second_time_gives_the_same_without_reading_the_table(choices, method, monkeypatch):
    first = read(choices=choices, method=method)
    with monkeypatch.context() as patch:
        patch.setattr(learned, "alike", refuse)  # the table is not read
        second = read(choices=choices, method=method)
    assert same(first.errors, second.errors)
    assert (first.notes, first.chance_error, first.everything) == (
        second.notes, second.chance_error, second.everything,
    )  # fmt: skip
    third = read(choices=choices, method=method)
    assert same(first.all_rows(), third.all_rows())
    assert digest_of(third.all_rows()) == third.everything
    assert len(third.measurements()) == len(first.measurements()) > 0


def test_columns_at_learning_rates_are_read_again_as_they_were():
    first, second = (read(choices="paper", rates=(0.01, 0.001)) for _ in range(2))
    assert same(first.errors, second.errors)
    assert str(first.errors.columns[0]).endswith(" at 0.01")


def test_a_changed_table_another_recipe_and_other_data_are_read_anew(tmp_path):
    path, before = tmp_path / "own.csv", measurements()
    write_table(path, before)
    assert read(path).errors.values[0, 0] == before[0].test_error
    write_table(path, [replace(before[0], test_error=0.5), *before[1:]])
    assert read(path).errors.values[0, 0] == 0.5
    assert len(read(path).errors.rows) == 4
    assert (
        len(read(path, replace(IMAGES, fingerprint="f0")).errors.rows) == 3
    )  # a task does not learn from itself
    assert len(read(path, replace(IMAGES, former="f0")).errors.rows) == 3
    write_table(path, before + measurements(3, rounding="nearest"))
    assert len(read(path, rounding="nearest").errors.rows) == 3
    assert len(read(path).errors.rows) == 4


def test_a_store_is_read_each_time(tmp_path):
    path, before = tmp_path / "runs.db", measurements()
    with Store.open(path) as store:
        for one in before[:-1]:
            store.add(one)
    assert np.isnan(read(path).errors.values).sum() == 1
    with Store.open(path) as store:
        store.add(before[-1])
    assert not np.isnan(read(path).errors.values).any()
    assert not (tmp_path / "cache" / "learned").exists()


def test_a_table_that_cannot_be_read_says_so_as_ever(tmp_path):
    with pytest.raises(StoreError, match="no such file"):
        read(tmp_path / "none.csv")
    (tmp_path / "odd.csv").write_text("a,b\n1,2\n")
    with pytest.raises(TableError, match="line 1: not the header"):
        read(tmp_path / "odd.csv")


@pytest.mark.parametrize("choices", ["runnable", "paper"])
def test_default_picks_from_the_shipped_table_need_no_cross_validation(choices, monkeypatch):
    """If this fails, the table or what a pick reads of it has changed: run benchmarks/transfers.py."""
    monkeypatch.setattr(caution, "cross_validated", None)
    found = read(choices=choices)
    recipe = replace(Recipe(), network="mine", resolution=32, learning_rate=0.5)
    for admitted in (2, 9, 25, len(found.errors.columns)):
        fits = np.arange(len(found.errors.columns)) < admitted
        asked = Asked.of(DEFAULT_METHOD, 6, 3, fits)
        lines = caution.transfers(found.errors, found.all_rows, recipe, asked, found.everything)
        assert [line.field for line in lines] == ["network", "learning_rate", "resolution"]
        assert all(0 <= line.across < 0.2 and line.tasks >= 5 for line in lines)


@pytest.mark.slow
def test_what_ships_is_what_a_cross_validation_gives():
    known = json.loads(SHIPPED.read_text())
    for choices, field, admitted in (("paper", "resolution", None), ("runnable", "network", 30)):
        found = read(choices=choices)
        asked = Asked(DEFAULT_METHOD, 6, 3, admitted)
        again = caution.cross_validated(found.all_rows(), field, asked)
        assert again == pytest.approx(known[key_of(found.everything, field, asked)], abs=1e-6)
