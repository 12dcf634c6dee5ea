"""Options that several commands share, and the printing of JSON."""

import json
from typing import Annotated, Any

import typer

from peppp.errors import FormatError
from peppp.formats import FP32_CONFIGURATION, Configuration, paper_grid, parse_format

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
Device = Annotated[str, typer.Option(help="Where to train: cpu, cuda or cuda:1.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of weights, data order and rounding.")]
Workers = Annotated[
    int | None,
    typer.Option(min=0, help="Worker processes of one thread each; 0 is this process [default: cores]."),
]
Network = Annotated[
    str, typer.Option(help="resnet8, resnet18, resnet34, resnet8-w32 or package.module:factory.")
]
Table = Annotated[
    str | None,
    typer.Option(help="Store or table of other tasks' measurements [default: the one that ships]."),
]
Resolution = Annotated[int, typer.Option(min=0, help="Side of the images in pixels; 0 is their own, or 32.")]
Epochs = Annotated[int, typer.Option(min=1, help="Passes over the training images.")]
MinSteps = Annotated[int, typer.Option(min=0, help="More epochs where these are fewer optimizer steps.")]
LearningRate = Annotated[float, typer.Option(min=0, help="Learning rate of SGD.")]
Batch = Annotated[int, typer.Option(min=1, help="Images a batch.")]
Rounding = Annotated[str, typer.Option(help="stochastic or nearest.")]


def print_json(value: Any) -> None:
    """One line of JSON on standard output."""
    typer.echo(json.dumps(value, allow_nan=False))


def worker_count(workers: int | None, device: str) -> int:
    """As many as there are cores; one process on a GPU."""
    import os

    if workers is not None:
        return workers
    return 0 if device != "cpu" else len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


def check_device(device: str) -> str:
    """The device, if torch has it here."""
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise FormatError(
            f"no device {device!r} here ({reason}); give cpu, or cuda where torch has it"
        ) from None
    return device


def parse_configurations(text: str) -> list[Configuration]:
    """``paper``, ``fp32``, a list of configurations, or Formats A x Formats B; parts join with ``+``.

    >>> len(parse_configurations("paper")), len(parse_configurations("1-4-1,1-5-2 x 1-6-7,1-8-9"))
    (99, 4)
    """
    found: list[Configuration] = []
    for part in text.split("+"):
        part = part.strip()
        if part == "paper":
            found += paper_grid()
        elif part in ("fp32", str(FP32_CONFIGURATION)):
            found.append(FP32_CONFIGURATION)
        elif " x " in part:
            side_a, _, side_b = part.partition(" x ")
            formats_b = [parse_format(item) for item in side_b.split(",")]
            found += [Configuration(parse_format(a), b) for a in side_a.split(",") for b in formats_b]
        else:
            found += [Configuration.parse(item.strip()) for item in part.split(",")]
    return list(dict.fromkeys(found))
