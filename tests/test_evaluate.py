"""``peppp evaluate`` on tables and on matrices, as its answers and its errors read."""

import csv
import json

import numpy as np
import pytest
from typer.testing import CliRunner

from peppp.cli import app
from peppp.errors import PepppError
from peppp.known import SHIPPED_TABLE
from peppp.matrices import write_matrix
from peppp.replay.slices import known_table, largest_slice
from peppp.replay.synthetic import synthetic_table
from peppp.textable import write_table


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
    assert "to ed-mf; below 1 and 0 is better" in text
    with pytest.raises(PepppError, match="'auto' was not evaluated"):
        run(*line[:-1], "auto")


def test_without_a_table_the_one_that_ships_is_evaluated():
    line = ("--method", "zero", "--measurements", "1", "--json")
    told, untold = (json.loads(run(*place, *line).stdout) for place in ((str(SHIPPED_TABLE),), ()))
    assert untold == told
    assert not untold["synthetic"]


def test_matrices_are_evaluated_as_the_table_that_they_come_from(table, tmp_path):
    known = known_table(largest_slice(synthetic_table(11, further=False)))
    for name, values in (("E", known.errors), ("M", known.memory)):
        write_matrix(tmp_path / f"{name}.csv", values, known.names, known.configurations)
    matrices = ("--errors", tmp_path / "E.csv", "--memory", tmp_path / "M.csv")
    rest = ("--leave", "row", "--method", "ed-mf,additive", "--json")
    one, other = (json.loads(run(*line).stdout) for line in ((table, *rest), (*matrices, *rest)))
    assert [r["regret"] for r in one["results"]] == pytest.approx([r["regret"] for r in other["results"]])


def test_of_a_matrix_with_gaps_is_said_how_much_is_known(tmp_path):
    known = known_table(largest_slice(synthetic_table(11, further=False)))
    errors = known.errors.copy()
    errors.ravel()[::4] = np.nan
    for name, values in (("E", errors), ("M", known.memory)):
        write_matrix(tmp_path / f"{name}.csv", values, known.names, known.configurations)
    line = ("--errors", tmp_path / "E.csv", "--memory", tmp_path / "M.csv", "--method", "zero")
    answer = json.loads(run(*line, "--json").stdout)
    assert (answer["rows"], answer["configurations"]) == (11, 99)
    assert answer["measured_share"] == pytest.approx(0.75, abs=0.01)
    assert ", 75% of their errors known" in " ".join(run(*line).stdout.split())


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
