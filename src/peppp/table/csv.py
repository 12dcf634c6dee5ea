"""The text table: measurements as plain CSV, one flat record a row."""

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
    """Write measurements as a text table, gzipped if the name ends in ``.gz``; the same ones, the same bytes.

    One row a measurement under a header of ``COLUMNS``; recipe, curve, states and provenance are JSON.
    The file appears complete or not at all. Raises TableError on what could not be read again and
    StoreError where the file cannot be written.

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
    """The measurements of a text table that :func:`write_table` wrote, or a spreadsheet with its columns.

    Raises TableError, naming file, line and column, on anything that is not what the column allows, and
    StoreError where there is no such file.
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
            if not cells:  # an empty line, as editors leave at the end
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
        if not set(header) & (set(COLUMNS) - {"task"}):  # with which a matrix begins as well
            matrix = " (a matrix of errors? pick, evaluate, hardware and reproduce take it as --errors)"
            raise TableError(
                f"{path}, line 1: not the header of a table of measurements"
                f"{matrix if '/' in ''.join(header) else ''}; give a table that `peppp table export` wrote, "
                "or a store"
            )
        wrong = f"{missing} missing" if missing else "a column unknown or twice"
        raise TableError(
            f"{path}, line 1: not the header of a table of measurements ({wrong}); the columns are "
            f"{', '.join(COLUMNS)}"
        )


def _refuse_repeat(seen: dict[tuple[Any, ...], int], measurement: Measurement, line: int, path: Path) -> None:
    first = seen.setdefault(measurement.key, line)
    if first != line:
        raise TableError(
            f"{path}, line {line}: the same task, configuration, recipe, seed and repeat as line {first}; "
            "leave one of them out, or count the second run in the column repeat"
        )
