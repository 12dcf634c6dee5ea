"""``peppp memory``: bytes of a training before it runs."""

from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from peppp.cli.help import HelpAll
from peppp.cli.options import Batch, Freeze, Json, MicroBatch, is_given, print_json, refuse_unused
from peppp.cli.parsing import parse_pairs
from peppp.errors import NetworkError
from peppp.formats import FP32_CONFIGURATION, Configuration
from peppp.records import Footprint
from peppp.units import format_bytes, parse_bytes

if TYPE_CHECKING:
    from torch import nn

_Build = Callable[[], "nn.Module"]

_OF_FORMATS = ("configurations", "storage", "weights", "inference", "preset")
_OF_PLAIN = ("device", "accumulate", "measure")


def command(
    context: typer.Context,
    network: Annotated[str, typer.Argument(help="A network, as for --network of pick.")],
    input: Annotated[
        str, typer.Option(help="One input: 3x32x32 of an image, 13 numbers, or tokens:128 of a text.")
    ] = "3x32x32",
    batch: Batch = 32,
    classes: Annotated[int, typer.Option(min=2, help="Classes.")] = 10,
    configurations: Annotated[
        str,
        typer.Option(help="paper, fp32, a list as 1-4-1/1-6-7, or 1-4-1,1-5-2 x 1-6-7; parts join with +."),
    ] = "fp32+paper",
    optimizer: Annotated[
        str | None, typer.Option(help="sgd (default), adam or adamw; with --precision adafactor, too.")
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            help="Of plain PyTorch instead: fp32, amp-bf16, amp-fp16, bf16, bf16-sr or bf16-kahan; "
            "-sgd8bit, -adamw8bit or -adamw4bit may follow."
        ),
    ] = None,
    device: Annotated[
        str, typer.Option(help="With --precision: whose kernels are counted, cpu, or cuda by rule.")
    ] = "cpu",
    accumulate: Annotated[
        int, typer.Option(min=1, help="With --precision: passes whose gradients are added up to a step.")
    ] = 1,
    storage: Annotated[
        str, typer.Option(help="How the step of the peak stores what is rounded: packed or simulated.")
    ] = "packed",
    gradients: Annotated[
        str,
        typer.Option(
            help="in_backward, packed or fp32. With --precision, in_backward steps on each as it comes."
        ),
    ] = "in_backward",
    weights: Annotated[str, typer.Option(help="recomputed or packed.")] = "recomputed",
    measure: Annotated[
        bool, typer.Option("--measure", help="With --precision: run two real steps on the CPU instead.")
    ] = False,
    budget: Annotated[
        str | None, typer.Option(help="Say the largest batch whose peak fits, as 2GB or 512MiB.")
    ] = None,
    recompute: Annotated[
        bool,
        typer.Option("--recompute", help="With --budget: recompute the cheapest blocks that make it fit."),
    ] = False,
    micro_batch: MicroBatch = None,
    freeze: Freeze = None,
    layers: Annotated[
        bool, typer.Option("--layers", help="By layer, of the first configuration or of --precision.")
    ] = False,
    inference: Annotated[bool, typer.Option("--inference", help="Of using the network instead.")] = False,
    preset: Annotated[
        str, typer.Option(help="saved; or paper_scale (fitted to the paper, not proven).")
    ] = "saved",
    json: Json = False,
    help_all: HelpAll = False,
) -> None:
    """What a training takes in memory: weights, activations, optimizer and peak, for any configuration.

    Example: peppp memory resnet18 --input 3x32x32 --batch 32 --configurations fp32+1-4-1/1-6-7
    """
    from peppp.cli import fitting, plain_memory
    from peppp.footprint.estimate import Choices

    given = {name for name in (*_OF_FORMATS, *_OF_PLAIN, "gradients") if is_given(context, name)}
    inputs, frozen = plain_memory.Inputs.parse(input), tuple(freeze or ())
    limit, parts = None if budget is None else parse_bytes(budget), fitting.parse_micro_batch(micro_batch)
    fitting.check(limit, recompute, parts)
    is_fitted = recompute or parts is not None
    fit: dict[str, Any] = {
        "budget": limit,
        "recompute": recompute,
        "micro_batch": parts,
        "json": json,
        "frozen": frozen,
    }
    if is_fitted and (measure or layers or inference or preset != "saved"):
        raise NetworkError(
            "--recompute and --micro-batch say how a training fits; leave out --measure, --layers, "
            "--inference and --preset"
        )
    if layers or limit is not None:
        for name in ("preset", "inference"):
            refuse_unused(
                context, name, "belongs to the table of configurations, not to --layers or --budget"
            )
    if parts is not None and accumulate > 1:
        raise NetworkError("--micro-batch cuts a batch, --accumulate adds batches up; give one of them")
    if precision is not None:
        for name in _OF_FORMATS:
            if name in given:
                raise NetworkError(f"--{name} says nothing of plain PyTorch; leave it out, or --precision")
        if "gradients" in given and gradients != "in_backward":
            raise NetworkError(
                f"plain PyTorch keeps no {gradients} gradients; leave --gradients out, or take in_backward"
            )
        recipe = {"precision": precision, "optimizer": optimizer}
        how = {"device": device, "accumulate": accumulate, "release_gradients": "gradients" in given}
        if is_fitted:
            fitting.run(network, classes, inputs, batch, recipe | how, None, **fit)
            return
        asked = plain_memory.Asked(network, classes, inputs, batch, recipe, how, limit, frozen)
        plain_memory.run(asked, measure=measure, layers=layers, json=json)
        return
    for name in _OF_PLAIN:
        if name in given:
            raise NetworkError(f"--{name} is of plain PyTorch; name its --precision, as fp32 or amp-bf16")
    optimizer = optimizer or "sgd"
    if optimizer not in ("sgd", "adam", "adamw"):
        raise NetworkError(f"unknown optimizer {optimizer!r}; known: sgd, adam, adamw")
    chosen = parse_pairs(configurations)
    choices = Choices(optimizer=optimizer, storage=storage, gradients=gradients, weights=weights)
    build = partial(plain_memory.built, network, classes, inputs, frozen=frozen)
    title = f"{network} on {input}, batch {batch}"
    if is_fitted:
        options = {
            "optimizer": optimizer, "storage": storage, "gradients": gradients, "weights": weights,
        }  # fmt: skip
        fitting.run(network, classes, inputs, batch, options, chosen, **fit)
    elif layers:
        _print_layers(build, inputs, batch, chosen[0], title, json)
    elif limit is not None:
        _print_batches(build, inputs, batch, chosen, choices, limit, json)
    else:
        rows, note = _rows(build, inputs, batch, chosen, choices, preset, inference)
        _print_rows(rows, f"{title}; {note}; estimated, in MB (10^6 bytes)", json)


