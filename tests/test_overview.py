"""The report of several tasks, from measurements to the page in a browser."""

import re

import numpy as np
import pytest

from helpers import answer, peppp, refused
from page_data import COUNTS, campaign, measured
from peppp import pareto
from peppp.errors import BudgetError, TableError
from peppp.formats import FP32_CONFIGURATION, Configuration, paper_grid
from peppp.page.overview import overview, task_page
from peppp.page.report import render
from peppp.table.csv import write_table
from peppp.table.measured import footprints_at


@pytest.mark.parametrize("known", ["1-5-3/1-6-11", "1-4-3/1-7-9", "1-3-1/1-6-7"])
def test_a_footprint_carries_over_to_other_formats_as_it_would_be_counted(known):
    source = measured("t", Configuration.parse(known), 0.5)
    slack = 0 if source.configuration.format_a.bits >= 8 else 2  # a byte of weights, one of activations
    configurations = [*paper_grid(), Configuration.parse("mx-1-2-1/32/1-6-7")]
    at_each = footprints_at({source.configuration: source.footprint}, configurations)
    for configuration, carried in zip(configurations, at_each, strict=True):
        counted = COUNTS.footprint(configuration)
        assert abs(carried.total - counted.total) <= slack * 2
        assert carried.optimizer == counted.optimizer


def test_measured_errors_are_kept_and_averaged_and_the_others_are_near_the_planted_ones():
    found = campaign()
    found.append(measured("task0", found[6].configuration, found[6].test_error, seed=1))
    page = overview(found)
    for task in page["tasks"]:
        for text, error, seen in zip(page["configurations"], task["errors"], task["observed"], strict=True):
            own = [m.test_error for m in found if (m.task, str(m.configuration)) == (task["name"], text)]
            assert (seen == "1") == bool(own)
            if own:
                assert error == pytest.approx(np.mean(own), abs=1e-9)
        assert task["fp32"] == 0.05
        assert task["frontier"] == pareto.frontier(task["totals"], task["errors"]).tolist()
    assert page["singular_values"] == sorted(page["singular_values"], reverse=True)
    assert FP32_CONFIGURATION not in map(Configuration.parse, page["configurations"])


def test_what_was_hardly_measured_is_left_out_where_enough_is_left():
    found = campaign()
    thin = Configuration.parse("int8/1-6-7")
    page = overview([*found, measured("task0", thin, 0.01), measured("lonely", paper_grid()[5], 0.2)])
    assert str(thin) not in page["configurations"]
    assert "lonely" not in [task["name"] for task in page["tasks"]]
    assert "1 tasks" in page["left_out"]
    assert overview(found)["left_out"] == ""
    assert overview(campaign(share=0.1, planned=False))["left_out"].startswith("few measurements")


def test_wrong_budgets_and_tasks_are_refused():
    found = campaign()
    with pytest.raises(BudgetError, match="the smallest that works is"):
        overview(found, budget="1KB")
    with pytest.raises(TableError, match="no task 'cats'; there are task0"):
        task_page(overview(found), found, "cats")
    with pytest.raises(TableError, match="at least one measurement at low precision"):
        overview([measured("a", FP32_CONFIGURATION, 0.1)])


def test_texts_stay_texts():
    document = render(overview(campaign(name="</script><script>alert(1)</script>")))
    assert "<script>alert" not in document
    assert document.count("<script") == 2


def test_the_command_writes_a_page_and_says_what_stands_there(tmp_path):
    write_table(tmp_path / "table.csv", campaign())
    said = answer("report", "table.csv", "--budget", "3MB", "--html", "all.html", cwd=tmp_path)
    assert (tmp_path / "all.html").read_text().startswith("<!doctype html>")
    assert len(said["tasks"]) == 6
    assert all(task["total"] <= said["budget"] for task in said["tasks"] if task["pick"])
    done = peppp("report", "table.csv", "--task", "task3", "--html", "one.html", cwd=tmp_path)
    assert re.match(r"one.html: 6 tasks, 99 configurations, \d+ of 594 errors measured", done.stdout)
    assert "<b>task3</b>" in (tmp_path / "one.html").read_text()
    assert "no such file" in refused("report", "nowhere.db", cwd=tmp_path)
    assert "there is no folder" in refused("report", "table.csv", "--html", "no/where.html", cwd=tmp_path)
    assert "not a size" in refused("report", "table.csv", "--budget", "much", cwd=tmp_path)
    assert not (tmp_path / "report.html").exists()
