"""Options that several commands share, and the printing of JSON."""

import json
import os
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from peppp.errors import BudgetError, FormatError, StoreError

_T = TypeVar("_T")

# The panels that help groups options under.
TRAINING, MACHINE = "Training", "Where to run"

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
Device = Annotated[str, typer.Option(metavar="NAME", help="cpu, cuda or cuda:1.", rich_help_panel=MACHINE)]
Seed = Annotated[
    int,
    typer.Option(
        min=0, metavar="N", help="Seed of weights, data order and rounding.", rich_help_panel=TRAINING
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=0,
        metavar="N",
        help="Processes of one thread each (default: cores). 0: this one.",
        rich_help_panel=MACHINE,
    ),
]
Network = Annotated[
    str,
    typer.Option(
        metavar="NAME", help="See peppp networks; or package.module:factory.", rich_help_panel=TRAINING
    ),
]
Table = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Measurements of other tasks (default: the table that ships)."),
]
Resolution = Annotated[
    int,
    typer.Option(
        min=0, metavar="PIXELS", help="Side of the images. 0: as they are, or 32.", rich_help_panel=TRAINING
    ),
]
Epochs = Annotated[
    int,
    typer.Option(min=1, metavar="N", help="Passes over the training images.", rich_help_panel=TRAINING),
]
MinSteps = Annotated[
    int,
    typer.Option(
        min=0, metavar="N", help="Train more epochs if these have fewer steps.", rich_help_panel=TRAINING
    ),
]
LearningRate = Annotated[
    float,
    typer.Option(min=0, metavar="RATE", help="Learning rate of the optimizer.", rich_help_panel=TRAINING),
]
Batch = Annotated[int, typer.Option(min=1, metavar="N", help="Images in a batch.", rich_help_panel=TRAINING)]
Optimizer = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="sgd (as in the paper), adam or adamw; with settings, such as adamw,weight_decay=0.1.",
        rich_help_panel=TRAINING,
    ),
]
Augmentation = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="none, or flip-crop: shift and mirror images at random.",
        rich_help_panel=TRAINING,
    ),
]
MicroBatch = Annotated[
    str | None,
    typer.Option(
        metavar="N|auto",
        help="Split each batch into parts of N; auto: as few parts as fit the budget.",
        rich_help_panel=TRAINING,
    ),
]
NoRecompute = Annotated[
    bool,
    typer.Option(
        "--no-recompute", help="Do not recompute blocks to fit the budget.", rich_help_panel=TRAINING
    ),
]
Pretrained = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Start from these weights (safetensors), where names and shapes fit.",
        rich_help_panel=TRAINING,
    ),
]
Freeze = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PATTERN",
        help="Do not train these parameters: a module's name, or a pattern such as blocks.[01].*.",
        rich_help_panel=TRAINING,
    ),
]
DataRoot = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Published data sets (default: PEPPP_DATA, or the user's data folder).",
        rich_help_panel=MACHINE,
    ),
]
Rounding = Annotated[
    str, typer.Option(metavar="MODE", help="stochastic or nearest.", rich_help_panel=TRAINING)
]


def is_given(context: typer.Context, name: str) -> bool:
    """Whether a parameter was typed, rather than left at its default."""
    source = context.get_parameter_source(name)
    return source is not None and source.name not in ("DEFAULT", "DEFAULT_MAP")


def refuse_unused(context: typer.Context, name: str, reason: str) -> None:
    """Raise BudgetError if an option was typed that nothing would look at."""
    if is_given(context, name):
        raise BudgetError(f"--{name.replace('_', '-')} {reason}; leave it out")


def print_json(value: Any) -> None:
    """One line of JSON on standard output."""
    typer.echo(json.dumps(value, allow_nan=False))


def wrapped(text: str, width: int = 80) -> str:
    r"""The lines of an answer broken at ``width`` characters; from ``run`` on, lines to copy stay whole.

    >>> print(wrapped("note      a long remark on some numbers\nrun       peppp train a_long_name", 24))
    note      a long remark
              on some
              numbers
    run       peppp train a_long_name
    """
    lines = text.splitlines()
    end = next((i for i, line in enumerate(lines) if line.startswith("run ")), len(lines))
    found = []
    for line in lines[:end]:
        found += textwrap.wrap(line, width, subsequent_indent=" " * 10, break_on_hyphens=False) or [line]
    return "\n".join([*found, *lines[end:]])


def worker_count(workers: int | None, device: str) -> int:
    """As many as there are cores; one process on a GPU."""
    if workers is not None:
        return workers
    return 0 if device != "cpu" else len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


def use_data_root(folder: Path | None) -> None:
    """Let this process and its workers look for published data sets in ``folder``."""
    if folder is not None:
        os.environ["PEPPP_DATA"] = str(folder.expanduser().absolute())


def check_folder(folder: Path) -> None:
    """Raises StoreError where no folder can be made or written: best known before hours of training."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        reason = "is not writable" if there.is_dir() else "is not a folder"
        raise StoreError(f"cannot write to the folder {folder}: {there} {reason}; name another")


def begun_from(pretrained: Path | None, freeze: Sequence[str] | None) -> dict[str, Any]:
    """The fields of a recipe for weights to begin from and parameters to leave."""
    from peppp.training.pretrained import named_with_digest

    named = "" if pretrained is None else named_with_digest(pretrained)
    return {"pretrained": named, "freeze": tuple(freeze or ())}


def parse_optimizer(text: str) -> dict[str, Any]:
    """The fields of a recipe for an optimizer's text: its name and its settings.

    Plain sgd is the paper's, with momentum 0.9 and weight decay 0.0005.

    >>> parse_optimizer("adamw,weight_decay=0.1")
    {'optimizer': 'adamw', 'optimizer_options': (('weight_decay', 0.1),)}
    """
    name, *options = text.split(",")
    if text == "sgd":
        return {"optimizer": "sgd"}
    try:
        pairs = [option.split("=") for option in options]
        return {"optimizer": name, "optimizer_options": tuple((key, float(value)) for key, value in pairs)}
    except ValueError:
        raise FormatError(f"not an optimizer: {text!r}; write sgd, adamw or adamw,weight_decay=0.1") from None


def check_device(device: str) -> str:
    """The device, if torch has it here."""
    from peppp.training import runs_here

    return runs_here.check_device(device)


@contextmanager
def reading(text: str) -> Iterator[None]:
    """Shows on a terminal that data are being read, and for how long: pictures may take minutes to decode."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = SpinnerColumn(), TextColumn("reading {task.description}", markup=False), TimeElapsedColumn()
    if not console.is_terminal:
        yield
        return
    with Progress(*columns, console=console, transient=True) as shown:
        shown.add_task(text, total=None)
        yield
