"""Keep what took long to work out as files in the user's cache, so that it is worked out only once."""

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from peppp.files import whole

_T = TypeVar("_T")


def folder(kind: str) -> Path:
    """Return the folder for one kind of files: below PEPPP_CACHE if it is set, else in the user's cache."""
    if os.environ.get("PEPPP_CACHE"):
        return Path(os.environ["PEPPP_CACHE"]) / kind
    from platformdirs import user_cache_path  # may be missing where only torch and numpy are installed

    return user_cache_path("peppp") / kind


def kept(
    kind: str,
    key: object,
    make: Callable[[], _T],
    *,
    to_plain: Callable[[_T], Any],
    from_plain: Callable[[Any], _T],
) -> _T:
    """Return the value kept for ``key``, or call ``make`` and keep what it returns.

    The ``repr`` of ``key`` names everything that the value depends on but peppp's own code, which is added:
    another version works its values out again. ``to_plain`` gives JSON data, and ``from_plain`` reads them.
    A file is complete or absent. An unreadable file is written again, and if writing fails, the value is
    returned without being kept.
    """
    text = f"{_code()} {key!r}"
    path = folder(kind) / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"
    with suppress(Exception):  # a missing, truncated or foreign file is replaced below
        return from_plain(json.loads(path.read_text()))
    value = make()
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as unfinished:
            unfinished.write_text(json.dumps(to_plain(value)))
    return value


@cache
def _code() -> str:
    """A digest of peppp's source files."""
    total = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        total.update(path.read_bytes())
    return total.hexdigest()
