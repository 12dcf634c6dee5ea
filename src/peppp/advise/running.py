"""How to run a pick: the command that trains it, and the code for your own training loop."""

import shlex
from collections.abc import Sequence
from dataclasses import fields

from peppp.advise.predictions import Prediction
from peppp.precisions.known import Precision, is_of_formats
from peppp.records import Recipe
from peppp.table.labels import Label, plain

_LEFT_OUT = (
    *("network", "resolution", "loss", "arithmetic_version"),
    *("optimizer", "optimizer_options", "pretrained", "freeze"),
)
_NAMES = {"batch_size": "batch"}


def text_of(precision: Precision) -> str:
    """The text for ``--precision``; pairs of formats are trained packed."""
    if is_of_formats(precision):
        return f"packed:{precision}"
    return "fp32" if precision.is_fp32 else str(precision)


def of_slowness(configuration: Label, predictions: Sequence[Prediction], device: str) -> tuple[str, ...]:
    """A note if the device is slow at a configuration, with the best within the budget where it is not."""
    from peppp.training.runs_here import is_slow, slowness

    (precision,) = plain([configuration])
    note = slowness(precision, device=device)
    if not note:
        return ()
    mine = next(p for p in predictions if p.configuration == configuration)
    fits = [p for p in predictions if p.permissible]
    fast = [p for p in fits if not is_slow(*plain([p.configuration]), device=device)]
    if fast:
        best = min(fast, key=lambda p: p.error)
        more = best.error - mine.error
        note += f"; {best.configuration} is not slow, and is expected to err {more:.3f} more"
    return (note,)


def train_line(
    data: str,
    precision: Precision,
    recipe: Recipe,
    *,
    resolution: int = 0,
    budget: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    micro_batch: int | None = None,
    recomputed: Sequence[str] = (),
) -> str:
    """The ``peppp train`` command of a pick, without options that have their default.

    >>> from peppp.precisions.known import parse_precision
    >>> train_line("my images/", parse_precision("amp-bf16"), Recipe(network="resnet18", epochs=20))
    "peppp train 'my images/' --network resnet18 --precision amp-bf16 --epochs 20"
    """
    from peppp.training.runs_here import lacking

    words = ["peppp", "train", data, "--network", recipe.network, "--precision", text_of(precision)]
    if resolution:
        words += ["--resolution", str(resolution)]
    usual = Recipe()
    for field in fields(Recipe):
        value = getattr(recipe, field.name)
        if field.name == "rounding" and not is_of_formats(precision):
            continue
        if field.name in _LEFT_OUT or value == getattr(usual, field.name):
            continue
        words += [f"--{_NAMES.get(field.name, field.name.replace('_', '-'))}", _shown(value)]
    if (recipe.optimizer, recipe.optimizer_options) != (usual.optimizer, usual.optimizer_options):
        options = [f"{name}={value:g}" for name, value in recipe.optimizer_options]
        words += ["--optimizer", ",".join([recipe.optimizer, *options])]
    if recipe.pretrained:
        words += ["--pretrained", recipe.pretrained.rpartition("#")[0]]
    for pattern in recipe.freeze:
        words += ["--freeze", pattern]
    if lacking(precision, device=device):
        words += ["--storage", "simulated"]
    if seed:
        words += ["--seed", str(seed)]
    if device != "cpu":
        words += ["--device", device]
    if budget is not None and recomputed and "simulated" not in words:
        words += ["--budget", f"{budget}B"]
    if micro_batch is not None and "simulated" not in words:
        words += ["--micro-batch", str(micro_batch)]
    return shlex.join(words)


def _shown(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def run_lines(line: str, code: str) -> list[str]:
    """The last printed lines of a pick: the command and the code."""
    first, *others = code.splitlines() or [""]
    return [f"run       {line}", f"code      {first}", *(f"          {part}".rstrip() for part in others)]
