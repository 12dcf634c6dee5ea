"""The report of a pick: turns plain data into one HTML document that works from disk and loads nothing."""

import hashlib
import html
import os
from base64 import b64encode
from collections.abc import Mapping, Sequence
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateError
from markupsafe import Markup

from peppp import pareto
from peppp.arguments import checked
from peppp.errors import ArgumentError, StoreError
from peppp.files import check_place, whole

_FOLDER = Path(__file__).parent
_KINDS = ("estimated", "measured")


@checked
def render(page: Mapping[str, Any]) -> str:
    """Render the page of one task, or of several, as a self-contained HTML document.

    The page of several tasks comes from :func:`peppp.page.overview.overview`. The page of one task holds
    ``title``, ``task``, ``network``, ``budget`` (bytes), ``rank``, ``rows``, the row indices ``frontier``,
    and the row index ``pick`` (None if nothing fits). It may also hold

    - ``proof``: the errors of the chosen configuration before and after it was trained;
    - ``reliable``: False if there are too few measurements for the rank;
    - ``notes``: texts to show below the title;
    - ``tolerance``: errors that differ by at most this much tie, and the least memory is picked;
    - ``costs``: each with ``name``, ``unit``, ``source`` and the ``values`` of all rows;
    - ``cost_frontier``: the indices of the rows that are Pareto optimal in error and all costs;
    - ``counts``: ``"peak"`` if totals are peaks of a training step and rows hold ``kept``, else ``"kept"``.

    A row may hold ``named`` (True for a precision by name) and ``settled`` (False if its measured error is
    one noisy run, so that the estimate counts). Errors are fractions, sizes bytes; all texts are escaped.

    >>> format_a = {"text": "1-4-1", "exponent_bits": 4, "mantissa_bits": 1}
    >>> format_b = {"text": "1-6-7", "exponent_bits": 6, "mantissa_bits": 7}
    >>> memory = {"weights": 9_000_000, "activations": 40_000_000, "optimizer": 42_000_000, "raw": 200_000}
    >>> row = {"configuration": "1-4-1/1-6-7", "format_a": format_a, "format_b": format_b,
    ...        "estimated": 0.213, "measured": None, "interval": [0.19, 0.24],
    ...        "memory": memory, "total": 91_200_000}
    >>> html = render({"title": "Cats & dogs", "task": "pets", "network": "resnet18", "budget": 10**8,
    ...                "rank": 3, "rows": [row], "frontier": [0], "pick": 0})
    >>> "<h1>Cats &amp; dogs</h1>" in html, "21.30%" in html, "91.2" in html
    (True, True, True)
    """
    try:
        return _rendered(page)
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, TemplateError) as problem:
        raise ArgumentError(
            f"not the data of a page ({type(problem).__name__}: {problem}); give what a pick's page_data or "
            "an overview is"
        ) from problem


def _rendered(page: Mapping[str, Any]) -> str:
    several = "tasks" in page
    drawn = _drawn_tasks(page) if several else _drawn(page)
    digits = drawn["digits"]
    name = "overview" if several else "report"
    script = Markup(_asset("report.js") + (_asset("overview.js") if several else ""))
    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    environment.filters["percent"] = lambda error: _fixed(100 * error, digits["percent"]) + "%"
    environment.filters["megabytes"] = lambda size: _fixed(size / 10**6, digits["megabytes"])
    return environment.get_template(f"{name}.html.jinja").render(
        page=drawn,
        style=Markup(_asset("report.css")),
        script=script,
        script_hash=b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


@checked
def write_report(path: str | os.PathLike[str], page: Mapping[str, Any]) -> None:
    """Write the page to a file, completely or not at all; an existing file is replaced.

    Folders are not created. Raises StoreError if the file cannot be written.

    >>> write_report("no/such/folder/report.html", {})
    Traceback (most recent call last):
    peppp.errors.StoreError: cannot write no/such/folder/report.html: there is no folder no/such/folder; ...
    """
    target = Path(path)
    check_place(target)
    content = render(page).encode("utf-8", errors="replace")  # a folder's name may hold surrogates
    try:
        with whole(target) as unfinished:
            unfinished.write_bytes(content)
    except OSError as error:
        raise StoreError(f"cannot write {target}: {error.strerror}; name another file or folder") from error


def framed(page: Mapping[str, Any]) -> str:
    """Return the page of a notebook's cell; the frame separates its styles from those of the notebook."""
    source, title = html.escape(render(page)), html.escape(page["title"])
    return (
        f'<iframe srcdoc="{source}" title="{title}" sandbox="allow-scripts" '
        'style="width: 100%; height: 46em; border: 0"></iframe>'
    )


def _asset(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


def _drawn(page: Mapping[str, Any]) -> dict[str, Any]:
    """Add to the page of one task what its template and script need."""
    rows = [dict(row) for row in page["rows"]]
    totals = [row["total"] for row in rows]
    for row in rows:  # round errors as the library does when it compares them
        row |= {kind: row[kind] if row[kind] is None else float(pareto.settled(row[kind])) for kind in _KINDS}
        row.setdefault("named", False)
        row["settles"] = row["measured"] is not None and row.get("settled", True)
    errors = [row["measured"] if row["settles"] else row["estimated"] for row in rows]
    for row in rows:
        if row["settles"] and row["estimated"] == row["measured"]:
            row["estimated"] = None  # the measurement has overwritten the estimate
    return dict(page) | {
        "rows": rows,
        "frontier": pareto.frontier(totals, errors).tolist(),  # of all rows, for the slider
        "proof": page.get("proof"),
        "tolerance": page.get("tolerance", 0.0),
        "noisy": any(row["measured"] is not None and not row["settles"] for row in rows),
        "reliable": page.get("reliable", True),
        "notes": page.get("notes", []),
        "costs": page.get("costs", []),
        "cost_frontier": page.get("cost_frontier", []),
        "digits": _digits(errors, max(totals)),
    }


def _drawn_tasks(page: Mapping[str, Any]) -> dict[str, Any]:
    """Add to the page of several tasks what its template and script need."""
    tasks = [dict(task) | {"measured": task["observed"].count("1")} for task in page["tasks"]]
    errors = [error for task in tasks for error in task["errors"]]
    squares = [value**2 for value in page["singular_values"]]
    leading = min(3, len(squares))
    return dict(page) | {
        "tasks": tasks,
        "measured": sum(task["measured"] for task in tasks),
        "least": min(errors),
        "most": max(errors),
        "leading": leading,
        "energy": sum(squares[:leading]) / sum(squares) if any(squares) else 1.0,
        "digits": _digits(errors, max(total for task in tasks for total in task["totals"])),
    }


def _digits(errors: Sequence[float], largest: int) -> dict[str, int]:
    """The decimals of all percentages and megabytes of a page, enough to distinguish its rows."""
    return {
        "percent": 1 if max(errors) - min(errors) >= 0.02 else 2,
        "megabytes": min(6, max(1, 10 - len(str(largest)))),  # four digits or more of the largest
    }


def _fixed(value: float, digits: int) -> str:
    """Format a number as the page's JavaScript does: ``digits`` decimals, halves away from zero."""
    return f"{Decimal(str(value)).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP):,}"
