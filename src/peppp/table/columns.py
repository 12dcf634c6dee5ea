"""Convert measurements to and from flat records of plain values, for the text table and the store.

Records are checked in the same way when they are made and when they are read, so that whatever is stored can
be read again. Reading a record never executes anything in it.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from types import MappingProxyType
from typing import Any, get_origin

from peppp.arguments import trusted
from peppp.errors import FormatError, TableError
from peppp.precisions.known import Precision, parse_precision
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


def _pairs(curve: Any) -> tuple[tuple[int, float], ...]:
    return tuple((_count(str(epoch)), _fraction(str(error))) for epoch, error in curve)


def _sizes(states: Any) -> dict[str, int]:
    return {_name(name): _count(str(size)) for name, size in states.items()}


def _texts(provenance: Any) -> dict[str, str]:
    return {_name(name): _text(value) for name, value in provenance.items()}


def _curve(text: str) -> tuple[tuple[int, float], ...]:
    return _pairs(_json(text))


@lru_cache(maxsize=4096)  # the rows of a campaign share them
def _states(text: str) -> Mapping[str, int]:
    return MappingProxyType(_sizes(_json(text)))


@lru_cache(maxsize=4096)
def _provenance(text: str) -> Mapping[str, str]:
    return MappingProxyType(_texts(_json(text)))


@lru_cache(maxsize=4096)
def _precision(text: str) -> Precision:
    return parse_precision(text)


@dataclass(frozen=True, slots=True)
class Column:
    """A field of a record: its meaning, the values it allows, and the function that reads its text."""

    meaning: str
    allowed: str
    read: Callable[[str], Any]


_A_NAME = f"1 to {LONGEST_TEXT} printable characters"
_A_COUNT = "a whole number from 0"
_A_FRACTION = "a fraction from 0 to 1 with a decimal point, such as 0.25"
_SHORT_JSON = f"of at most {LONGEST_JSON} characters"

COLUMNS: Mapping[str, Column] = {
    "task": Column("name of the data set", _A_NAME, _name),
    "fingerprint": Column("digest of the data set's contents", _A_NAME, _name),
    "group": Column("source that the task shares with its siblings", _A_NAME, _name),
    "configuration": Column(
        "Format A / Format B, or a name",
        "two formats, such as 1-4-1/1-6-7, or the name of a precision, such as amp-bf16",
        _precision,
    ),
    "recipe_digest": Column("digest of the recipe", "16 hexadecimal digits", _name),
    "seed": Column("seed of the run", _A_COUNT, _count),
    "repeat": Column("number of the run among those that share all fields before this one", _A_COUNT, _count),
    "outcome": Column("how the training ended", " or ".join(Outcome), Outcome),
    "test_error": Column("error after the last epoch", _A_FRACTION, _fraction),
    "train_error": Column("error on the training part after the last epoch", _A_FRACTION, _fraction),
    "chance_error": Column("error of guessing", _A_FRACTION, _fraction),
    "curve": Column("[epoch, test error] pairs", f"JSON such as [[1,0.5],[3,0.25]], {_SHORT_JSON}", _curve),
    "seconds": Column("duration of the training", "a number from 0", _number),
    "weights": Column("bytes of the weights", _A_COUNT, _count),
    "activations": Column("bytes kept for the backward pass", _A_COUNT, _count),
    "gradients": Column("bytes of the gradient", _A_COUNT, _count),
    "states": Column(
        "bytes of the optimizer's states", f'JSON such as {{"momentum":64}}, {_SHORT_JSON}', _states
    ),
    "raw": Column("bytes in fp32 or integers", _A_COUNT, _count),
    "working": Column("extra bytes at the peak", _A_COUNT, _count),
    "recipe": Column("the recipe", f"JSON as peppp writes recipes, {_SHORT_JSON}", _recipe),
    "provenance": Column(
        "versions and device", f'JSON such as {{"torch":"2.13"}}, {_SHORT_JSON}', _provenance
    ),
}


def check(measurement: Measurement) -> None:
    """Raise TableError if the measurement holds a value that its column does not allow."""
    where = f"measurement of {measurement.task!r:.60} at {measurement.configuration}"
    for name, value in _scalars(measurement).items():
        _read(name, COLUMNS[name].read, value, where)
    _read("curve", _pairs, measurement.curve, where)
    _read("states", _sizes, measurement.footprint.states, where)
    _read("provenance", _texts, measurement.provenance, where)


def to_record(measurement: Measurement) -> dict[str, str | int | float]:
    """Return the measurement as a flat mapping of text, int and float, one value for each of ``COLUMNS``.

    Raises TableError, naming the field, if the measurement holds something that could not be read again, such
    as an error that is NaN.
    """
    m = measurement
    values: dict[str, str | int | float] = _scalars(m) | {
        "configuration": str(m.configuration),
        "recipe_digest": m.recipe.digest,
        "outcome": str(m.outcome),
        "curve": _to_json([[int(epoch), float(error)] for epoch, error in m.curve]),
        "states": _to_json({name: int(size) for name, size in m.footprint.states.items()}),
        "recipe": m.recipe.to_json(),
        "provenance": _to_json(dict(m.provenance)),
    }
    record = {name: values[name] for name in COLUMNS}
    from_record(record, f"measurement of {m.task!r:.60} at {m.configuration}")
    return record


def _scalars(m: Measurement) -> dict[str, str | int | float]:
    """Return the fields of a measurement that are a single text or number."""
    return {
        "task": m.task,
        "fingerprint": m.fingerprint,
        "group": m.group,
        "seed": int(m.seed),
        "repeat": int(m.repeat),
        "test_error": float(m.test_error),
        "train_error": float(m.train_error),
        "chance_error": float(m.chance_error),
        "seconds": float(m.seconds),
        "weights": int(m.footprint.weights),
        "activations": int(m.footprint.activations),
        "gradients": int(m.footprint.gradients),
        "raw": int(m.footprint.raw),
        "working": int(m.footprint.working),
    }


def from_record(record: Mapping[str, str | int | float], where: str) -> Measurement:
    """Make a measurement from a record, whose values may be numbers or their texts.

    Raises TableError that begins with ``where`` and names the column, its value and the allowed values.
    """
    values = {name: _read(name, column.read, record.get(name), where) for name, column in COLUMNS.items()}
    digest = values.pop("recipe_digest")
    if digest != values["recipe"].digest:
        raise TableError(
            f"{where}, column recipe_digest: {digest!r} is not the digest of the recipe in the same row, "
            f"{values['recipe'].digest!r}; restore the recipe that the measurement was made with"
        )
    sizes = ("weights", "activations", "gradients", "states", "raw", "working")
    footprint = trusted(Footprint, **{name: values.pop(name) for name in sizes})
    return trusted(Measurement, footprint=footprint, **values)


def _read(name: str, read: Callable[[Any], Any], value: Any, where: str) -> Any:
    """Read a value with ``read``, scalars from their text; raise TableError naming the column."""
    try:
        return read(str(value) if isinstance(value, (str, int, float)) else value)
    except (AttributeError, FormatError, RecursionError, TypeError, ValueError) as error:
        given = str(value)
        shown = repr(given if len(given) <= 60 else given[:57] + "...")
        raise TableError(f"{where}, column {name}: {shown} is not {COLUMNS[name].allowed}") from error


def read_recipe(text: str, where: str) -> Recipe:
    """Read a recipe that :meth:`Recipe.to_json` wrote; raise TableError that begins with ``where``."""
    return _read("recipe", _recipe, text, where)  # type: ignore[no-any-return]


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a table's row, in which every value is a text.

    A schema cannot say that the digest must belong to the recipe; :func:`from_record` checks that.

    >>> json_schema()["properties"]["test_error"]["description"]
    'error after the last epoch: a fraction from 0 to 1 with a decimal point, such as 0.25'
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
