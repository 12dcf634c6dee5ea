"""The Slurm engine on submitit's local executor: the same jobs, without Slurm's queue."""

import signal
from contextlib import closing
from pathlib import Path

import pytest

from helpers import Fake, cells_of, check_engine, run
from peppp.errors import PepppError
from peppp.records import Measurement

pytest.importorskip("submitit", reason="needs the extra slurm")

from peppp.campaign.slurm import Slurm

# submitit waits for its local processes only when it is asked for their results.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def local(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=":")
    # The local executor cancels by SIGINT, which a shell's background job and its children ignore.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield lambda **options: Slurm(Fake(tmp_path), folder=tmp_path / "jobs", cluster="local", **options)
    signal.signal(signal.SIGINT, before)


@pytest.mark.slow
def test_each_job_comes_back_once_with_its_own_result(local, tmp_path):
    check_engine(local(jobs=2), Fake(tmp_path))


@pytest.mark.slow
def test_a_job_that_dies_is_lost(local):
    results = {cell.data: result for cell, result in run(local(jobs=1), cells_of("kills", "a"))}
    assert results["kills"].lost
    assert "was lost" in results["kills"].message
    assert isinstance(results["a"], Measurement)


@pytest.mark.slow
def test_a_job_that_hangs_is_cancelled(local):
    engine = local(jobs=2, limit=lambda cell: 2.0 if "1000" in cell.data else 600.0)
    results = {cell.data: result for cell, result in run(engine, cells_of("sleeps 1000", "a"))}
    assert (results["sleeps 1000"].lost, results["sleeps 1000"].message) == (True, "it took longer than 2 s")
    assert isinstance(results["a"], Measurement)


def test_closing_cancels_the_jobs(local):
    with closing(local()) as engine:
        engine.submit(cells_of("sleeps 1000")[0])
        (job,) = engine._jobs
    assert job.done() or job._process.wait(timeout=60) is not None


def test_what_submitit_refuses_is_said_in_one_line(tmp_path):
    with pytest.raises(PepppError, match="cannot submit to Slurm: ") as caught:
        Slurm(Fake(tmp_path), folder=tmp_path / "jobs", cluster="slurm")  # there is no srun here
    assert "\n" not in str(caught.value)
    with pytest.raises(PepppError, match="cannot submit to Slurm: "):
        Slurm(Fake(tmp_path), folder=tmp_path / "jobs", cluster="local", settings={"timeout_min": "soon"})
    with pytest.raises(PepppError, match="whole GPUs"):
        Slurm(Fake(tmp_path), gpus=0.5, folder=tmp_path / "jobs", cluster="local")
