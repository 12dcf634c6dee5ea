"""Data sets by a text: the catalog's, what a user has on disk, the hub's, and those that need no download.

A text is ``digits``, ``digits:02468`` (some classes), ``wine`` and other names of
:mod:`peppp.tasks.builtin`; a name of the catalog (``cifar10``, ``imagenet-bag``), or ``cifar10=/path`` where
it lies elsewhere; ``npz:FILE``, ``folder:FOLDER``, ``text:FILE``, or just a path; ``hf:owner/name@revision``;
``own:package.module:function``. Behind it, ``?train=1600&test=2000`` limits its parts, ``resolution=16``
sets the side of its images and ``group=NAME`` names the source that it shares with siblings.
"""

from collections.abc import Callable
from dataclasses import replace
from difflib import get_close_matches
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
    "npz": lambda rest, resolution: read_npz(Path(rest), resolution),
    "text": lambda rest, resolution: read_text(Path(rest), resolution),
    "hf": read_hub,
    "digits": lambda rest, resolution: read_builtin(f"digits:{rest}", resolution),
    "own": lambda rest, resolution: _own(rest),
}


@checked
def load(text: str, *, resolution: int = 0, seen: Seen | None = None) -> Dataset:
    """The data set of a text (see above), its images square with ``resolution`` pixels a side.

    With resolution 0, images that are square, of one size and at most 64 pixels stay as they are, and others
    come at 32; those of the catalog come at the paper's. Images are cropped to their centre square, resized
    with Lanczos, grey ones made three equal channels. Sets without a test part are split 80/20, stratified
    and seeded. For texts the resolution is the number of characters that are seen at once. ``seen`` is
    called with the number of classes and the side in pixels as soon as a folder of images shows them, before
    any image is decoded; it may raise.

    Raises DataError: one line that names the file and what is wrong with it.

    >>> load("digits:01").train_inputs.shape, load("digits").classes[:3]
    ((288, 8, 8, 3), ('0', '1', '2'))
    """
    source, _, query = text.partition("?")
    if not source:
        raise DataError(
            f"a data set has no name in {text!r}; give a folder (. is this one), a file or a name"
        )
    options = _options(query, text)
    resolution = int(options.pop("resolution", resolution))
    group = options.pop("group", None)
    dataset = _read(source, text, resolution, seen)
    if options:
        limits = {part: int(limit) for part, limit in options.items()}
        dataset = cut(dataset, train=limits.get("train"), test=limits.get("test"))
    return replace(dataset, group=group) if group else dataset


def _read(source: str, text: str, resolution: int, seen: Seen | None) -> Dataset:
    kind, separator, rest = source.partition(":")
    slug, given, path = source.partition("=")
    if source == "digits":
        return read_builtin(source, resolution)
    if given and catalog.is_named(slug):
        return read_entry(catalog.find(slug), Path(path), resolution)
    if separator:
        if kind == "folder":
            return read_folder(Path(rest), resolution, seen=seen)
        if kind not in _KINDS:
            known = "digits, npz:FILE, folder:FOLDER, text:FILE, hf:OWNER/NAME, own:MODULE:FUNCTION"
            raise DataError(f"unknown kind of data {kind!r} in {text!r}; known: {known}")
        return _KINDS[kind](rest, resolution)
    if source.endswith(".npz"):
        return read_npz(Path(source), resolution)
    if not Path(source).is_dir():  # a folder of that name comes first, as whoever made it would expect
        if source in NAMES:
            return read_builtin(source, resolution)
        if catalog.is_named(source):
            return read_entry(catalog.find(source), None, resolution)
        near = get_close_matches(source, [*NAMES, "digits", *(entry.slug for entry in catalog.entries())], 3)
        if near and not Path(source).exists():
            raise DataError(f"no folder and no data set {source!r}; near it: {', '.join(near)}")
    return read_folder(Path(source), resolution, seen=seen)


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
    """What a user's function gives."""
    dataset = imported(name, DataError, "data set")()
    if not isinstance(dataset, Dataset):
        raise DataError(f"{name} gave a {type(dataset).__name__}; give a peppp.tasks.dataset.Dataset")
    return dataset
