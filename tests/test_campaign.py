import io
import json
import multiprocessing
import os
import re
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from rich.console import Console

from helpers import Fake, cells_of, forty_cells
from peppp import Recipe
from peppp.campaign.estimates import Estimates
from peppp.campaign.local import local
from peppp.campaign.processes import Processes
from peppp.campaign.progress import Display
from peppp.campaign.runner import TRIES
from peppp.campaign.runner import run_campaign as run_on
from peppp.campaign.summary import Summary
from peppp.table.store.store import Store


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "runs.db") as store:
        yield store


@pytest.fixture
def fake(tmp_path):
    return Fake(tmp_path)


def run_campaign(store, cells, measure, workers, **options):
    return run_on(store, cells, local(measure, workers), **options)


class Recorder:
    def __init__(self, after=None):
        self.seen, self.after = [], after

    def read(self, dataset):
        raise AssertionError("a campaign by itself reads no data")

    def begin(self, summary):
        self.seen.append(summary)

    def step(self, summary, cell, result):
        self.seen.append(summary)
        if len(self.seen) == self.after:
            raise KeyboardInterrupt


@pytest.mark.parametrize("workers", [0, 2])
def test_a_campaign_stores_each_measurement(store, fake, workers):
    cells = forty_cells()
    summary = run_campaign(store, cells, fake, workers=workers)
    assert summary == Summary(asked=40, already_there=0, done=40, seconds=summary.seconds)
    assert store.keys() == {cell.key for cell in cells}


def test_the_same_campaign_again_does_only_the_rest(store, fake):
    cells = forty_cells()
    run_campaign(store, cells[:15], fake, workers=0)
    summary = run_campaign(store, cells, fake, workers=2)
    assert (summary.asked, summary.already_there, summary.done, summary.left) == (40, 15, 25, 0)
    assert len(fake.attempts()) == 40
    assert run_campaign(store, cells, fake, workers=2).already_there == 40
    assert len(fake.attempts()) == 40


def test_a_cell_asked_for_twice_is_measured_once(store, fake):
    cells = forty_cells()
    assert run_campaign(store, cells + cells, fake, workers=0).asked == 40
    assert len(fake.attempts()) == 40


def campaign_of_a_driver(job):
    place, folder = job
    with Store.open(place) as store:
        summary = run_campaign(store, forty_cells("sleeps 0.02"), Fake(folder), 0)
    return summary.done, summary.already_there, summary.left


def test_several_drivers_at_once_neither_train_nor_store_twice(shared_place, tmp_path, fake):
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        ends = pool.map(campaign_of_a_driver, [(shared_place, tmp_path)] * 3, chunksize=1)
        pool.close()
        pool.join()
    assert sum(done for done, _, _ in ends) == 40
    assert all(done + there == 40 and left == 0 for done, there, left in ends)
    assert len(fake.attempts()) == 40
    with Store.open(shared_place) as store:
        assert {m.key for m in store} == {cell.key for cell in forty_cells()}


def test_what_another_driver_stores_meanwhile_is_not_stored_twice(tmp_path, store, fake):
    cells = forty_cells()

    def measured_elsewhere(cell):  # by a driver that knows no leases, such as an older version
        with Store.open(tmp_path / "runs.db") as other:
            other.add_all([fake(cell) for cell in cells])
        return fake(cell)

    summary = run_campaign(store, cells, measured_elsewhere, workers=0)
    assert (summary.done, summary.already_there, summary.left) == (0, 40, 0)
    assert len(store.measurements()) == 40


