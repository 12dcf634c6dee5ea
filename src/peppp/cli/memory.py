"""``peppp memory``: bytes of a training before it runs."""

from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from peppp.cli.options import Batch, Json, parse_configurations, print_json
from peppp.errors import BudgetError, NetworkError
from peppp.formats import FP32_CONFIGURATION, Configuration
from peppp.records import Footprint
from peppp.units import format_bytes, parse_bytes

if TYPE_CHECKING:
    from torch import nn

_Shape = tuple[int, ...]
_Build = Callable[[], "nn.Module"]


_OF_FORMATS = ("configurations", "storage", "gradients", "weights", "layers", "inference", "preset")


def command(
    context: typer.Context,
    network: Annotated[str, typer.Argument(help="A network, as for --network of pick.")],
    input: Annotated[str, typer.Option(help="Channels x height x width of one input.")] = "3x32x32",
    batch: Batch = 32,
    classes: Annotated[int, typer.Option(min=2, help="Classes.")] = 10,
    configurations: Annotated[
        str,
        typer.Option(help="paper, fp32, a list as 1-4-1/1-6-7, or 1-4-1,1-5-2 x 1-6-7; parts join with +."),
    ] = "fp32+paper",
    optimizer: Annotated[
        str, typer.Option(help="sgd, adam or adamw; with --precision adafactor, too.")
    ] = "sgd",
    precision: Annotated[
        str | None,
        typer.Option(help="Of plain PyTorch instead: fp32, amp-bf16, amp-fp16 or bf16."),
    ] = None,
    storage: Annotated[
        str, typer.Option(help="How the step of the peak stores what is rounded: packed or simulated.")
    ] = "packed",
    gradients: Annotated[str, typer.Option(help="in_backward, packed or fp32.")] = "in_backward",
    weights: Annotated[str, typer.Option(help="recomputed or packed.")] = "recomputed",
    measure: Annotated[
        bool, typer.Option("--measure", help="With --precision: run two real steps on the CPU instead.")
    ] = False,
    budget: Annotated[
        str | None, typer.Option(help="Say the largest batch whose peak fits, as 2GB or 512MiB.")
    ] = None,
    layers: Annotated[bool, typer.Option("--layers", help="By layer, of the first configuration.")] = False,
    inference: Annotated[bool, typer.Option("--inference", help="Of using the network instead.")] = False,
    preset: Annotated[
        str, typer.Option(help="saved; or paper_scale (fitted to the paper, not proven).")
    ] = "saved",
    json: Json = False,
) -> None:
    """What a training takes in memory: weights, activations, optimizer and peak, for any configuration.

    Example: peppp memory resnet18 --input 3x32x32 --batch 32 --configurations fp32+1-4-1/1-6-7
    """
    from peppp.footprint.estimate import Choices
    from peppp.tasks import networks

    shape = _shape(input)
    if precision is not None:
        for name in _OF_FORMATS:
            source = context.get_parameter_source(name)
            if source is not None and source.name not in ("DEFAULT", "DEFAULT_MAP"):
                raise NetworkError(f"--{name} says nothing of plain PyTorch; leave it out, or --precision")
        recipe: dict[str, Any] = {"precision": precision, "optimizer": optimizer}
        limit = None if budget is None else parse_bytes(budget)
        _print_plain(network, classes, shape, batch, recipe, limit, measure, json)
        return
    if measure:
        raise NetworkError(
            "--measure runs a step in plain PyTorch; name its --precision, as fp32 or amp-bf16"
        )
    if optimizer not in ("sgd", "adam", "adamw"):
        raise NetworkError(f"unknown optimizer {optimizer!r}; known: sgd, adam, adamw")
    chosen = parse_configurations(configurations)
    choices = Choices(optimizer=optimizer, storage=storage, gradients=gradients, weights=weights)
    build = partial(_channels_last, networks.build, network, classes, shape[0])
    title = f"{network} on {input}, batch {batch}"
    if layers:
        _print_layers(build, shape, batch, chosen[0], title, json)
    elif budget is not None:
        _print_batches(build, shape, batch, chosen, choices, parse_bytes(budget), json)
    else:
        rows, note = _rows(build, shape, batch, chosen, choices, preset, inference)
        _print_rows(rows, f"{title}; {note}; estimated, in MB (10^6 bytes)", json)


