"""``peppp measure``: trainings into a store, resumably."""

from pathlib import Path
from typing import Annotated

import typer

from peppp.cli.options import (
    Augmentation,
    Batch,
    DataRoot,
    Device,
    Epochs,
    Json,
    LearningRate,
    MinSteps,
    Network,
    Optimizer,
    Resolution,
    Rounding,
    Seed,
    Workers,
    check_device,
    parse_configurations,
    parse_optimizer,
    print_json,
    use_data_root,
    worker_count,
)
from peppp.units import format_bytes


def command(
    store: Annotated[
        Path, typer.Argument(help="SQLite file to keep measurements in; made if it is not there.")
    ],
    data: Annotated[
        str,
        typer.Option(help="Data sets, separated by commas: digits, cifar10, folder:imgs, npz:set.npz, wine."),
    ],
    network: Network = "resnet8",
    configurations: Annotated[
        str,
        typer.Option(help="paper, fp32, a list as 1-4-1/1-6-7, or 1-4-1,1-5-2 x 1-6-7; parts join with +."),
    ] = "paper",
    sample: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of the configurations measured on each data set.")
    ] = 1.0,
    sampling_seed: Annotated[int, typer.Option(min=0, help="Seed of the sample and of the order.")] = 0,
    resolution: Resolution = 0,
    epochs: Epochs = 10,
    min_steps: MinSteps = 0,
    batch: Batch = 32,
    learning_rate: LearningRate = 0.001,
    optimizer: Optimizer = "sgd",
    augmentation: Augmentation = "none",
    data_root: DataRoot = None,
    rounding: Rounding = "stochastic",
    error_format: Annotated[
        str, typer.Option(help="Format of back-propagated errors: A, B or a format.")
    ] = "A",
    seed: Seed = 0,
    workers: Workers = None,
    device: Device = "cpu",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be measured.")] = False,
    json: Json = False,
) -> None:
    """Train and test a network on data sets at many configurations; the same line again does only the rest.

    Example: peppp measure runs.db --data digits,folder:imgs --network resnet8 --sample 0.2
    """
    from functools import partial

    from peppp.campaign.cells import plan
    from peppp.campaign.progress import Display
    from peppp.campaign.runner import run_campaign
    from peppp.campaign.store import Store
    from peppp.campaign.worker import measure_cell, source
    from peppp.lowprec.functions import Precision
    from peppp.records import Recipe
    from peppp.tasks.readers import load
    from peppp.training.measurement import footprint

    check_device(device)
    use_data_root(data_root)
    chosen = parse_configurations(configurations)
    recipe = Recipe(
        network=network,
        epochs=epochs,
        min_steps=min_steps,
        batch_size=batch,
        learning_rate=learning_rate,
        rounding=rounding,
        error_format=error_format,
        augmentation=augmentation,
        **parse_optimizer(optimizer),
    )
    Precision.of(chosen[0], rounding, error_format)
    loaded = {text: load(text, resolution=resolution) for text in dict.fromkeys(data.split(","))}
    sizes = [footprint(d, c, recipe).total for d in loaded.values() for c in chosen]
    cells = plan(
        [source(text, dataset) for text, dataset in loaded.items()],
        chosen,
        [recipe],
        (seed,),
        share=sample,
        sampling_seed=sampling_seed,
    )
    if dry_run:
        present = set()
        if store.exists():
            with Store.open(store, create=False) as kept:
                present = kept.keys()
        left = sum(cell.key not in present for cell in cells)
        facts = {
            "asked": len(cells),
            "already_there": len(cells) - left,
            "left": left,
            "smallest_bytes": min(sizes),
            "largest_bytes": max(sizes),
        }
        text = (
            f"{left} of {len(cells)} measurements to make, {len(cells) - left} in {store} already; "
            f"a training keeps {format_bytes(min(sizes))} to {format_bytes(max(sizes))} (computed)"
        )
        print_json(facts) if json else typer.echo(text)
        return
    with Store.open(store) as kept, Display() as display:
        summary = run_campaign(
            kept,
            cells,
            partial(measure_cell, device=device),
            workers=worker_count(workers, device),
            progress=display,
        )
    facts = {
        "asked": summary.asked,
        "already_there": summary.already_there,
        "done": summary.done,
        "diverged": summary.diverged,
        "failed": len(summary.failed),
        "lost": len(summary.lost),
        "left": summary.left,
    }
    if json:
        print_json(facts | {"seconds": round(summary.seconds, 1)})
    else:
        typer.echo(
            f"{summary.done} measured ({summary.diverged} diverged) in {summary.seconds:.0f} s, "
            f"{summary.already_there} were there, {len(summary.failed)} failed, {len(summary.lost)} lost, "
            f"{summary.left} left; in {store}"
        )
    for cell, failure in (*summary.failed, *summary.lost)[:5]:
        typer.echo(f"failed: {cell.task} {cell.configuration}: {failure.message}", err=True)
    if summary.interrupted:
        raise KeyboardInterrupt
    if summary.failed or summary.lost:
        raise typer.Exit(1)
