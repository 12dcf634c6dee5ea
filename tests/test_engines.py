import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import Fake, cells_of, check_engine, run
from peppp import Measurement, Recipe, paper_grid
from peppp.campaign.cells import Source, balanced, plan, rows_of
from peppp.campaign.engines import Failure, InProcess
from peppp.campaign.local import local
from peppp.campaign.processes import Processes
from peppp.errors import BudgetError, PepppError

# --- a measurement that trains nothing; test_campaign.py uses it too


def results_of(engine, *datas):
    return {cell.data: result for cell, result in run(engine, cells_of(*datas))}


# --- what any engine of this machine does; test_cluster.py and test_slurm.py say it of theirs


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_each_cell_comes_back_once_with_its_own_result(tmp_path, workers):
    fake = Fake(tmp_path)
    check_engine(local(fake, workers), fake)


@pytest.mark.parametrize("workers", [0, 2])
def test_no_cells_no_results(tmp_path, workers):
    with closing(local(Fake(tmp_path), workers)) as engine:
        assert engine.results(3600) == []


def test_a_negative_number_of_workers_is_refused(tmp_path):
    with pytest.raises(BudgetError, match="-1 workers"):
        local(Fake(tmp_path), -1)


def test_an_engine_closed_begins_nothing_more(tmp_path):
    engine = InProcess(Fake(tmp_path))
    engine.submit(cells_of("a")[0])
    engine.close()
    assert engine.results(0) == []
    assert not Fake(tmp_path).attempts()


# --- processes


