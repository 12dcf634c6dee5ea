"""Leases: each cell is with one driver at a time, and comes free when that driver is gone."""

import os
import subprocess
import time
from contextlib import ExitStack

import pytest

from helpers import Fake, cells_of
from peppp.campaign.queue import Lease, Queue
from peppp.table.store.schema import cells as table
from peppp.table.store.store import Store


@pytest.fixture
def store(place):
    with Store.open(place) as store:
        yield store


@pytest.fixture
def drivers(store):
    with ExitStack() as stack:
        yield [stack.enter_context(Queue(store)) for _ in range(2)]


def rows(store):
    with store.reading() as connection:
        return [dict(row) for row in connection.execute(table.select()).mappings()]


def test_a_cell_is_with_one_driver_at_a_time(drivers):
    a, b = cells_of("a", "b")
    one, two = drivers
    one.ask([a, b])
    two.ask([a, b])
    assert one.lease(a) is Lease.TAKEN
    assert two.lease(a) is Lease.HELD
    assert two.lease(b) is Lease.TAKEN
    assert one.lease(a) is Lease.TAKEN  # its own
    one.release()
    assert two.lease(a) is Lease.TAKEN


def test_a_cell_nobody_asked_for_can_be_leased(drivers):
    (a,) = cells_of("a")
    assert [driver.lease(a) for driver in drivers] == [Lease.TAKEN, Lease.HELD]


def test_a_measured_cell_is_no_longer_asked_for(store, drivers, tmp_path):
    (a,) = cells_of("a")
    one, two = drivers
    one.ask([a])
    one.lease(a)
    store.add(Fake(tmp_path)(a))
    assert rows(store) == []
    assert [one.lease(a), two.lease(a)] == [Lease.MEASURED, Lease.MEASURED]
    assert rows(store) == []


def test_the_leases_of_a_dead_driver_expire(store):
    (a,) = cells_of("a")
    dead = Queue(store, lease=0.2)  # not entered: nothing renews its leases
    dead._since = 0.0
    assert dead.lease(a) is Lease.TAKEN
    with Queue(store, lease=0.2) as alive:
        assert alive.lease(a) is Lease.HELD
        time.sleep(0.4)
        assert alive.lease(a) is Lease.TAKEN
        assert dead.renew() == 0  # should it live after all, it knows that it holds nothing


def test_a_living_driver_keeps_its_leases(store):
    (a,) = cells_of("a")
    with Queue(store, lease=1.0) as one, Queue(store) as two:
        assert one.lease(a) is Lease.TAKEN
        for _ in range(5):
            time.sleep(0.4)
            assert two.lease(a) is Lease.HELD
    with Queue(store) as later:
        assert later.lease(a) is Lease.TAKEN


def test_the_leases_of_a_driver_that_died_here_end_at_once(store, monkeypatch):
    cells = cells_of("a", "b", "c")
    with subprocess.Popen(["true"]) as gone:
        pass
    dead, elsewhere = Queue(store), Queue(store)
    dead._driver = dead._driver.replace(f":{os.getpid()}:", f":{gone.pid}:")
    elsewhere._driver = f"another {dead._driver}"  # there its number says nothing
    for queue, cell in zip((dead, elsewhere), cells, strict=False):
        queue._since = 0.0
        assert queue.lease(cell) is Lease.TAKEN
    with Queue(store) as living, Queue(store) as new:
        living.lease(cells[2])
        new.bury()
        assert [new.lease(cell) for cell in cells] == [Lease.TAKEN, Lease.HELD, Lease.HELD]


def test_a_failure_is_kept_and_tried_again_by_later_campaigns_only(store, drivers):
    (a,) = cells_of("a")
    one, two = drivers
    one.lease(a)
    one.fail(a, "it raised", "Traceback: ...", tries=3, lost=False)
    (row,) = rows(store)
    assert (row["message"], row["traceback"], row["tries"]) == ("it raised", "Traceback: ...", 3)
    assert (row["lost"], row["driver"]) == (False, None)
    assert [one.lease(a), two.lease(a)] == [Lease.FAILED, Lease.FAILED]
    with Queue(store) as later:
        assert later.lease(a) is Lease.TAKEN


def test_a_failure_of_any_length_and_letters_is_kept(store, drivers):
    (a,) = cells_of("a")
    drivers[0].lease(a)
    drivers[0].fail(a, "é % ' \0\ud800" + "x" * 10**6, "\0" + "y" * 10**6, tries=1, lost=True)
    (row,) = rows(store)
    assert row["message"].startswith("é % '")
    assert len(row["message"]) + len(row["traceback"]) < 20_000
