"""What a campaign costs beside its trainings, and what a store of a million measurements takes to answer.

    python benchmarks/campaign.py [--seconds 2] [--measurements 20] [--rows 1000000]

``overhead_1`` and ``overhead_2``: the wall time of a campaign with 1 and 2 worker processes over that of the
same trainings in a bare loop in 1 and 2 processes, minus 1. Workers and loops are started before the clock.
The training is a real one, of as many steps as take ``--seconds``.
``status_1e6_s`` and ``matrix_1e6_s``: seconds of the best of three for the status of a store of ``--rows``
rows, and for its error matrix of 1000 x 1000.
"""

import argparse
import json
import multiprocessing
import platform
import tempfile
import time
from functools import partial
from pathlib import Path

from peppp.campaign.cells import Cell
from peppp.campaign.processes import Processes
from peppp.campaign.runner import run_campaign
from peppp.campaign.status import status
from peppp.campaign.worker import load_data, measure_cell, source
from peppp.formats import Configuration, FloatFormat
from peppp.records import Footprint, Measurement, Outcome, Recipe
from peppp.table.columns import to_record
from peppp.table.store.database import making
from peppp.table.store.schema import measurements, recipes
from peppp.table.store.store import Store
from peppp.tasks.readers import load

DATA = "digits:01234?train=320&test=300"


def cells_of(steps: int, count: int, first: int = 0) -> list[Cell]:
    digits = source(DATA, load(DATA))
    recipe = Recipe(epochs=1, min_steps=steps)
    return [
        digits.cell(Configuration.parse("1-4-1/1-6-7"), recipe, seed) for seed in range(first, first + count)
    ]


def bare(jobs, results) -> None:
    """The loop to compare with: trains cell after cell, keeps nothing."""
    import torch

    torch.set_num_threads(1)
    measure_cell(cells_of(10, 1)[0])
    results.put("ready")
    for cell in jobs:
        measure_cell(cell)
    results.put("done")


def bare_seconds(cells: list[Cell], processes: int) -> float:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    parts = [cells[i::processes] for i in range(processes)]
    team = [context.Process(target=bare, args=(part, results)) for part in parts]
    for process in team:
        process.start()
    for _ in team:
        results.get()
    started = time.perf_counter()
    for _ in team:
        results.get()
    seconds = time.perf_counter() - started
    for process in team:
        process.join()
    return seconds


def campaign_seconds(cells: list[Cell], processes: int) -> float:
    with tempfile.TemporaryDirectory() as folder, Store.open(Path(folder) / "runs.db") as store:
        engine = Processes(partial(measure_cell, device="cpu"), processes)
        warming = cells_of(10, processes, first=10_000)
        for cell in warming:  # as the bare loop: libraries imported, data loaded, kernels compiled
            engine.submit(cell)
        left = processes
        while left:
            left -= len(engine.results(600))
        started = time.perf_counter()
        summary = run_campaign(store, cells, engine)
        seconds = time.perf_counter() - started
        assert summary.done == len(cells), summary
        return seconds


def overheads(seconds: float, count: int) -> dict[str, float]:
    measure_cell(cells_of(10, 1)[0])
    probe = measure_cell(cells_of(100, 1, first=1)[0]).seconds
    steps = max(20, round(100 * seconds / probe))
    results: dict[str, float] = {"steps": steps}
    for processes in (1, 2):
        ratios = []
        for repetition in range(3):  # side by side, as other work on the machine comes and goes
            cells = cells_of(steps, count * processes, first=1000 * repetition)
            loop = bare_seconds(cells, processes)
            campaign = campaign_seconds(cells, processes)
            ratios.append(campaign / loop - 1)
            results[f"per_minute_{processes}"] = round(60 * len(cells) / campaign, 2)
            print(
                f"{processes} at once, {len(cells)} trainings: loop {loop:.1f} s, campaign {campaign:.1f} s",
                flush=True,
            )
        results[f"overhead_{processes}"] = round(sorted(ratios)[1], 4)
        results[f"seconds_each_{processes}"] = round(loop * processes / len(cells), 2)
    return results


def configurations() -> list[Configuration]:
    """A thousand of them."""
    a = [FloatFormat(e, m) for e in range(2, 9) for m in range(1, 8)]
    b = [FloatFormat(e, m) for e in range(5, 9) for m in range(7, 14)]
    return [Configuration(x, y) for x in a for y in b][:1000]


def fill(store: Store, rows: int) -> None:
    """Synthetic rows, as wide as real ones."""
    recipe, grid = Recipe(), configurations()
    one = Measurement(
        "synthetic", "f", "synthetic-group", grid[0], recipe, 0, 0.9, 0.5, 0.4, ((1, 0.6), (10, 0.4)),
        Footprint(10**6, 10**8, 10**6, {"momentum": 10**6, "accumulator": 10**6}, 10**4, 10**7),
        Outcome.FINISHED, 2.5,
        provenance={"torch": "2.13.0", "numpy": "2.4.6", "peppp": "0.1.0", "python": "3.11.7",
                    "processor": "Synthetic(R) Processor CPU @ 2.50GHz", "system": "Linux", "device": "cpu"},
    )  # fmt: skip
    record = to_record(one)
    text = {"digest": record["recipe_digest"], "recipe": record.pop("recipe")}
    with making(store.engine) as connection:
        connection.execute(recipes.insert(), text)
    names = [str(configuration) for configuration in grid]
    for task in range(rows // 1000):
        changes = [
            {
                "task": f"synthetic-{task}",
                "fingerprint": f"{task * 2654435761 % 2**64:016x}",
                "configuration": name,
                "test_error": ((task * 1000 + column) * 0.6180339887) % 1.0,
                "outcome": "diverged" if column % 50 == 0 else "finished",
            }
            for column, name in enumerate(names)
        ]
        with making(store.engine) as connection:
            connection.execute(measurements.insert(), [record | change for change in changes])


def scale(rows: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "million.db"
        with Store.open(path) as store:
            started = time.perf_counter()
            fill(store, rows)
            print(f"{rows} rows written in {time.perf_counter() - started:.0f} s", flush=True)
        size = path.stat().st_size

        def best(answer) -> float:
            times = []
            for _ in range(3):
                started = time.perf_counter()
                with Store.open(path, create=False) as store:  # opening it is part of the answer
                    answer(store)
                times.append(time.perf_counter() - started)
            return round(min(times), 3)

        def whole_status(store: Store) -> None:
            assert status(store).total.done == rows

        return {
            "status_1e6_s": best(whole_status),
            "rows": rows,
            "store_bytes": size,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--measurements", type=int, default=20)
    parser.add_argument("--rows", type=int, default=1_000_000)
    arguments = parser.parse_args()
    load_data(cells_of(1, 1)[0])
    facts = scale(arguments.rows) | overheads(arguments.seconds, arguments.measurements)
    print(json.dumps(facts | {"machine": platform.machine(), "python": platform.python_version()}))


if __name__ == "__main__":
    main()