def test_workers_are_other_processes_of_one_thread_each(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    handler = signal.getsignal(signal.SIGINT)
    results = results_of(Processes(Fake(tmp_path), 2), "a", "b")
    processes = {result.provenance["process"] for result in results.values()}
    assert len(processes - {str(os.getpid())}) == 2
    assert {result.provenance["threads"] for result in results.values()} == {"1"}
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "MKL_NUM_THREADS" not in os.environ
    assert signal.getsignal(signal.SIGINT) is handler


def test_waiting_ends_after_its_time_and_goes_on_later(tmp_path):
    with closing(Processes(Fake(tmp_path), 1)) as engine:
        (cell,) = cells_of("sleeps 1")
        engine.submit(cell)
        assert engine.results(0.01) == []
        ((back, result),) = engine.results(3600)
        assert (back, result.key) == (cell, cell.key)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_cell_of_a_worker_that_dies_is_lost_and_the_worker_replaced(tmp_path, workers):
    results = results_of(Processes(Fake(tmp_path), workers), "a", "kills", "b", "exits", "c")
    assert {data for data, result in results.items() if isinstance(result, Measurement)} == set("abc")
    for data, how in (("kills", "by SIGKILL"), ("exits", "with exit code 3")):
        assert results[data] == Failure(f"its worker process died, {how}", lost=True)
        assert len(Fake(tmp_path).attempts(data)) == 1


@pytest.mark.case("0")
def test_a_crash_is_told_from_a_signal_that_came_from_outside(tmp_path):
    own, outside = ("SIGSEGV", "SIGABRT", "SIGBUS", "SIGILL", "SIGFPE"), ("SIGKILL", "SIGTERM")
    results = results_of(Processes(Fake(tmp_path), 2), *(f"crashes {name}" for name in (*own, *outside)))
    for name in (*own, *outside):
        crash = name if name in own else ""
        assert results[f"crashes {name}"] == Failure(
            f"its worker process died, by {name}", lost=True, crash=crash
        )


def test_a_worker_whose_gpu_failed_is_replaced(tmp_path):
    """Everything that its process does on the GPU would fail, too."""
    results = results_of(Processes(Fake(tmp_path), 1), "a", "raises", "b", "breaks", "c")
    assert results["breaks"].message.startswith("AcceleratorError: CUDA error")
    assert not results["breaks"].lost
    a, b, c = (results[data].provenance["process"] for data in "abc")
    assert a == b != c


def test_a_worker_that_hangs_is_replaced(tmp_path):
    engine = Processes(Fake(tmp_path), 2, limit=lambda cell: 0.5 if "1000" in cell.data else 600)
    results = results_of(engine, "sleeps 1000", "a", "sleeps 1000 and more", "sleeps 1", "b")
    assert results["sleeps 1000"] == Failure("it took longer than 0 s", lost=True)
    measured = {data for data, result in results.items() if isinstance(result, Measurement)}
    assert measured == {"a", "b", "sleeps 1", "sleeps 1000 and more"}


def test_a_measurement_that_needs_more_memory_than_a_worker_may_have_fails(tmp_path):
    size = 4 * 10**9
    results = results_of(Processes(Fake(tmp_path), 1, memory=size), f"needs {size}", "needs 1000")
    assert results[f"needs {size}"].message == (
        "it needs more than the 4.00 GB of memory that a worker may have"
    )
    assert not results[f"needs {size}"].lost
    assert isinstance(results["needs 1000"], Measurement)


def test_a_worker_killed_from_outside_loses_its_cell_only(tmp_path):
    results, lost = [], 0
    for cell, result in run(Processes(Fake(tmp_path), 2), cells_of(*"abcdefgh")):
        results.append(cell.data)
        lost += isinstance(result, Failure)
        if len(results) in (2, 4) and isinstance(result, Measurement):
            os.kill(int(result.provenance["process"]), signal.SIGKILL)
    assert sorted(results) == list("abcdefgh")
    assert lost <= 2


def test_closing_ends_the_workers(tmp_path):
    engine = Processes(Fake(tmp_path), 1)
    with closing(run(engine, cells_of("a", "sleeps 1000"))) as running:
        next(running)
        worker = engine._team[0].process
        assert worker.is_alive()
    assert not engine._team


def test_a_measure_that_cannot_be_sent_is_refused():
    with pytest.raises(PepppError, match="make it a module-level function"):
        list(run(Processes(lambda cell: None, 1), cells_of("a")))


DRIVER = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from peppp.campaign.processes import Processes
from helpers import Fake, cells_of, run
def main():
    cells = cells_of("a", "sleeps 1000", "sleeps 2000")
    for cell, result in run(Processes(Fake(Path({folder!r})), 2), cells):
        print(cell.data, flush=True)
{guard}main()
"""


def driver(tmp_path, guard):
    script = tmp_path / "driver.py"
    script.write_text(DRIVER.format(tests=str(Path(__file__).parent), folder=str(tmp_path), guard=guard))
    return subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_workers_end_when_their_parent_is_killed(tmp_path):
    with driver(tmp_path, 'if __name__ == "__main__": ') as process:
        assert process.stdout.readline() == "a\n"
        process.kill()
        # Workers hold the other end of this pipe: it ends when the last of them has.
        process.communicate(timeout=60)


def test_a_script_without_a_guard_is_told_so(tmp_path):
    with driver(tmp_path, "") as process:
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "PepppError: a worker process could not start" in errors


# --- plans


def planned(names, configurations, recipes, *arguments, **options):
    sources = [Source(name, f"print of {name}", name) for name in names]
    return plan(rows_of(sources, recipes), configurations, *arguments, **options)


def test_a_plan_is_the_product_and_holds_no_cell_twice():
    recipes = [Recipe(), Recipe(learning_rate=0.01)]
    cells = planned("df", paper_grid(), recipes, [0, 1])
    assert len({cell.key for cell in cells}) == len(cells) == 2 * 99 * 2 * 2
    assert planned("dfd", paper_grid() * 2, recipes * 2, [0, 1, 0]) == cells
    assert planned("", paper_grid(), recipes) == planned("df", [], recipes) == []


@pytest.mark.parametrize(("seeds", "share"), [([0], 1.0), ([0, 1, 2], 0.1), ([5], 0.001)])
def test_wherever_a_plan_stops_its_rows_differ_by_one_at_most(seeds, share):
    counts = {}
    cells = planned("abcde", paper_grid(), [Recipe(), Recipe(epochs=3)], seeds, share=share)
    for cell in cells:
        counts[cell.task, cell.recipe] = counts.get((cell.task, cell.recipe), 0) + 1
        assert max(counts.values()) - (min(counts.values()) if len(counts) == 10 else 0) <= 1
    assert len(cells) == 10 * max(1, round(99 * share)) * len(seeds)


@given(st.sets(st.integers(0, 5 * 20 - 1)), st.integers(0, 3))
def test_what_is_there_already_is_made_up_for_first(there, seed):
    cells = planned("abcde", paper_grid()[:20], [Recipe()], sampling_seed=seed)
    present = {cells[i].key for i in there}
    counts = {name: sum(cell.key in present for cell in cells if cell.task == name) for name in "abcde"}
    rest = balanced(cells, present)
    assert sorted(cell.key for cell in rest) == sorted({cell.key for cell in cells} - present)
    left = {name: sum(cell.task == name for cell in rest) for name in "abcde"}
    for cell in rest:
        assert counts[cell.task] == min(counts[name] for name in "abcde" if left[name])
        counts[cell.task] += 1
        left[cell.task] -= 1


def test_a_plan_is_drawn_by_its_seed():
    plans = [planned("abcdefghij", paper_grid(), [Recipe()], share=0.2, sampling_seed=s) for s in (1, 1, 2)]
    assert plans[0] == plans[1] != plans[2]
    assert {cell.configuration for cell in plans[0]} == set(paper_grid())
    assert [cell.configuration for cell in plans[0][::10]] != [cell.configuration for cell in plans[0][1::10]]


def test_a_plan_of_few_rows_measures_no_more_than_was_asked():
    assert len(planned("a", paper_grid(), [Recipe()], share=0.2)) == 20


def test_a_plan_by_memory_prefers_what_is_cheap_and_covers_all():
    memory = np.outer(np.arange(1, 11), [c.format_a.bits + 0.01 * c.format_b.bits for c in paper_grid()])
    cells = planned("abcdefghij", paper_grid(), [Recipe()], memory=memory, share=0.2)
    assert 100 < len(cells) < 300
    column = {c: j for j, c in enumerate(paper_grid())}
    sizes = [memory["abcdefghij".index(cell.task), column[cell.configuration]] for cell in cells]
    assert np.mean(sizes) < 0.8 * memory.mean()
    assert {cell.task for cell in cells} == set("abcdefghij")
    assert {cell.configuration for cell in cells} == set(paper_grid())
    seen = dict.fromkeys("abcdefghij", 0)
    total = {name: sum(cell.task == name for cell in cells) for name in seen}
    for cell in cells:  # rows that are not through differ by one at most
        assert seen[cell.task] == min(seen[name] for name in seen if seen[name] < total[name])
        seen[cell.task] += 1


def test_a_cell_has_the_key_of_its_measurement(tmp_path):
    (cell,) = cells_of("a")
    assert Fake(tmp_path)(cell).key == cell.key
