import csv
import gzip
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helpers import MEASURED, measured
from peppp import Configuration, Footprint, Outcome, Recipe, paper_grid
from peppp.errors import StoreError, TableError
from peppp.table.columns import COLUMNS, check, from_record, to_record
from peppp.table.csv import read_table, write_table
from peppp.table.matrix import ErrorMatrix, Row
from peppp.table.measured import error_matrix

# --- the text table


@pytest.mark.parametrize("name", ["table.csv", "table.csv.gz"])
def test_a_table_read_again_is_the_same(tmp_path, name):
    measurements = [
        MEASURED,
        replace(MEASURED, repeat=1, outcome=Outcome.DIVERGED, curve=(), provenance={}),
        replace(MEASURED, recipe=Recipe(rounding="nearest", optimizer_options=()), seed=2**63 - 1),
        replace(MEASURED, configuration=Configuration.parse("fp32/1-4-3@ocp")),
    ]
    write_table(tmp_path / name, measurements)
    assert read_table(tmp_path / name) == measurements


def test_the_same_measurements_give_the_same_bytes(tmp_path):
    write_table(tmp_path / "a.csv.gz", [MEASURED])
    write_table(tmp_path / "b.csv.gz", [MEASURED])
    write_table(tmp_path / "c.csv", [MEASURED])
    assert (tmp_path / "a.csv.gz").read_bytes() == (tmp_path / "b.csv.gz").read_bytes()
    assert gzip.decompress((tmp_path / "a.csv.gz").read_bytes()) == (tmp_path / "c.csv").read_bytes()


def test_a_table_of_numpy_numbers_is_plain(tmp_path):
    numbers = {"test_error": np.float64(0.1), "seed": np.int64(3), "curve": ((np.int64(1), np.float32(0.5)),)}
    write_table(tmp_path / "a.csv", [replace(MEASURED, **numbers)])
    (read,) = read_table(tmp_path / "a.csv")
    assert (read.test_error, read.seed, read.curve) == (0.1, 3, ((1, 0.5),))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("task", ""), ("task", "x" * 201), ("group", "two\nlines"), ("seed", -1), ("seed", 2**63),
        ("repeat", -1), ("test_error", float("nan")), ("train_error", 25.0), ("chance_error", -0.1),
        ("seconds", float("inf")), ("curve", ((1, 2.0),)), ("curve", ((-1, 0.5),)),
        ("footprint", Footprint(-1, 0, 0, {})), ("footprint", Footprint(1, 0, 0, {"momentum": -1})),
        ("provenance", {"torch": 2}), ("provenance", {"": "2.13"}),
    ],
)  # fmt: skip
def test_a_check_refuses_what_a_record_would_with_the_same_words(field, value):
    check(MEASURED)
    told = []
    for refuse in (check, to_record):
        with pytest.raises(TableError) as caught:
            refuse(replace(MEASURED, **{field: value}))
        told.append(str(caught.value).partition(":")[0])
    assert told[0] == told[1]


def test_a_spreadsheet_may_move_columns_and_leave_marks_and_empty_lines(tmp_path):
    record = to_record(MEASURED)
    path = tmp_path / "excel.csv"
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, sorted(record))
        writer.writeheader()
        writer.writerow(record)
        file.write("\r\n")
    assert read_table(path) == [MEASURED]


