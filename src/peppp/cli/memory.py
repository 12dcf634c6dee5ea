"""``peppp memory``: bytes of a training before it runs."""

from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from peppp.cli.options import Batch, Json, parse_configurations, print_json
from peppp.errors import NetworkError
from peppp.formats import FP32_CONFIGURATION, Configuration
from peppp.records import Footprint


def command(
    network: Annotated[str, typer.Argument(help="A network, as for --network of pick.")],
    input: Annotated[str, typer.Option(help="Channels x height x width of one input.")] = "3x32x32",
    batch: Batch = 32,
    classes: Annotated[int, typer.Option(min=2, help="Classes.")] = 10,
    configuration: Annotated[
        str,
        typer.Option(help="paper, fp32, a list as 1-4-1/1-6-7, or 1-4-1,1-5-2 x 1-6-7; parts join with +."),
    ] = "fp32+paper",
    json: Json = False,
) -> None:
    """What a training keeps in memory: weights, activations, optimizer, for any configuration.

    Example: peppp memory resnet18 --input 3x32x32 --batch 32 --configuration fp32+1-4-1/1-6-7
    """
    from peppp.footprint.counting import count_elements
    from peppp.tasks import networks

    shape = _shape(input)
    chosen = parse_configurations(configuration)
    module = networks.build(network, classes=classes, channels=shape[0], device="meta")
    counts = count_elements(module, shape, batch)
    rows = [(c, counts.footprint(c)) for c in chosen]
    if json:
        print_json([_plain(c, f) for c, f in rows])
        return
    reference = counts.footprint(FP32_CONFIGURATION).total
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("A/B", no_wrap=True)
    for title in ("weights", "activations", "optimizer", "raw", "total", "of fp32"):
        table.add_column(title, justify="right", no_wrap=True)
    for c, f in rows:
        sizes = (f.weights, f.activations, f.optimizer, f.raw, f.total)
        table.add_row(str(c), *(f"{size / 10**6:.1f}" for size in sizes), f"{f.total / reference:.0%}")
    console = Console()
    console.print(f"{network} on {input}, batch {batch}, SGD with momentum; computed, in MB (10^6 bytes)")
    console.print(table)
    console.print(
        "optimizer: gradient, momentum, accumulator; raw: what stays fp32, as statistics of norms.\n"
        "That is what is kept; the working memory of a backward pass comes on top.",
        style="dim",
    )


def _plain(configuration: Configuration, footprint: Footprint) -> dict[str, Any]:
    data = footprint.to_dict()
    data.pop("working")
    return {"configuration": str(configuration)} | data | {"total": footprint.total}


def _shape(text: str) -> tuple[int, ...]:
    parts = text.lower().split("x")
    if len(parts) != 3 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise NetworkError(f"not an input shape: {text!r}; write channels x height x width, as 3x32x32")
    return tuple(int(part) for part in parts)
