"""Losses: what a training minimises, and how its error in [0, 1] is computed."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from peppp.arguments import checked
from peppp.errors import ArgumentError, NetworkError
from peppp.tasks.own import imported


@checked
@dataclass(frozen=True, slots=True)
class Loss:
    """A loss and the error that belongs to it.

    ``function(outputs, targets)`` is the mean over a batch and is minimised. ``misses(outputs, targets)`` is
    a batch's summed deviation from the targets. ``scale(targets)`` is the deviation per example that counts
    as error 1: error = min(1, misses / (examples * scale)).

    >>> import torch
    >>> logits, labels = torch.tensor([[3.0, 1.0], [0.0, 2.0]]), torch.tensor([0, 0])
    >>> int(LOSSES["cross_entropy"].misses(logits, labels))
    1
    """

    function: Callable[[Tensor, Tensor], Tensor]
    misses: Callable[[Tensor, Tensor], Tensor]
    scale: Callable[[Tensor], float]

    @checked
    def error(self, misses: float, examples: int, targets: Tensor) -> float:
        """The error in [0, 1] of a number of ``examples`` from a part with these ``targets``."""
        if examples < 1 or not targets.ndim or not targets.numel():
            raise ArgumentError("an error needs at least one example and at least one target")
        error = misses / (examples * self.scale(targets))
        return error if error < 1 else 1.0


@checked
def find_loss(name: str) -> Loss:
    """The loss of a recipe: ``cross_entropy``, ``squared_error``, or ``package.module:name``.

    The latter names your own :class:`Loss`. Raises NetworkError for an unknown name, and if the object is
    missing or not a :class:`Loss`.
    """
    if name in LOSSES:
        return LOSSES[name]
    if ":" not in name:
        raise NetworkError(
            f"unknown loss {name!r}; known: {', '.join(LOSSES)}, or your own as package.module:name"
        )
    found = imported(name, NetworkError, "loss")
    if not isinstance(found, Loss):
        raise NetworkError(f"{name} is a {type(found).__name__}; give a peppp.training.losses.Loss")
    return found


def _cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of logits [..., classes] and labels [...]."""
    if outputs.ndim > 2:
        outputs, targets = outputs.flatten(0, -2), targets.flatten()
    return functional.cross_entropy(outputs, targets)


def _wrong(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs.argmax(-1) != targets).sum()


def _labels_an_example(targets: Tensor) -> float:
    return targets[0].numel()


def _squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean squared error of outputs [batch, 1] or [batch] against targets [batch]."""
    return functional.mse_loss(outputs.view_as(targets), targets)


def _squares(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs.view_as(targets).double() - targets.double()).square().sum()


def _variance(targets: Tensor) -> float:
    """The squared error per example of predicting the mean; 1 if all targets are equal."""
    return float(targets.double().var(correction=0)) * targets[0].numel() or 1.0


LOSSES = {
    "cross_entropy": Loss(_cross_entropy, _wrong, _labels_an_example),
    "squared_error": Loss(_squared_error, _squares, _variance),
}
