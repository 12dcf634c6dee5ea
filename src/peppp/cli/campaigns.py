"""The parts of ``peppp measure``: find rows, choose an engine, describe a campaign before and after it."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import typer

from peppp.cli.options import print_json, reading
from peppp.errors import BudgetError, DataError
from peppp.precisions.known import Precision
from peppp.units import format_bytes, parse_bytes

if TYPE_CHECKING:
    from peppp.campaign.cells import Cell, Row
    from peppp.campaign.engines import Engine, Limit
    from peppp.campaign.summary import Summary
    from peppp.records import Recipe
    from peppp.tasks.catalog import Entry
    from peppp.tasks.dataset import Dataset


class Found(NamedTuple):
    """The rows of a campaign, and what is known about their data before anything is measured.

    ``size`` gives the bytes that a training keeps, by fingerprint; ``absent`` names the data sets that are
    not on this machine, and ``read`` describes those that were read.
    """

    rows: list["Row"]
    size: Callable[[str, "Recipe", Precision], int]
    absent: list[str]
    read: list[str]


def find_rows(
    data: str | None, named: str | None, recipes: list["Recipe"], resolution: int, dry_run: bool, store: str
) -> Found:
    """Read the data of a campaign; a dry run takes absent data sets from the catalog instead."""
    from peppp.campaign.cells import Source, rows_of
    from peppp.campaign.worker import source
    from peppp.table.store.store import fingerprints_in
    from peppp.tasks.dataset import described, under
    from peppp.tasks.readers import load, names_in

    measured = fingerprints_in(store)
    read: list[str] = []
    known: dict[str, Dataset | Entry] = {}

    def found(text: str) -> Source:
        with reading(text):
            dataset = under(load(text, resolution=resolution), measured)
        known[dataset.fingerprint] = dataset
        read.append(described(dataset))
        return source(text, dataset)

    def size(fingerprint: str, recipe: "Recipe", configuration: Precision) -> int:
        return _size(known[fingerprint], recipe, configuration)

    if data is not None:
        return Found(rows_of([found(text) for text in names_in(data)], recipes), size, [], read)

    from peppp.paper.plans import named_plan

    rows: list[Row] = []
    sources: dict[str, Source] = {}
    absent: list[str] = []
    for entry, recipe in named_plan(named or "", recipes[0]):
        if entry.slug not in sources:
            try:
                sources[entry.slug] = found(entry.slug)
            except DataError:
                if not dry_run:
                    raise
                # The catalog's entry suffices, because bytes depend only on the resolution and the classes.
                sources[entry.slug] = Source(entry.slug, entry.slug, entry.name, entry.resolution)
                known[entry.slug] = entry
                absent.append(entry.slug)
        rows.append((sources[entry.slug], recipe))
    return Found(rows, size, absent, read)


def _size(data: "Dataset | Entry", recipe: "Recipe", configuration: Precision) -> int:
    from peppp.tasks.dataset import Dataset, blank_images
    from peppp.training.sizes import footprint

    if not isinstance(data, Dataset):
        data = blank_images(data.classes or 10, data.resolution, recipe.batch_size)
    return footprint(data, configuration, recipe).total


def size_matrix(rows: list["Row"], configurations: list[Any], sizes: dict[Any, int]) -> Any:
    """Return the bytes of each row's trainings at each configuration, float64 [rows, configurations]."""
    import numpy as np

    return np.array(
        [[sizes[source.fingerprint, recipe, c] for c in configurations] for source, recipe in rows],
        dtype=np.float64,
    )


_LIBRARIES = 300 * 10**6  # bytes; with less, importing torch fails


def check_engine(name: str) -> str:
    """Return the engine's name, or raise BudgetError for an unknown one."""
    if name not in ("local", "ray", "slurm"):
        raise BudgetError(f"unknown engine {name!r}; known: local, ray, slurm")
    return name


def check_engine_options(engine: str, address: str | None, gpus: float, slurm: str) -> None:
    """Raise BudgetError for an option that the engine does not use."""
    for option, given, engines in (
        ("--address", address is not None, ("ray",)),
        ("--gpus", gpus > 0, ("ray", "slurm")),
        ("--slurm", slurm != "", ("slurm",)),
    ):
        if given and engine not in engines:
            belongs = " or ".join(f"--engine {name}" for name in engines)
            raise BudgetError(
                f"{option} belongs to {belongs}, not to {engine}; leave it out, or name the engine"
            )


def worker_bytes(worker_memory: str | None, engine: str, workers: int | None) -> int | None:
    """Parse the memory limit of each worker; raise BudgetError if it is too small or there are no workers."""
    if worker_memory is None:
        return None
    if engine == "local" and not workers:
        raise BudgetError("--worker-memory limits worker processes; give --workers 1 or more")
    memory = parse_bytes(worker_memory)
    if memory < _LIBRARIES:
        raise BudgetError(
            f"a worker's libraries alone take {format_bytes(_LIBRARIES)}, more than the "
            f"{format_bytes(memory)} of --worker-memory; give more, such as 2GB"
        )
    return memory


