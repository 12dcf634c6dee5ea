"""Read the data set that a text names.

A text is one of these:

- ``digits``, ``digits:02468`` (some classes), or another name of :mod:`peppp.tasks.builtin`;
- a name of the catalog (``cifar10``, ``imagenet-bag``), or ``cifar10=/path`` if it is not in the data root;
- ``npz:FILE``, ``folder:FOLDER``, ``text:FILE``, or just a path;
- ``hf:owner/name@revision`` on the Hugging Face hub;
- ``own:package.module:function``, which is called without arguments.

Options may follow: ``?train=1600&test=2000`` limits the parts, ``resolution=16`` sets the side of the images
in pixels, and ``group=NAME`` names the source that related sets share. In a path, ``%3F`` is a question mark,
``%2C`` a comma, ``%0A`` a new line and ``%25`` a per cent sign. A text that exists on disk as a whole path
needs no escapes.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from difflib import get_close_matches
from os.path import exists, isdir  # unlike Path, False for a text too long to be a path
from pathlib import Path
from urllib.parse import parse_qsl

from peppp.arguments import checked
from peppp.errors import DataError
from peppp.tasks import catalog
from peppp.tasks.arrays import read_npz
from peppp.tasks.builtin import NAMES, read_builtin, read_text
from peppp.tasks.dataset import Dataset, cut
from peppp.tasks.folders import Seen, read_folder
from peppp.tasks.hub import read_hub
from peppp.tasks.own import imported
from peppp.tasks.sources import read_entry

_KINDS: dict[str, Callable[[str, int], Dataset]] = {
    "npz": lambda rest, resolution: read_npz(Path(_unescaped(rest)), resolution),
    "text": lambda rest, resolution: read_text(Path(_unescaped(rest)), resolution),
    "hf": read_hub,
    "digits": lambda rest, resolution: read_builtin(f"digits:{rest}", resolution),
    "own": lambda rest, resolution: _own(rest),
}


@checked
def load(text: str, *, resolution: int = 0, seen: Seen | None = None) -> Dataset:
    """Read the data set that ``text`` names (see above), with square images of ``resolution`` pixels a side.

    With resolution 0, square images of one size up to 64 pixels keep that size, and others are resized to 32;
    sets of the catalog get the paper's resolution. Images are cropped to their centre square and resized with
    Lanczos; grey images get three equal channels. Sets without a test part are split 80/20, stratified and
    seeded. For a text, the resolution is the number of characters in a window. For a folder of images,
    ``seen`` is called before any image is decoded, with the number of classes, the side in pixels and the
    number of training images; it may raise.

    Raises DataError, naming the file and what is wrong with it.

    >>> load("digits:01").train_inputs.shape, load("digits").classes[:3]
    ((288, 8, 8, 3), ('0', '1', '2'))
    """
    # A question mark in the name of something on disk does not begin options.
    source, _, query = (text, "", "") if exists(text) else text.partition("?")
    if not source:
        raise DataError(f"{text!r} names no data set; give a folder (. is this one), a file or a name")
    options = _options(query, text)
    resolution = int(options.pop("resolution", resolution))
    group = options.pop("group", None)
    dataset = _read(source, text, resolution, seen)
    if resolution and dataset.kind == "numbers":
        raise DataError(f"{source} holds numbers, which have no resolution; leave the resolution out")
    if options:
        limits = {part: int(limit) for part, limit in options.items()}
        dataset = cut(dataset, train=limits.get("train"), test=limits.get("test"))
    return replace(dataset, group=group) if group else dataset


def _read(source: str, text: str, resolution: int, seen: Seen | None) -> Dataset:
    kind, separator, rest = source.partition(":")
    slug, given, path = source.partition("=")
    on_disk = source if exists(source) else _unescaped(source)
    if source == "digits":
        return read_builtin(source, resolution)
    if given and catalog.is_named(slug):
        return read_entry(catalog.find(slug), Path(_unescaped(path)), resolution)
    if separator:
        if kind == "folder":
            return read_folder(Path(_unescaped(rest)), resolution, seen=seen)
        if kind not in _KINDS:
            known = "digits, npz:FILE, folder:FOLDER, text:FILE, hf:OWNER/NAME, own:MODULE:FUNCTION"
            raise DataError(f"unknown kind of data {kind!r} in {text!r}; known: {known}")
        return _KINDS[kind](rest, resolution)
    if source.endswith(".npz"):
        return read_npz(Path(on_disk), resolution)
    if not isdir(on_disk):  # a folder of that name takes precedence
        if source in NAMES:
            return read_builtin(source, resolution)
        if catalog.is_named(source):
            return read_entry(catalog.find(source), None, resolution)
        near = get_close_matches(source, [*NAMES, "digits", *(entry.slug for entry in catalog.entries())], 3)
        if near and not exists(on_disk):
            raise DataError(f"no folder and no data set {source!r}; similar names: {', '.join(near)}")
    if not exists(on_disk) and ("," in source or "?" in text):
        raise DataError(
            f"no such folder: {on_disk}; in a path, write %2C for a comma and %3F for a question mark"
        )
    return read_folder(Path(on_disk), resolution, seen=seen)


def names_in(text: str) -> list[str]:
    """Split a list of data sets at its commas; a text that exists on disk as a whole is one data set.

    >>> names_in("digits, wine,digits"), names_in("folder:cats%2C dogs?train=100")
    (['digits', 'wine'], ['folder:cats%2C dogs?train=100'])
    """
    if exists(text):
        return [text]
    return list(dict.fromkeys(part.strip() for part in text.split(",")))


def _unescaped(path: str) -> str:
    """Replace the escapes of question marks, commas, new lines and per cent signs in a path."""
    return re.sub("%(3F|2C|0A|25)", lambda found: chr(int(found[1], 16)), path, flags=re.IGNORECASE)


def _options(query: str, text: str) -> dict[str, str]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    for name, value in options.items():
        is_count = name in ("train", "test", "resolution") and value.isdecimal() and int(value) > 0
        if not is_count and not (name == "group" and value):
            raise DataError(
                f"cannot read {name}={value} in {text!r}; "
                "write ?train=1600&test=2000&resolution=16&group=NAME"
            )
    return options


def _own(name: str) -> Dataset:
    """Call the user's function; raise DataError if it does not return a data set."""
    dataset = imported(name, DataError, "data set")()
    if not isinstance(dataset, Dataset):
        raise DataError(f"{name} returned a {type(dataset).__name__}; return a peppp.tasks.dataset.Dataset")
    return dataset
