"""Every figure of a page that says what was measured is one that a command printed, or says where it is from.

``figures.toml`` names the sources of each section. A figure is a number with decimals, or a percentage.
"""

import json
import math
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GENERATED = {"results.md", "commands.md", "reference.md", "precisions.md", "rivals.md"}
PAGES = {
    str(page.relative_to(ROOT)): page
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    if page.name not in GENERATED
}
LEDGER = tomllib.loads((Path(__file__).parent / "figures.toml").read_text(encoding="utf-8"))
_NUMBER = r"(?<![\w.,/#@-])[-+±]?(\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d*\.\d+|\d+)(?![\w@]|[.,]\d|-\d)"
_FIGURE = re.compile(_NUMBER + r"(?:[  ]?(%|percent|GB|MB|kB))?")
_SHARED = re.compile(r"(?: to| and| or|,)\s[\d.,]+ (%|percent|GB|MB|kB)")
_UNITS = {"%": 100.0, "percent": 100.0, "GB": 1e-9, "MB": 1e-6, "kB": 1e-3}


def sections(text):
    """The title of each section, and its text without code, links and the targets of links."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    text = re.sub(r"\]\([^)]*\)|https?://\S+", "]", re.sub(r"`[^`\n]*`", "", text))
    for part in re.split(r"^(?=#+ )", text, flags=re.M):
        title, _, body = part.partition("\n")
        yield title.lstrip("# ").strip(), body


def figures(body):
    """The figures of a section, each as its text and its unit ("" for none)."""
    for match in _FIGURE.finditer(body):
        # In "3.26 and 3.59 MB", both numbers are of megabytes.
        shared = _SHARED.match(body, match.end())
        number, unit = match[1], match[2] or (shared[1] if shared else "")
        if "." in number or unit in ("%", "percent"):
            yield number, unit


def numbers(source):
    """All numbers that a command wrote to a file: values of JSON, and numbers in texts."""
    path = ROOT / source
    if path.suffix == ".json":
        return list(_walked(json.loads(path.read_text(encoding="utf-8"))))
    return [float(n.replace(",", "")) for n in re.findall(_NUMBER, path.read_text(encoding="utf-8"))]


def _walked(value):
    if isinstance(value, dict):
        value = [*value.keys(), *value.values()]
    if isinstance(value, list):
        for one in value:
            yield from _walked(one)
    elif isinstance(value, str):
        yield from (float(n) for n in re.findall(r"\d+(?:\.\d+)?", value))
    elif isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        yield float(value)


def is_printed(number, unit, known):
    """Whether a number is one of those known, in its unit, rounded to as many decimals as it has."""
    text = number.replace(",", "")
    half = 0.5 * 10.0 ** -len(text.partition(".")[2]) * (1 + 1e-6)
    scales = {1.0, _UNITS.get(unit, 1.0)}
    return any(abs(abs(one) * scale - float(text)) <= half for one in known for scale in scales)


def unprinted(body, entry):
    """The figures of a section that its sources did not print and that are not said to be from elsewhere."""
    known = [one for source in entry.get("from", ()) for one in numbers(source)]
    elsewhere = {number for group in entry.get("elsewhere", {}).values() for number in group}
    return [n for n, unit in figures(body) if n not in elsewhere and not is_printed(n, unit, known)]


@pytest.mark.parametrize("page", PAGES)
def test_every_figure_was_printed_by_a_command_or_says_where_it_is_from(page):
    own = LEDGER.get(page, {})
    found = dict(sections(PAGES[page].read_text(encoding="utf-8")))
    assert set(own) <= set(found), f"{page} has no section {sorted(set(own) - set(found))}"
    missing = {title: unprinted(body, own.get(title, {})) for title, body in found.items()}
    assert not {title: numbers for title, numbers in missing.items() if numbers}


def test_the_ledger_names_nothing_that_is_not_there():
    for page, titles in LEDGER.items():
        found = dict(sections(PAGES[page].read_text(encoding="utf-8")))
        for title, entry in titles.items():
            written = {number for number, _ in figures(found[title])}
            for why, group in entry.get("elsewhere", {}).items():
                assert set(group) <= written, f"{page}, {title}, {why}: {sorted(set(group) - written)}"
            for source in entry.get("from", ()):
                assert (ROOT / source).is_file(), source


def test_a_figure_that_no_command_printed_is_found():
    entry = {"from": ["benchmarks/results/budgets.json"], "elsewhere": {"the recipe": ["0.9"]}}
    page = (
        "# A\nThe peak is 726.0 MB, with momentum 0.9; 123.456 is invented, and so are 98.765 % of `0.5`.\n"
    )
    ((_, body),) = (section for section in sections(page) if section[0])
    assert unprinted(body, entry) == ["123.456", "98.765"]
    assert not list(figures("Version 2, 10 tasks, 1-4-1, 3.11.7"))
