"""``peppp evaluate`` on tables and on matrices, as its answers and its errors read."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from peppp.cli import app
from peppp.errors import PepppError
from peppp.paper.synthetic import synthetic_table
from peppp.table.csv import write_table
from peppp.table.matrices import write_matrix
from peppp.table.measured import error_matrix
from peppp.table.select import SHIPPED_TABLE


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("table") / "synthetic.csv.gz"
    write_table(path, synthetic_table(11, further=False))
    return path


def run(*arguments):
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)], catch_exceptions=False)


def test_a_table_is_evaluated_and_called_synthetic(table, tmp_path):
    line = (table, "--setting", "I,IV", "--method", "ed-mf,zero", "--measurements", "1,3", "--seeds", "2")
    done = run(*line, "--rows", tmp_path / "rows.csv", "--json")
    assert done.exit_code == 0
    answer = json.loads(done.stdout)
    assert answer["synthetic"]
    assert answer["rows"] == 11
    assert len(answer["results"]) == 2 * 2 * 2
    with open(tmp_path / "rows.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 2 * 2 * 2 * 11
    assert {row["task"] for row in rows} == {f"synthetic-{i + 1:02d}" for i in range(11)}
    text = run(*line).stdout
    assert "SYNTHETIC" in text
    assert "ed-mf" in text


def test_methods_are_compared_with_one_of_them(table):
    line = (table, "--method", "ed-mf,zero", "--measurements", "1,5", "--against", "ed-mf")
    answer = json.loads(run(*line, "--json").stdout)
    records = answer["comparison"]
    assert {(r["method"], r["measurements"]) for r in records} == {("zero", 1), ("zero", 5)}
    means = json.loads(run(*line[:-2], "--json").stdout)["results"]
    for r in records:
        one, other = (
            next(m for m in means if (m["method"], m["measurements"]) == (name, r["measurements"]))
            for name in ("zero", "ed-mf")
        )
        assert r["ratio"] == pytest.approx(one[r["metric"]] / other[r["metric"]])
        assert r["difference"] == pytest.approx(one[r["metric"]] - other[r["metric"]])
        assert r["ratio_low"] <= r["ratio"] <= r["ratio_high"]
    text = run(*line).stdout
    assert "compared to ed-mf; ratios below 1" in text
    with pytest.raises(PepppError, match="'zero-mean' was not evaluated"):
        run(*line[:-1], "zero-mean")


def test_without_a_table_the_one_that_ships_is_evaluated():
    line = ("--method", "zero", "--measurements", "1", "--json")
    told, untold = (json.loads(run(*place, *line).stdout) for place in ((str(SHIPPED_TABLE),), ()))
    assert untold == told
    assert not untold["synthetic"]


def test_matrices_are_evaluated_as_the_table_that_they_come_from(tmp_path):
    # A matrix does not say what guessing is, so that its errors are compared as they are.
    alike = [replace(m, chance_error=0.9) for m in synthetic_table(11, further=False)]
    table, known = tmp_path / "table.csv.gz", error_matrix(alike)
    write_table(table, alike)
    for name, values in (("E", known.values), ("M", known.memory)):
        write_matrix(tmp_path / f"{name}.csv", values, known.names, known.columns)
    matrices = ("--errors", tmp_path / "E.csv", "--memory", tmp_path / "M.csv")
    rest = ("--leave", "row", "--method", "ed-mf,additive", "--judge", "same", "--json")
    one, other = (json.loads(run(*line).stdout) for line in ((table, *rest), (*matrices, *rest)))
    assert [r["regret"] for r in one["results"]] == pytest.approx([r["regret"] for r in other["results"]])


def test_of_a_matrix_with_gaps_is_said_how_much_is_known(tmp_path):
    known = error_matrix(synthetic_table(11, further=False))
    errors = known.values.copy()
    errors.ravel()[::4] = np.nan
    for name, values in (("E", errors), ("M", known.memory)):
        write_matrix(tmp_path / f"{name}.csv", values, known.names, known.columns)
    line = ("--errors", tmp_path / "E.csv", "--memory", tmp_path / "M.csv", "--method", "zero")
    answer = json.loads(run(*line, "--json").stdout)
    assert (answer["rows"], answer["configurations"]) == (11, 99)
    assert answer["measured_share"] == pytest.approx(0.75, abs=0.01)
    assert ", 75% of their errors known" in " ".join(run(*line).stdout.split())


def test_a_strangers_table_is_evaluated_from_a_file_a_seed_or_one_long_file(tmp_path):
    """HPO tables have columns that are no formats, several seeds, and a memory for each run."""
    rng = np.random.default_rng(0)
    columns, tasks = [f"cfg{j}" for j in range(8)], [f"task{i}" for i in range(5)]
    errors = np.outer(rng.uniform(0.3, 0.9, 5), rng.uniform(0.2, 1, 8))
    seeds = [np.clip(errors + 0.02 * rng.normal(size=errors.shape), 0, 1) for _ in range(3)]
    memory = np.tile(np.arange(1.0, 9.0), (5, 1))
    write_matrix(tmp_path / "M.csv", memory, tasks, columns)
    lines = ["task,column,seed,error,memory"]
    for seed, values in enumerate(seeds):
        write_matrix(tmp_path / f"E{seed}.csv", values, tasks, columns)
        lines += [
            f"{task},{column},{seed},{float(values[i, j])!r},{memory[i, j]:.0f}"
            for i, task in enumerate(tasks)
            for j, column in enumerate(columns)
        ]
    (tmp_path / "long.csv").write_text("\n".join(lines))
    write_matrix(tmp_path / "mean.csv", np.mean(seeds, axis=0), tasks, columns)
    rest = ("--method", "ed-mf,zero", "--measurements", "1,3", "--json")
    files = [part for seed in range(3) for part in ("--errors", tmp_path / f"E{seed}.csv")]
    wide = (*files, "--memory", tmp_path / "M.csv", *rest)
    long = ("--errors", tmp_path / "long.csv", *rest)
    mean = ("--errors", tmp_path / "mean.csv", "--memory", tmp_path / "M.csv", *rest)
    answers = [json.loads(run(*line).stdout) for line in (wide, long, mean)]
    for answer in answers[:2]:
        assert answer["configurations"] == 8
        for one, other in zip(answer["results"], answers[2]["results"], strict=True):
            assert one["regret"] == pytest.approx(other["regret"], abs=1e-9)
    judged = [json.loads(run(*line, "--judge", "seed").stdout)["results"] for line in (wide, long)]
    assert judged[0] == judged[1] != answers[0]["results"]


def test_a_table_of_one_family_is_told_to_leave_out_rows(tmp_path):
    one = [replace(m, group="one") for m in synthetic_table(5, further=False)]
    write_table(tmp_path / "one.csv.gz", one)
    with pytest.raises(PepppError, match=r"lacks a second family to learn from; .*--leave row"):
        run(tmp_path / "one.csv.gz")
    assert run(tmp_path / "one.csv.gz", "--leave", "row", "--method", "zero").exit_code == 0


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("task,column,error\na,x,0.5\na,x,0.6\n", "line 3: 'a' at x and seed 0 occurs twice"),
        ("task,column,error\na,x,50\n", "line 2, column error: '50' is not in"),
        ("task,column,error\na,x\n", "line 2: the number of cells differs"),
        ("task,column,error\na,x,\n", "line 2: the error is empty"),
        ("task,column,error,seed\na,x,0.5,one\n", "line 2, column seed: 'one' is not a whole number"),
        ("task,column,error,colour\na,x,0.5,red\n", "line 1: unknown column 'colour'"),
        ("task,column,error,seed,memory\na,x,0.5,0,1\na,x,0.5,1,2\n", "line 3: the memory of 'a'"),
        ("task,column,error\n", "has no rows"),
        ("task,column,error\na,,0.5\n", "line 2: a column's name must have 1 to 200"),
    ],
)
def test_a_long_file_that_is_wrong_is_refused_in_one_line(tmp_path, lines, said):
    (tmp_path / "long.csv").write_text(lines)
    with pytest.raises(PepppError) as caught:
        run("--errors", tmp_path / "long.csv")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (("TABLE", "--errors", "E.csv", "--memory", "M.csv"), "give a table"),
        (("--errors", "E.csv"), "give a table"),
        (("missing.db",), "no such file"),
        ((".",), "this is a folder, not a file: ."),
        (("TABLE", "--setting", "9"), "no setting '9'; there are I, II"),
        (("TABLE", "--method", "x"), "no method 'x'"),
        (("TABLE", "--measurements", "one"), "whole numbers"),
        (("TABLE", "--cap", "1B", "--setting", "IV"), "below every footprint"),
        (("TABLE", "--where", "rounding=nearest"), "lacks measurements with rounding=nearest"),
        (("TABLE", "--leave", "all"), "family or row"),
        (("TABLE", "--rows", "none/rows.csv"), "no folder none"),
    ],
)
def test_wrong_requests_are_one_line(table, line, said):
    with pytest.raises(PepppError) as caught:
        run(*(table if part == "TABLE" else part for part in line))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
