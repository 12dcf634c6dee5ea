"""``peppp measure``: trainings into a store, resumably."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from peppp.cli.options import (
    Batch,
    Device,
    Epochs,
    Json,
    MinSteps,
    Resolution,
    Rounding,
    Workers,
    check_device,
    parse_configurations,
    parse_list,
    print_json,
    worker_count,
)
from peppp.errors import BudgetError, DataError
from peppp.units import format_bytes, parse_bytes

if TYPE_CHECKING:
    from peppp.campaign.cells import Cell, Row
    from peppp.campaign.engines import Engine, Limit
    from peppp.campaign.runner import Summary
    from peppp.records import Recipe

_WHAT, _HOW, _HOW_LONG, _WHERE = "What to measure", "Recipe", "Limits", "Where to run"


def command(
    context: typer.Context,
    store: Annotated[
        str, typer.Argument(help="SQLite file to keep measurements in, made if it is not there; or a URL.")
    ],
    data: Annotated[
        str | None,
        typer.Option(
            help="Data sets, separated by commas: digits, digits:0246, folder:imgs, npz:set.npz.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    named: Annotated[
        str | None,
        typer.Option(
            "--plan",
            help="In place of --data: a campaign of the paper, paper, table5, architectures, epochs or "
            "learning-rates.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    configurations: Annotated[
        str,
        typer.Option(
            help="paper, fp32, a file, a list as 1-4-1/1-6-7, or 1-4-1,1-5-2 x 1-6-7; parts join with +.",
            rich_help_panel=_WHAT,
        ),
    ] = "paper",
    sample: Annotated[
        float | None,
        typer.Option(min=0.0, max=1.0, help="Share of the configurations to measure.", rich_help_panel=_WHAT),
    ] = None,
    by_memory: Annotated[
        bool,
        typer.Option(
            "--by-memory", help="Sample those that need less memory more often.", rich_help_panel=_WHAT
        ),
    ] = False,
    p_max: Annotated[
        float | None,
        typer.Option(help="With --by-memory: the probability of the cheapest.", rich_help_panel=_WHAT),
    ] = None,
    sampling_seed: Annotated[
        int, typer.Option(min=0, help="Seed of the sample and of the order.", rich_help_panel=_WHAT)
    ] = 0,
    seed: Annotated[
        str,
        typer.Option(help="Seeds of weights, data order and rounding, as 0 or 0,1,2.", rich_help_panel=_WHAT),
    ] = "0",
    network: Annotated[
        str,
        typer.Option(
            help="resnet8, resnet18, resnet34, resnet8-w32 or package.module:factory; or several of them.",
            rich_help_panel=_HOW,
        ),
    ] = "resnet8",
    learning_rate: Annotated[
        str, typer.Option(help="Learning rates of SGD, as 0.001 or 0.01,0.001.", rich_help_panel=_HOW)
    ] = "0.001",
    resolution: Resolution = 0,
    epochs: Epochs = 10,
    min_steps: MinSteps = 0,
    batch: Batch = 32,
    rounding: Rounding = "stochastic",
    error_format: Annotated[
        str, typer.Option(help="Format of back-propagated errors: A, B or a format.", rich_help_panel=_HOW)
    ] = "A",
    accumulator: Annotated[
        bool,
        typer.Option(
            "--accumulator/--no-accumulator",
            help="Keep weights for the update in Format B as well.",
            rich_help_panel=_HOW,
        ),
    ] = True,
    max_time: Annotated[
        str | None,
        typer.Option(help="Stop after that, as 90s, 30min or 8h.", rich_help_panel=_HOW_LONG),
    ] = None,
    max_measurements: Annotated[
        int | None, typer.Option(min=0, help="Make at most so many.", rich_help_panel=_HOW_LONG)
    ] = None,
    max_memory: Annotated[
        str | None,
        typer.Option(
            help="Leave out trainings that keep more (computed), as 275MB.", rich_help_panel=_HOW_LONG
        ),
    ] = None,
    timeout: Annotated[
        str | None,
        typer.Option(
            help="A measurement that takes longer is hung: tried again, then lost [default: 20 times the "
            "longest one like it].",
            rich_help_panel=_HOW_LONG,
        ),
    ] = None,
    tries: Annotated[
        int,
        typer.Option(min=1, help="Tries of a measurement that fails or is lost.", rich_help_panel=_HOW_LONG),
    ] = 3,
    engine: Annotated[str, typer.Option(help="local, ray or slurm.", rich_help_panel=_WHERE)] = "local",
    workers: Workers = None,
    worker_memory: Annotated[
        str | None,
        typer.Option(help="Memory that each worker may have, as 4GB.", rich_help_panel=_WHERE),
    ] = None,
    device: Device = "cpu",
    address: Annotated[
        str | None,
        typer.Option(
            help="Ray: the cluster's address [default: one on this machine].", rich_help_panel=_WHERE
        ),
    ] = None,
    gpus: Annotated[
        float, typer.Option(min=0.0, help="GPUs a measurement takes, as 0.25.", rich_help_panel=_WHERE)
    ] = 0.0,
    slurm: Annotated[
        str,
        typer.Option(
            help="Slurm: further settings, as partition=gpu,account=lab,timeout_min=60.",
            rich_help_panel=_WHERE,
        ),
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be measured.")] = False,
    json: Json = False,
) -> None:
    """Train and test networks on data sets at many configurations; the same line again does only the rest.

    Example: peppp measure runs.db --data digits,folder:imgs --network resnet8 --sample 0.2
    """
    import math

    from peppp.campaign.cells import plan
    from peppp.campaign.estimates import Estimates
    from peppp.campaign.progress import Display
    from peppp.campaign.runner import run_campaign
    from peppp.campaign.store import Store
    from peppp.lowprec.functions import Precision
    from peppp.records import Recipe

    # A machine that only drives others needs no device of theirs.
    check_device(device if engine == "local" else "cpu")
    chosen = parse_configurations(configurations)
    Precision.of(chosen[0], rounding, error_format)
    rates = parse_list(learning_rate, float, "--learning-rate")
    seeds = parse_list(seed, int, "--seed")
    if min(seeds) < 0 or not all(0 <= rate < math.inf for rate in rates):
        raise BudgetError("seeds and learning rates are numbers from 0")
    seconds = math.inf if max_time is None else _seconds(max_time, "--max-time")
    allowed = None if timeout is None else _seconds(timeout, "--timeout")
    cap = None if max_memory is None else parse_bytes(max_memory)
    recipes = [
        Recipe(
            network=name,
            epochs=epochs,
            min_steps=min_steps,
            batch_size=batch,
            learning_rate=rate,
            rounding=rounding,
            error_format=error_format,
            accumulator=accumulator,
        )
        for name in parse_list(network, str, "--network")
        for rate in rates
    ]
    if (data is None) == (named is None):
        raise BudgetError("name what to measure: --data digits,folder:imgs, or --plan paper (one of them)")
    if named is not None:
        fixed = ("network", "learning_rate", "epochs", "batch", "resolution")
        for name in fixed:
            if context.get_parameter_source(name) is not context.get_parameter_source("device"):
                raise BudgetError(f"--plan {named} says what --{name.replace('_', '-')} is; leave it out")
    rows, classes, absent = _rows(data, named, recipes, resolution, dry_run)
    sizes = {
        (source.fingerprint, recipe, c): _size(classes[source.fingerprint], source.resolution, recipe, c)
        for source, recipe in rows
        for c in chosen
    }
    cells = plan(
        rows,
        chosen,
        seeds,
        share=sample,
        p_max=p_max,
        memory=_matrix(rows, chosen, sizes) if by_memory or p_max is not None else None,
        sampling_seed=sampling_seed,
    )
    bytes_of = {
        (source.fingerprint, source.cell(c, recipe).recipe, c): sizes[source.fingerprint, recipe, c]
        for source, recipe in rows
        for c in chosen
    }
    planned = len(cells)
    cells = [
        cell
        for cell in cells
        if cap is None or bytes_of[cell.fingerprint, cell.recipe, cell.configuration] <= cap
    ]
    if not cells:
        raise BudgetError(
            f"every training keeps more than --max-memory {max_memory}; the smallest keeps "
            f"{format_bytes(min(sizes.values()))} (computed)"
        )
    count = worker_count(workers, device) if engine == "local" else workers
    if dry_run:
        kept_bytes = [bytes_of[cell.fingerprint, cell.recipe, cell.configuration] for cell in cells]
        _say(_facts(store, cells, kept_bytes, planned, max(count or 1, 1), absent), store, json)
        return
    with Store.open(store) as kept, Display() as display:
        estimates = Estimates(kept.seconds())
        limit = estimates.limit if allowed is None else lambda cell: allowed
        summary = run_campaign(
            kept,
            cells,
            _engine(engine, count, device, worker_memory, limit, address, gpus, slurm),
            progress=display,
            estimates=estimates,
            max_seconds=seconds,
            max_measurements=max_measurements,
            tries=tries,
        )
        name = kept.name
    _end(summary, name, json)


def _rows(
    data: str | None, named: str | None, recipes: list["Recipe"], resolution: int, dry_run: bool
) -> tuple[list["Row"], dict[str, int], list[str]]:
    """The rows, the number of classes by fingerprint, and the data sets that are not on this machine."""
    from peppp.campaign.cells import Source, rows_of
    from peppp.campaign.worker import source
    from peppp.tasks.readers import load

    classes: dict[str, int] = {}

    def found(text: str) -> Source:
        dataset = load(text, resolution=resolution)
        classes[dataset.fingerprint] = len(dataset.classes)
        return source(text, dataset)

    if data is not None:
        return rows_of([found(text) for text in dict.fromkeys(data.split(","))], recipes), classes, []

    from peppp.campaign.plans import named_plan

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
                # Enough to count by: bytes depend on the pixels' and classes' numbers only.
                sources[entry.slug] = Source(entry.slug, entry.slug, entry.name, entry.resolution)
                classes[entry.slug] = entry.classes or 10
                absent.append(entry.slug)
        rows.append((sources[entry.slug], recipe))
    return rows, classes, absent


def _size(classes: int, resolution: int, recipe: "Recipe", configuration: Any) -> int:
    from peppp.training.measurement import network_counts

    counts = network_counts(recipe.network, classes, resolution, recipe.batch_size)
    return counts.footprint(configuration, optimizer=recipe.optimizer, accumulator=recipe.accumulator).total


def _matrix(rows: list["Row"], configurations: list[Any], sizes: dict[Any, int]) -> Any:
    import numpy as np

    return np.array(
        [[sizes[source.fingerprint, recipe, c] for c in configurations] for source, recipe in rows],
        dtype=np.float64,
    )


def _engine(
    name: str,
    workers: int | None,
    device: str,
    worker_memory: str | None,
    limit: "Limit",
    address: str | None,
    gpus: float,
    slurm: str,
) -> "Engine":
    from functools import partial

    from peppp.campaign.worker import load_data, measure_cell

    measure = partial(measure_cell, device=device)
    memory = None if worker_memory is None else parse_bytes(worker_memory)
    if name == "local":
        from peppp.campaign.engines import InProcess
        from peppp.campaign.processes import Processes

        if not workers and memory is not None:
            raise BudgetError("--worker-memory limits worker processes; give --workers 1 or more")
        return Processes(measure, workers, limit=limit, memory=memory) if workers else InProcess(measure)
    if name == "ray":
        from peppp.campaign.cluster import Ray

        return Ray(measure, address=address, load=load_data, limit=limit, gpus=gpus, memory=memory)
    if name == "slurm":
        from peppp.campaign.slurm import Slurm

        settings = dict(part.partition("=")[::2] for part in slurm.split(",") if part)
        return Slurm(measure, jobs=workers or 100, gpus=gpus, memory=memory, limit=limit, settings=settings)
    raise BudgetError(f"no engine {name!r}; there are local, ray and slurm")


def _facts(
    store: str, cells: list["Cell"], sizes: list[int], planned: int, workers: int, absent: list[str]
) -> dict[str, Any]:
    """What a campaign would do, from what the store holds; the store is only read, if there is one."""
    from peppp.campaign.estimates import Estimates
    from peppp.campaign.store import Store

    present, times = set(), {}
    if "://" in store or Path(store).exists():
        with Store.open(store, create=False) as kept:
            present, times = kept.keys(), kept.seconds()
    todo = [cell for cell in cells if cell.key not in present]
    together = [size for cell, size in zip(cells, sizes, strict=True) if cell.key not in present]
    expected = Estimates(times).total(todo)
    return {
        "asked": len(cells),
        "already_there": len(cells) - len(todo),
        "left": len(todo),
        "over_max_memory": planned - len(cells),
        "smallest_bytes": min(sizes),
        "largest_bytes": max(sizes),
        "total_bytes": sum(together),
        "estimated_seconds": None if expected is None else round(expected / workers, 1),
        "workers": workers,
        "absent": absent,
    }


def _say(facts: dict[str, Any], store: str, json: bool) -> None:
    if json:
        print_json(facts)
        return
    from peppp.campaign.database import shown

    smallest, largest = format_bytes(facts["smallest_bytes"]), format_bytes(facts["largest_bytes"])
    text = (
        f"{facts['left']} of {facts['asked']} measurements to make, {facts['already_there']} in "
        f"{shown(store)} already; a training keeps {smallest} to {largest}, "
        f"all of them {format_bytes(facts['total_bytes'])} (computed)"
    )
    if facts["over_max_memory"]:
        text += f"; {facts['over_max_memory']} more would need more memory than --max-memory"
    typer.echo(text)
    seconds = facts["estimated_seconds"]
    if seconds is None:
        typer.echo("time: nothing like it was measured yet, so there is no estimate")
    else:
        typer.echo(f"time: about {_duration(seconds)} with {facts['workers']} at once (estimated)")
    if absent := facts["absent"]:
        more = f" and {len(absent) - 3} more" if len(absent) > 3 else ""
        typer.echo(f"not on this machine: {', '.join(absent[:3])}{more}; they are counted by name")


def _end(summary: "Summary", store: str, json: bool) -> None:
    failures = (*summary.failed, *summary.lost)
    if json:
        names = ("asked", "already_there", "done", "diverged", "retried", "elsewhere", "left", "stopped")
        facts = {name: getattr(summary, name) for name in names}
        facts |= {"failed": len(summary.failed), "lost": len(summary.lost)}
        print_json(facts | {"seconds": round(summary.seconds, 1)})
    else:
        tried = f" ({summary.retried} tries more)" if summary.retried else ""
        stopped = f", stopped by --max-{summary.stopped}" if summary.stopped else ""
        typer.echo(
            f"{summary.done} measured ({summary.diverged} diverged) in {_duration(summary.seconds)}, "
            f"{summary.already_there} were there, {len(summary.failed)} failed, {len(summary.lost)} lost"
            f"{tried}, {summary.left} left{stopped}; in {store}"
        )
    for cell, failure in failures[:5]:
        kind = "lost" if failure.lost else "failed"
        typer.echo(f"{kind}: {cell.task} {cell.configuration}: {failure.message}", err=True)
    if len(failures) > 5:
        typer.echo(f"and {len(failures) - 5} more: peppp status {store} --failures", err=True)
    if summary.interrupted:
        raise KeyboardInterrupt
    if failures or summary.elsewhere:
        raise typer.Exit(1)


def _seconds(text: str, option: str) -> float:
    """Seconds of a text as 90s, 30min, 8h or 2d; a bare number is seconds."""
    import re

    units = {"": 1, "s": 1, "min": 60, "m": 60, "h": 3600, "d": 86400}
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([a-z]*)", text.strip(), re.ASCII)
    if match is None or match[2] not in units or float(match[1]) <= 0:
        raise BudgetError(f"{option} {text!r} is no time; write it as 90s, 30min or 8h")
    return float(match[1]) * units[match[2]]


def _duration(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
