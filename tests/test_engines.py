import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from peppp import Configuration, Footprint, Measurement, Outcome, Recipe, paper_grid
from peppp.campaign.cells import Cell, Source, plan
from peppp.campaign.engines import TRIES, Failure, run
from peppp.errors import BudgetError, DataError, PepppError

# --- a measurement that trains nothing; test_campaign.py uses it too


@dataclass(frozen=True)
class Fake:
    """Measures by what the cell's data says, and notes each attempt in ``folder``."""

    folder: Path

    def __call__(self, cell):
        attempt = len(self.attempts(cell.data)) + 1
        with (self.folder / "attempts").open("a") as file:
            file.write(f"{cell.data} {cell.configuration} {cell.seed}\n")
        match cell.data.split():
            case ["raises"]:
                raise ZeroDivisionError("first line\nsecond line")
            case ["refuses"]:
                raise DataError("no such folder: imgs")
            case ["kills"]:
                os.kill(os.getpid(), signal.SIGKILL)
            case ["exits"]:
                os._exit(3)
            case ["kills", "once"] if attempt == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            case ["sleeps", seconds]:
                time.sleep(float(seconds))
            case ["answers", "nonsense"]:
                return 42
        return Measurement(
            task=cell.task,
            fingerprint="changed" if cell.data == "changes" else cell.fingerprint,
            group=cell.task,
            configuration=cell.configuration,
            recipe=cell.recipe,
            seed=cell.seed,
            chance_error=0.9,
            test_error=float("nan") if cell.data == "nan" else 0.9 if cell.data == "diverges" else 0.25,
            train_error=0.1,
            curve=((1, 0.25),),
            footprint=Footprint(1, 2, 3, {"momentum": 3}),
            outcome=Outcome.DIVERGED if cell.data == "diverges" else Outcome.FINISHED,
            seconds=0.01,
            provenance={"process": str(os.getpid()), "threads": os.environ.get("OMP_NUM_THREADS", "unset")},
        )

    def attempts(self, data=""):
        path = self.folder / "attempts"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line for line in lines if line.startswith(data)]


def cells_of(*datas, configuration="1-4-1/1-6-7"):
    configuration = Configuration.parse(configuration)
    return [
        Cell(data, f"print {i} of {data}", data, configuration, Recipe(), seed=0)
        for i, data in enumerate(datas)
    ]


def results_of(cells, measure, workers):
    return {cell.data: result for cell, result in run(cells, measure, workers=workers)}


# --- what any engine does


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_each_cell_comes_back_once_with_its_own_result(tmp_path, workers):
    cells = cells_of("a", "b", "raises", "c", "refuses", "nan", "answers nonsense", "d")
    results = list(run(cells, Fake(tmp_path), workers=workers))
    assert sorted(cell.data for cell, _ in results) == sorted(cell.data for cell in cells)
    for cell, result in results:
        if len(cell.data) == 1:
            assert isinstance(result, Measurement)
            assert result.key == cell.key
    assert len(Fake(tmp_path).attempts()) == len(cells)
    failures = {cell.data: result for cell, result in results if isinstance(result, Failure)}
    assert failures["raises"].message == "ZeroDivisionError: first line second line"
    assert "second line" in failures["raises"].traceback
    assert failures["refuses"].message == "no such folder: imgs"
    assert "column test_error: 'nan' is not a fraction" in failures["nan"].message
    assert failures["answers nonsense"].message.startswith("AttributeError: ")
    assert not any(failure.lost for failure in failures.values())


@pytest.mark.parametrize("workers", [0, 2])
def test_no_cells_no_results(tmp_path, workers):
    assert list(run([], Fake(tmp_path), workers=workers)) == []


def test_a_negative_number_of_workers_is_refused(tmp_path):
    with pytest.raises(BudgetError, match="-1 workers"):
        run(cells_of("a"), Fake(tmp_path), workers=-1)


# --- processes


