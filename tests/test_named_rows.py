"""Measurements of precisions by name: kept, merged, learned from and picked like those of pairs."""

import json
from dataclasses import replace

import numpy as np
import pytest
from tests.helpers import answer, measured, peppp, refused

from peppp import pick
from peppp.campaign.cells import Cell
from peppp.errors import TableError
from peppp.evaluate.against_fp32 import differences, of_format_b
from peppp.formats import FP32_CONFIGURATION
from peppp.precisions.known import MEASURED, PRECISIONS, parse_precision
from peppp.records import Recipe
from peppp.table.csv import read_table, write_table
from peppp.table.labels import parse_label
from peppp.table.matrices import read_errors
from peppp.table.measured import error_matrix
from peppp.table.merge import merge
from peppp.table.slices import largest_slice
from peppp.table.store.store import Store
from peppp.tasks.readers import load
from peppp.training.measurement import measure
from peppp.training.sizes import footprint

COSTS = {
    "fp32": 0.0,
    "amp-bf16": 0.002,
    "bf16": 0.2,
    "fp32-sgd8bit": 0.001,
    "1-4-1/1-6-7": 0.1,
    "1-4-4/1-6-7": 0.01,
}
RECIPE = Recipe(network="resnet8-w8", epochs=1, min_steps=20, resolution=8)


def table(tasks=12):
    """Tasks of a level of their own, on which each precision costs what it costs, more or less."""
    rng = np.random.default_rng(0)
    harm = rng.uniform(0.5, 1.5, tasks)
    return [
        replace(
            measured(
                f"t{i}",
                "1-4-1/1-6-7",
                float(np.clip(0.1 + 0.02 * i + cost * harm[i] + rng.normal(0, 0.004), 0, 1)),
            ),
            configuration=parse_precision(name),
            recipe=RECIPE,
            seed=seed,
        )
        for i in range(tasks)
        for seed in (0, 1)  # two runs tell noise from what a precision costs
        for name, cost in COSTS.items()
    ]


def test_rows_survive_tables_stores_and_merging(tmp_path):
    rows = table(2)
    path, store = tmp_path / "t.csv.gz", tmp_path / "t.db"
    write_table(path, rows)
    assert sorted(read_table(path), key=lambda m: m.key) == sorted(rows, key=lambda m: m.key)
    with Store.open(store) as kept:
        for m in rows:
            kept.add(m)
        assert sorted(kept.measurements(), key=lambda m: m.key) == sorted(rows, key=lambda m: m.key)
    assert "24 measurements" in peppp("table", "validate", path).stdout
    again = merge(rows[:7], rows[5:])
    assert (list(again.measurements), again.same) == (rows, 2)


def test_they_are_columns_only_where_asked_for():
    rows = table()
    assert [str(c) for c in error_matrix(rows).columns] == ["1-4-1/1-6-7", "1-4-4/1-6-7"]
    every = error_matrix(rows, include_named=True, include_reference=True)
    assert {str(c) for c in every.columns} == {*COSTS} - {"fp32"} | {"fp32/fp32"}
    assert all(str(m.configuration) in ("1-4-1/1-6-7", "1-4-4/1-6-7") for m in largest_slice(rows))
    assert every.columns[list(map(str, every.columns)).index("bf16")] is PRECISIONS["bf16"]


def test_a_column_of_a_users_matrix_is_known_by_its_name(tmp_path):
    path = tmp_path / "E.csv"
    path.write_text("task,amp-bf16,mine\nt,0.1,0.2\nu,0.2,0.3\n")
    assert read_errors(path).columns == (PRECISIONS["amp-bf16"], "mine")
    assert parse_label("bf16 at 0.01").configuration is PRECISIONS["bf16"]


def test_differences_are_those_that_were_put_in():
    found = {str(d.precision): d for d in differences(table())}
    assert "fp32/fp32" not in found
    for name, cost in COSTS.items():
        if name != "fp32":
            d = found[name]
            assert d.mean.mean == pytest.approx(cost, abs=0.03)
            assert d.mean.low <= d.mean.mean <= d.mean.high
            assert (d.tasks, d.runs, d.network) == (12, 24, "resnet8-w8")


def test_a_difference_may_be_to_another_precision_than_fp32():
    found = {str(d.precision): d for d in differences(table(), PRECISIONS["amp-bf16"])}
    assert "amp-bf16" not in found
    cost = COSTS["bf16"] - COSTS["amp-bf16"]
    assert found["bf16"].mean.mean == pytest.approx(cost, abs=0.03)
    to_fp32 = {str(d.precision): d for d in differences(table())}
    assert found["fp32/fp32"].mean.mean == pytest.approx(-to_fp32["amp-bf16"].mean.mean)


