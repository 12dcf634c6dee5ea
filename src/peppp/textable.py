"""Measurements as flat records of plain values, and the text table: one record a row, plain CSV.

A record is what the text table and the store both hold. Whatever makes one, and whatever reads one, goes
through the same checks, so that all that is kept can be read again. Reading parses; it never executes.
"""

import csv
import gzip
import io
import json
import math
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_origin

from peppp.errors import FormatError, StoreError, TableError
from peppp.formats import Configuration
from peppp.records import Footprint, Measurement, Outcome, Recipe

LONGEST_TEXT = 200
LONGEST_JSON = 10_000

_COUNT = re.compile(r"[0-9]{1,19}", re.ASCII)
_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?(e[+-]?[0-9]+)?", re.ASCII | re.IGNORECASE)


def _text(text: str) -> str:
    if len(text) > LONGEST_TEXT or not text.isprintable():
        raise ValueError
    return text


def _name(text: str) -> str:
    if not text:
        raise ValueError
    return _text(text)


def _count(text: str) -> int:
    if not _COUNT.fullmatch(text) or int(text) >= 2**63:
        raise ValueError
    return int(text)


def _number(text: str) -> float:
    if not _NUMBER.fullmatch(text) or not math.isfinite(float(text)):
        raise ValueError
    return float(text)


def _fraction(text: str) -> float:
    number = _number(text)
    if number > 1:
        raise ValueError
    return number


def _json(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise ValueError

    if len(text) > LONGEST_JSON:
        raise ValueError
    return json.loads(text, parse_constant=refuse)


@lru_cache(maxsize=1024)  # a table has many rows and few recipes
def _recipe(text: str) -> Recipe:
    _json(text)
    recipe = Recipe.from_json(text)
    for field in fields(Recipe):
        allowed = (int, float) if field.type is float else get_origin(field.type) or field.type
        if not isinstance(getattr(recipe, field.name), allowed):  # type: ignore[arg-type]
            raise ValueError
    return recipe


def _curve(text: str) -> tuple[tuple[int, float], ...]:
    return tuple((_count(str(epoch)), _fraction(str(error))) for epoch, error in _json(text))


def _states(text: str) -> dict[str, int]:
    return {_name(name): _count(str(size)) for name, size in _json(text).items()}


def _provenance(text: str) -> dict[str, str]:
    return {_name(name): _text(value) for name, value in _json(text).items()}


@dataclass(frozen=True, slots=True)
class Column:
    """A field of a record: what it means, what it may be, and how its text is read."""

    meaning: str
    allowed: str
    read: Callable[[str], Any]


_A_NAME = f"1 to {LONGEST_TEXT} printable characters"
_A_COUNT = "a whole number from 0"
_A_FRACTION = "a fraction from 0 to 1 with a decimal point, as 0.25"
_SHORT_JSON = f"of at most {LONGEST_JSON} characters"

COLUMNS: Mapping[str, Column] = {
    "task": Column("name of the data set", _A_NAME, _name),
    "fingerprint": Column("digest of the data set's contents", _A_NAME, _name),
    "group": Column("source that the task shares with its siblings", _A_NAME, _name),
    "configuration": Column("Format A / Format B", "two formats as 1-4-1/1-6-7", Configuration.parse),
    "recipe_digest": Column("digest of the recipe", "16 hexadecimal digits", _name),
    "seed": Column("seed of the run", _A_COUNT, _count),
    "repeat": Column("counts runs that share everything before it", _A_COUNT, _count),
    "outcome": Column("how the training ended", " or ".join(Outcome), Outcome),
    "test_error": Column("error after the last epoch", _A_FRACTION, _fraction),
    "train_error": Column("the same on the training part", _A_FRACTION, _fraction),
    "chance_error": Column("error of guessing", _A_FRACTION, _fraction),
    "curve": Column("[epoch, test error] pairs", f"JSON as [[1,0.5],[3,0.25]] {_SHORT_JSON}", _curve),
    "seconds": Column("duration of the training", "a number from 0", _number),
    "weights": Column("bytes of the weights", _A_COUNT, _count),
    "activations": Column("bytes kept for the backward pass", _A_COUNT, _count),
    "gradients": Column("bytes of the gradient", _A_COUNT, _count),
    "states": Column("bytes of the optimizer's states", f'JSON as {{"momentum":64}} {_SHORT_JSON}', _states),
    "raw": Column("bytes in fp32 or integers", _A_COUNT, _count),
    "working": Column("extra bytes at the worst moment", _A_COUNT, _count),
    "recipe": Column("the recipe", f"JSON as peppp writes recipes, {_SHORT_JSON}", _recipe),
    "provenance": Column("versions, device", f'JSON as {{"torch":"2.13"}} {_SHORT_JSON}', _provenance),
}


def to_record(measurement: Measurement) -> dict[str, str | int | float]:
    """The measurement as a flat mapping of text, int and float, one value for each of ``COLUMNS``.

    Raises TableError, naming the field, if the measurement holds something that could not be read again,
    such as an error that is NaN.
    """
    m, footprint = measurement, measurement.footprint
    record: dict[str, str | int | float] = {
        "task": m.task,
        "fingerprint": m.fingerprint,
        "group": m.group,
        "configuration": str(m.configuration),
        "recipe_digest": m.recipe.digest,
        "seed": int(m.seed),
        "repeat": int(m.repeat),
        "outcome": str(m.outcome),
        "test_error": float(m.test_error),
        "train_error": float(m.train_error),
        "chance_error": float(m.chance_error),
        "curve": _to_json([[int(epoch), float(error)] for epoch, error in m.curve]),
        "seconds": float(m.seconds),
        "weights": int(footprint.weights),
        "activations": int(footprint.activations),
        "gradients": int(footprint.gradients),
        "states": _to_json({name: int(size) for name, size in footprint.states.items()}),
        "raw": int(footprint.raw),
        "working": int(footprint.working),
        "recipe": m.recipe.to_json(),
        "provenance": _to_json(dict(m.provenance)),
    }
    from_record(record, f"measurement of {m.task!r:.60} at {m.configuration}")
    return record


def from_record(record: Mapping[str, str | int | float], where: str) -> Measurement:
    """The measurement of a record whose values are plain or their texts.

    Raises TableError: ``where``, the column, what it holds and what it may hold.
    """
    values: dict[str, Any] = {}
    for name, column in COLUMNS.items():
        try:
            values[name] = column.read(str(record[name]))
        except (AttributeError, FormatError, RecursionError, TypeError, ValueError) as error:
            given = str(record[name])
            shown = repr(given if len(given) <= 60 else given[:57] + "...")
            raise TableError(f"{where}, column {name}: {shown} is not {column.allowed}") from error
    digest = values.pop("recipe_digest")
    if digest != values["recipe"].digest:
        raise TableError(
            f"{where}, column recipe_digest: {digest!r} is not the digest of the recipe beside it, "
            f"{values['recipe'].digest!r}; restore the recipe, whose measurement this is"
        )
    sizes = ("weights", "activations", "gradients", "states", "raw", "working")
    footprint = Footprint(**{name: values.pop(name) for name in sizes})
    return Measurement(footprint=footprint, **values)


def write_table(path: str | Path, measurements: Iterable[Measurement]) -> None:
    """Write measurements as a text table, gzipped if the name ends in ``.gz``; the same ones, the same bytes.

    One row a measurement under a header of ``COLUMNS``; recipe, curve, states and provenance are JSON.
    The file appears complete or not at all. Raises TableError on what could not be read again and
    StoreError where the file cannot be written.

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


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a row of the table, as its texts; the digest's agreement with the recipe is extra.

    >>> json_schema()["properties"]["test_error"]["description"]
    'error after the last epoch: a fraction from 0 to 1 with a decimal point, as 0.25'
    """
    patterns = {_count: _COUNT.pattern, _number: _NUMBER.pattern, _fraction: _NUMBER.pattern}
    properties: dict[str, Any] = {}
    for name, column in COLUMNS.items():
        shape: dict[str, Any] = {"type": "string", "description": f"{column.meaning}: {column.allowed}"}
        if column.read is Outcome:
            shape["enum"] = [str(outcome) for outcome in Outcome]
        elif column.read in patterns:
            shape["pattern"] = f"^({patterns[column.read]})$"
        elif column.read in (_curve, _states, _recipe, _provenance):
            shape |= {"contentMediaType": "application/json", "maxLength": LONGEST_JSON}
        else:
            shape |= {"minLength": 1, "maxLength": LONGEST_TEXT}
        properties[name] = shape
    properties["recipe_digest"]["pattern"] = "^[0-9a-f]{16}$"
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A measurement: one training at one precision",
        "type": "object",
        "properties": properties,
        "required": list(COLUMNS),
        "additionalProperties": False,
    }


