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
from peppp.cli.help import HelpAll
from peppp.cli.options import (
    MACHINE,
    TRAINING,
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
    parse_optimizer,
    use_data_root,
    worker_count,
)
from peppp.cli.parsing import parse_configurations, parse_list
from peppp.errors import BudgetError
from peppp.units import format_bytes, parse_bytes

_WHAT, _LIMITS = "What to measure", "Limits"


def command(
    context: typer.Context,
    store: Annotated[
        str, typer.Argument(help="SQLite file that keeps the measurements (made if missing), or a URL.")
    ],
    data: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAMES", help="Data sets: digits,cifar10,folder:imgs,wine.", rich_help_panel=_WHAT
        ),
    ] = None,
    named: Annotated[
        str | None,
        typer.Option(
            "--plan",
            metavar="NAME",
            help="A campaign of the paper instead of --data: paper, table5, architectures, epochs or "
            "learning-rates.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    configurations: Annotated[
        list[str],
        typer.Option(
            metavar="LIST",
            help="paper, fp32, 1-4-1/1-6-7, 1-4-1,1-5-2 x 1-6-7, a name or a file; join with +.",
            rich_help_panel=_WHAT,
        ),
    ] = ["paper"],  # noqa: B006  (typer copies it)
    sample: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            metavar="SHARE",
            help="Share of the configurations to measure.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    by_memory: Annotated[
        bool,
        typer.Option(
            "--by-memory",
            help="Sample those that need less memory more often.",
            rich_help_panel=_WHAT,
        ),
    ] = False,
    p_max: Annotated[
        float | None,
        typer.Option(
            metavar="P",
            help="With --by-memory: the probability of the cheapest configuration.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    sampling_seed: Annotated[
        int,
        typer.Option(min=0, metavar="N", help="Seed of the sample and of the order.", rich_help_panel=_WHAT),
    ] = 0,
    seed: Annotated[
        list[str],
        typer.Option(
            metavar="SEEDS", help="Seeds of weights, data order, rounding: 0,1,2.", rich_help_panel=_WHAT
        ),
    ] = ["0"],  # noqa: B006
    network: Annotated[
        list[str],
        typer.Option(
            metavar="NAMES",
            help="See peppp networks; or package.module:factory.",
            rich_help_panel=TRAINING,
        ),
    ] = ["resnet8"],  # noqa: B006
    learning_rate: Annotated[
        list[str],
        typer.Option(metavar="RATES", help="Learning rates: 0.01,0.001.", rich_help_panel=TRAINING),
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
        str,
        typer.Option(
            metavar="FORMAT",
            help="Format of back-propagated errors: A, B or a format.",
            rich_help_panel=TRAINING,
        ),
    ] = "A",
    accumulator: Annotated[
        bool,
        typer.Option(
            "--accumulator/--no-accumulator",
            help="Keep a copy of the weights in Format B for the update.",
            rich_help_panel=TRAINING,
        ),
    ] = True,
    max_time: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Stop after 90s, 30min or 8h.", rich_help_panel=_LIMITS),
    ] = None,
    max_measurements: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="Make at most N measurements.", rich_help_panel=_LIMITS),
    ] = None,
    max_memory: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Leave out trainings that keep more than this, such as 275MB (computed).",
            rich_help_panel=_LIMITS,
        ),
    ] = None,
    timeout: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="End a measurement that takes longer, and try it again (default: 20 times the longest one "
            "like it).",
            rich_help_panel=_LIMITS,
        ),
    ] = None,
    tries: Annotated[
        int,
        typer.Option(
            min=1, metavar="N", help="How often to try a measurement that fails.", rich_help_panel=_LIMITS
        ),
    ] = 3,
    engine: Annotated[
        str, typer.Option(metavar="NAME", help="local, ray or slurm.", rich_help_panel=MACHINE)
    ] = "local",
    workers: Workers = None,
    worker_memory: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE", help="Memory that each worker may have, such as 4GB.", rich_help_panel=MACHINE
        ),
    ] = None,
    device: Device = "cpu",
    address: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Ray: the cluster's address (default: one on this machine).",
            rich_help_panel=MACHINE,
        ),
    ] = None,
    gpus: Annotated[
        float,
        typer.Option(
            min=0.0, metavar="N", help="GPUs for each measurement, such as 0.25.", rich_help_panel=MACHINE
        ),
    ] = 0.0,
    slurm: Annotated[
        str,
        typer.Option(
            metavar="SETTINGS",
            help="Slurm: further settings, such as partition=gpu,account=lab,timeout_min=60.",
            rich_help_panel=MACHINE,
        ),
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be measured.")] = False,
    json: Json = False,
    help_all: HelpAll = False,
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
    found = find_rows(texts, named, recipes, resolution, dry_run, store)
    sizes = {
        (source.fingerprint, recipe, c): found.size(source.fingerprint, recipe, c)
        for source, recipe in found.rows
        for c in chosen
    }
    cells = plan(
        found.rows,
        chosen,
        seeds,
        share=sample,
        p_max=p_max,
        memory=size_matrix(found.rows, chosen, sizes) if by_memory or p_max is not None else None,
        sampling_seed=sampling_seed,
    )
    bytes_of = {
        (source.fingerprint, source.cell(c, recipe).recipe, c): sizes[source.fingerprint, recipe, c]
        for source, recipe in found.rows
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
        facts = dry_run_facts(store, cells, kept_bytes, planned, max(count or 1, 1), found.absent)
        say_read(found.read)
        say(facts, store, json)
        return
    with Store.open(store) as kept, Display() as display:
        say_read(found.read)
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
