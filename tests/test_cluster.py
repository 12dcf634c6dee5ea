"""The Ray engine on real clusters: one node, and two of which one is killed while it measures."""

import os
import signal
import subprocess
import sys
import time
import uuid
from contextlib import suppress
from pathlib import Path

import pytest

from helpers import Fake, cells_of, check_engine, descendants, forty_cells, run
from peppp.campaign.runner import run_campaign
from peppp.errors import PepppError
from peppp.records import Measurement
from peppp.table.store.store import Store

# Only who knows the token may talk to the clusters that are started here. Ray reads this when it is imported.
os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": uuid.uuid4().hex * 2}

ray = pytest.importorskip("ray", reason="needs the extra ray")

from peppp.campaign.cluster import Ray  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture
def modules(monkeypatch):
    """Ray's workers import the tests as this process does."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    paths = [str(Path(__file__).parent), *sys.path]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in paths if path))
    monkeypatch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")


def loaded(cell):
    return {"loaded for": cell.data}


class WithData(Fake):
    """A measure that is given its data."""

    def __call__(self, cell, data):
        assert data == loaded(cell)
        return super().__call__(cell)


def test_each_cell_comes_back_once_with_its_own_result(tmp_path, start):
    start("--num-cpus=2")
    check_engine(Ray(WithData(tmp_path), address=start.address, load=loaded), Fake(tmp_path))
    assert not ray.is_initialized()


def test_cells_whose_workers_die_or_hang_are_lost(tmp_path, start):
    start("--num-cpus=2")
    engine = Ray(
        Fake(tmp_path), address=start.address, limit=lambda cell: 2.0 if "1000" in cell.data else 600.0
    )
    results = {cell.data: result for cell, result in run(engine, cells_of("kills", "sleeps 1000", "a", "b"))}
    assert results["kills"].lost
    assert "lost (" in results["kills"].message
    assert (results["sleeps 1000"].lost, results["sleeps 1000"].message) == (True, "it took longer than 2 s")
    assert {data for data, result in results.items() if isinstance(result, Measurement)} == {"a", "b"}


def test_an_address_where_there_is_none_is_named(tmp_path):
    with pytest.raises(PepppError, match=r"no Ray cluster at 127\.0\.0\.1:9") as caught:
        Ray(Fake(tmp_path), address="127.0.0.1:9")
    assert "\n" not in str(caught.value)


class Node:
    """A Ray node of its own processes: what is killed is what was started here, and nothing else."""

    def __init__(self, folder, *arguments):
        self.log = (folder / f"node{len(list(folder.glob('node*')))}").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *arguments],
            stdout=self.log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def kill(self):
        """As a machine that loses its power: its workers, its raylet and what watches them."""
        for pid in [*descendants(self.process.pid), self.process.pid]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self.log.close()


@pytest.fixture
def start(tmp_path, modules):
    """Starts nodes; all of them end with the test."""
    nodes = []
    port = 20_000 + os.getpid() % 10_000

    def start(*arguments):
        head = ["--head", f"--port={port}", "--include-dashboard=false"]
        name = f"node{len(nodes)}"
        node = Node(tmp_path, *(head if not nodes else [f"--address=127.0.0.1:{port}"]), *arguments)
        nodes.append(node)
        wait_for(lambda: "started" in (tmp_path / name).read_text())
        return node

    start.address = f"127.0.0.1:{port}"
    yield start
    for node in nodes:
        node.kill()


def test_a_measurement_may_take_a_part_of_a_gpu(tmp_path, start):
    """Ray counts the GPUs that a node says it has, so that fractions can be tried without one."""
    start("--num-gpus=1", "--num-cpus=8")
    engine = Ray(Fake(tmp_path), address=start.address, gpus=0.25)
    assert engine.slots == 4 + 2
    assert all(isinstance(result, Measurement) for _, result in run(engine, cells_of("a", "b")))


def test_a_node_killed_while_it_measures_costs_nothing(tmp_path, start):
    start("--num-cpus=2")
    other = start("--num-cpus=2")
    fake = Fake(tmp_path)
    engine = Ray(fake, address=start.address)
    wait_for(lambda: engine.slots == 4 + 2)
    killer = Killer(other, after=8)
    with Store.open(tmp_path / "runs.db") as store:
        summary = run_campaign(store, forty_cells("sleeps 0.5"), engine, progress=killer)
        assert len(store.measurements()) == len(store.keys()) == 40
    assert killer.killed
    assert (summary.done, summary.lost, summary.failed, summary.left) == (40, (), (), 0)
    assert summary.retried >= 1  # something was running there
    assert len(fake.attempts()) <= 40 + summary.retried


class Killer:
    def __init__(self, node, after):
        self.node, self.after, self.killed = node, after, False

    def read(self, dataset):
        raise AssertionError("a campaign by itself reads no data")

    def begin(self, summary):
        pass

    def step(self, summary, cell, result):
        if summary.done == self.after:
            self.node.kill()
            self.killed = True


def wait_for(condition):
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end, "a node did not start"
        time.sleep(0.2)
