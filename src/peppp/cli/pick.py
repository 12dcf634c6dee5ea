"""``peppp pick``: the precision to train at."""

from pathlib import Path
from typing import Annotated

import typer

from peppp.cli.campaigns import parse_seconds
from peppp.cli.evaluate import Errors
from peppp.cli.fitting import parse_micro_batch
from peppp.cli.help import HelpAll
from peppp.cli.options import (
    TRAINING,
    Augmentation,
    Batch,
    DataRoot,
    Device,
    Epochs,
    Freeze,
    Json,
    MicroBatch,
    MinSteps,
    Network,
    NoRecompute,
    Optimizer,
    Pretrained,
    Resolution,
    Rounding,
    Seed,
    Table,
    Workers,
    begun_from,
    check_device,
    check_folder,
    parse_optimizer,
    refuse_unused,
    use_data_root,
    worker_count,
    wrapped,
)
from peppp.errors import BudgetError, Stopped, TableError
from peppp.files import check_place
from peppp.units import parse_bytes

_CHOICE, _TRIALS, _ANSWER = "Choice", "Trials: trainings that inform the choice", "Answer"


def command(
    context: typer.Context,
    data: Annotated[
        str,
        typer.Argument(
            help="Images in class folders (or a zip or tar of them), an .npz file, or a name such as cifar10."
        ),
    ],
    budget: Annotated[
        str, typer.Option(metavar="SIZE", help="Memory that a training step may take at its peak: 100MB.")
    ],
    network: Network = "resnet8",
    measurements: Annotated[
        int | None,
        typer.Option(
            min=0, metavar="N", help="Train at most N trials (default: 6).", rich_help_panel=_TRIALS
        ),
    ] = None,
    spend: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Time for the trials: 90s, 10min, 2h.", rich_help_panel=_TRIALS),
    ] = None,
    until_sure: Annotated[
        float | None,
        typer.Option(
            metavar="P",
            help="Stop once the choice is right with this probability, such as 0.9.",
            rich_help_panel=_TRIALS,
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Chooses the trials and predicts: gaussian (default), ed-mf (the paper's), or another one "
            "that `peppp evaluate` compares.",
            rich_help_panel=_TRIALS,
        ),
    ] = None,
    tolerance: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            metavar="E",
            help="Treat expected errors that are this close as equal, and pick the one with least memory.",
            rich_help_panel=_CHOICE,
        ),
    ] = 0.002,
    fp32_error: Annotated[
        float | None,
        typer.Option(metavar="E", help="Error of fp32 on the data, if you know it.", rich_help_panel=_TRIALS),
    ] = None,
    noise: Annotated[
        float | None,
        typer.Option(
            metavar="SD",
            help="Standard deviation of the error over seeds, such as 0.02 (default: learned).",
            rich_help_panel=_TRIALS,
        ),
    ] = None,
    cap: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE", help="Memory that a trial may take (default: budget).", rich_help_panel=_TRIALS
        ),
    ] = None,
    count: Annotated[
        str,
        typer.Option(
            metavar="WHAT",
            help="What the budget bounds: peak, or kept (the paper's count, without working memory).",
            rich_help_panel=_CHOICE,
        ),
    ] = "peak",
    no_recompute: NoRecompute = False,
    micro_batch: MicroBatch = None,
    table: Table = None,
    errors: Errors = None,
    rank: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="Rank of the factorisation.", rich_help_panel=_TRIALS),
    ] = 3,
    resolution: Resolution = 0,
    epochs: Epochs = 10,
    min_steps: MinSteps = 0,
    batch: Batch = 32,
    learning_rate: Annotated[
        list[str],
        typer.Option(
            metavar="RATES", help="One rate, or several to pick from: 0.01,0.001.", rich_help_panel=TRAINING
        ),
    ] = ["0.001"],  # noqa: B006  (typer copies it)
    optimizer: Optimizer = "sgd",
    augmentation: Augmentation = "none",
    pretrained: Pretrained = None,
    freeze: Freeze = None,
    data_root: DataRoot = None,
    choices: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="SET",
            help="runnable (what trains here), paper (pairs), or all.",
            rich_help_panel=_CHOICE,
        ),
    ] = "runnable",
    rounding: Rounding = "stochastic",
    seed: Seed = 0,
    store: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Keep the trials; they are used again.", rich_help_panel=_TRIALS),
    ] = None,
    workers: Workers = None,
    device: Device = "cpu",
    cost: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COST",
            help="Also show what is Pareto optimal in error and costs: memory, time, energy (a model), or "
            "FILE.csv:COLUMN. Give one --cost each.",
            rich_help_panel=_CHOICE,
        ),
    ] = None,
    train: Annotated[
        bool, typer.Option("--train", help="Then train at the pick, for real.", rich_help_panel=_ANSWER)
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Where --train keeps its weights (default: peppp-run).",
            rich_help_panel=_ANSWER,
        ),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a page with the picture.", rich_help_panel=_ANSWER),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Train nothing; say what would be trained.", rich_help_panel=_ANSWER),
    ] = False,
    json: Json = False,
    help_all: HelpAll = False,
) -> None:
    """Measure a few configurations, predict all others, pick the best within the budget.

    Example: peppp pick my_images/ --network resnet18 --budget 110MB --spend 10min --html report.html
    """
    parse_bytes(budget)  # what is wrong with these is said before torch is imported, not seconds later
    parse_bytes(cap or budget)
    seconds = None if spend is None else parse_seconds(spend, "--spend")
    from peppp.advise.costs import check_costs
    from peppp.advise.requests import check_request
    from peppp.learn.methods import DEFAULT_METHOD

    check_request(method or DEFAULT_METHOD, until_sure, noise)
    check_costs(cost or ())
    if table is not None and errors:
        raise TableError("--table and --errors are both what is known of other tasks; give one of them")
    if (method or DEFAULT_METHOD) in ("gaussian", "two-best"):
        refuse_unused(
            context, "rank", f"belongs to methods that factorise the table, not to {method or 'gaussian'}"
        )
    if count == "kept":
        refuse_unused(context, "no_recompute", "lowers no --count kept: recomputation changes the peak alone")
    if out is not None and not train:
        raise BudgetError("--out is the folder of --train; give both, or neither")
    folder = out or Path("peppp-run")
    parts = parse_micro_batch(micro_batch)

    from peppp.advise.session import pick
    from peppp.campaign.progress import Display
    from peppp.records import Recipe, RoundingModes
    from peppp.table.labels import parse_rates
    from peppp.table.matrices import read_errors

    check_device(device)
    use_data_root(data_root)
    RoundingModes.parse(rounding)
    rates = parse_rates(",".join(learning_rate))
    if html is not None:
        check_place(html)  # said before the training, not after
    if train:
        check_folder(folder)
    recipe = Recipe(
        epochs=epochs,
        min_steps=min_steps,
        batch_size=batch,
        learning_rate=rates[0],
        rounding=rounding,
        augmentation=augmentation,
        **parse_optimizer(optimizer),
        **begun_from(pretrained, freeze),
    )
    try:
        with Display() as display:
            chosen = pick(
                data,
                budget=budget,
                network=network,
                measurements=measurements,
                spend=seconds,
                until_sure=until_sure,
                method=method,
                tolerance=tolerance,
                table=read_errors(*errors) if errors else table,
                recipe=recipe,
                learning_rates=rates,
                resolution=resolution,
                cap=cap,
                choices=choices,
                fp32_error=fp32_error,
                noise=noise,
                rank=rank,
                seed=seed,
                store=store,
                workers=worker_count(workers, device),
                device=device,
                costs=cost or (),
                progress=display,
                dry_run=dry_run,
                count=count,
                recompute=not no_recompute,
                micro_batch=parts,
            )
    except KeyboardInterrupt:
        if store is not None:
            raise
        raise Stopped(
            "stopped; no measurement was kept: with --store picks.db the same line goes on"
        ) from None
    typer.echo(chosen.to_json() if json else wrapped(str(chosen)))
    if html is not None:
        chosen.report(html)
        typer.echo(f"page      {html}", err=json)
    if train and not dry_run:
        from dataclasses import replace

        from peppp.advise.trials import training_of
        from peppp.cli.train import run, storage_of
        from peppp.tasks.readers import load

        dataset = load(data, resolution=resolution)
        configuration, recipe = training_of(chosen.configuration, replace(recipe, network=network))
        run(
            dataset,
            configuration,
            recipe,
            seed,
            folder,
            storage=storage_of(configuration, device=device),
            device=device,
            json=json,
            budget=chosen.budget,
            recompute=not no_recompute,
            micro_batch=parts,
            strict=count == "peak",
            say_read=False,
        )
