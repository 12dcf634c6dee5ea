"""Read your own matrices from CSV: errors or memory of tasks (rows) at configurations (columns).

The first line names the columns after one cell, which may hold any text. Each further line is a task's name
and its numbers, with a decimal point; an empty cell was not observed. A column is a configuration, a
configuration at a learning rate, or any other text.

    task,1-4-1/1-6-7,1-5-2/1-8-9
    digits,0.25,
    letters,0.5,0.125

Several such files are several seeds. One long file may hold them instead, with an error in each line, and the
memory of that training in bytes if it is known:

    task,column,seed,error,memory
    digits,1-4-1/1-6-7,0,0.25,91000000
"""

import csv
import math
from collections.abc import Callable, Sequence
from itertools import takewhile
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from peppp.errors import TableError
from peppp.files import reading, writing
from peppp.formats import Configuration
from peppp.table.columns import LONGEST_TEXT
from peppp.table.labels import Label, parse_label
from peppp.table.matrix import ErrorMatrix, Row, averaged

_LONG = ("task", "column", "error")


def read_errors(*paths: str | Path) -> ErrorMatrix:
    """Read an error matrix, fractions in [0, 1], from CSV; average several files, or a long one, over seeds.

    Each task becomes its own group. Raises TableError, naming file, line and column, for anything that is not
    such a matrix, and StoreError if there is no file.
    """
    return averaged(read_seeds(*paths))


def read_seeds(*paths: str | Path) -> list[ErrorMatrix]:
    """Read an error matrix for each seed: one from each file, or one for each seed of a long file."""
    if len(paths) == 1 and _is_long(Path(paths[0])):
        return _read_long(Path(paths[0]))
    found = []
    for path in paths:
        values, tasks, columns = read_matrix(path, _error)
        found.append(ErrorMatrix(values, tuple(Row(task, "", task) for task in tasks), columns))
    return found


def read_memory(path: str | Path, errors: ErrorMatrix) -> NDArray[np.float64]:
    """Read bytes [n, d] from CSV, in the order of the rows and columns of ``errors``.

    Raises TableError if the labels differ from those of ``errors``, or a cell is not a number of bytes.
    """
    values, rows, columns = read_matrix(path, _size)
    tasks = tuple(row.task for row in errors.rows)
    for what, here, there in (("row", rows, tasks), ("column", columns, errors.columns)):
        # Both readers refuse repeated labels, so comparing the sets is enough.
        if odd := sorted(map(str, set(here) ^ set(there))):
            place = (
                "only in the memory matrix" if odd[0] in map(str, here) else "missing in the memory matrix"
            )
            raise TableError(f"{path}: {what} {odd[0]!r} is {place}; errors and memory need the same labels")
    if np.isnan(values).any():
        i, j = np.argwhere(np.isnan(values))[0]
        raise TableError(
            f"{path}: no memory for {rows[i]!r} at {columns[j]}; memory can be computed without training: "
            "fill in every cell"
        )
    order = [rows.index(task) for task in tasks], [columns.index(column) for column in errors.columns]
    return values[np.ix_(*order)]


def read_matrix(
    path: str | Path, read: Callable[[str], float] = float
) -> tuple[NDArray[np.float64], tuple[str, ...], tuple[Label, ...]]:
    """Read a matrix from CSV: its values [n, d], NaN for empty cells, its tasks and its columns.

    ``read`` turns a cell's text into a number, or raises a ValueError that says why not. Raises TableError
    for repeated labels, ragged lines, rows or columns without a number, and a matrix that is transposed or
    separated by semicolons; raises StoreError if there is no file.
    """
    path = Path(path)
    with reading(path) as file:
        rows = csv.reader(file, strict=True)
        header = next(rows, [])
        width, header = len(header), header[: len(header) - _trailing(header)]
        columns = _header(header, path)
        tasks: dict[str, int] = {}
        values: list[list[float]] = []
        for cells in rows:
            where = f"{path}, line {rows.line_num}"
            if not any(cells):  # editors and spreadsheets leave empty lines at the end
                continue
            if len(cells) == width and _trailing(cells) >= width - len(header):
                cells = cells[: len(header)]
            if len(cells) != len(header):
                raise TableError(
                    f"{where}: {len(cells)} cells; the header has {len(header)} columns (a decimal comma? "
                    "write 0.25)"
                )
            task = _name(cells[0], where)
            if tasks.setdefault(task, rows.line_num) != rows.line_num:
                raise TableError(f"{where}: the task {task!r} is already in line {tasks[task]}; remove one")
            values.append(
                [_cell(text, read, where, name) for text, name in zip(cells[1:], header[1:], strict=True)]
            )
    array = np.array(values, dtype=np.float64).reshape(len(values), len(columns))
    if not values:
        raise TableError(f"{path} has no rows; give a line for each task below the header")
    if all(isinstance(parse_label(task), Configuration) for task in tasks) and not any(
        isinstance(column, Configuration) for column in columns
    ):
        raise TableError(
            f"{path}: its rows are configurations; give tasks as rows and configurations as columns "
            "(transposed?)"
        )
    for task, row in zip(tasks, array, strict=True):
        if np.isnan(row).all():
            raise TableError(f"{path}, line {tasks[task]}: the row of {task!r} is empty; leave it out")
    for column, cells_of in zip(columns, array.T, strict=True):
        if np.isnan(cells_of).all():
            raise TableError(f"{path}: the column of {column} is empty; leave it out")
    return array, tuple(tasks), columns