def make_engine(
    name: str,
    workers: int | None,
    device: str,
    memory: int | None,
    limit: "Limit",
    address: str | None,
    gpus: float,
    slurm: str,
) -> "Engine":
    """Make the engine ``name`` (local, ray or slurm) with its options."""
    from functools import partial

    from peppp.campaign.worker import load_data, measure_cell

    measure = partial(measure_cell, device=device)
    if check_engine(name) == "local":
        from peppp.campaign.engines import InProcess
        from peppp.campaign.processes import Processes

        return Processes(measure, workers, limit=limit, memory=memory) if workers else InProcess(measure)
    if name == "ray":
        from peppp.campaign.cluster import Ray

        return Ray(measure, address=address, load=load_data, limit=limit, gpus=gpus, memory=memory)
    from peppp.campaign.slurm import Slurm

    settings = dict(part.partition("=")[::2] for part in slurm.split(",") if part)
    return Slurm(measure, jobs=workers or 100, gpus=gpus, memory=memory, limit=limit, settings=settings)


def dry_run_facts(
    store: str, cells: list["Cell"], sizes: list[int], planned: int, workers: int, absent: list[str]
) -> dict[str, Any]:
    """Return facts about a campaign before it runs. The store is only read, if it exists."""
    from peppp.campaign.estimates import Estimates, Times
    from peppp.table.store.store import Key, Store

    present: set[Key] = set()
    times: Times = {}
    outdated = 0
    if "://" in store or Path(store).exists():
        with Store.open(store, create=False) as kept:
            (present, outdated), times = kept.present(), kept.seconds()
    todo = [cell for cell in cells if cell.key not in present]
    together = [size for cell, size in zip(cells, sizes, strict=True) if cell.key not in present]
    expected = Estimates(times).total(todo)
    return {
        "asked": len(cells),
        "already_there": len(cells) - len(todo),
        "left": len(todo),
        "outdated": outdated,
        "over_max_memory": planned - len(cells),
        "smallest_bytes": min(sizes),
        "largest_bytes": max(sizes),
        "total_bytes": sum(together),
        "estimated_seconds": None if expected is None else round(expected / workers, 1),
        "workers": workers,
        "absent": absent,
    }


def say_read(lines: list[str]) -> None:
    """Print the lines about the data sets that were read, once the command line is known to be valid."""
    for line in lines:
        typer.echo(f"read      {line}", err=True)


def say(facts: dict[str, Any], store: str, json: bool) -> None:
    """Print what a campaign would do."""
    if json:
        print_json(facts)
        return
    from peppp.arithmetic import outdated_note
    from peppp.table.store.database import shown

    smallest, largest = format_bytes(facts["smallest_bytes"]), format_bytes(facts["largest_bytes"])
    kept = smallest if smallest == largest else f"{smallest} to {largest}"
    text = (
        f"{facts['left']} of {facts['asked']} measurements to make, {facts['already_there']} in "
        f"{shown(store)} already; a training keeps {kept}, "
        f"all of them {format_bytes(facts['total_bytes'])} (computed)"
    )
    if facts["over_max_memory"]:
        text += f"; {facts['over_max_memory']} more would need more memory than --max-memory"
    typer.echo(text)
    seconds = facts["estimated_seconds"]
    if seconds is None:
        typer.echo("time: no estimate, as nothing comparable was measured yet")
    else:
        typer.echo(f"time: about {_duration(seconds)}, {facts['workers']} at a time (estimated)")
    if facts["outdated"]:
        typer.echo(outdated_note(facts["outdated"], shown(store)))
    if absent := facts["absent"]:
        more = f" and {len(absent) - 3} more" if len(absent) > 3 else ""
        typer.echo(f"not on this machine: {', '.join(absent[:3])}{more}; the catalog's numbers are used")


def end(summary: "Summary", store: str, json: bool) -> None:
    """Print the result of a campaign, and exit with 1 if a cell failed."""
    failures = (*summary.failed, *summary.lost)
    if json:
        names = ("asked", "already_there", "done", "diverged", "retried", "elsewhere", "left", "outdated")
        facts = {name: getattr(summary, name) for name in (*names, "stopped")}
        facts |= {"failed": len(summary.failed), "lost": len(summary.lost)}
        print_json(facts | {"seconds": round(summary.seconds, 1)})
    else:
        tried = f" ({summary.retried} retries)" if summary.retried else ""
        stopped = f", stopped by --max-{summary.stopped}" if summary.stopped else ""
        typer.echo(
            f"{summary.done} measured ({summary.diverged} diverged) in {_duration(summary.seconds)}, "
            f"{summary.already_there} already there, {len(summary.failed)} failed, {len(summary.lost)} lost"
            f"{tried}, {summary.left} left{stopped}; in {store}"
        )
    if summary.outdated and not json:
        from peppp.arithmetic import outdated_note

        typer.echo(outdated_note(summary.outdated, store))
    for cell, failure in failures[:5]:
        kind = "lost" if failure.lost else "failed"
        typer.echo(f"{kind}: {cell.task} {cell.configuration}: {failure.message}", err=True)
    if len(failures) > 5:
        typer.echo(f"and {len(failures) - 5} more: peppp status {store} --failures", err=True)
    if summary.interrupted:
        raise KeyboardInterrupt
    if failures or summary.elsewhere:
        raise typer.Exit(1)


def parse_seconds(text: str, option: str) -> float:
    """Parse a time such as 90s, 30min, 8h or 2d to seconds; a number without a unit is seconds."""
    import re

    units = {"": 1, "s": 1, "min": 60, "m": 60, "h": 3600, "d": 86400}
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([a-z]*)", text.strip(), re.ASCII)
    if match is None or match[2] not in units or float(match[1]) <= 0:
        raise BudgetError(f"{option} {text!r} is not a time; write one such as 90s, 30min, 8h or 2d")
    return float(match[1]) * units[match[2]]


def _duration(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
