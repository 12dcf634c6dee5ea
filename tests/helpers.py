"""What several test files share: fake trainings, campaigns, command lines. No torch, as workers import it."""

import contextlib
import io
import json
import os
import signal
import sys
import time
from contextlib import closing, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from peppp.campaign.cells import Cell, Source, plan, rows_of
from peppp.campaign.engines import Failure
from peppp.cli import main
from peppp.errors import DataError
from peppp.formats import Configuration, paper_grid
from peppp.records import Footprint, Measurement, Outcome, Recipe
from peppp.table.csv import write_table


class AcceleratorError(RuntimeError):
    """Torch's, by name."""


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
            case ["breaks"]:
                raise AcceleratorError("CUDA error: an illegal memory access was encountered")
            case ["refuses"]:
                raise DataError("no such folder: imgs")
            case ["kills"]:
                os.kill(os.getpid(), signal.SIGKILL)
            case ["exits"]:
                os._exit(3)
            case ["crashes", name]:
                os.kill(os.getpid(), signal.Signals[name])
            case ["crashes", name, "once"] if attempt == 1:
                os.kill(os.getpid(), signal.Signals[name])
            case ["kills", "once"] if attempt == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            case ["sleeps", seconds]:
                time.sleep(float(seconds))
            case ["answers", "nonsense"]:
                return 42
            case ["fails", "once"] if attempt == 1:
                raise OSError("a passing fault")
            case ["hangs", "once"] if attempt == 1:
                time.sleep(1000)
            case ["needs", size]:
                bytearray(int(size))
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


def run(engine, cells):
    """Each cell with its result as they come, with no more cells at the engine than keep it busy."""
    waiting, running = list(cells), 0
    with closing(engine):
        while waiting or running:
            while waiting and running < engine.slots:
                engine.submit(waiting.pop(0))
                running += 1
            for cell, result in engine.results(3600):
                running -= 1
                yield cell, result


def descendants(pid):
    """The processes that a process has started, and theirs."""
    children = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            child, rest = stat.read_text().split(" ", 1)[0], stat.read_text().rsplit(")", 1)[1].split()
        except (OSError, IndexError):
            continue
        children.setdefault(int(rest[1]), []).append(int(child))
    found = []
    for child in children.get(pid, []):
        found += [child, *descendants(child)]
    return found


def check_engine(engine, fake):
    """The contract of an engine with ``fake`` as its measure."""
    cells = cells_of("a", "b", "raises", "c", "refuses", "nan", "answers nonsense", "d")
    results = list(run(engine, cells))
    assert sorted(cell.data for cell, _ in results) == sorted(cell.data for cell in cells)
    for cell, result in results:
        if len(cell.data) == 1:
            assert isinstance(result, Measurement)
            assert result.key == cell.key
    assert len(fake.attempts()) == len(cells)
    failures = {cell.data: result for cell, result in results if isinstance(result, Failure)}
    assert failures["raises"].message == "ZeroDivisionError: first line second line"
    assert "second line" in failures["raises"].traceback
    assert failures["refuses"].message == "no such folder: imgs"
    assert [failures[data].hopeless for data in ("raises", "refuses")] == [False, True]
    assert "column test_error: 'nan' is not a fraction" in failures["nan"].message
    assert failures["answers nonsense"].message.startswith("AttributeError: ")
    assert not any(failure.lost for failure in failures.values())


def forty_cells(data="a"):
    sources = [Source(data, f"print of {name}", name) for name in ("digits", "letters")]
    return plan(rows_of(sources, [Recipe()]), paper_grid()[:20])


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


def peppp(*arguments, cwd=None):
    """The command line in this process, as importing torch anew for each line would take minutes."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(cwd or "."),
        redirect_stdout(out),
        redirect_stderr(err),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(sys, "argv", ["peppp", *map(str, arguments)])
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
    return Done(code, out.getvalue(), err.getvalue())


def answer(*arguments, cwd=None):
    done = peppp(*arguments, "--json", cwd=cwd)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def refused(*arguments, cwd=None):
    """What is said about wrong input: one line, exit code 2."""
    done = peppp(*arguments, cwd=cwd)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("peppp: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


MEASURED = Measurement(
    task="digits",
    fingerprint="d1",
    group="uci",
    configuration=Configuration.parse("1-4-1/1-6-7"),
    recipe=Recipe(),
    seed=3,
    chance_error=0.9,
    test_error=1 / 3,
    train_error=1e-05,
    curve=((1, 0.5), (10, 1 / 3)),
    footprint=Footprint(10, 20, 30, {"momentum": 30, "accumulator": 30}, 5, 6),
    outcome=Outcome.FINISHED,
    seconds=2.5,
    provenance={"processor": 'a "b", c;é\\', "note": ""},
)


def measured(task="digits", configuration="1-4-1/1-6-7", error=0.25, **changes):
    changes = {"task": task, "fingerprint": f"print of {task}", "group": task} | changes
    return replace(MEASURED, configuration=Configuration.parse(configuration), test_error=error, **changes)


def synthetic_table(path):
    """Write a table of four tasks: fewer bits of A, higher error."""
    write_table(
        path,
        [
            Measurement(
                f"synthetic-{task}", f"s{task}", f"g{task}", configuration, Recipe(), 0, 0.9,
                min(0.9, (0.5 + 0.1 * task) * 5 / configuration.format_a.bits), 0.1, (),
                Footprint(1, 1, 1, {}), Outcome.FINISHED, 1.0,
            )
            for task in range(4)
            for configuration in paper_grid()
        ],
    )  # fmt: skip