def test_diverged_failed_and_lost_are_counted_apart(store, fake):
    cells = cells_of("a", "diverges", "raises", "kills", "changes", "b")
    recorder = Recorder()
    summary = run_campaign(store, cells, fake, workers=2, progress=recorder)
    assert (summary.asked, summary.done, summary.diverged) == (6, 3, 1)
    failed = {cell.data: failure.message for cell, failure in summary.failed}
    assert failed["raises"] == f"ZeroDivisionError: first line second line ({TRIES} tries)"
    assert re.search(
        r"measured as \('changed', .* but planned as .*; has the data changed\?", failed["changes"]
    )
    ((cell, failure),) = summary.lost
    assert (cell.data, failure.message) == ("kills", f"its worker process died, by SIGKILL ({TRIES} tries)")
    assert summary.retried == 2 * (TRIES - 1)
    assert len(fake.attempts("raises")) == len(fake.attempts("kills")) == TRIES
    assert len(fake.attempts("changes")) == 1
    assert len(store.keys()) == 3
    assert [seen.left for seen in recorder.seen] == [6, 5, 4, 3, 2, 1, 0]
    again = run_campaign(store, cells, fake, workers=0, progress=Recorder(after=2))
    assert again.already_there == 3


@pytest.mark.case("0")
def test_a_cell_that_crashes_its_worker_is_tried_once_more_and_then_named(store, fake):
    cells = cells_of("crashes SIGSEGV", "crashes SIGABRT once", "kills", "a")
    summary = run_campaign(store, cells, fake, workers=2)
    assert (summary.done, summary.failed) == (2, ())
    lost = {cell.data: failure.message for cell, failure in summary.lost}
    assert lost.keys() == {"crashes SIGSEGV", "kills"}
    assert re.fullmatch(
        r"its worker process died, by SIGSEGV, training resnet8 on crashes SIGSEGV at 1-4-1/1-6-7 "
        r"\(learning rate 0\.001, seed 0\); peppp doctor: strided 1x1 convolutions .* oneDNN [\d.]+, are "
        r"(right|wrong|crashed); peppp's trainings avoid them \(2 tries\)",
        lost["crashes SIGSEGV"],
    )
    assert len(fake.attempts("crashes SIGSEGV")) == len(fake.attempts("crashes SIGABRT")) == 2
    assert len(fake.attempts("kills")) == TRIES


@pytest.mark.case("0")
def test_one_try_is_one_try_of_a_crash_too(store, fake):
    summary = run_campaign(store, cells_of("crashes SIGSEGV"), fake, workers=1, tries=1)
    assert len(fake.attempts("crashes SIGSEGV")) == 1
    assert "peppp doctor" in summary.lost[0][1].message


def test_what_fails_once_is_tried_again(store, fake):
    summary = run_campaign(store, cells_of("fails once", "kills once", "a"), fake, workers=1)
    assert (summary.done, summary.retried, summary.failed, summary.lost) == (3, 2, (), ())
    assert len(fake.attempts("fails once")) == len(fake.attempts("kills once")) == 2


def test_what_hangs_once_is_tried_again(store, fake):
    cells = cells_of("hangs once", "a")
    engine = Processes(fake, 1, limit=lambda cell: 1.0)
    summary = run_on(store, cells, engine)
    assert (summary.done, summary.retried) == (2, 1)


def test_a_campaign_ends_after_so_many_measurements(store, fake):
    summary = run_campaign(store, forty_cells(), fake, workers=2, max_measurements=7)
    assert (summary.done, summary.left, summary.stopped) == (7, 33, "measurements")
    assert len(store.keys()) == len(fake.attempts()) == 7
    assert run_campaign(store, forty_cells(), fake, workers=0, max_measurements=0).done == 0


def test_a_campaign_ends_after_its_time_and_drops_what_is_running(store, fake):
    cells = cells_of("a", "sleeps 1000", "b", "c")
    summary = run_campaign(store, cells, fake, workers=1, max_seconds=10)
    assert (summary.done, summary.left, summary.stopped) == (1, 3, "time")
    again = run_campaign(store, [cells[0], *cells[2:]], fake, workers=0)  # nothing is held any more
    assert (again.done, again.already_there) == (2, 1)


def test_what_would_not_end_in_time_is_not_begun(store, fake):
    cells = cells_of("a", "b")
    estimates = Estimates({(cells[0].fingerprint, Recipe().digest): (1, 1000.0, 1000.0)})
    summary = run_campaign(store, cells, fake, workers=0, max_seconds=500, estimates=estimates)
    assert (summary.done, summary.left, summary.stopped) == (0, 2, "time")
    assert not fake.attempts()


