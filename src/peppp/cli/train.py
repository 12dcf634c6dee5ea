"""``peppp train``: one training under a budget, kept in a folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from peppp.cli.options import (
    Batch,
    Device,
    Epochs,
    Json,
    LearningRate,
    MinSteps,
    Network,
    Resolution,
    Rounding,
    Seed,
    check_device,
    check_folder,
    print_json,
    reading,
)
from peppp.errors import FormatError
from peppp.formats import Configuration
from peppp.units import format_bytes

if TYPE_CHECKING:
    from peppp.records import Recipe
    from peppp.tasks.dataset import Dataset


def command(
    data: Annotated[str, typer.Argument(help="Folder of images (a folder a class), .npz file, or digits.")],
    configuration: Annotated[str, typer.Option(help="The precision, as 1-4-1/1-6-7, or fp32.")],
    network: Network = "resnet8",
    storage: Annotated[
        str, typer.Option(help="packed: really in few bits; simulated: rounded, in float32.")
    ] = "packed",
    out: Annotated[
        Path, typer.Option(help="Folder for checkpoint and weights; the same line again goes on from it.")
    ] = Path("peppp-run"),
    resolution: Resolution = 0,
    epochs: Epochs = 10,
    min_steps: MinSteps = 0,
    batch: Batch = 32,
    learning_rate: LearningRate = 0.001,
    rounding: Rounding = "stochastic",
    seed: Seed = 0,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Train at one precision, say its memory before and after, and keep the weights.

    Example: peppp train my_images/ --network resnet18 --configuration 1-4-1/1-6-7 --storage packed
    """
    from peppp.records import Recipe, RoundingModes
    from peppp.tasks.networks import check_name
    from peppp.tasks.readers import load

    check_device(device)
    check_folder(out)
    RoundingModes.parse(rounding)
    if storage not in ("packed", "simulated"):
        raise FormatError(f"unknown storage {storage!r}; known: packed, simulated")
    check_name(network)
    chosen = Configuration.parse("fp32/fp32" if configuration == "fp32" else configuration)
    recipe = Recipe(
        network=network,
        epochs=epochs,
        min_steps=min_steps,
        batch_size=batch,
        learning_rate=learning_rate,
        rounding=rounding,
    )
    with reading(data):
        dataset = load(data, resolution=resolution)
    run(dataset, chosen, recipe, seed, out, storage=storage, device=device, json=json)


def run(
    dataset: "Dataset",
    configuration: Configuration,
    recipe: "Recipe",
    seed: int,
    out: Path,
    *,
    storage: str,
    device: str,
    json: bool,
) -> None:
    """Train, and print the estimate and what was measured side by side."""
    from peppp.training.checkpoint import to_plain, train_in_folder
    from peppp.training.measurement import with_resolution

    recipe = with_resolution(recipe, dataset)
    estimated = _estimated_peak(dataset, configuration, recipe, storage)
    if not json:
        typer.echo(f"estimate  peak of a step {_size(estimated)} at {configuration}, {storage}")

    def progress(done: int, epochs: int) -> None:
        if not json:
            typer.echo(f"epoch     {done} of {epochs}", err=True)

    training = train_in_folder(
        dataset, configuration, recipe, seed, out, storage=storage, device=device, progress=progress
    )
    if json:
        print_json(to_plain(training) | {"estimated_peak": estimated})
        return
    peak = training.peak
    measured = f"measured {format_bytes(peak)}" if peak else "not measured: no step was left to run"
    for line in _lines(training, measured, estimated):
        typer.echo(line)


def _lines(training: Any, measured: str, estimated: int | None) -> Sequence[str]:
    return (
        f"memory    peak of a step: estimated {_size(estimated)}, {measured}",
        f"error     {training.test_error:.4f} on the test images ({training.outcome})",
        f"weights   {training.weights}",
    )


def _size(estimated: int | None) -> str:
    return (
        "not known: only classification of images is rehearsed"
        if estimated is None
        else format_bytes(estimated)
    )


def _estimated_peak(
    dataset: "Dataset", configuration: Configuration, recipe: "Recipe", storage: str
) -> int | None:
    if dataset.kind != "images":
        return None
    import torch

    from peppp.footprint.rehearsal import rehearse
    from peppp.tasks import networks

    module = networks.build_for(recipe.network, dataset, device="meta")
    rehearsal = rehearse(
        module.to(memory_format=torch.channels_last),  # type: ignore[call-overload]
        (3, dataset.resolution, dataset.resolution),
        min(recipe.batch_size, len(dataset.train_targets)),
        storage="fp32" if configuration.is_fp32 else storage,
        optimizer=recipe.optimizer,
        accumulator=recipe.accumulator,
    )
    return rehearsal.peak(configuration)
