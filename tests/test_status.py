import json
import os
import sqlite3
from dataclasses import replace

import pytest

from helpers import Fake, answer, cells_of, peppp, refused
from peppp.campaign.local import local
from peppp.campaign.queue import Queue
from peppp.campaign.runner import run_campaign
from peppp.campaign.status import TaskStatus, failures, forget, status
from peppp.table.store.store import Store


@pytest.fixture
def store(place):
    with Store.open(place) as store:
        yield store


def test_a_new_store_has_nothing(store):
    assert (status(store).tasks, status(store).drivers, failures(store)) == ((), 0, [])
    assert status(store).total == TaskStatus("total")


def test_done_diverged_failed_lost_and_left_per_task(store, tmp_path):
    cells = cells_of("a", "diverges", "raises", "a")
    with Queue(store) as other:
        (far,) = cells_of("far")
        other.ask([far, *cells_of("never")])
        other.lease(far)
        run_campaign(store, cells, local(Fake(tmp_path), 0))
        lost = cells_of("lost")[0]
        other.lease(lost)
        other.fail(lost, "its machine died", "", tries=3, lost=True)
        seen = status(store)
        assert seen.drivers == 1
        assert {task.task: task for task in seen.tasks} == {
            "a": TaskStatus("a", done=2),
            "diverges": TaskStatus("diverges", done=1, diverged=1),
            "raises": TaskStatus("raises", failed=1),
            "far": TaskStatus("far", left=1, running=1),
            "never": TaskStatus("never", left=1),
            "lost": TaskStatus("lost", lost=1),
        }
        assert seen.total == TaskStatus("total", 3, 1, 1, 1, 2, 1)
        given = {one.task: one for one in failures(store)}
        assert set(given) == {"raises", "lost"}
        assert (given["raises"].tries, given["raises"].lost) == (3, False)
        assert "ZeroDivisionError" in given["raises"].traceback
        assert forget(store) == 3
        assert status(store).total == TaskStatus("total", 3, 1, 0, 0, 1, 1)


def test_what_is_measured_by_a_version_without_cells_is_not_left(store, tmp_path):
    (cell,) = cells_of("a")
    with Queue(store) as queue:
        queue.ask([cell])
        store.version = 1
        store.add(Fake(tmp_path)(cell))
        store.version = 2
        assert status(store).tasks == (TaskStatus("a", done=1),)


def test_it_is_seen_from_the_command_line(tmp_path):
    with Store.open(tmp_path / "runs.db") as store:
        run_campaign(store, cells_of("a", "raises", "[red]b"), local(Fake(tmp_path), 0))
    seen = answer("status", tmp_path / "runs.db")
    assert (seen["done"], seen["failed"], seen["left"]) == (2, 1, 0)
    assert [task["task"] for task in seen["tasks"]] == ["[red]b", "a", "raises"]
    text = peppp("status", tmp_path / "runs.db").stdout
    assert "[red]b" in text
    assert "0 drivers at work" in text
    (given,) = answer("status", tmp_path / "runs.db", "--failures")
    assert given["message"] == "ZeroDivisionError: first line second line (3 tries)"
    text = peppp("status", tmp_path / "runs.db", "--failures").stdout
    assert "raises 1-4-1/1-6-7 seed 0: failed after 3 tries: ZeroDivisionError" in text
    assert json.loads(peppp("status", tmp_path / "runs.db", "--forget", "--json").stdout) == {"forgotten": 1}
    assert "there is no store" in refused("status", tmp_path / "none.db")
    assert not (tmp_path / "none.db").exists()


def test_a_driver_that_was_killed_on_this_machine_is_seen_at_once(store):
    import subprocess
    import sys

    (cell,) = cells_of("a")
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    with Queue(store) as queue:
        queue.ask([cell])
        queue._driver = queue._driver.replace(f":{os.getpid()}:", f":{ended.pid}:")
        queue.lease(cell)
        seen = status(store)
        assert seen.drivers == 0
        assert seen.tasks == (TaskStatus("a", left=1),)


def test_rows_of_one_task_under_several_recipes_are_distinguished(store, tmp_path):
    first, second = cells_of("a", "a")
    other = replace(second, recipe=replace(second.recipe, network="vgg11", learning_rate=0.01))
    with Queue(store) as queue:
        queue.ask([first, other, *cells_of("b")])
        for cell in (first, other):
            store.add(Fake(tmp_path)(cell))
        names = [(task.task, task.recipe) for task in status(store).tasks]
    usual = first.recipe
    assert names == [
        ("a", f"network {usual.network}, learning_rate {usual.learning_rate}"),
        ("a", "network vgg11, learning_rate 0.01"),
        ("b", ""),
    ]


def test_counting_reads_an_index_and_no_wide_rows(tmp_path):
    from sqlalchemy import event

    path, asked = tmp_path / "runs.db", []
    with Store.open(path) as store:
        store.add(Fake(tmp_path)(cells_of("a")[0]))
        event.listen(store.engine, "before_cursor_execute", lambda *call: asked.append(call[2:4]))
        status(store)
    counted = [call for call in asked if "FROM measurements" in call[0] and "GROUP BY" in call[0]]
    with sqlite3.connect(path) as database:
        plans = [database.execute(f"EXPLAIN QUERY PLAN {text}", v).fetchall() for text, v in counted]
    assert "USING COVERING INDEX measurements_by_row" in plans[0][0][-1]
    assert "SEARCH" in plans[1][0][-1]
