import csv

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from peppp.errors import StoreError, TableError
from peppp.formats import Configuration, paper_grid
from peppp.table.matrices import read_errors, read_matrix, read_memory, write_matrix

E = "task,1-4-1/1-6-7,1-5-2/1-8-9\ndigits,0.25,\nletters,1,0.125\n"


def written(folder, text, name="E.csv"):
    path = folder / name
    path.write_text(text)
    return path


def test_a_matrix_of_errors_is_read_with_its_labels(tmp_path):
    errors = read_errors(written(tmp_path, E))
    assert [row.task for row in errors.rows] == [row.group for row in errors.rows] == ["digits", "letters"]
    assert [str(c) for c in errors.configurations] == ["1-4-1/1-6-7", "1-5-2/1-8-9"]
    assert np.array_equal(errors.values, [[0.25, np.nan], [1, 0.125]], equal_nan=True)
    assert errors.observed.tolist() == [[True, False], [True, True]]


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff" + E,  # a byte order mark, as spreadsheets write it
        E.replace("\n", "\r\n"),
        E + ",,\n\n",
        E.replace("task", ""),
        E.replace("\n", ",,\n"),  # columns that were used once
        E.replace("1-4-1/1-6-7", " 1-4-1/1-6-7 ").replace("0.25", " 2.5e-1 "),
    ],
)
def test_what_spreadsheets_make_of_it_is_read_alike(tmp_path, text):
    plain, other = (
        read_errors(written(tmp_path, E)),
        read_errors(written(tmp_path, text, "other.csv")),
    )
    assert np.array_equal(plain.values, other.values, equal_nan=True)
    assert (plain.rows, plain.configurations) == (other.rows, other.configurations)


@given(
    arrays(np.float64, (3, 4), elements=st.floats(1e-300, 1e300) | st.just(np.nan)).map(
        lambda a: np.where(np.eye(3, 4, dtype=bool) | (np.arange(4) == 3), 7.0, a)
    )
)
def test_a_matrix_written_is_read_exactly(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("matrix") / "M.csv.gz"
    tasks = ["a, b", 'c "d"', "é"]
    write_matrix(path, values, tasks, paper_grid()[:4])
    read, names, columns = read_matrix(path)
    assert np.array_equal(read, values, equal_nan=True)
    assert (names, columns) == (tuple(tasks), paper_grid()[:4])


def test_memory_comes_in_the_order_of_the_errors(tmp_path):
    errors = read_errors(written(tmp_path, E))
    text = "x,1-5-2/1-8-9,1-4-1/1-6-7\nletters,4,3\ndigits,2,1\n"
    assert read_memory(written(tmp_path, text, "M.csv"), errors).tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (E.replace("0.25", "25"), "line 2, column 1-4-1/1-6-7: '25' is not in [0, 1]; .* percentages"),
        (E.replace("0.25", "-0.25"), "'-0.25' is not in [0, 1]"),
        (E.replace("0.25", "inf"), "'inf' is not finite"),
        (E.replace("0.25", "1e999"), "'1e999' is not finite"),
        (E.replace("0.25", "nan"), "'nan' is not finite; leave the cell empty"),
        (E.replace("0.25", '"0,25"'), "'0,25' is not a number; write one such as 0.25"),
        (E.replace("0.25", "0,25"), "line 2: 4 cells; the header has 3 columns .a decimal comma"),
        (E.replace("0.25", "__import__('os')"), "is not a number"),
        (E.replace("letters", "digits"), "line 3: the task 'digits' is already in line 2"),
        (E.replace("1-5-2/1-8-9", "1-4-1/1-6-7"), "line 1: the column 1-4-1/1-6-7 occurs twice"),
        ("x,digits,letters\n1-4-1/1-6-7,0.25,1\n", "its rows are configurations.*transposed"),
        (E.replace(",", ";"), "line 1: .*separate its cells by commas"),
        ("task,1-4-1/1-6-7\n", "has no rows"),
        ("", "line 1: a header names"),
        (E.replace("0.25", ""), "line 2: the row of 'digits' is empty"),
        (E.replace("0.125", ""), "the column of 1-5-2/1-8-9 is empty"),
        (E.replace("digits,0.25,", "digits,0.25"), "line 2: 2 cells; the header has 3 columns"),
        (E.replace("digits", ""), "a task's name must have 1 to 200 printable"),
        (E.replace("digits", "a\x07"), "a task's name must have 1 to 200 printable"),
        (E.replace("digits", "d" * 201), "a task's name must have 1 to 200 printable"),
        (E + '"', "cannot be read as CSV"),
    ],
)
def test_a_matrix_that_is_wrong_is_refused_in_one_line(tmp_path, text, says):
    pattern = says.replace("[0, 1]", r"\[0, 1\]")
    with pytest.raises(TableError, match=pattern) as caught:
        read_errors(written(tmp_path, text))
    assert "\n" not in str(caught.value)
    assert "E.csv" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x,1-4-1/1-6-7,1-5-2/1-8-9\ndigits,1,2\n", "row 'letters' is missing in the memory matrix"),
        ("x,1-4-1/1-6-7\ndigits,1\nletters,2\n", "column '1-5-2/1-8-9' is missing in"),
        ("x,1-4-1/1-6-7,1-5-2/1-8-9\ndigits,1,2\nletters,1,2\nmore,1,2\n", "row 'more' is only in"),
        ("x,1-4-1/1-6-7,1-5-2/1-8-9\ndigits,1,2\nletters,,2\n", "no memory for 'letters' at 1-4-1/1-6-7"),
        ("x,1-4-1/1-6-7,1-5-2/1-8-9\ndigits,1,2\nletters,0,2\n", "'0' is not a number of bytes"),
    ],
)
def test_memory_needs_the_labels_of_the_errors(tmp_path, text, says):
    errors = read_errors(written(tmp_path, E))
    with pytest.raises(TableError, match=says):
        read_memory(written(tmp_path, text, "M.csv"), errors)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(StoreError, match=r"cannot read the table .*none\.csv: No such file"):
        read_errors(tmp_path / "none.csv")
    with pytest.raises(StoreError, match="cannot write the table"):
        write_matrix(tmp_path / "no" / "M.csv", np.ones((1, 1)), ["a"], [Configuration.parse("1-4-1/1-6-7")])


def test_the_csv_is_one_that_others_read(tmp_path):
    write_matrix(tmp_path / "M.csv", np.array([[0.1, np.nan]]), ["a, b"], paper_grid()[:2])
    with (tmp_path / "M.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [["task", "1-3-1/1-6-7", "1-3-1/1-6-9"], ["a, b", "0.1", ""]]