def _rows(
    build: _Build,
    inputs: Any,
    batch: int,
    chosen: list[Configuration],
    choices: Any,
    preset: str,
    used: bool,
) -> tuple[list[tuple[Configuration, Footprint, int | None]], str]:
    """(configuration, footprint, peak) of each, and how they were counted."""
    from peppp.footprint.estimate import PRESETS, estimate, inference_footprint, preset_bytes

    if used:
        of = inference_footprint(build, inputs.shape, batch, inputs.dtype)
        return [(c, of(c), None) for c in chosen], "inference: weights and the largest live activations"
    if preset != "saved":
        of = preset_bytes(build, inputs.shape, batch, preset)
        return [(c, of(c), None) for c in chosen], PRESETS[preset]
    found = estimate(build, inputs.shape, batch, choices, dtype=inputs.dtype)
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
    last, low, _ = rows[-1]
    if measured and not last.is_fp32 and low.raw > (low.activations + low.raw) / 2:
        share = round(100 * low.raw / (low.activations + low.raw))
        console.print(f"{share} % of what is kept for the backward pass stays float32 whatever the format.")
    if measured:
        console.print(
            "optimizer: gradient, states and accumulator, all in Format B. raw: what stays\n"
            "float32, such as statistics. peak: the highest moment of a real step, working\n"
            "memory included. It keeps what --storage, --gradients and --weights say, so it\n"
            "can lie below the total.",
            soft_wrap=True,
            style="dim",
        )


def _plain(configuration: Configuration, footprint: Footprint, peak: int | None) -> dict[str, Any]:
    data = {"configuration": str(configuration)} | footprint.to_dict() | {"total": footprint.total}
    return data if peak is None else data | {"peak": peak}


def _print_layers(
    build: _Build, inputs: Any, batch: int, configuration: Configuration, title: str, json: bool
) -> None:
    from peppp.footprint.counting import count_layers

    layers = count_layers(build(), inputs.shape, batch, dtype=inputs.dtype)
    rows = [(layer, layer.counts.footprint(configuration)) for layer in layers]
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
    inputs: Any,
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
            inputs.shape,
            count,
            storage=storage,
            optimizer=choices.optimizer,
            gradients=choices.gradients,
            weights=choices.weights,
            dtype=inputs.dtype,
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
