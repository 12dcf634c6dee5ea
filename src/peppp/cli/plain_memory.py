"""``peppp memory --precision``: the memory of a training in plain PyTorch, and the parsing of inputs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from peppp.cli.options import print_json
from peppp.errors import BudgetError, NetworkError
from peppp.units import format_bytes

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True, slots=True)
class Inputs:
    """The shape of one input, and whether it is a text of integer tokens."""

    shape: tuple[int, ...]
    is_text: bool

    @classmethod
    def parse(cls, text: str) -> "Inputs":
        """Parse 3x32x32 (an image), 13 (numbers) or tokens:128 (a text); raise NetworkError for others."""
        kind, colon, rest = text.lower().rpartition(":")
        parts = rest.split("x")
        known = (kind == "tokens" and len(parts) == 1) or (not colon and len(parts) in (1, 3))
        if not known or not all(part.isdecimal() and int(part) > 0 for part in parts):
            raise NetworkError(
                f"not an input shape: {text!r}; write channels x height x width, such as 3x32x32, a number "
                "of features, such as 13, or the length of a text, such as tokens:128"
            )
        return cls(tuple(map(int, parts)), bool(colon))

    @property
    def dtype(self) -> "torch.dtype":
        """The dtype of the input tensors."""
        import torch

        return torch.int64 if self.is_text else torch.float32

    def batch(self, count: int, device: str) -> "torch.Tensor":
        """Return ``count`` inputs of zeros; images are in channels_last, as in peppp's trainings."""
        import torch

        x = torch.zeros(count, *self.shape, dtype=self.dtype, device=device)
        return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


def built(
    network: str, classes: int, inputs: Inputs, device: str = "meta", frozen: Sequence[str] = ()
) -> "nn.Module":
    """Build a network by name for such inputs, with its ``frozen`` parameters excluded from training."""
    import torch

    from peppp.tasks import networks
    from peppp.training.pretrained import freeze

    channels = 1 if inputs.is_text else inputs.shape[0]
    module = networks.build(network, classes=classes, channels=channels, device=device)
    freeze(module, frozen)
    return module.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


@dataclass(frozen=True, slots=True)
class Asked:
    """What the user asked for: a network, a batch, the recipe, how to train in PyTorch, and a budget."""

    network: str
    classes: int
    inputs: Inputs
    batch: int
    recipe: dict[str, Any]
    how: dict[str, Any]
    budget: int | None
    frozen: tuple[str, ...] = ()


def run(asked: Asked, *, measure: bool, layers: bool, json: bool) -> None:
    """Print the memory of the training, whether it fits, and the largest batch that does."""
    from peppp.footprint.fakes import classification_loss
    from peppp.footprint.measuring import measure_training
    from peppp.footprint.training_memory import training_memory

    def estimated(count: int) -> Any:
        module = built(asked.network, asked.classes, asked.inputs, frozen=asked.frozen)
        inputs = asked.inputs.batch(count, "meta")
        return training_memory(module, inputs, loss=classification_loss, **asked.recipe, **asked.how)

    about: dict[str, Any] = {"network": asked.network, "batch": asked.batch, **asked.recipe}
    if measure:
        how = dict(asked.how)
        if how.pop("device") != "cpu" or layers:
            raise NetworkError("--measure runs real steps on the CPU; leave --device and --layers out")
        module = built(asked.network, asked.classes, asked.inputs, "cpu", asked.frozen)
        found: Any = measure_training(
            module, asked.inputs.batch(asked.batch, "cpu"), loss=classification_loss, **asked.recipe, **how
        )
        about |= {"source": "measured", "at_rest": found.at_rest, "kept": found.kept, "peak": found.peak}
        text = (
            f"peak {format_bytes(found.peak)}; kept at the end of the forward pass "
            f"{format_bytes(found.kept)}; at rest {format_bytes(found.at_rest)}; measured on the CPU"
        )
    else:
        found = estimated(asked.batch)
        about |= {"source": "estimated", **found.to_dict()}
        text = str(found)
    fits = ""
    if asked.budget is not None:
        fits = _fits(asked, _needed(found), lambda count: _needed(estimated(count)), about)
    if json:
        print_json(about)
        return
    console = Console()
    name = asked.recipe["optimizer"] or ("" if asked.recipe["precision"].endswith("bit") else "sgd")
    console.print(
        ", ".join(filter(None, (asked.network, f"batch {asked.batch}", asked.recipe["precision"], name)))
        + f": {text}"
    )
    if layers:
        _print_layers(found.layers, console)
    if fits:
        console.print(fits)


def _needed(found: Any) -> int:
    """Return the peak plus the reserve that a GPU needs."""
    return int(found.peak + getattr(found, "reserve", 0))


def _fits(asked: Asked, peak: int, peak_of: Any, about: dict[str, Any]) -> str:
    """Describe whether a peak fits the budget, and add the same facts to ``about``."""
    from peppp.footprint.estimate import largest_batch

    budget = asked.budget or 0
    try:
        most = largest_batch(peak_of, budget, asked.batch)
    except BudgetError:  # not even a batch of 1 fits
        most = 0
    left = budget - peak
    about |= {"budget": budget, "fits": left >= 0, "left": left, "largest_batch": most}
    said = f"fits in {format_bytes(budget)}, {format_bytes(left)} are left"
    if left < 0:
        said = f"does not fit in {format_bytes(budget)}, {format_bytes(-left)} are missing"
    return f"{said}; " + (f"the largest batch that fits is {most} (estimated)" if most else "no batch fits")


def _print_layers(layers: Any, console: Console) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("layer", "kind"):
        table.add_column(heading, no_wrap=True)
    for heading in ("weights", "activations"):
        table.add_column(heading, justify="right", no_wrap=True)
    for layer in layers:
        sizes = (layer.weights, layer.activations)
        table.add_row(layer.name, layer.kind, *(f"{size / 10**6:.2f}" for size in sizes))
    console.print(table)
    console.print(
        "Sizes are estimated, in MB (10^6 bytes). Each tensor counts for the layer that makes it.",
        style="dim",
    )