def _print_plain(
    network: str,
    classes: int,
    shape: _Shape,
    batch: int,
    recipe: dict[str, Any],
    budget: int | None,
    measure: bool,
    json: bool,
) -> None:
    """What a training in plain PyTorch takes, whether it fits, and the largest batch that does."""
    import torch

    from peppp.footprint.estimate import largest_batch
    from peppp.footprint.measuring import measure_training
    from peppp.footprint.training_memory import training_memory
    from peppp.tasks import networks

    def inputs(count: int, device: str) -> torch.Tensor:
        x = torch.zeros(count, *shape, device=device)
        return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x

    def loss(output: torch.Tensor) -> torch.Tensor:
        labels = torch.zeros(len(output), dtype=torch.int64)
        return torch.nn.functional.cross_entropy(output.float(), labels)

    def built(device: str) -> "nn.Module":
        return _channels_last(networks.build, network, classes, shape[0], device)

    def peak_of(count: int) -> int:
        return training_memory(built("meta"), inputs(count, "meta"), loss=loss, **recipe).peak

    about: dict[str, Any] = {"network": network, "batch": batch, **recipe}
    if measure:
        found: Any = measure_training(built("cpu"), inputs(batch, "cpu"), loss=loss, **recipe)
        about |= {"source": "measured", "at_rest": found.at_rest, "kept": found.kept, "peak": found.peak}
        text = (
            f"peak {format_bytes(found.peak)}; kept at the end of the forward pass "
            f"{format_bytes(found.kept)}; at rest {format_bytes(found.at_rest)}; measured on the CPU"
        )
    else:
        found = training_memory(built("meta"), inputs(batch, "meta"), loss=loss, **recipe)
        about |= {"source": "estimated", **found.to_dict()}
        text = str(found)
    fits = ""
    if budget is not None:
        try:
            most = largest_batch(peak_of, budget, batch)
        except BudgetError:  # not even a batch of 1 fits
            most = 0
        left = budget - found.peak
        about |= {"budget": budget, "fits": left >= 0, "left": left, "largest_batch": most}
        said = f"fits {format_bytes(budget)}, {format_bytes(left)} are left"
        if left < 0:
            said = f"does not fit {format_bytes(budget)}, {format_bytes(-left)} are missing"
        fits = f"{said}; " + (
            f"the largest batch that fits is {most} (estimated)" if most else "no batch fits"
        )
    if json:
        print_json(about)
        return
    console = Console()
    console.print(f"{network}, batch {batch}, {recipe['precision']}, {recipe['optimizer']}: {text}")
    if fits:
        console.print(fits)


def _channels_last(
    build: Any, network: str, classes: int, channels: int, device: str = "meta"
) -> "nn.Module":
    import torch

    module = build(network, classes=classes, channels=channels, device=device)
    return module.to(memory_format=torch.channels_last)  # type: ignore[no-any-return]


def _rows(
    build: _Build,
    shape: _Shape,
    batch: int,
    chosen: list[Configuration],
    choices: Any,
    preset: str,
    used: bool,
) -> tuple[list[tuple[Configuration, Footprint, int | None]], str]:
    """(configuration, footprint, peak) of each, and how they were counted."""
    from peppp.footprint.estimate import PRESETS, estimate, inference_footprint, preset_bytes

    if used:
        of = inference_footprint(build, shape, batch)
        return [(c, of(c), None) for c in chosen], "inference: weights and the largest live activations"
    if preset != "saved":
        of = preset_bytes(build, shape, batch, preset)
        return [(c, of(c), None) for c in chosen], PRESETS[preset]
    found = estimate(build, shape, batch, choices)
    how = f"{choices.optimizer}; peak: {choices.storage} storage"
    return [(c, found.footprint(c), found.peak(c)) for c in chosen], how


