"""``peppp train``: train a network at one precision, within a budget, and keep it in a folder."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from peppp.cli.help import HelpAll
from peppp.cli.options import (
    Augmentation,
    Batch,
    Device,
    Epochs,
    Freeze,
    Json,
    LearningRate,
    MicroBatch,
    MinSteps,
    Network,
    NoRecompute,
    Optimizer,
    Pretrained,
    Resolution,
    Rounding,
    Seed,
    begun_from,
    check_device,
    check_folder,
    parse_optimizer,
    print_json,
    reading,
    refuse_unused,
)
from peppp.errors import BudgetError, FormatError, NetworkError
from peppp.precisions.known import Precision, is_of_formats, parse_precision
from peppp.precisions.named import NamedPrecision
from peppp.units import format_bytes, parse_bytes

if TYPE_CHECKING:
    from peppp.records import Recipe
    from peppp.tasks.dataset import Dataset
    from peppp.training.fitting import Fit


def command(
    context: typer.Context,
    data: Annotated[
        str,
        typer.Argument(help="Data set: a folder with a folder of images per class, an .npz file, or digits."),
    ],
    precision: Annotated[
        str,
        typer.Option(
            "--precision",
            "--configuration",
            help="fp32, a name (`peppp precisions` lists them), or a pair of formats, such as 1-4-1/1-6-7.",
        ),
    ],
    network: Network = "resnet8",
    storage: Annotated[
        str | None,
        typer.Option(
            help="packed: store a pair of formats in its bits; real: run a named precision with torch and "
            "libraries; simulated: round in float32 (default: packed or real)."
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option(help="Folder for checkpoint and weights; the same line again resumes from it.")
    ] = Path("peppp-run"),
    resolution: Resolution = 0,
    epochs: Epochs = 10,
    min_steps: MinSteps = 0,
    batch: Batch = 32,
    learning_rate: LearningRate = 0.001,
    optimizer: Optimizer = "sgd",
    augmentation: Augmentation = "none",
    pretrained: Pretrained = None,
    freeze: Freeze = None,
    rounding: Rounding = "stochastic",
    budget: Annotated[
        str | None,
        typer.Option(
            help="Limit of a step's peak memory, such as 400MB; blocks are recomputed if necessary."
        ),
    ] = None,
    no_recompute: NoRecompute = False,
    micro_batch: MicroBatch = None,
    seed: Seed = 0,
    device: Device = "cpu",
    json: Json = False,
    help_all: HelpAll = False,
) -> None:
    """Train at one precision, compare the estimated with the measured memory, and keep the weights.

    Example: peppp train my_images/ --network resnet18 --precision amp-bf16
    """
    from peppp.cli.fitting import check, parse_micro_batch
    from peppp.records import Recipe, RoundingModes
    from peppp.tasks.networks import check_name
    from peppp.tasks.readers import load

    limit, parts = None if budget is None else parse_bytes(budget), parse_micro_batch(micro_batch)
    check(limit, False, parts)
    check_device(device)
    check_folder(out)
    RoundingModes.parse(rounding)
    check_name(network)
    chosen = parse_precision(precision.removeprefix("packed:"))
    if limit is None:
        refuse_unused(context, "no_recompute", "needs --budget: without one, nothing is recomputed")
    if chosen.is_fp32 or isinstance(chosen, NamedPrecision):
        refuse_unused(context, "rounding", f"is for pairs of formats; {precision} rounds as its name says")
    if chosen.is_fp32:
        refuse_unused(context, "storage", "is for low precisions; fp32 has only one storage")
    kind = _storage(chosen, storage or ("packed" if precision.startswith("packed:") else None))
    recipe = Recipe(
        network=network,
        epochs=epochs,
        min_steps=min_steps,
        batch_size=batch,
        learning_rate=learning_rate,
        rounding=rounding,
        augmentation=augmentation,
        **parse_optimizer(optimizer),
        **begun_from(pretrained, freeze),
    )
    with reading(data):
        dataset = load(data, resolution=resolution)
    run(
        dataset,
        chosen,
        recipe,
        seed,
        out,
        storage=kind,
        device=device,
        json=json,
        budget=limit,
        recompute=limit is not None and not no_recompute,
        micro_batch=parts,
    )


def _storage(precision: Precision, asked: str | None) -> str:
    """Return the storage that was asked for, by default real for a named precision and else packed."""
    usual = "real" if isinstance(precision, NamedPrecision) else "packed"
    if asked is not None and asked not in (usual, "simulated"):
        raise FormatError(f"unknown storage {asked!r} for {precision}; known: {usual}, simulated")
    return asked or usual


def storage_of(precision: Precision, *, device: str = "cpu") -> str:
    """Return the storage for training a pick: real or packed if this device can run it, else simulated."""
    from peppp.training.runs_here import lacking

    return "simulated" if lacking(precision, device=device) else _storage(precision, None)


def run(
    dataset: "Dataset",
    configuration: Precision,
    recipe: "Recipe",
    seed: int,
    out: Path,
    *,
    storage: str,
    device: str,
    json: bool,
    budget: int | None = None,
    recompute: bool = False,
    micro_batch: int | str | None = None,
    strict: bool = True,
    say_read: bool = True,
) -> None:
    """Train, within ``budget`` bytes if it is given, and print the estimated and the measured memory.

    ``say_read`` prints what was read of the data. If no way to train fits the budget, this raises BudgetError
    if ``strict``, or else prints a warning.
    """
    from peppp.lowprec.storage.packed_network import packable
    from peppp.tasks import networks
    from peppp.tasks.dataset import described
    from peppp.training.kept_training import to_plain, train_in_folder
    from peppp.training.loop import check_recipe, fitted_weights
    from peppp.training.runs_here import lacking, slowness, wants_another_optimizer
    from peppp.training.sizes import with_resolution

    recipe = with_resolution(recipe, dataset)
    check_recipe(recipe, dataset)
    wishes = {"budget": budget, "recompute": recompute, "micro_batch": micro_batch}
    kind = "fp32" if configuration.is_fp32 else storage
    if isinstance(configuration, NamedPrecision):
        kind = configuration.name
        if problem := wants_another_optimizer(configuration, recipe):
            raise NetworkError(problem)
        module = networks.build_for(recipe.network, dataset, device="meta")
        if storage == "real" and (lack := lacking(configuration, module, device=device)):
            raise NetworkError(lack)
        if storage == "simulated" and strict and (budget is not None or micro_batch is not None):
            raise BudgetError(
                f"{configuration} is simulated in float32, where neither a budget nor micro-batches apply; "
                "leave them out"
            )
    elif storage == "packed" and not configuration.is_fp32:
        for fmt in configuration.sides:
            packable(fmt)
    fit = None
    if storage != "simulated" or not isinstance(configuration, NamedPrecision):
        fit = _fit(dataset, configuration, recipe, kind, wishes, strict=strict, json=json)

    def progress(done: int, epochs: int) -> None:
        if not json:
            typer.echo(f"epoch     {done} of {epochs}", err=True)

    if say_read:
        typer.echo(f"read      {described(dataset)}", err=True)
    if not json and storage == "real" and (slow := slowness(configuration, device=device)):
        typer.echo(f"note      {slow}")
    begins = fitted_weights(dataset, recipe) if recipe.pretrained else []
    for line in begins if not json else []:
        typer.echo(f"begins    {line}")
    training = train_in_folder(
        dataset, configuration, recipe, seed, out, storage=storage, device=device, fit=fit, progress=progress
    )
    peak = training.peak
    if json:
        estimated = {"peak_estimated": fit and fit.peak, "fit": fit and fit.to_dict()}
        measured = {"peak_measured": peak or None, "budget": budget}
        print_json(to_plain(training) | estimated | measured | {"begins": begins})
        return
    reached = f"measured {format_bytes(peak)}" if peak else "not measured, as fewer than two steps were run"
    if budget is not None and peak > budget:
        reached += f": {format_bytes(peak - budget)} over the budget"
    estimate = f"estimated {format_bytes(fit.peak)}" if fit else "not estimated"
    typer.echo(f"memory    peak of a step: {estimate}, {reached}")
    typer.echo(f"error     {training.test_error:.4f} on the test images ({training.outcome})")
    typer.echo(f"weights   {training.weights}")


def _fit(
    dataset: "Dataset",
    configuration: Precision,
    recipe: "Recipe",
    storage: str,
    wishes: dict[str, Any],
    *,
    strict: bool,
    json: bool,
) -> "Fit | None":
    """Estimate how the training fits and print that; return None if no estimate is possible or required."""
    from peppp.training.fitting import fitting

    budget = wishes["budget"]
    ways = fitting(dataset, recipe, storage)
    chosen = configuration if is_of_formats(configuration) else None
    try:
        fit = ways.within(configuration=chosen, **wishes)
    except NetworkError as error:
        if budget is not None or wishes["micro_batch"] is not None:
            raise
        if not json:
            typer.echo(f"estimate  unknown: {error}")
        return None
    except BudgetError:
        if strict:
            raise
        fit = ways.within(None, chosen, recompute=False)
        more = format_bytes(fit.peak - budget)
        typer.echo(f"warning   the peak is {more} over the budget that this was picked for", err=json)
    if not json:
        within = "" if budget is None else f"; the budget is {format_bytes(budget)}"
        how = storage if is_of_formats(configuration) else "in plain PyTorch"
        typer.echo(f"estimate  {fit} at {configuration}, {how}{within}")
    return fit
