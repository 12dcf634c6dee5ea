"""The page: harmless, self-contained, complete, and its pick is the library's."""

import hashlib
import json
import random
import re
import shutil
import subprocess
from base64 import b64encode
from html.parser import HTMLParser
from pathlib import Path

import pytest

import peppp.page.report
from peppp import pareto
from peppp.errors import StoreError
from peppp.formats import paper_grid
from peppp.page.report import render, write_report

FOLDER = Path(peppp.page.report.__file__).parent
EVIL = "<script>alert(1)</script>"


def _error(row):
    counts = row["measured"] is not None and row.get("settled", True)
    return row["measured"] if counts else row["estimated"]


def pick_within(rows, budget, tolerance=0.0):
    """The twin of the page's pickWithin."""
    fitting = [i for i, row in enumerate(rows) if row["total"] <= budget]
    least = min((_error(rows[i]) for i in fitting), default=0.0)
    near = [i for i in fitting if _error(rows[i]) <= least + tolerance]
    return min(near, key=lambda i: (rows[i]["total"], _error(rows[i]), i), default=None)


def make_page(seed=0, budget=120_000_000, levels=1000, **changes):
    """A page of the paper's 99 configurations; few ``levels`` of error make for many ties."""
    rng = random.Random(seed)
    rows = []
    for configuration in paper_grid():
        a, b = configuration.format_a, configuration.format_b
        memory = {"weights": 1_400_000 * a.bits, "activations": 7_500_000 * a.bits}
        memory |= {"optimizer": 2_800_000 * b.bits, "raw": 214_912}
        estimated = 0.1 + 0.6 * rng.randrange(levels) / levels
        rows.append(
            {
                "configuration": str(configuration),
                "format_a": {
                    "text": str(a),
                    "exponent_bits": a.exponent_bits,
                    "mantissa_bits": a.mantissa_bits,
                },
                "format_b": {
                    "text": str(b),
                    "exponent_bits": b.exponent_bits,
                    "mantissa_bits": b.mantissa_bits,
                },
                "estimated": estimated,
                "measured": None,
                "interval": [estimated - 0.03, estimated + 0.04],
                "memory": memory,
                "total": sum(memory.values()),
            }
        )
    for row in rng.sample(rows, 6):
        row |= {"measured": 0.1 + 0.6 * rng.randrange(levels) / levels, "interval": None}
    memories, errors = [row["total"] for row in rows], [_error(row) for row in rows]
    within = [memory <= budget for memory in memories]
    page = {"title": "A pick", "task": "flowers", "network": "resnet18", "budget": budget, "rank": 3}
    page |= {"rows": rows, "frontier": pareto.frontier(memories, errors, within).tolist()}
    return page | {"pick": pick_within(rows, budget)} | changes


class Reader(HTMLParser):
    """Tags with their attributes, the text of each script and of each table cell."""

    def __init__(self, document):
        super().__init__()
        self.tags, self.scripts, self.lines, self._open = [], [], [], None
        self.feed(document)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self._open = tag
        if tag == "script":
            self.scripts.append("")
        if tag == "tr":
            self.lines.append([])
        if tag in ("td", "th"):
            self.lines[-1].append("")

    def handle_endtag(self, tag):
        self._open = None if tag in ("script", "td", "th") else self._open

    def handle_data(self, data):
        if self._open == "script":
            self.scripts[-1] += data
        elif self._open in ("td", "th", "button") and self.lines and self.lines[-1]:
            self.lines[-1][-1] += data.strip()


