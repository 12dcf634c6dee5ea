import io
import json
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

from peppp import Recipe, paper_grid
from peppp.campaign.cells import Source, plan
from peppp.campaign.engines import TRIES
from peppp.campaign.progress import Display
from peppp.campaign.runner import Summary, run_campaign
from peppp.campaign.store import Store
from test_engines import Fake, cells_of


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "runs.db") as store:
        yield store


@pytest.fixture
def fake(tmp_path):
    return Fake(tmp_path)


def forty_cells(data="a"):
    sources = [Source(data, f"print of {name}", name) for name in ("digits", "letters")]
    return plan(sources, paper_grid()[:20], [Recipe()])


class Recorder:
    def __init__(self, after=None):
        self.seen, self.after = [], after

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


def test_two_campaigns_at_once_never_store_twice(tmp_path, store, fake):
    cells = forty_cells()

    def other_campaign(cell):  # while the first one measures, the second does it all
        with Store.open(tmp_path / "runs.db") as other:
            run_campaign(other, cells, fake, workers=0)
        return fake(cell)

    summary = run_campaign(store, cells, other_campaign, workers=0)
    assert (summary.done, summary.already_there, summary.left) == (0, 40, 0)
    assert len(store.measurements()) == 40


def test_diverged_failed_and_lost_are_counted_apart(store, fake):
    cells = cells_of("a", "diverges", "raises", "kills", "changes", "b")
    recorder = Recorder()
    summary = run_campaign(store, cells, fake, workers=2, progress=recorder)
    assert (summary.asked, summary.done, summary.diverged) == (6, 3, 1)
    failed = {cell.data: failure.message for cell, failure in summary.failed}
    assert failed["raises"].startswith("ZeroDivisionError")
    assert re.search(r"measured as \('changed', .* planned as .*; has it changed\?", failed["changes"])
    ((cell, failure),) = summary.lost
    assert (cell.data, failure.message.split(",")[0]) == ("kills", f"its worker process died {TRIES} times")
    assert len(store.keys()) == 3
    assert [seen.left for seen in recorder.seen] == [6, 5, 4, 3, 2, 1, 0]
    again = run_campaign(store, cells, fake, workers=0, progress=Recorder(after=2))
    assert again.already_there == 3


def test_an_interrupted_campaign_keeps_what_was_done(store, fake):
    summary = run_campaign(store, forty_cells(), fake, workers=2, progress=Recorder(after=6))
    assert summary.interrupted
    assert len(store.keys()) == 5
    rest = run_campaign(store, forty_cells(), fake, workers=2)
    assert (rest.already_there, rest.done, rest.interrupted) == (5, 35, False)


DRIVER = """
import json, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from peppp.campaign.progress import Display
from peppp.campaign.runner import run_campaign
from peppp.campaign.store import Store
from test_campaign import Fake, forty_cells
if __name__ == "__main__":
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
        for line in process.stderr:
            if line.startswith("[10/40]"):
                break
        if how == signal.SIGINT:  # as a terminal's Ctrl-C: to the driver and its workers alike
            os.killpg(process.pid, how)
        else:
            process.send_signal(how)
        answer, errors = process.communicate(timeout=60)
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
        "[2/2] raises 1-4-1/1-6-7 seed 0: failed: ZeroDivisionError: first line second line",
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
    assert "lost: its worker process died 3 times, lastly by SIGKILL" in console.file.getvalue()
