"""The page in a real browser: headless Chromium over playwright, whole pages from the real library."""

import json
import os
import random
import shutil
from collections import Counter

import numpy as np
import pytest

from page_data import campaign
from peppp import pareto
from peppp.advise.advisor import Advisor
from peppp.formats import paper_grid
from peppp.page.overview import overview
from peppp.page.report import write_report
from peppp.records import Footprint
from peppp.table.matrix import ErrorMatrix, Row

playwright = pytest.importorskip("playwright.sync_api", reason="needs pip install 'peppp[browser]'")
CHROMIUM = os.environ.get("PEPPP_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium (PEPPP_CHROMIUM names its program)")
GRID = paper_grid()


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, tmp_path):
    """Open a document; at the end, nothing may have been fetched and nothing said on the console."""
    contexts, trouble, requests = [], [], []

    def opened(path, **options):
        context = browser.new_context(**{"viewport": {"width": 1200, "height": 900}} | options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: trouble.append(message.text))
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("dialog", lambda dialog: (trouble.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(path.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert trouble == []
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
    assert sum(url.startswith("file:") for url in requests) == len(contexts)  # the page and nothing beside it


def footprints(rng):
    """Sizes that often are equal: what one network needs at each configuration."""
    weights, activations = rng.randrange(10**4, 10**6), rng.randrange(10**4, 10**7)
    return {
        c: Footprint(
            weights * c.format_a.bits // 8,
            activations * c.format_a.bits // 8,
            weights * c.format_b.bits // 8,
            {"momentum": weights * c.format_b.bits // 8},
            rng.choice([0, 99]),
        )
        for c in GRID
    }


def advised(seed, budget=None, told=6, levels=0, method="ed-mf"):
    """A real advisor on a random table; few ``levels`` of error make for many ties."""
    rng, numbers = random.Random(seed), np.random.default_rng(seed)
    errors = numbers.uniform(0.2, 1, (8, 3)) @ numbers.uniform(0.05, 0.3, (3, len(GRID)))
    if levels:
        errors = np.round(errors * levels) / levels
    table = ErrorMatrix.from_values(errors[1:], [Row(f"t{i}", "r", f"g{i}") for i in range(7)], GRID)
    sizes = footprints(rng)
    totals = sorted(f.total for f in sizes.values())
    advisor = Advisor(
        table,
        sizes,
        budget or totals[60],
        cap=totals[-1],
        measurements=told,
        task="<script>alert(1)</script>",
        network="resnet8",
        method=method,
    )
    while (configuration := advisor.ask()) is not None:
        advisor.tell(configuration, error=float(errors[0, GRID.index(configuration)]))
    return advisor


def budgets_of(pick, count, seed):
    totals = {p.footprint.total for p in pick.predictions}
    every = sorted({total + shift for total in totals for shift in (-1, 0, 1)} | {min(totals) // 2, 10**10})
    return sorted(random.Random(seed).sample(every, min(count, len(every))))


def library_pick(seed, budget, levels, method="ed-mf"):
    """The pick at another budget, after the same errors."""
    first = advised(seed, levels=levels, method=method)
    if budget < min(p.footprint.total for p in first.predictions()):
        return None
    other = advised(seed, budget, levels=levels, method=method, told=0)
    for configuration, error in first.observed.items():
        other.tell(configuration, error)
    return str(other.recommend().configuration)


@pytest.mark.parametrize("method", ["ed-mf", "gaussian", "two-best"])
@pytest.mark.parametrize(("seed", "levels"), [(0, 0), (1, 0), (2, 12), (3, 12), (4, 4)])
def test_the_pages_pick_is_the_librarys_at_many_budgets(visit, tmp_path, seed, levels, method):
    pick = advised(seed, levels=levels, method=method).recommend()
    pick.report(tmp_path / "page.html")
    page = visit(tmp_path / "page.html")
    assert page.text_content('[data-text="name"]') == str(pick.configuration)
    budgets = budgets_of(pick, 40, seed)
    shown = page.evaluate(
        """budgets => { const page = JSON.parse(document.querySelector("#page").textContent);
           return budgets.map(budget => { const best = pickWithin(page.rows, budget, page.tolerance);
             return best === null ? null : page.rows[best].configuration; }); }""",
        budgets,
    )
    assert shown == [library_pick(seed, budget, levels, method) for budget in budgets]


def test_slider_and_keys_move_the_pick(visit, tmp_path):
    advised(5).recommend().report(tmp_path / "page.html")
    page = visit(tmp_path / "page.html")
    slider = page.locator("#budget")
    slider.focus()
    seen = Counter()
    for key in ["Home", *["PageUp"] * 12, "End", "ArrowLeft", "ArrowRight"]:
        page.keyboard.press(key)
        budget = int(slider.input_value())
        expected = library_pick(5, budget, 0)
        name = page.text_content('[data-text="name"]') if page.is_visible("#picked") else None
        assert name == expected
        assert page.is_visible("#none") == (expected is None)
        if expected is not None:
            row = page.locator("tbody tr.picked")
            assert row.count() == 1
            assert row.locator("th").text_content().strip() == expected
            total = page.text_content('[data-text="used"]').split(" of ")[1]
            assert total in page.text_content(".budget")
            assert expected in slider.evaluate("it => it.ariaValueText")
        seen[expected] += 1
    assert len(seen) >= 4
    page.keyboard.press("Home")
    page.click("#use")
    assert page.is_visible("#picked")
    box = slider.bounding_box()
    page.mouse.click(box["x"] + 0.6 * box["width"], box["y"] + box["height"] / 2)
    assert page.text_content('[data-text="name"]') == library_pick(5, int(slider.input_value()), 0)


def test_the_memory_bar_is_the_budget(visit, tmp_path):
    pick = advised(6).recommend()
    pick.report(tmp_path / "page.html")
    page = visit(tmp_path / "page.html")
    parts = page.eval_on_selector_all(".bar span", "all => all.map(it => [it.className, +it.style.flexGrow])")
    f = pick.footprint
    sizes = [f.weights, f.activations, f.optimizer, f.raw, pick.budget - f.total]
    assert [share for _, share in parts] == pytest.approx([size / pick.budget for size in sizes])
    cells = page.eval_on_selector_all("#bits-a span", "all => all.map(it => it.className).join('')")
    a = pick.configuration.format_a
    assert cells == "s" + "e" * a.exponent_bits + "m" * a.mantissa_bits


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 400, 900, 1400])
def test_no_width_scrolls_sideways(visit, tmp_path, width, scheme):
    advised(7).recommend().report(tmp_path / "page.html")
    page = visit(tmp_path / "page.html", viewport={"width": width, "height": 800}, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    lightness = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (sum(lightness) < 3 * 60) == (scheme == "dark")
    page.click("#theme")
    assert (
        page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
        != lightness
    )


def test_a_task_named_like_a_script_is_shown_as_text(visit, tmp_path):
    advised(8).recommend().report(tmp_path / "page.html")
    page = visit(tmp_path / "page.html")
    assert "<script>alert(1)</script>" in page.text_content("header")
    assert page.locator("header script").count() == 0


def test_print_shows_the_whole_table_and_no_controls(visit, tmp_path):
    advised(9).recommend().report(tmp_path / "page.html")
    page = visit(tmp_path / "page.html", color_scheme="dark")
    page.emulate_media(media="print")
    assert not page.is_visible("#theme")
    assert not page.is_visible("#budget")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate(
        "document.querySelector('.scroll').scrollHeight <= document.querySelector('.scroll').clientHeight + 1"
    )


def test_columns_sort_both_ways(visit, tmp_path):
    pick = advised(10).recommend()
    pick.report(tmp_path / "page.html")
    page = visit(tmp_path / "page.html")
    names = "all => all.map(it => it.textContent.trim())"
    for ascending in (True, False):
        page.click('th[data-key="total"] button')
        order = page.eval_on_selector_all("tbody th", names)
        sizes = {str(p.configuration): p.footprint.total for p in pick.predictions}
        listed = [sizes[name] for name in order]
        assert listed == sorted(listed, reverse=not ascending)


def test_without_scripts_the_answer_and_the_table_are_there(browser, tmp_path):
    pick = advised(11).recommend()
    pick.report(tmp_path / "page.html")
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((tmp_path / "page.html").as_uri())
    assert str(pick.configuration) in page.text_content("noscript, .card")
    assert page.locator("tbody tr").count() == len(GRID)
    context.close()


def test_in_a_notebook_the_page_works_within_its_frame(visit, tmp_path):
    pick = advised(12).recommend()
    (tmp_path / "notebook.html").write_text(f"<!doctype html><title>n</title>{pick._repr_html_()}")
    page = visit(tmp_path / "notebook.html")
    frame = page.frame_locator("iframe")
    assert frame.locator('[data-text="name"]').text_content() == str(pick.configuration)
    assert frame.locator(".chart").is_visible()


def test_an_unreliable_pick_says_so(visit, tmp_path):
    advised(13, told=1).recommend().report(tmp_path / "page.html")
    assert visit(tmp_path / "page.html").locator(".warning").is_visible()
    advised(13).recommend().report(tmp_path / "page.html")
    assert visit(tmp_path / "page.html").locator(".warning").count() == 0


def test_in_the_browser_each_tasks_pick_is_the_librarys_at_every_budget(visit, tmp_path):
    found = campaign(3, name="<script>alert(1)</script>")
    made = overview(found)
    write_report(tmp_path / "all.html", made)
    page = visit(tmp_path / "all.html")
    slider = page.locator("#budget")
    slider.focus()
    for key in ["Home", *["PageUp"] * 8, "End", "ArrowLeft"]:
        page.keyboard.press(key)
        budget = int(slider.input_value())
        shown = page.eval_on_selector_all("tbody tr", "all => all.map(it => it.cells[1].textContent.trim())")
        figures = page.eval_on_selector_all("figure p", "all => all.map(it => it.textContent)")
        for text, figure, task in zip(shown, figures, made["tasks"], strict=True):
            pick = pareto.best(task["totals"], task["errors"], np.array(task["totals"]) <= budget)
            assert text == ("none fits" if pick is None else made["configurations"][pick])
            assert text in figure
    data = json.loads(page.text_content("#tasks"))
    assert page.locator("#heat rect.heat").count() == 594 + 2  # and two of the legend
    box = page.locator("#heat .matrix svg").bounding_box()
    page.mouse.move(box["x"] + 170 + 5, box["y"] + 24 + 8)
    word = "measured" if data["tasks"][0]["observed"][0] == "1" else "estimated"
    assert f"{data['configurations'][0]}: {word}" in page.text_content('[data-text="cell"]')
    page.focus("#heat .matrix")
    for key in ("ArrowDown", "ArrowRight", "ArrowRight", "ArrowLeft"):
        page.keyboard.press(key)
    word = "measured" if data["tasks"][1]["observed"][1] == "1" else "estimated"
    said = page.text_content('[data-text="cell"]')
    assert said.startswith(f"{data['tasks'][1]['name']}, {data['configurations'][1]}: {word}")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 400, 1200])
def test_no_width_of_the_overview_scrolls_sideways(visit, tmp_path, width, scheme):
    write_report(tmp_path / "all.html", overview(campaign()))
    page = visit(tmp_path / "all.html", viewport={"width": width, "height": 800}, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.emulate_media(media="print")
    assert page.evaluate("document.querySelector('.matrix svg').clientWidth") <= width
    assert not page.is_visible("#budget")