def run_node(expression, data):
    """What an expression over ``report`` (the page's functions) and ``data`` gives in node."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node, which runs the page's functions, is not installed")
    program = f"""
        const report = require({json.dumps(str(FOLDER / "report.js"))});
        const data = JSON.parse(require("fs").readFileSync(0, "utf8"));
        console.log(JSON.stringify({expression}));
    """
    done = subprocess.run([node, "-e", program], input=json.dumps(data), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_text_given_by_users_stays_text():
    page = make_page(title=EVIL, task=EVIL, network='"><img src=x onerror=alert(2)>')
    page["rows"][0]["configuration"] = EVIL + "</table>"
    page["rows"][0]["format_a"]["text"] = "</script><!--"
    reader = Reader(render(page))
    assert len(reader.scripts) == 2
    assert "img" not in [tag for tag, _ in reader.tags]
    assert not [name for _, attributes in reader.tags for name in attributes if name.startswith("on")]
    data = json.loads(reader.scripts[0])
    assert data["task"] == EVIL
    assert data["rows"][0]["format_a"]["text"] == "</script><!--"
    assert reader.lines[1][0] == EVIL + "</table>"


def test_only_its_own_script_may_run_and_nothing_may_be_fetched():
    document = render(make_page())
    reader = Reader(document)
    policy = next(a["content"] for tag, a in reader.tags if a.get("http-equiv") == "Content-Security-Policy")
    digest = b64encode(hashlib.sha256(reader.scripts[1].encode()).digest()).decode()
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{digest}'" in policy
    assert re.findall(r"https?://[^\s\"'<]*", document.replace("http://www.w3.org/2000/svg", "")) == []
    links = [a[name] for _, a in reader.tags for name in ("src", "href", "srcset", "action") if name in a]
    assert all(link.startswith("data:") for link in links)
    assert not re.search(r"url\((?!#)|@import|fetch\(|XMLHttpRequest", document)


def test_the_table_holds_every_number():
    page = make_page()
    lines = Reader(render(page)).lines[1:]
    assert len(lines) == 99
    for row, line in zip(page["rows"], lines, strict=True):
        assert line[0] == row["configuration"]
        assert float(line[2].rstrip("%")) == pytest.approx(100 * row["estimated"], abs=0.051)
        assert (line[4] == "") == (row["measured"] is None)
        sizes = [float(cell) for cell in line[5:]]
        assert sizes == pytest.approx([x / 1e6 for x in (row["total"], *row["memory"].values())], abs=0.051)
    assert [line[1] for line in lines].count("picked") == 1
    assert lines[page["pick"]][1] == "picked"


def test_an_estimate_that_the_measurement_overwrote_is_not_shown():
    page = make_page()
    measured = next(i for i, row in enumerate(page["rows"]) if row["measured"] is not None)
    page["rows"][measured]["estimated"] = page["rows"][measured]["measured"]
    document = render(page)
    assert Reader(document).lines[1 + measured][2] == ""
    assert "line to its estimate" in document  # of the other five
    for row in page["rows"]:
        row["estimated"] = row["estimated"] if row["measured"] is None else row["measured"]
    assert "line to its estimate" not in render(page)


def test_intervals_have_a_column_where_there_are_any():
    page = make_page()
    assert len(Reader(render(page)).lines[1]) == 10
    for row in page["rows"]:
        row["interval"] = None
    document = render(page)
    assert {len(line) for line in Reader(document).lines} == {9}
    assert ">Interval<" not in document


def test_the_proof_and_a_page_without_pick_are_rendered():
    proof = {"configuration": "1-4-1/1-6-7", "estimated": 0.2134, "measured": 0.2268, "fp32_error": 0.1917}
    document = render(make_page(proof=proof))
    assert all(f"<b>{text}%</b>" in document for text in ("21.3", "22.7", "19.2"))
    assert "19.2%" not in render(make_page(proof=proof | {"fp32_error": None}))
    assert "No configuration fits 1.0 MB" in render(make_page(budget=10**6))


def test_the_pages_frontier_is_the_given_one_within_the_budget_and_goes_on_beyond():
    page = make_page(levels=20)
    frontier = json.loads(Reader(render(page)).scripts[0])["frontier"]
    totals = [page["rows"][i]["total"] for i in frontier]
    assert [i for i, total in zip(frontier, totals, strict=True) if total <= page["budget"]] == page[
        "frontier"
    ]
    assert totals == sorted(totals)
    budgets = sorted({row["total"] for row in page["rows"]})
    assert {pick_within(page["rows"], budget) for budget in budgets} <= set(frontier)


@pytest.mark.parametrize("tolerance", [0.0, 0.002, 0.1])
@pytest.mark.parametrize("settled", [True, False])
@pytest.mark.parametrize("levels", [2, 7, 1000])
def test_the_pages_pick_is_the_librarys_at_every_budget(levels, settled, tolerance):
    tables = [make_page(seed, levels=levels)["rows"] for seed in range(20)]
    for seed, rows in enumerate(tables):
        random.Random(seed).shuffle(rows)
        for row in rows:
            row["settled"] = settled
    budgets = sorted({row["total"] + shift for row in tables[0] for shift in (-1, 0, 1)} | {0, 10**12})
    expression = "data[0].map((rows) => data[1].map((budget) => report.pickWithin(rows, budget, data[2])))"
    picks = run_node(expression, [tables, budgets, tolerance])
    assert picks == [[pick_within(rows, budget, tolerance) for budget in budgets] for rows in tables]


def test_the_smallest_budget_that_works_is_named():
    rows = make_page()["rows"][::-1]
    assert rows[run_node("report.smallest(data)", rows)]["total"] == min(row["total"] for row in rows)
    digits = {"megabytes": 1}
    assert run_node("report.enough(83827412, data)", digits) == "83.9 MB (83,827,412 bytes)"


def test_the_page_and_its_script_agree_on_every_rounding():
    values = [0.25, 12.25, 0.05, 137.25, 1234567.85, -0.35, 99.95, 0.0] + [i / 7 for i in range(300)]
    cases = [[value, digits] for value in values for digits in (1, 2, 3)]
    written = run_node("data.map(([value, digits]) => report.fixed(value, digits))", cases)
    assert written == [peppp.page.report._fixed(value, digits) for value, digits in cases]


def test_the_scripts_standings_are_those_of_the_table():
    page = make_page()
    reader = Reader(render(page))
    page = json.loads(reader.scripts[0])
    standings = run_node("data.rows.map((_, i) => report.standing(data, i, data.budget, data.pick))", page)
    assert standings == [line[1] for line in reader.lines[1:]]
    assert set(standings) == {"picked", "frontier", "dominated", "over budget"}


@pytest.mark.parametrize("budget", [1, 120_000_000, 10**12])
def test_the_slider_spans_all_memories_in_whole_bytes(budget):
    rows = make_page()["rows"]
    for some in (rows, rows[:1], [row | {"total": row["total"] // 10**6} for row in rows]):
        span = run_node("report.memoryRange(data.rows, data.budget)", {"rows": some, "budget": budget})
        assert all(value == int(value) for value in span.values())
        assert 0 <= span["low"] < min(row["total"] for row in some)
        assert span["high"] > max(row["total"] for row in some)
        assert (span["high"] - span["low"]) % span["step"] == 0


def test_few_rows_that_need_far_more_lie_beyond_the_axis_unless_the_budget_reaches_them():
    rows = [{"total": 10**6 + 1000 * i, "configuration": f"c{i}"} for i in range(100)]
    rows += [{"total": total, "configuration": f"far{total}"} for total in (1_500_000, 2_000_000)]

    def high(budget, some=rows):
        return run_node("report.memoryRange(data[0], data[1])", [some, budget])["high"]

    def said(budget, some=rows):
        line = "report.beyondAxis(data[0], data[1], {megabytes: 2})"
        return run_node(line, [some, high(budget, some)])

    assert high(1_050_000) < 1_200_000
    assert said(1_050_000) == "far1500000 1.50 MB, far2000000 2.00 MB \u2192"
    assert said(1_050_000, [*rows, rows[-1]]) == "3 more, up to 2.00 MB \u2192"
    assert high(1_600_000) > 2_000_000  # the budget reaches them
    assert said(1_600_000) == ""
    assert high(1_050_000, rows[:100]) > 1_099_000
    assert high(1_050_000, [rows[0], *rows[100:]]) > 2_000_000  # not few


@pytest.mark.parametrize(("low", "high"), [(80.2, 143), (0.001, 0.0042), (12, 91.5), (-3, 4)])
def test_ticks_are_few_round_and_inside(low, high):
    ticks = run_node("report.ticks(data[0], data[1], 8)", [low, high])
    assert 3 <= len(ticks) <= 9
    assert all(low <= tick["value"] <= high for tick in ticks)
    assert all(float(tick["text"]) == pytest.approx(tick["value"]) for tick in ticks)


def test_sorting_keeps_rows_without_a_value_last():
    order = "[false, true].map((down) => report.sortedRows(data, (value) => value, down))"
    assert run_node(order, [3, None, 1, None, 2]) == [[2, 4, 0, 1, 3], [0, 4, 2, 1, 3]]


def test_an_error_never_stands_without_saying_what_it_is():
    digits = {"percent": 1, "megabytes": 1}
    rows = [
        {"estimated": 0.2, "measured": None, "interval": [0.1, 0.3]},
        {"estimated": 0.2, "measured": 0.25, "interval": None},
        {"estimated": None, "measured": 0.25, "interval": None},
    ]
    texts = run_node("data[0].map((row) => report.asideOf(row, data[1]))", [rows, digits])
    assert texts == ["not measured, interval 10.0%\xa0–\xa030.0%", "estimated 20.0%", ""]


def test_the_script_finds_what_it_looks_for():
    script, document = (FOLDER / "report.js").read_text(), render(make_page())
    for name in re.findall(r'find\("#([a-z]+)', script):
        assert f'id="{name}"' in document
    slots = set(re.findall(r'data-text="([a-z0-9-]+)"', document))
    filled = set(re.findall(r'^ +"?([a-z-]+)"?: ', script, re.M)) | set(
        re.findall(r"[{,] ([a-z]+): ", script)
    )
    parts = {"weights", "activations", "optimizer", "raw", "free"}
    made = {"format-a", "format-b"} | parts | {f"{part}-share" for part in parts}
    assert slots - made <= filled


def _luminance(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one, other):
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_contrast_is_wcag_aa(theme):
    pairs = re.findall(r"--([a-z-]+): light-dark\((#\w{6}), (#\w{6})\)", (FOLDER / "report.css").read_text())
    colours = {name: values[theme] for name, *values in pairs}
    for background in ("page", "card", "tint"):
        for text in ("ink", "quiet"):
            assert _contrast(colours[text], colours[background]) >= 4.5, (text, background)
    for text in ("measured", "pick", "best"):
        assert _contrast(colours[text], colours["card"]) >= 4.5, text
    for background in ("weights", "activations", "optimizer", "raw", "exponent"):
        assert _contrast(colours["on-colour"], colours[background]) >= 4.5, background
    assert _contrast(colours["ink"], colours["mantissa"]) >= 4.5
    assert _contrast(colours["estimate"], colours["card"]) >= 3


def test_write_report_replaces_a_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "report.html"
    path.write_text("older")
    write_report(path, make_page(task="naïve \udcff"))
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert "naïve ?" in path.read_text(encoding="utf-8")
    assert list(tmp_path.iterdir()) == [path]


def test_write_report_refuses_what_is_no_file(tmp_path):
    (tmp_path / "file").write_text("")
    for path, reason in [
        (tmp_path / "missing" / "report.html", "there is no folder"),
        (tmp_path / "file" / "report.html", "there is no folder"),
        (tmp_path, "it is not a file"),
        (tmp_path / ("x" * 300), "cannot write"),
    ]:
        with pytest.raises(StoreError, match=reason) as caught:
            write_report(str(path), make_page())
        assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_failed_write_keeps_the_older_file(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("older")

    def full(self, data):
        open(self, "wb").close()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StoreError, match="No space left on device; name another file or folder"):
        write_report(path, make_page())
    assert path.read_text() == "older"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("settled", "kind"), [(True, "measured"), (False, "estimated")])
def test_what_is_printed_calls_an_error_measured_only_if_it_counts(settled, kind):
    page = make_page()
    row = page["rows"][page["pick"]]
    row |= {"estimated": 0.2341, "measured": 0.1234, "settled": settled}
    html = render(page)
    static = html.split("<script")[0]
    counted = "12.3" if settled else "23.4"
    assert re.search(rf'<b>{re.escape(counted)}\d?%</b> <span class="kind {kind}">{kind}</span>', static)
