"""Tables of several groups: put together, taken in, checked, looked at."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import MEASURED, answer, measured, peppp, refused
from peppp import Outcome, Recipe
from peppp.table.columns import COLUMNS, json_schema, to_record
from peppp.table.csv import read_table, write_table
from peppp.table.matrices import read_errors
from peppp.table.merge import merge
from peppp.table.store.store import Store

ELSEWHERE = replace(MEASURED, test_error=0.5, provenance={"processor": "another"})


def test_what_is_the_same_is_once_and_what_differs_is_a_repeat():
    again = replace(MEASURED, seconds=9.0)
    merged = merge([MEASURED], [again, ELSEWHERE], [ELSEWHERE, again])
    assert merged.measurements == (MEASURED, replace(ELSEWHERE, repeat=1))
    assert (merged.same, merged.repeats) == (3, 1)


def test_the_same_error_on_another_machine_is_a_further_run():
    other = replace(MEASURED, provenance={"processor": "another"})
    assert [m.repeat for m in merge([MEASURED], [other]).measurements] == [0, 1]


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.sampled_from([0.1, 0.2, 0.3])), max_size=8)
)
def test_merging_loses_no_run_and_keeps_no_key_twice(runs):
    tables = {}
    for table, repeat, error in runs:
        tables.setdefault(table, {})[repeat] = replace(MEASURED, repeat=repeat, test_error=error)
    merged = merge(*(list(table.values()) for table in tables.values())) if tables else merge([])
    keys = [m.key for m in merged.measurements]
    assert len(keys) == len(set(keys))
    given_errors = {m.test_error for table in tables.values() for m in table.values()}
    assert {m.test_error for m in merged.measurements} == given_errors
    assert len(keys) + merged.same == sum(map(len, tables.values()))
    again = merge(merged.measurements, *(list(table.values()) for table in tables.values()))
    assert again.measurements == merged.measurements  # what is in stays in, and nothing comes in twice


def test_conflicting_fingerprints_and_other_arithmetic_are_kept_apart_and_named():
    other_data = replace(MEASURED, fingerprint="d2")
    other_arithmetic = replace(MEASURED, recipe=Recipe(arithmetic_version=7))
    merged = merge([MEASURED], [other_data], [other_arithmetic])
    assert len(merged.measurements) == 3
    assert merged.repeats == 0
    assert merged.notes() == [
        "'digits' names 2 different data sets: d1, d2",
        "1 are from arithmetic version 7 (the current one is 2) and stay in rows of their own",
    ]


def test_tables_go_out_and_come_in(tmp_path):
    with Store.open(tmp_path / "ours.db") as store:
        store.add_all([MEASURED, measured("letters")])
    write_table(tmp_path / "theirs.csv.gz", [ELSEWHERE, measured("more")])
    assert answer("table", "export", "ours.db", "ours.csv", cwd=tmp_path)["measurements"] == 2
    added = answer("table", "import", "ours.db", "theirs.csv.gz", "ours.csv", cwd=tmp_path)
    assert (added["added"], added["same"], added["repeats"]) == (2, 2, 1)
    assert answer("table", "import", "ours.db", "theirs.csv.gz", cwd=tmp_path)["added"] == 0
    with Store.open(tmp_path / "ours.db") as store:
        assert len(store.measurements()) == 4
    merged = answer("table", "merge", "all.csv.gz", "ours.csv", "theirs.csv.gz", cwd=tmp_path)
    assert merged["measurements"] == 4
    with Store.open(tmp_path / "ours.db") as store:
        assert {m.key for m in read_table(tmp_path / "all.csv.gz")} == {m.key for m in store}
    done = peppp("table", "validate", "all.csv.gz", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "all.csv.gz: 4 measurements, all valid\n")


def test_a_table_that_is_not_valid_changes_nothing(tmp_path):
    write_table(tmp_path / "good.csv", [measured("more")])
    text = (tmp_path / "good.csv").read_text()
    with Store.open(tmp_path / "ours.db") as store:
        store.add(MEASURED)
    for bad, says in (
        (text.replace(",0.25,", ",25,"), "column test_error: '25' is not a fraction"),
        (text.replace(",0.25,", ",inf,"), "column test_error: 'inf' is not a fraction"),
        (text.replace("finished", "__import__('os').system('touch hacked')"), "column outcome: "),
        (text.replace('""epochs"":10', '""epochs"":11'), "is not the digest of the recipe in the same row"),
        (text.replace("more", "m" * 300), "column task: "),
        (text.replace("more", "a\x1b[2Jb"), "column task: "),
    ):
        assert bad != text
        (tmp_path / "bad.csv").write_text(bad)
        assert says in refused("table", "validate", "bad.csv", cwd=tmp_path)
        assert says in refused("table", "import", "ours.db", "good.csv", "bad.csv", cwd=tmp_path)
        assert says in refused("table", "merge", "all.csv", "good.csv", "bad.csv", cwd=tmp_path)
    with Store.open(tmp_path / "ours.db") as store:
        assert store.measurements() == [MEASURED]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.csv", "good.csv", "ours.db"]


def test_a_table_is_shown_by_row(tmp_path):
    fp32 = measured(configuration="fp32/fp32", error=0.125)
    bad = measured(configuration="1-3-1/1-6-7", error=0.9, outcome=Outcome.DIVERGED)
    write_table(tmp_path / "table.csv", [measured(), fp32, bad, measured("[red]x")])
    rows = answer("table", "show", tmp_path / "table.csv")
    assert [row["task"] for row in rows] == ["[red]x", "digits"]
    assert {name: rows[1][name] for name in ("measured", "diverged", "best", "median", "fp32")} == {
        "measured": 3, "diverged": 1, "best": 0.25, "median": 0.575, "fp32": 0.125,
    }  # fmt: skip
    assert "[red]x" in peppp("table", "show", tmp_path / "table.csv").stdout
    longer = [measured(recipe=Recipe(epochs=50, accumulator=False)), measured(), measured("letters")]
    write_table(tmp_path / "table.csv", longer)
    unlike = [row["unlike_most"] for row in answer("table", "show", tmp_path / "table.csv")]
    assert sorted(unlike, key=len) == [{}, {}, {"epochs": 50, "accumulator": False}]
    assert "epochs 50, accumulator False" in peppp("table", "show", tmp_path / "table.csv").stdout


def test_the_error_matrix_goes_out_as_csv(tmp_path):
    several = [measured(), measured("letters", error=0.5), measured(recipe=Recipe(epochs=3))]
    write_table(tmp_path / "table.csv", several)
    assert answer("table", "matrix", "table.csv", "E.csv", cwd=tmp_path)["rows"] == 3
    assert read_errors(tmp_path / "E.csv").values.tolist() == [[0.25], [0.25], [0.5]]
    line = ("table", "matrix", "table.csv", "E.csv", "--recipe", Recipe(epochs=3).digest)
    assert answer(*line, cwd=tmp_path)["rows"] == 1
    assert [row.task for row in read_errors(tmp_path / "E.csv").rows] == ["digits"]


def test_the_schema_describes_what_is_written_and_refuses_what_is_refused():
    jsonschema = pytest.importorskip("jsonschema", reason="an independent reader of JSON Schema")
    schema = json.loads(peppp("table", "schema").stdout)
    assert schema == json_schema()
    assert list(schema["properties"]) == list(COLUMNS)
    validator = jsonschema.Draft202012Validator(schema)
    row = {name: str(value) for name, value in to_record(MEASURED).items()}
    validator.validate(row)
    for name, value in (
        ("test_error", "inf"), ("test_error", "0,5"), ("seed", "-1"), ("outcome", "lost"),
        ("task", ""), ("task", "x" * 201), ("recipe_digest", "none"), ("curve", "x" * 10_001),
    ):  # fmt: skip
        assert not validator.is_valid(row | {name: value}), (name, value)
    assert not validator.is_valid(row | {"more": "1"})