def test_an_interrupted_campaign_keeps_what_was_done(store, fake):
    summary = run_campaign(store, forty_cells(), fake, workers=2, progress=Recorder(after=6))
    assert summary.interrupted
    assert len(store.keys()) == 5
    rest = run_campaign(store, forty_cells(), fake, workers=2)
    assert (rest.already_there, rest.done, rest.interrupted) == (5, 35, False)


DRIVER = """
import json, signal, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from peppp.campaign.progress import Display
from peppp.table.store.store import Store
from test_campaign import run_campaign
from helpers import Fake, forty_cells
if __name__ == "__main__":  # workers import this file, and must not hear Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may start things with Ctrl-C ignored
    folder = Path({folder!r})
    with Store.open(folder / "runs.db") as store, Display() as display:
        cells = forty_cells("sleeps 0.02")[:20] + forty_cells("sleeps 1000")[20:]
        summary = run_campaign(store, cells, Fake(folder), workers=2, progress=display)
    print(json.dumps([summary.interrupted, summary.done, len(summary.failed), len(summary.lost)]))
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_driver_that_is_ended_loses_only_what_was_in_flight(tmp_path, fake, how):
    script = tmp_path / "driver.py"
    script.write_text(DRIVER.format(tests=str(Path(__file__).parent), folder=str(tmp_path)))
    with subprocess.Popen(
        [sys.executable, script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            for line in process.stderr:
                if line.startswith("[10/40]"):
                    break
            if how == signal.SIGINT:  # as a terminal's Ctrl-C: to the driver and its workers alike
                os.killpg(process.pid, how)
            else:
                process.send_signal(how)
            answer, errors = process.communicate(timeout=60)
        finally:
            process.kill()  # a failure must not wait for it
    if how == signal.SIGINT:
        interrupted, done, failed, lost = json.loads(answer)
        assert (interrupted, failed, lost, errors.count("Traceback")) == (True, 0, 0, 0)
    with closing(sqlite3.connect(tmp_path / "runs.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    begun = len(fake.attempts())
    with Store.open(tmp_path / "runs.db") as store:
        kept = len(store.keys())
        # In flight: one measurement with each of the two workers, and one on its way into the store.
        assert max(10, begun - 3) <= kept <= begun
        if how == signal.SIGINT:
            assert kept == done
        rest = run_campaign(store, forty_cells(), fake, workers=0)
        assert (rest.already_there, rest.done) == (kept, 40 - kept)
        assert len(store.measurements()) == 40


# --- what is seen


def shown(console, store, fake):
    with Display(console) as display:
        run_campaign(store, cells_of("a", "diverges", "raises"), fake, workers=0, progress=display)
    return console.file.getvalue()


def test_a_log_has_one_plain_line_a_measurement(store, fake):
    run_campaign(store, cells_of("a"), fake, workers=0)
    lines = shown(Console(file=io.StringIO(), width=40), store, fake).splitlines()
    assert lines == [
        "2 to measure, 1 of 3 already there",
        "[1/2] diverges 1-4-1/1-6-7 seed 0: test error 0.900 (diverged) in 0.0 s",
        "[2/2] raises 1-4-1/1-6-7 seed 0: failed: ZeroDivisionError: first line second line (3 tries)",
    ]


def test_a_terminal_has_a_bar_and_names_failures(store, fake):
    console = Console(file=io.StringIO(), force_terminal=True, width=120, color_system=None)
    text = shown(console, store, fake)
    assert "3/3" in text
    assert "/min" in text
    assert "1 failed" in text
    assert "[3/3] raises 1-4-1/1-6-7 seed 0: failed: ZeroDivisionError" in text
    assert "[1/3]" not in text


def test_a_lost_cell_is_called_lost(store, fake):
    console = Console(file=io.StringIO(), width=200)
    with Display(console) as display:
        run_campaign(store, cells_of("kills"), fake, workers=1, progress=display)
    assert "lost: its worker process died, by SIGKILL (3 tries)" in console.file.getvalue()
