"""Options that several commands share, and the printing of JSON."""

import json
import os
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from peppp.errors import BudgetError, FormatError, StoreError
from peppp.formats import Configuration, paper_grid, parse_format
from peppp.precisions.known import Precision, parse_precision

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


def parse_configurations(text: str) -> list[Precision]:
    """``paper``, a file, a list of precisions, or Formats A x Formats B; parts join with ``+``.

    A file holds such texts, one a line; text after a # is ignored.

    >>> len(parse_configurations("paper")), len(parse_configurations("1-4-1,1-5-2 x 1-6-7,1-8-9"))
    (99, 4)
    >>> [str(one) for one in parse_configurations("fp32,1-4-1/1-6-7,amp-bf16")]
    ['fp32/fp32', '1-4-1/1-6-7', 'amp-bf16']
    """
    found: list[Precision] = []
    for part in text.split("+"):
        part = part.strip()
        if part == "paper":
            found += paper_grid()
        elif Path(part).is_file():
            found += _configurations_of(Path(part))
        elif " x " in part:
            side_a, _, side_b = part.partition(" x ")
            formats_b = [parse_format(item) for item in side_b.split(",")]
            found += [Configuration(parse_format(a), b) for a in side_a.split(",") for b in formats_b]
        else:
            items = [item.strip() for item in part.split(",")]
            found += [parse_precision(item) for item in items]
    return list(dict.fromkeys(found))


def parse_pairs(text: str) -> list[Configuration]:
    """:func:`parse_configurations` where only pairs of formats are of use."""
    found = parse_configurations(text)
    pairs = [one for one in found if isinstance(one, Configuration)]
    for one in found:
        if one not in pairs:
            raise FormatError(
                f"{one} is no pair of formats such as 1-4-1/1-6-7; see its memory with --precision {one}"
            )
    return pairs


def _configurations_of(path: Path) -> list[Precision]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(f"cannot read configurations from {path}: {error}") from None
    found: list[Precision] = []
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if text and Path(text).is_file():
            raise FormatError(f"{path}, line {number}: {text!r} is a file; a line names configurations")
        try:
            found += parse_configurations(text) if text else []
        except FormatError as error:
            raise FormatError(f"{path}, line {number}: {error}") from None
    if not found:
        raise FormatError(f"{path} names no configuration; write one a line, as 1-4-1/1-6-7")
    return found


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


def parse_list(texts: Sequence[str], read: Callable[[str], _T], option: str) -> list[_T]:
    """The values of an option that may be given several times, each time with several values between commas.

    >>> parse_list(["0.01, 0.001", "0.1"], float, "--learning-rate")
    [0.01, 0.001, 0.1]
    """
    found: list[_T] = []
    for text in texts:
        try:
            found += [read(part.strip()) for part in text.split(",")]
        except ValueError:
            example = "0.01,0.001" if read is float else "0,1,2"
            raise FormatError(f"{option} {text!r} is no list of numbers; write them as {example}") from None
    return list(dict.fromkeys(found))
