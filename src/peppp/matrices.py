"""Your own matrices as CSV: errors or memory of tasks (rows) at configurations (columns).

The first line names the configurations behind one cell that may say anything; each further line is a task's
name and its numbers, with a decimal point; an empty cell is one that was not observed.

    task,1-4-1/1-6-7,1-5-2/1-8-9
    digits,0.25,
    letters,0.5,0.125
"""

import csv
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from peppp.errors import FormatError, TableError
from peppp.flat import LONGEST_TEXT
from peppp.formats import Configuration
from peppp.tables import ErrorMatrix, Row
from peppp.textfiles import reading, writing


@dataclass(frozen=True, slots=True)
class Matrix:
    """``values`` [n, d] float64, NaN where not observed, with the names of rows and columns."""

    values: NDArray[np.float64]
    tasks: tuple[str, ...]
    configurations: tuple[Configuration, ...]


def read_errors(path: str | Path) -> ErrorMatrix:
    """The error matrix of a CSV: fractions in [0, 1]. Each task is a group of its own.

    Raises TableError, one line with file, line and column, on anything else; StoreError if there is no file.
    """
    matrix = read_matrix(path, _error)
    rows = [Row(task, "", task) for task in matrix.tasks]
    return ErrorMatrix.from_values(matrix.values, rows, matrix.configurations)


def read_memory(path: str | Path, errors: ErrorMatrix) -> NDArray[np.float64]:
    """The bytes [n, d] of a CSV, in the order of the rows and columns of ``errors``.

    Raises TableError where the labels are not those of ``errors``, or a cell is empty or no number of bytes.
    """
    matrix = read_matrix(path, _size)
    tasks = [row.task for row in errors.rows]
    for what, here, there in (
        ("row", matrix.tasks, tasks),
        ("column", matrix.configurations, errors.configurations),
    ):
        # Neither set holds a label twice: both readers refuse that.
        for label in [*(set(here) ^ set(there))][:1]:
            place = "only in the memory matrix" if label in here else "missing in the memory matrix"
            raise TableError(
                f"{path}: {what} {str(label)!r} is {place}; errors and memory need the same labels"
            )
    if np.isnan(matrix.values).any():
        i, j = np.argwhere(np.isnan(matrix.values))[0]
        raise TableError(
            f"{path}: no memory for {matrix.tasks[i]!r} at {matrix.configurations[j]}; memory is computed, "
            "not measured: fill in every cell"
        )
    rows = [matrix.tasks.index(task) for task in tasks]
    columns = [matrix.configurations.index(configuration) for configuration in errors.configurations]
    return matrix.values[np.ix_(rows, columns)]


def read_matrix(path: str | Path, read: Callable[[str], float] = float) -> Matrix:
    """Any matrix of a CSV (see above); ``read`` makes a cell's number or raises a ValueError that says why.

    Raises TableError on labels twice, ragged lines, rows or columns without a number, and a matrix that is
    transposed or separated by semicolons; StoreError if there is no file.
    """
    path = Path(path)
    with reading(path) as file:
        rows = csv.reader(file, strict=True)
        header = next(rows, [])
        configurations = _header(header, path)
        tasks: dict[str, int] = {}
        values: list[list[float]] = []
        for cells in rows:
            where = f"{path}, line {rows.line_num}"
            if not any(cells):  # as editors and spreadsheets leave at the end
                continue
            if len(cells) != len(header):
                raise TableError(
                    f"{where}: {len(cells)} cells; the header has {len(header)} columns (a decimal comma? "
                    "write 0.25)"
                )
            task = cells[0].strip()
            if not task or len(task) > LONGEST_TEXT or not task.isprintable():
                raise TableError(f"{where}: a task's name has 1 to {LONGEST_TEXT} printable characters")
            if tasks.setdefault(task, rows.line_num) != rows.line_num:
                raise TableError(f"{where}: the task {task!r} stands in line {tasks[task]} already")
            values.append(
                [_cell(text, read, where, name) for text, name in zip(cells[1:], header[1:], strict=True)]
            )
    array = np.array(values, dtype=np.float64).reshape(len(values), len(configurations))
    if not values:
        raise TableError(f"{path} has no rows; give a line for each task under the header")
    for task, row in zip(tasks, array, strict=True):
        if np.isnan(row).all():
            raise TableError(f"{path}, line {tasks[task]}: the row of {task!r} is empty; leave it out")
    for configuration, column in zip(configurations, array.T, strict=True):
        if np.isnan(column).all():
            raise TableError(f"{path}: the column of {configuration} is empty; leave it out")
    return Matrix(array, tuple(tasks), configurations)


def write_matrix(
    path: str | Path,
    values: ArrayLike,
    tasks: Sequence[str],
    configurations: Sequence[Configuration],
) -> None:
    """Write a matrix [n, d] as :func:`read_matrix` reads it, exactly; NaN becomes an empty cell.

    >>> import tempfile
    >>> configurations = [Configuration.parse("1-4-1/1-6-7"), Configuration.parse("1-5-2/1-8-9")]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_matrix(f"{folder}/E.csv", [[0.25, np.nan], [0.5, 0.125]], ["a", "b"], configurations)
    ...     read_matrix(f"{folder}/E.csv").values
    array([[0.25 ,   nan],
           [0.5  , 0.125]])
    """
    with writing(Path(path)) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["task", *map(str, configurations)])
        for task, row in zip(tasks, np.asarray(values, dtype=np.float64).tolist(), strict=True):
            writer.writerow([task, *("" if math.isnan(value) else repr(value) for value in row)])


def _header(header: list[str], path: Path) -> tuple[Configuration, ...]:
    where = f"{path}, line 1"
    if len(header) < 2:
        hint = "separate its cells by commas" if header and ";" in header[0] else "write task,1-4-1/1-6-7,..."
        raise TableError(f"{where}: a header names at least one configuration behind its first cell; {hint}")
    configurations: dict[Configuration, str] = {}
    for text in header[1:]:
        try:
            configuration = Configuration.parse(text.strip())
        except FormatError as error:
            raise TableError(
                f"{where}: {text[:60]!r} is no configuration; columns are configurations as 1-4-1/1-6-7 and "
                "rows are tasks (transposed?)"
            ) from error
        if configuration in configurations:
            raise TableError(f"{where}: the configuration {configuration} stands there twice")
        configurations[configuration] = text
    return tuple(configurations)


def _cell(text: str, read: Callable[[str], float], where: str, column: str) -> float:
    text = text.strip()
    if not text:
        return math.nan
    try:
        number = read(text)
        if not math.isfinite(number):
            raise ValueError("is not finite; leave the cell empty where nothing was observed")
    except ValueError as error:
        says = str(error) if str(error).startswith("is ") else "is no number; write one as 0.25"
        raise TableError(f"{where}, column {column[:60]}: {text[:60]!r} {says}") from error
    return number


def _error(text: str) -> float:
    number = float(text)
    if number < 0 or 1 < number < math.inf:
        raise ValueError("is not in [0, 1]; errors are fractions: divide per cent by 100")
    return number


def _size(text: str) -> float:
    number = float(text)
    if number <= 0:
        raise ValueError("is not a number of bytes above 0")
    return number
