"""Measure the table of the paper's scale on a GPU, in shards that resume and merge. NOT RUN ON A GPU YET.

ResNet-18, 32 pixels, the paper's recipe: first the CIFAR-100 partitions at all 99 configurations and fp32,
then CIFAR-10 at 20, then ResNet-34 and VGG-11 on two partitions. A call measures for at most ``--minutes``
what no shard in OUT holds yet, and leaves one more shard there; the same line again goes on. Needs torch,
numpy, Pillow and this package's sources, nothing else.

    PYTHONPATH=src python benchmarks/gpu_table.py measure FOLDER_OF_NPZ_FILES OUT [--processes 3]
    PYTHONPATH=src python benchmarks/gpu_table.py merge OUT table.csv
"""

import argparse
import sys
import time
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path

import torch

from peppp.campaign.cells import Cell, Source, plan, rows_of
from peppp.campaign.local import local
from peppp.campaign.worker import measure_cell, source
from peppp.formats import FP32_CONFIGURATION, paper_grid
from peppp.records import Measurement, Recipe
from peppp.table.csv import read_table, write_table
from peppp.tasks.readers import load

_BETWEEN_WRITES = 30  # seconds


def cells(folder: Path) -> list[Cell]:
    """All measurements of the table, in the order in which they are made."""
    partitions = [described(path, "cifar100") for path in sorted(folder.glob("cifar100_*.npz"))]
    grid = [FP32_CONFIGURATION, *paper_grid()]
    found = plan(rows_of(partitions, [Recipe(network="resnet18")]), grid)
    if (folder / "cifar10.npz").exists():
        whole = described(folder / "cifar10.npz", "cifar10")
        found += plan(
            rows_of([whole], [Recipe(network="resnet18")]), [FP32_CONFIGURATION, *paper_grid()[::5]]
        )
    others = [Recipe(network="resnet34"), Recipe(network="vgg11")]
    return found + plan(rows_of(partitions[:2], others), grid)


def described(path: Path, group: str) -> Source:
    text = f"npz:{path}?resolution=32&group={group}"
    return source(text, load(text))


def shards(out: Path) -> list[Measurement]:
    """What all shards hold, each measurement once."""
    found = {m.key: m for path in sorted(out.glob("shard-*.csv")) for m in read_table(path)}
    return list(found.values())


def measure(folder: Path, out: Path, minutes: float, processes: int, device: str) -> None:
    deadline = time.monotonic() + 60 * minutes
    out.mkdir(parents=True, exist_ok=True)
    known = {m.key for m in shards(out)}
    asked = cells(folder)
    todo = [cell for cell in asked if cell.key not in known]
    shard = out / f"shard-{len(list(out.glob('shard-*.csv'))):04d}.csv"
    done: list[Measurement] = []
    written = time.monotonic()
    waiting = iter(todo)
    with closing(local(partial(measure_cell, device=device), processes)) as engine:
        busy = sum(1 for cell in islice(waiting, engine.slots) if engine.submit(cell) is None)
        while busy:
            for cell, result in engine.results(timeout=1.0):
                busy -= 1
                if isinstance(result, Measurement):
                    done.append(result)
                else:
                    print(f"failed: {cell.task} {cell.configuration}: {result.message}", file=sys.stderr)
                for following in islice(waiting, 1):
                    engine.submit(following)
                    busy += 1
            if done and time.monotonic() - written > _BETWEEN_WRITES:
                write_table(shard, done)
                written = time.monotonic()
            if done and time.monotonic() > deadline:
                break
    if done:
        write_table(shard, done)
    print(f"{len(done)} measured, {len(todo) - len(done)} of {len(asked)} left")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    measuring = commands.add_parser("measure")
    measuring.add_argument("folder", type=Path)
    measuring.add_argument("out", type=Path)
    measuring.add_argument("--minutes", type=float, default=8.0)
    measuring.add_argument("--processes", type=int, default=3, help="at once on one GPU; 0 is this process")
    measuring.add_argument("--device", default="cuda")
    merging = commands.add_parser("merge")
    merging.add_argument("out", type=Path)
    merging.add_argument("table", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "merge":
        merged = shards(arguments.out)
        write_table(arguments.table, merged)
        print(f"{len(merged)} measurements in {arguments.table}")
    elif arguments.device != "cpu" and not torch.cuda.is_available():
        sys.exit("no GPU that torch can use; give --device cpu to try it out")
    else:
        measure(arguments.folder, arguments.out, arguments.minutes, arguments.processes, arguments.device)


if __name__ == "__main__":
    main()
