"""Read and write the text table: measurements as plain CSV, with one record in each row."""

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from peppp.arguments import checked
from peppp.errors import TableError
from peppp.files import reading, writing
from peppp.records import Measurement
from peppp.table.columns import COLUMNS, from_record, to_record


@checked
def write_table(path: str | Path, measurements: Iterable[Measurement]) -> None:
    """Write measurements as a text table, gzipped if the name ends in ``.gz``.

    The header is ``COLUMNS``, and each row is a measurement; recipe, curve, states and provenance are JSON.
    Equal measurements give equal bytes. The file appears complete or not at all. Raises TableError for a
    measurement that could not be read again or that occurs twice, and StoreError if the file cannot be
    written.

    >>> from tempfile import TemporaryDirectory
    >>> from peppp import Configuration, Footprint, Outcome, Recipe
    >>> digits = Measurement("digits", "d1", "digits", Configuration.parse("1-4-1/1-6-7"), Recipe(), 0, 0.9,
    ...     0.25, 0.2, ((10, 0.25),), Footprint(10, 20, 30, {"momentum": 30}), Outcome.FINISHED, 2.5)
    >>> with TemporaryDirectory() as folder:
    ...     write_table(f"{folder}/table.csv.gz", [digits])
    ...     read_table(f"{folder}/table.csv.gz") == [digits]
    True
    """
    path = Path(path)
    seen: dict[tuple[Any, ...], int] = {}
    with writing(path) as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for line, measurement in enumerate(measurements, 2):
            _refuse_repeat(seen, measurement, line, path)
            writer.writerow(to_record(measurement))


@checked
def read_table(path: str | Path) -> list[Measurement]:
    """Read the measurements of a text table that :func:`write_table` or a spreadsheet wrote.

    Raises TableError, naming file, line and column, for a value that its column does not allow, and
    StoreError if there is no such file.
    """
    path = Path(path)
    seen: dict[tuple[Any, ...], int] = {}
    measurements = []
    with reading(path) as file:
        rows = csv.reader(file, strict=True)
        header = next(rows, [])
        _check_header(header, path)
        for cells in rows:
            where = f"{path}, line {rows.line_num}"
            if not cells:  # editors leave empty lines at the end
                continue
            if len(cells) != len(header):
                raise TableError(f"{where}: {len(cells)} cells; the header has {len(header)} columns")
            measurement = from_record(dict(zip(header, cells, strict=True)), where)
            _refuse_repeat(seen, measurement, rows.line_num, path)
            measurements.append(measurement)
    return measurements


def _check_header(header: list[str], path: Path) -> None:
    if sorted(header) != sorted(COLUMNS):
        missing = ", ".join(name for name in COLUMNS if name not in header)
        if not set(header) & (set(COLUMNS) - {"task"}):  # an error matrix begins with "task", too
            matrix = " (a matrix of errors? pick, evaluate, hardware and reproduce take it as --errors)"
            raise TableError(
                f"{path}, line 1: not the header of a table of measurements"
                f"{matrix if '/' in ''.join(header) else ''}; give a table that `peppp table export` wrote, "
                "or a store"
            )
        wrong = f"{missing} missing" if missing else "a column is unknown or occurs twice"
        raise TableError(
            f"{path}, line 1: not the header of a table of measurements ({wrong}); the columns are "
            f"{', '.join(COLUMNS)}"
        )


def _refuse_repeat(seen: dict[tuple[Any, ...], int], measurement: Measurement, line: int, path: Path) -> None:
    first = seen.setdefault(measurement.key, line)
    if first != line:
        raise TableError(
            f"{path}, line {line}: the same task, configuration, recipe, seed and repeat as line {first}; "
            "remove one of them, or give the second run another number in the column repeat"
        )
