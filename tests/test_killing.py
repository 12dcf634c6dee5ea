"""A campaign whose driver and workers are killed again and again loses nothing and stores nothing twice."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path

import pytest

from helpers import Fake, descendants
from peppp import Recipe, paper_grid
from peppp.campaign.cells import Source, plan, rows_of
from peppp.table.store.store import Store

DRIVER = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from peppp.campaign.processes import Processes
from peppp.campaign.runner import run_campaign
from peppp.table.store.store import Store
from test_killing import cells
from helpers import Fake
if __name__ == "__main__":
    folder = Path({folder!r})
    with Store.open(folder / "runs.db") as store:
        summary = run_campaign(store, cells(), Processes(Fake(folder), 2))
    sys.exit(0 if summary.left == 0 and not summary.failed else 1)
"""
KILLS = 50


def cells():
    sources = [Source("sleeps 0.05", f"print of {name}", name) for name in ("digits", "letters")]
    return plan(rows_of(sources, [Recipe()]), paper_grid())


@pytest.mark.slow
def test_killed_fifty_times_a_campaign_loses_only_what_was_in_flight(tmp_path):
    script = tmp_path / "driver.py"
    script.write_text(DRIVER.format(tests=str(Path(__file__).parent), folder=str(tmp_path)))
    path, fake, rng = tmp_path / "runs.db", Fake(tmp_path), random.Random(0)
    kills = of_drivers = of_workers = wasted = 0  # wasted: measurements begun that a kill has cost
    while kills < KILLS:
        with subprocess.Popen([sys.executable, script]) as driver:
            begun = len(fake.attempts())
            while len(fake.attempts()) == begun and driver.poll() is None:
                time.sleep(0.02)
            time.sleep(rng.uniform(0.0, 0.8))
            workers = descendants(driver.pid)
            if workers and rng.random() < 0.4:
                with suppress(ProcessLookupError):
                    os.kill(rng.choice(workers), signal.SIGKILL)
                kills, of_workers = kills + 1, of_workers + 1
                time.sleep(rng.uniform(0.0, 0.5))
            if driver.poll() is None:
                driver.kill()
                kills, of_drivers = kills + 1, of_drivers + 1
        while any(Path(f"/proc/{pid}").exists() for pid in workers):
            time.sleep(0.02)
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        with Store.open(path) as store:
            keys = [m.key for m in store]
        assert len(keys) == len(set(keys))
        begun, wasted_before = len(fake.attempts()), wasted
        wasted = begun - len(keys)
        # In flight at a driver's end: one with each of two workers and one on its way into the store.
        assert wasted_before <= wasted <= 3 * of_drivers + of_workers
        if len(keys) == len(cells()):  # begin anew, so that there is something to kill
            path.unlink()
            (tmp_path / "attempts").unlink()
            of_drivers = of_workers = wasted = 0
    with subprocess.Popen([sys.executable, script]) as driver:
        assert driver.wait(timeout=300) == 0
    with Store.open(path) as store:
        assert sorted(m.key for m in store) == sorted(cell.key for cell in cells())