@pytest.mark.parametrize(
    ("column", "given"),
    [
        ("task", ""),
        ("task", "x" * 201),
        ("task", "two\nlines"),
        ("configuration", "1-4-1"),
        ("configuration", "1-4-1/" + "9" * 9000),
        ("seed", "-1"),
        ("seed", "1.0"),
        ("seed", str(2**63)),
        ("repeat", "٣"),
        ("outcome", "lost"),
        ("test_error", "0,25"),
        ("test_error", "nan"),
        ("test_error", "inf"),
        ("test_error", "25"),
        ("test_error", "-0.1"),
        ("test_error", "1_0"),
        ("test_error", ""),
        ("seconds", "1e999"),
        ("weights", "1e6"),
        ("curve", "__import__('os').system('true')"),
        ("curve", "[[1, 2]]"),
        ("curve", "[[1.5, 0.2]]"),
        ("curve", '{"ab": 1}'),
        ("curve", "7"),
        ("curve", "[" * 9000),
        ("curve", "[[1,0.5]" + ",[1,0.5]" * 2000 + "]"),
        ("states", '{"momentum": -1}'),
        ("states", "[]"),
        ("provenance", '{"torch": 2}'),
        ("provenance", '{"torch": NaN}'),
        ("recipe", "{}{}"),
        ("recipe", '{"epochs": "many"}'),
        ("recipe", '{"network": []}'),
        ("recipe", '{"learning_rate": Infinity}'),
        ("recipe", '{"colour": 1}'),
        ("recipe_digest", "0123456789abcdef"),
    ],
)
def test_a_bad_cell_is_named_in_one_line(tmp_path, column, given):
    path = tmp_path / "bad.csv"
    good = to_record(MEASURED)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerow(good)
        writer.writerow(good | {"repeat": 1, column: given})
    with pytest.raises(TableError) as caught:
        read_table(path)
    message = str(caught.value)
    assert f"{path}, line" in message
    assert f"column {column}: {given[:40]!r}"[:50] in message
    assert " is not " in message
    assert "\n" not in message
    assert len(message) < 300 + len(str(path))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "line 1: not the header"),
        (b"a,b\n1,2\n", "line 1: not the header"),
        (",".join([*COLUMNS, "colour"]).encode() + b"\n", "line 1: not the header"),
        (",".join(COLUMNS).encode() + b"\n1,2\n", "line 2: 2 cells; the header has 21 columns"),
        (",".join(COLUMNS).encode() + b'\n"1', "cannot be read as CSV"),
        (b"\xff\xfe\x00", "cannot be read as CSV"),
        (b"SQLite format 3\x00" + bytes(200), "line 1: not the header"),
    ],
)
def test_a_file_that_is_no_table_is_refused_in_one_line(tmp_path, content, says):
    path = tmp_path / "bad.csv"
    path.write_bytes(content)
    with pytest.raises(TableError, match=says) as caught:
        read_table(path)
    assert "\n" not in str(caught.value)


def test_a_gzip_that_is_none_or_cut_short_is_refused(tmp_path):
    path = tmp_path / "table.csv.gz"
    write_table(path, [MEASURED])
    whole = path.read_bytes()
    for content in (b"plain text", whole[: len(whole) // 2], whole[:30] + b"?" * 30 + whole[60:]):
        path.write_bytes(content)
        with pytest.raises(TableError, match="cannot be read as CSV"):
            read_table(path)


def test_a_table_holds_no_measurement_twice(tmp_path):
    path = tmp_path / "table.csv"
    with pytest.raises(TableError, match="line 3: the same task"):
        write_table(path, [MEASURED, replace(MEASURED, test_error=0.5)])
    write_table(path, [MEASURED])
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines, lines[1]]))
    with pytest.raises(TableError, match="line 3: the same task"):
        read_table(path)


def test_what_could_not_be_read_again_is_not_written(tmp_path):
    path = tmp_path / "table.csv"
    write_table(path, [MEASURED])
    before = path.read_bytes()
    for change in (
        {"test_error": float("nan")},
        {"task": "a\nb"},
        {"provenance": {"torch": 2}},
        {"seed": -1},
    ):
        with pytest.raises(TableError, match="is not"):
            write_table(path, [MEASURED, replace(MEASURED, **{"repeat": 1} | change)])
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["table.csv"]


def test_a_place_that_cannot_be_written_or_read_is_named(tmp_path):
    with pytest.raises(StoreError, match=r"missing/a\.csv: No such file"):
        write_table(tmp_path / "missing" / "a.csv", [MEASURED])
    with pytest.raises(StoreError, match=r"a\.csv: No such file"):
        read_table(tmp_path / "a.csv")
    with pytest.raises(StoreError, match="cannot write"):
        write_table(tmp_path, [MEASURED])
    assert not list(tmp_path.iterdir())


def test_a_record_is_plain_and_comes_back():
    record = to_record(MEASURED)
    assert list(record) == list(COLUMNS)
    assert {type(value) for value in record.values()} == {str, int, float}
    assert from_record(record, "here") == MEASURED


# --- the error matrix