def _to_json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _check_header(header: list[str], path: Path) -> None:
    if sorted(header) != sorted(COLUMNS):
        missing = ", ".join(name for name in COLUMNS if name not in header)
        if not set(header) & set(COLUMNS):
            raise TableError(
                f"{path}, line 1: not the header of a table of measurements; give a table that "
                "`peppp table export` wrote, or a store"
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


@contextmanager
def writing(path: Path) -> Iterator[io.TextIOBase]:
    """A text file to write, gzipped if its name ends in ``.gz``: it appears complete or not at all.

    Raises StoreError where it cannot be written.
    """
    try:
        with TemporaryDirectory(prefix=".peppp-", dir=path.parent) as folder:
            unfinished = Path(folder) / path.name
            with _writable(unfinished) as file:
                yield file
            os.replace(unfinished, path)
    except OSError as error:
        raise StoreError(
            f"cannot write the table {path}: {error.strerror or error}; give a file in a folder that exists "
            "and can be written"
        ) from error


@contextmanager
def reading(path: Path) -> Iterator[io.TextIOBase]:
    """A text file to read, gunzipped if its name ends in ``.gz``.

    Raises StoreError where there is no such file and TableError where it is no text.
    """
    try:
        # utf-8-sig: spreadsheets put a byte order mark before the header.
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt", encoding="utf-8-sig", newline="") as file:
            yield file
    except (csv.Error, EOFError, UnicodeDecodeError, gzip.BadGzipFile, zlib.error) as error:
        raise TableError(f"not a table: {path} cannot be read as CSV in UTF-8 ({error})") from error
    except OSError as error:
        raise StoreError(
            f"cannot read the table {path}: {error.strerror or error}; give a table of peppp or a CSV"
        ) from error


@contextmanager
def _writable(path: Path) -> Iterator[io.TextIOBase]:
    with path.open("wb") as raw:
        if path.suffix == ".gz":
            # Neither a time nor a name in the file: the same table gives the same bytes.
            with (
                gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as packed,
                io.TextIOWrapper(packed, encoding="utf-8", newline="") as file,
            ):
                yield file
        else:
            with io.TextIOWrapper(raw, encoding="utf-8", newline="") as file:
                yield file