def _print_rows(rows: list[tuple[Configuration, Footprint, int | None]], title: str, json: bool) -> None:
    if json:
        print_json([_plain(c, f, peak) for c, f, peak in rows])
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("A/B", no_wrap=True)
    measured = any(peak is not None for _, _, peak in rows)
    for heading in ("weights", "activations", "optimizer", "raw", "total", *(["peak"] if measured else [])):
        table.add_column(heading, justify="right", no_wrap=True)
    decimals = 1 if min(f.total for _, f, _ in rows) >= 10**7 else 3  # a small network's sizes differ too
    for c, f, peak in rows:
        sizes = [f.weights, f.activations, f.optimizer, f.raw, f.total, *([] if peak is None else [peak])]
        table.add_row(str(c), *(f"{size / 10**6:.{decimals}f}" for size in sizes))
    console = Console()
    console.print(title)
    console.print(table)
    if measured:
        console.print(
            "optimizer: gradient, states, accumulator, all in Format B. raw: what stays, as statistics.\n"
            "peak: the highest moment of a real step, working memory included. It keeps what --storage,\n"
            "--gradients and --weights say, and so can lie below the total.",
            style="dim",
        )


def _plain(configuration: Configuration, footprint: Footprint, peak: int | None) -> dict[str, Any]:
    data = {"configuration": str(configuration)} | footprint.to_dict() | {"total": footprint.total}
    return data if peak is None else data | {"peak": peak}


def _print_layers(
    build: _Build, shape: _Shape, batch: int, configuration: Configuration, title: str, json: bool
) -> None:
    from peppp.footprint.counting import count_layers

    rows = [(layer, layer.counts.footprint(configuration)) for layer in count_layers(build(), shape, batch)]
    if json:
        print_json([{"layer": y.name, "kind": y.kind} | _plain(configuration, f, None) for y, f in rows])
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("layer", "kind"):
        table.add_column(heading, no_wrap=True)
    for heading in ("weights", "activations", "optimizer", "raw", "total"):
        table.add_column(heading, justify="right", no_wrap=True)
    for layer, f in rows:
        sizes = (f.weights, f.activations, f.optimizer, f.raw, f.total)
        table.add_row(layer.name, layer.kind, *(f"{size / 10**6:.2f}" for size in sizes))
    Console().print(f"{title} at {configuration}; estimated, in MB (10^6 bytes)")
    Console().print(table)
    Console().print("Each tensor is counted where it is kept first.", style="dim")


def _print_batches(
    build: _Build,
    shape: _Shape,
    batch: int,
    chosen: list[Configuration],
    choices: Any,
    budget: int,
    json: bool,
) -> None:
    """The largest batch of each configuration; rehearsals are shared, as they serve all of them."""
    from peppp.footprint.estimate import largest_batch
    from peppp.footprint.rehearsal import rehearse

    @cache
    def rehearsed(count: int, storage: str) -> Any:
        return rehearse(
            build(),
            shape,
            count,
            storage=storage,
            optimizer=choices.optimizer,
            gradients=choices.gradients,
            weights=choices.weights,
        )

    rows = []
    first = batch
    for c in chosen:
        storage = "fp32" if c == FP32_CONFIGURATION else choices.storage

        def peak_of(count: int, c: Configuration = c, storage: str = storage) -> int:
            return rehearsed(count, storage).peak(c)  # type: ignore[no-any-return]

        first = largest_batch(peak_of, budget, first, c)
        rows.append((c, first, peak_of(first)))
    if json:
        print_json([{"configuration": str(c), "batch": b, "peak": peak} for c, b, peak in rows])
        return
    typer.echo(f"The largest batch whose step stays within {format_bytes(budget)}, estimated:")
    for c, b, peak in rows:
        typer.echo(f"{c!s:16} {b:8d}   peak {format_bytes(peak)}")


def _shape(text: str) -> _Shape:
    parts = text.lower().split("x")
    if len(parts) != 3 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise NetworkError(f"not an input shape: {text!r}; write channels x height x width, as 3x32x32")
    return tuple(int(part) for part in parts)