def test_what_a_format_b_costs_is_what_was_put_in():
    """1-6-7 costs 0.1 under nearest rounding and nothing under stochastic; runs of a cell are averaged."""
    rows = []
    for rounding, cost in (("nearest", 0.1), ("stochastic", 0.0)):
        for task in range(6):
            for a in ("1-4-1", "1-5-2"):
                for b, more in (("1-6-7", cost), ("1-8-11", 0.0)):
                    for seed, noise in ((0, 0.01), (1, -0.01)):
                        base = 0.2 + 0.02 * task + 0.05 * (a == "1-4-1")
                        m = table(1)[0]
                        rows.append(
                            replace(
                                m,
                                task=f"t{task}", fingerprint=f"f{task}", group=f"g{task // 2}", seed=seed,
                                configuration=parse_precision(f"{a}/{b}"),
                                recipe=replace(m.recipe, rounding=rounding),
                                test_error=base + more + noise,
                            )
                        )  # fmt: skip
    found = of_format_b(rows, RECIPE.network)
    assert [(one.rounding, one.format_b, one.cells) for one in found] == [
        ("nearest", "1-6-7", 12),
        ("stochastic", "1-6-7", 12),
    ]
    assert found[0].mean.mean == pytest.approx(0.1)
    assert found[1].mean.mean == pytest.approx(0.0)
    assert of_format_b(rows, "vgg11") == []


def test_pick_from_all_takes_them_as_it_takes_pairs(tmp_path):
    path = tmp_path / "t.csv.gz"
    write_table(path, table())
    how = {"network": "resnet8-w8", "recipe": RECIPE, "table": path, "measurements": 0}
    data = "digits:01234?train=64&test=64"
    few = pick(data, budget="10MB", choices="all", **how)
    names = {str(p.configuration) for p in few.predictions}
    assert names == {*COSTS} - {"fp32"} | {"fp32/fp32"}
    by = {str(p.configuration): p for p in few.predictions}
    assert by["bf16"].error > by["amp-bf16"].error + 0.1
    # Within the tolerance the least memory is picked: states of 8 bits save nothing in so small a network.
    assert str(few.configuration) in ("amp-bf16", "fp32/fp32", "fp32-sgd8bit", "1-4-4/1-6-7")
    assert by["amp-bf16"].peak != by["fp32/fp32"].peak
    page = json.loads(few.to_json())
    assert page["configuration"] == str(few.configuration)
    (row,) = [row for row in few.page_data()["rows"] if row["configuration"] == "amp-bf16"]
    assert row["named"]
    assert row["format_a"]["mantissa_bits"] == 7
    only = pick(data, budget="10MB", choices="paper", **how)
    assert {str(p.configuration) for p in only.predictions} == {"1-4-1/1-6-7", "1-4-4/1-6-7"}
    told = pick(data, budget="10MB", choices="all", fp32_error=0.05, **how)
    assert told.measured[FP32_CONFIGURATION] == 0.05
    with pytest.raises(TableError, match="unknown choices 'most'; known: runnable, paper, all"):
        pick(data, budget="10MB", choices="most", **how)


@pytest.mark.parametrize("name", ["amp-bf16", "amp-fp16", "bf16-kahan", "nvfp4-all", "bf16-sr-sgd8bit"])
def test_a_training_is_measured_the_same_twice(name):
    data = load("digits:01234?train=96&test=64")
    runs = [measure(data, PRECISIONS[name], RECIPE, 3) for _ in range(2)]
    assert runs[0].test_error == runs[1].test_error
    assert runs[0].train_error == runs[1].train_error
    assert runs[0].footprint == footprint(data, PRECISIONS[name], runs[0].recipe)
    assert runs[0].key[1] == name


def test_footprints_of_names_are_those_of_plain_steps():
    data = load("digits:01234?train=96&test=64")
    sizes = {name: footprint(data, PRECISIONS[name], RECIPE) for name in MEASURED}
    amp, bf16, kahan = (sizes[name] for name in ("amp-bf16", "bf16", "bf16-kahan"))
    assert amp.weights == 2 * bf16.weights == 2 * kahan.weights
    assert amp.optimizer == 2 * bf16.optimizer
    assert kahan.optimizer - bf16.optimizer == bf16.weights  # what weights lack
    assert sizes["mxfp8-all"] == amp
    assert Cell("digits", "f", "g", PRECISIONS["bf16"], RECIPE, 0).key[1] == "bf16"


def test_the_command_lists_them_and_refuses_others(tmp_path):
    path, page = tmp_path / "t.csv.gz", tmp_path / "page.md"
    write_table(path, [replace(m, recipe=replace(m.recipe, network="resnet8")) for m in table()])
    listed = peppp("precisions", "--table", path).stdout
    assert "+0.2" in next(line for line in listed.splitlines() if line.startswith("bf16 "))
    assert "not measured" in next(line for line in listed.splitlines() if line.startswith("mxfp8 "))
    told = peppp("precisions", "mxfp8", "--table", path).stdout
    assert "mx-1-4-3/32@round-up" in told
    assert "12 a parameter" in told
    assert len(answer("precisions", "--table", path)) == len(PRECISIONS)
    peppp("precisions", "--table", path, "--page", page)
    text = page.read_text()
    assert all(f"`{name}`" in text for name in MEASURED)
    assert "near it: mxfp8" in refused("precisions", "mxfp9")
    assert "pair of formats" in refused("precisions", "1-4-1/1-6-7")


def test_measure_takes_names(tmp_path):
    line = ["measure", tmp_path / "n.db", "--data", "digits:01?train=64&test=64", "--network", "resnet8-w8"]
    line += ["--resolution", "8", "--epochs", "1", "--configurations", "fp32,amp-bf16+1-4-1 x 1-6-7"]
    assert "3 measured" in peppp(*line).stdout
    assert "0 measured" in peppp(*line).stdout
    assert "near it: amp-bf16" in refused(*line[:-1], "amp-bf15")
