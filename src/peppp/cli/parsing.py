"""Read the values of options that are lists: of configurations, and of numbers."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from peppp.errors import FormatError
from peppp.formats import Configuration, paper_grid, parse_format
from peppp.precisions.known import Precision, parse_precision

_T = TypeVar("_T")


def parse_configurations(text: str) -> list[Precision]:
    """``paper``, a file, a list of precisions, or Formats A x Formats B; parts join with ``+``.

    A file holds such texts, one a line; text after a # is ignored.

    >>> len(parse_configurations("paper")), len(parse_configurations("1-4-1,1-5-2 x 1-6-7,1-8-9"))
    (99, 4)
    >>> [str(one) for one in parse_configurations("fp32,1-4-1/1-6-7,amp-bf16")]
    ['fp32/fp32', '1-4-1/1-6-7', 'amp-bf16']
    """
    found: list[Precision] = []
    for part in text.split("+"):
        part = part.strip()
        if part == "paper":
            found += paper_grid()
        elif Path(part).is_file():
            found += _configurations_of(Path(part))
        elif " x " in part:
            side_a, _, side_b = part.partition(" x ")
            formats_b = [parse_format(item) for item in side_b.split(",")]
            found += [Configuration(parse_format(a), b) for a in side_a.split(",") for b in formats_b]
        else:
            items = [item.strip() for item in part.split(",")]
            found += [parse_precision(item) for item in items]
    return list(dict.fromkeys(found))


def parse_pairs(text: str) -> list[Configuration]:
    """:func:`parse_configurations` where only pairs of formats are of use."""
    found = parse_configurations(text)
    pairs = [one for one in found if isinstance(one, Configuration)]
    for one in found:
        if one not in pairs:
            raise FormatError(
                f"{one} is no pair of formats such as 1-4-1/1-6-7; see its memory with --precision {one}"
            )
    return pairs


def _configurations_of(path: Path) -> list[Precision]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(f"cannot read configurations from {path}: {error}") from None
    found: list[Precision] = []
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if text and Path(text).is_file():
            raise FormatError(f"{path}, line {number}: {text!r} is a file; a line names configurations")
        try:
            found += parse_configurations(text) if text else []
        except FormatError as error:
            raise FormatError(f"{path}, line {number}: {error}") from None
    if not found:
        raise FormatError(f"{path} names no configuration; write one a line, as 1-4-1/1-6-7")
    return found


def parse_list(texts: Sequence[str], read: Callable[[str], _T], option: str) -> list[_T]:
    """The values of an option that may be given several times, each time with several values between commas.

    >>> parse_list(["0.01, 0.001", "0.1"], float, "--learning-rate")
    [0.01, 0.001, 0.1]
    """
    found: list[_T] = []
    for text in texts:
        try:
            found += [read(part.strip()) for part in text.split(",")]
        except ValueError:
            example = "0.01,0.001" if read is float else "0,1,2"
            raise FormatError(f"{option} {text!r} is no list of numbers; write them as {example}") from None
    return list(dict.fromkeys(found))
