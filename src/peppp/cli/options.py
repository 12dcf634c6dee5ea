"""Options that several commands share, and the printing of JSON."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from peppp.errors import FormatError, StoreError
from peppp.formats import Configuration, paper_grid, parse_format
from peppp.precisions.known import Precision, parse_precision

_T = TypeVar("_T")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
Device = Annotated[str, typer.Option(help="Where to train: cpu, cuda or cuda:1.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of weights, data order and rounding.")]
Workers = Annotated[
    int | None,
    typer.Option(min=0, help="Worker processes of one thread each; 0 is this process (default: cores)."),
]
Network = Annotated[
    str, typer.Option(help="resnet18, resnet8-w32, vgg16, ... or package.module:factory (peppp networks).")
]
Table = Annotated[
    str | None,
    typer.Option(help="Store or table of other tasks' measurements (default: the one that ships)."),
]
Resolution = Annotated[int, typer.Option(min=0, help="Side of the images in pixels; 0 is their own, or 32.")]
Epochs = Annotated[int, typer.Option(min=1, help="Passes over the training images.")]
MinSteps = Annotated[int, typer.Option(min=0, help="More epochs where these are fewer optimizer steps.")]
LearningRate = Annotated[float, typer.Option(min=0, help="Learning rate of SGD.")]
Batch = Annotated[int, typer.Option(min=1, help="Images a batch.")]
Optimizer = Annotated[
    str,
    typer.Option(help="sgd (the paper's), adam or adamw; options behind it, as adamw,weight_decay=0.1."),
]
Augmentation = Annotated[str, typer.Option(help="none, or flip-crop: images shifted and mirrored at random.")]
MicroBatch = Annotated[
    str | None,
    typer.Option(help="Pass a batch on in parts of so many, or auto: as few parts as fit the budget."),
]
NoRecompute = Annotated[
    bool, typer.Option("--no-recompute", help="Recompute no blocks to keep within the budget.")
]
Pretrained = Annotated[
    Path | None, typer.Option(help="Begin from these weights (safetensors), where names and shapes fit.")
]
Freeze = Annotated[
    list[str] | None,
    typer.Option(help="Leave these parameters as they are: a module's name, or a pattern as blocks.[01].*."),
]
DataRoot = Annotated[
    Path | None,
    typer.Option(help="Folder with published data sets (default: PEPPP_DATA, or the user's data folder)."),
]
Rounding = Annotated[str, typer.Option(help="stochastic or nearest.")]


def print_json(value: Any) -> None:
    """One line of JSON on standard output."""
    typer.echo(json.dumps(value, allow_nan=False))


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
    """The fields of a recipe for an optimizer's text: its name and what stands behind it.

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

    A file holds such texts, one a line; what stands behind a # is left out.

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
                f"{one} is no pair of formats, as 1-4-1/1-6-7; its memory is told by --precision {one}"
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