def test_columns_follow_the_papers_grid_and_then_the_text():
    texts = ["bf16/bf16", "1-5-3/1-8-11", "1-3-1/1-6-9", "1-3-1/1-6-7", "1-2-1/1-6-7"]
    matrix = error_matrix([measured(configuration=text) for text in texts])
    assert [str(c) for c in matrix.configurations] == [
        "1-3-1/1-6-7",
        "1-3-1/1-6-9",
        "1-5-3/1-8-11",
        "1-2-1/1-6-7",
        "1-8-7@ieee/1-8-7@ieee",
    ]


def test_seeds_and_repeats_are_averaged_in_any_order():
    measurements = [
        measured(error=error, seed=seed, repeat=repeat)
        for error, seed, repeat in [(0.1, 0, 0), (0.2, 0, 1), (0.6, 1, 0)]
    ]
    matrices = [error_matrix(order) for order in (measurements, measurements[::-1])]
    assert matrices[0].values == pytest.approx(0.3)
    assert matrices[0].values.tobytes() == matrices[1].values.tobytes()


def test_rows_are_data_sets_under_recipes():
    slow, newer = Recipe(learning_rate=1e-4), Recipe(arithmetic_version=7)
    measurements = [
        measured("wine"),
        measured("digits"),
        measured("digits", recipe=slow, error=0.5),
        measured("digits", recipe=newer, error=0.75),
        measured("digits", fingerprint="others of the same name", error=1.0),
    ]
    matrix = error_matrix(measurements)
    assert [row.task for row in matrix.rows] == ["digits"] * 4 + ["wine"]
    assert sorted(matrix.values[:4, 0]) == [0.25, 0.5, 0.75, 1.0]
    assert matrix.rows == error_matrix(measurements[::-1]).rows
    (row,) = error_matrix(measurements, recipe_digest=slow.digest).rows
    assert row == Row("digits", slow.digest, "digits", 0.9, "print of digits")


def test_what_was_not_measured_is_not_observed():
    matrix = error_matrix([measured("a", "1-3-1/1-6-7", 0.5), measured("b", "1-3-2/1-6-7", 0.25)])
    assert matrix.observed.tolist() == [[True, False], [False, True]]
    assert np.isnan(matrix.values[~matrix.observed]).all()


def test_the_reference_is_a_column_only_when_asked_for():
    measurements = [measured(), measured(configuration="fp32/fp32", error=0.1), measured("b", "fp32/fp32")]
    assert error_matrix(measurements).values.tolist() == [[0.25]]
    matrix = error_matrix(measurements, include_reference=True)
    assert [str(c) for c in matrix.configurations] == ["1-4-1/1-6-7", "fp32/fp32"]
    assert len(matrix.rows) == 2


def test_one_data_set_under_two_names_is_one_row_whatever_came_first():
    measurements = [
        measured("b", fingerprint="f", error=0.5),
        measured("a", "1-3-1/1-6-7", fingerprint="f", error=0.25),
    ]
    for order in (measurements, measurements[::-1]):
        matrix = error_matrix(order)
        assert [row.task for row in matrix.rows] == ["a"]
        assert matrix.values.tolist() == [[0.25, 0.5]]


def test_a_matrix_of_nothing_is_refused():
    with pytest.raises(TableError, match="at least one measurement"):
        error_matrix([])
    with pytest.raises(TableError, match="at least one measurement"):
        error_matrix([measured(configuration="fp32/fp32")])
    with pytest.raises(TableError, match=f"no measurement has the recipe 'x'; there are {Recipe().digest}"):
        error_matrix([measured()], recipe_digest="x")


def test_an_error_matrix_cannot_contradict_itself():
    rows, columns = [Row("a", "r", "a")], paper_grid()[:2]
    nan = float("nan")
    assert ErrorMatrix.from_values(np.array([[0.5, nan]]), rows, columns).observed.tolist() == [[True, False]]
    for values, given_columns, says in [
        ([[0.5]], columns, "has the shape"),
        ([[0.5, 0.5]], [columns[0]] * 2, "have the same label"),
        ([[0.5, 25.0]], columns, "divide percentages"),
        ([[0.5, float("inf")]], columns, "holds an infinite value"),
    ]:
        with pytest.raises(TableError, match=says):
            ErrorMatrix.from_values(np.array(values), rows, given_columns)


def test_tables_need_neither_torch_nor_sqlalchemy():
    code = "import sys, peppp.table.matrix; assert not {'torch', 'sqlalchemy', 'scipy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent)