def write_matrix(
    path: str | Path,
    values: ArrayLike,
    tasks: Sequence[str],
    columns: Sequence[Label],
) -> None:
    """Write a matrix [n, d] so that :func:`read_matrix` reads the same numbers; NaN becomes an empty cell.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_matrix(f"{folder}/E.csv", [[0.25, np.nan], [0.5, 0.125]], ["a", "b"], ["amp", "fp8"])
    ...     read_errors(f"{folder}/E.csv").values
    array([[0.25 ,   nan],
           [0.5  , 0.125]])
    """
    with writing(Path(path)) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["task", *map(str, columns)])
        for task, row in zip(tasks, np.asarray(values, dtype=np.float64).tolist(), strict=True):
            writer.writerow([task, *("" if math.isnan(value) else repr(value) for value in row)])


def _is_long(path: Path) -> bool:
    with reading(path) as file:
        header = next(csv.reader(file, strict=True), [])
    return set(_LONG) <= {name.strip() for name in header}


def _read_long(path: Path) -> list[ErrorMatrix]:
    """Read the matrices of a file with one error in each line, by ascending seed."""
    errors: dict[int, dict[tuple[str, Label], float]] = {}
    memory: dict[tuple[str, Label], float] = {}
    with reading(path) as file:
        rows = csv.DictReader(file, strict=True)
        rows.fieldnames = [name.strip() for name in rows.fieldnames or []]
        for odd in set(rows.fieldnames) - {*_LONG, "seed", "memory"}:
            raise TableError(
                f"{path}, line 1: unknown column {odd!r}; the columns are task,column,seed,error,memory"
            )
        for cells in rows:
            where = f"{path}, line {rows.line_num}"
            if None in cells or None in cells.values():
                raise TableError(f"{where}: the number of cells differs from the header's number of columns")
            task = _name(cells["task"], where)
            label = parse_label(_name(cells["column"], where, "a column's name"))
            seed = int(_cell(cells.get("seed") or "0", _whole, where, "seed"))
            error = _cell(cells["error"], _error, where, "error")
            if math.isnan(error):
                raise TableError(f"{where}: the error is empty; leave the line out")
            if (task, label) in errors.setdefault(seed, {}):
                raise TableError(f"{where}: {task!r} at {label} and seed {seed} occurs twice; remove one")
            errors[seed][task, label] = error
            size = _cell(cells.get("memory") or "", _size, where, "memory")
            if not math.isnan(size) and memory.setdefault((task, label), size) != size:
                raise TableError(f"{where}: the memory of {task!r} at {label} differs from an earlier line's")
    if not errors:
        raise TableError(f"{path} has no rows; give a line for each error below the header")
    return [_matrix_of(errors[seed], memory) for seed in sorted(errors)]


def _matrix_of(errors: dict[tuple[str, Label], float], memory: dict[tuple[str, Label], float]) -> ErrorMatrix:
    tasks = tuple(dict.fromkeys(task for task, _ in errors))
    columns = tuple(dict.fromkeys(label for _, label in errors))
    values = [[errors.get((task, label), np.nan) for label in columns] for task in tasks]
    sizes = [[memory.get((task, label), np.nan) for label in columns] for task in tasks]
    rows = tuple(Row(task, "", task) for task in tasks)
    return ErrorMatrix(np.array(values), rows, columns, None if np.isnan(sizes).any() else np.array(sizes))


def _trailing(cells: Sequence[str]) -> int:
    """Count the empty cells at the end of a line, which spreadsheets leave for columns once in use."""
    return len(list(takewhile(lambda cell: not cell.strip(), reversed(cells))))


def _header(header: list[str], path: Path) -> tuple[Label, ...]:
    where = f"{path}, line 1"
    if len(header) < 2:
        hint = "separate its cells by commas" if header and ";" in header[0] else "write task,1-4-1/1-6-7,..."
        raise TableError(f"{where}: a header names at least one column after its first cell; {hint}")
    columns: dict[Label, None] = {}
    for text in header[1:]:
        column = parse_label(_name(text, where, "a column's name"))
        if column in columns:
            raise TableError(f"{where}: the column {column} occurs twice; remove or rename one")
        columns[column] = None
    return tuple(columns)


def _name(text: str, where: str, what: str = "a task's name") -> str:
    text = text.strip()
    if not text or len(text) > LONGEST_TEXT or not text.isprintable():
        raise TableError(f"{where}: {what} must have 1 to {LONGEST_TEXT} printable characters")
    return text


def _cell(text: str, read: Callable[[str], float], where: str, column: str) -> float:
    text = text.strip()
    if not text:
        return math.nan
    try:
        number = read(text)
        if not math.isfinite(number):
            raise ValueError("is not finite; leave the cell empty where nothing was observed")
    except ValueError as error:
        says = str(error) if str(error).startswith("is ") else "is not a number; write one such as 0.25"
        raise TableError(f"{where}, column {column[:60]}: {text[:60]!r} {says}") from error
    return number


def _error(text: str) -> float:
    number = float(text)
    if number < 0 or 1 < number < math.inf:
        raise ValueError("is not in [0, 1]; errors are fractions: divide percentages by 100")
    return number


def _size(text: str) -> float:
    number = float(text)
    if number <= 0:
        raise ValueError("is not a number of bytes above 0")
    return number


def _whole(text: str) -> float:
    if not text.isascii() or not text.isdigit():
        raise ValueError("is not a whole number from 0")
    return int(text)
