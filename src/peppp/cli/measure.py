"""``peppp measure``: trainings into a store, resumably."""

from typing import Annotated

import typer

from peppp.cli.campaigns import (
    check_engine,
    check_engine_options,
    dry_run_facts,
    end,
    find_rows,
    make_engine,
    parse_seconds,
    say,
    say_read,
    size_matrix,
    worker_bytes,
)
from peppp.cli.options import (
    Augmentation,
    Batch,
    DataRoot,
    Device,
    Epochs,
    Freeze,
    Json,
    MinSteps,
    Optimizer,
    Pretrained,
    Resolution,
    Rounding,
    Workers,
    begun_from,
    check_device,
    is_given,
    parse_configurations,
    parse_list,
    parse_optimizer,
    use_data_root,
    worker_count,
)
from peppp.errors import BudgetError
from peppp.units import format_bytes, parse_bytes

_WHAT, _HOW, _HOW_LONG, _WHERE = "What to measure", "Recipe", "Limits", "Where to run"


def command(
    context: typer.Context,
    store: Annotated[
        str, typer.Argument(help="SQLite file to keep measurements in, made if it is not there; or a URL.")
    ],
    data: Annotated[
        list[str] | None,
        typer.Option(
            help="Data sets, separated by commas or one each --data: digits, cifar10, folder:imgs, wine.",
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
        list[str],
        typer.Option(
            help="paper, fp32, a file, a list as 1-4-1/1-6-7, or 1-4-1,1-5-2 x 1-6-7; parts join with +.",
            rich_help_panel=_WHAT,
        ),
    ] = ["paper"],  # noqa: B006  (typer copies it)
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
        list[str],
        typer.Option(help="Seeds of weights, data order and rounding, as 0 or 0,1,2.", rich_help_panel=_WHAT),
    ] = ["0"],  # noqa: B006
    network: Annotated[
        list[str],
        typer.Option(
            help="resnet8, resnet18, resnet34, resnet8-w32 or package.module:factory; or several of them.",
            rich_help_panel=_HOW,
        ),
    ] = ["resnet8"],  # noqa: B006
    learning_rate: Annotated[
        list[str], typer.Option(help="Learning rates of SGD, as 0.001 or 0.01,0.001.", rich_help_panel=_HOW)
    ] = ["0.001"],  # noqa: B006
    resolution: Resolution = 0,
    epochs: Epochs = 10,
    min_steps: MinSteps = 0,
    batch: Batch = 32,
    optimizer: Optimizer = "sgd",
    augmentation: Augmentation = "none",
    pretrained: Pretrained = None,
    freeze: Freeze = None,
    data_root: DataRoot = None,
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
            help="A measurement that takes longer is hung: tried again, then lost (default: 20 times the "
            "longest one like it).",
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
            help="Ray: the cluster's address (default: one on this machine).", rich_help_panel=_WHERE
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
    from peppp.lowprec.rounding.roundings import Roundings
    from peppp.records import Recipe
    from peppp.table.store.store import Store
    from peppp.tasks.networks import check_name

    # A machine that only drives others needs no device of theirs.
    check_device(device if check_engine(engine) == "local" else "cpu")
    check_engine_options(engine, address, gpus, slurm)
    use_data_root(data_root)
    chosen = parse_configurations("+".join(configurations))
    Roundings.of("fp32/fp32", rounding, error_format)
    rates = parse_list(learning_rate, float, "--learning-rate")
    seeds = parse_list(seed, int, "--seed")
    if min(seeds) < 0 or not all(0 <= rate < math.inf for rate in rates):
        raise BudgetError("seeds and learning rates are numbers from 0")
    for option, share in (("--sample", sample), ("--p-max", p_max)):
        if share is not None and not 0 < share <= 1:
            raise BudgetError(f"{option} {share} is no share; give a number above 0, up to 1")
    seconds = math.inf if max_time is None else parse_seconds(max_time, "--max-time")
    allowed = None if timeout is None else parse_seconds(timeout, "--timeout")
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
            augmentation=augmentation,
            **parse_optimizer(optimizer),
            **begun_from(pretrained, freeze),
        )
        for name in parse_list(network, str, "--network")
        for rate in rates
    ]
    if (data is None) == (named is None):
        raise BudgetError("name what to measure: --data digits,folder:imgs, or --plan paper (one of them)")
    if named is not None:
        fixed = ("network", "learning_rate", "epochs", "batch", "resolution")
        for name in fixed:
            if is_given(context, name):
                raise BudgetError(f"--plan {named} says what --{name.replace('_', '-')} is; leave it out")
    for recipe in recipes:
        check_name(recipe.network)
    texts = None if data is None else ",".join(data)
    rows, kept_by, absent, read = find_rows(texts, named, recipes, resolution, dry_run, store)
    sizes = {
        (source.fingerprint, recipe, c): kept_by(source.fingerprint, recipe, c)
        for source, recipe in rows
        for c in chosen
    }
    cells = plan(
        rows,
        chosen,
        seeds,
        share=sample,
        p_max=p_max,
        memory=size_matrix(rows, chosen, sizes) if by_memory or p_max is not None else None,
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
    memory = worker_bytes(worker_memory, engine, count)
    if dry_run:
        kept_bytes = [bytes_of[cell.fingerprint, cell.recipe, cell.configuration] for cell in cells]
        facts = dry_run_facts(store, cells, kept_bytes, planned, max(count or 1, 1), absent)
        say_read(read)
        say(facts, store, json)
        return
    with Store.open(store) as kept, Display() as display:
        say_read(read)
        estimates = Estimates(kept.seconds())
        limit = estimates.limit if allowed is None else lambda cell: allowed
        summary = run_campaign(
            kept,
            cells,
            make_engine(engine, count, device, memory, limit, address, gpus, slurm),
            progress=display,
            estimates=estimates,
            max_seconds=seconds,
            max_measurements=max_measurements,
            tries=tries,
        )
        name = kept.name
    end(summary, name, json)