def test_workers_are_other_processes_of_one_thread_each(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    handler = signal.getsignal(signal.SIGINT)
    results = results_of(cells_of("a", "b"), Fake(tmp_path), 2)
    processes = {result.provenance["process"] for result in results.values()}
    assert len(processes - {str(os.getpid())}) == 2
    assert {result.provenance["threads"] for result in results.values()} == {"1"}
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "MKL_NUM_THREADS" not in os.environ
    assert signal.getsignal(signal.SIGINT) is handler


@pytest.mark.parametrize("workers", [1, 2])
def test_a_cell_whose_worker_dies_is_tried_again_and_then_lost(tmp_path, workers):
    fake = Fake(tmp_path)
    results = results_of(cells_of("a", "kills", "b", "kills once", "exits", "c"), fake, workers)
    assert {data for data, result in results.items() if isinstance(result, Measurement)} == {
        "a",
        "b",
        "c",
        "kills once",
    }
    for data, how in (("kills", "by SIGKILL"), ("exits", "with exit code 3")):
        assert results[data].lost
        assert results[data].message == f"its worker process died {TRIES} times, lastly {how}"
        assert len(fake.attempts(data)) == TRIES + (data == "kills") * 2  # "kills once" begins alike
    assert len(fake.attempts("kills once")) == 2


def test_a_worker_killed_from_outside_loses_nothing(tmp_path):
    results = []
    with closing(run(cells_of(*"abcdefgh"), Fake(tmp_path), workers=2)) as running:
        for cell, result in running:
            results.append(cell.data)
            if len(results) in (2, 4):
                os.kill(int(result.provenance["process"]), signal.SIGKILL)
    assert sorted(results) == list("abcdefgh")


def test_closing_ends_the_workers(tmp_path):
    with closing(run(cells_of("a", "sleeps 1000"), Fake(tmp_path), workers=1)) as running:
        next(running)


def test_a_measure_that_cannot_be_sent_is_refused():
    with pytest.raises(PepppError, match="make it a module-level function"):
        list(run(cells_of("a"), lambda cell: None, workers=1))


DRIVER = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from peppp.campaign.engines import run
from test_engines import Fake, cells_of
def main():
    for cell, result in run(cells_of("a", "sleeps 1000", "sleeps 2000"), Fake(Path({folder!r})), workers=2):
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


def test_a_plan_is_the_product_and_holds_no_cell_twice():
    sources = [Source("digits", "d", "digits"), Source("folder:imgs", "f", "imgs")]
    recipes = [Recipe(), Recipe(learning_rate=0.01)]
    cells = plan(sources, paper_grid(), recipes, seeds=[0, 1])
    assert len({cell.key for cell in cells}) == len(cells) == 2 * 99 * 2 * 2
    again = plan(sources + sources[:1], paper_grid() * 2, recipes * 2, seeds=[0, 1, 0])
    assert again == cells
    assert plan([], paper_grid(), recipes) == plan(sources, [], recipes) == []


@pytest.mark.parametrize(("seeds", "share"), [([0], 1.0), ([0, 1, 2], 0.1), ([5], 0.001)])
def test_wherever_a_plan_stops_its_rows_differ_by_one_at_most(seeds, share):
    sources = [Source(name, name, name) for name in "abcde"]
    counts = {}
    cells = plan(sources, paper_grid(), [Recipe(), Recipe(epochs=3)], seeds, share=share)
    for cell in cells:
        counts[cell.task, cell.recipe] = counts.get((cell.task, cell.recipe), 0) + 1
        assert max(counts.values()) - (min(counts.values()) if len(counts) == 10 else 0) <= 1
    assert len(cells) == 10 * max(1, round(99 * share)) * len(seeds)


def test_a_plan_is_drawn_by_its_seed():
    sources = [Source(name, name, name) for name in "abcdefghij"]
    plans = [plan(sources, paper_grid(), [Recipe()], share=0.2, sampling_seed=seed) for seed in (1, 1, 2)]
    assert plans[0] == plans[1] != plans[2]
    assert {cell.configuration for cell in plans[0]} == set(paper_grid())
    assert [cell.configuration for cell in plans[0][::10]] != [cell.configuration for cell in plans[0][1::10]]


def test_a_plan_of_few_rows_measures_no_more_than_was_asked():
    assert len(plan([Source("a", "a", "a")], paper_grid(), [Recipe()], share=0.2)) == 20


def test_a_cell_has_the_key_of_its_measurement(tmp_path):
    (cell,) = cells_of("a")
    assert Fake(tmp_path)(cell).key == cell.key
