"""The state of a converted module: its precision, its clock, and where its forward pass stands."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from peppp.lowprec.convolutions import is_channels_last, is_narrow, repair
from peppp.lowprec.functions import Point, Precision
from peppp.lowprec.rounding import round_by, round_to
from peppp.lowprec.streams import GRADIENT, Clock, Key, mix


@dataclass(frozen=True, slots=True)
class RoundingPoint:
    """One place where values are rounded in a forward pass (and errors in the backward pass)."""

    module: str
    operation: str

    def __str__(self) -> str:
        return f"{self.module}: {self.operation}"


@dataclass(slots=True)
class Scope:
    """A running container: its key, and how many operations and inner calls it has seen."""

    key: Key
    operations: int = 0
    calls: int = 0


@dataclass
class LowPrecision:
    """The state of one converted module: its precision, its clock and where its forward pass stands."""

    precision: Precision
    clock: Clock
    parameters_rounded: bool = False
    scopes: list[Scope] = field(default_factory=list)  # of the containers that are running, outermost first
    issued: dict[str, list[Key]] = field(default_factory=dict)  # keys of each container's calls in this pass
    recorded: list[tuple[RoundingPoint, Point]] | None = None
    leaves: list[str] = field(default_factory=list)
    unrounded: list[str] = field(default_factory=list)
    root: nn.Module | None = None  # the module, while it runs
    repaired: bool = False  # nothing about convolutions is left to do or to say
    packed: "Packed | None" = None  # set where values are stored in few bits (see packed_optimizer.py)

    def next_point(self, operation: str) -> Point:
        """The rounding point of the operation that runs now."""
        scope = self.scopes[-1]
        point = Point(self.precision, mix(scope.key, scope.operations))
        scope.operations += 1
        if self.recorded is not None:
            module = "input" if operation == "input" else (self.leaves[-1] or "(module)")
            self.recorded.append((RoundingPoint(module, operation), point))
        return point

    def report(self, operation: str) -> None:
        """Say once that an operation's result is not rounded, as nothing is known about it."""
        if operation not in self.unrounded:
            self.unrounded.append(operation)
            warnings.warn(f"not rounded to low precision: the results of {operation}", stacklevel=4)

    def look_at_convolution(
        self,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        *_: Any,
        **__: Any,
    ) -> None:
        """Repair torch where it would get a convolution wrong (see :mod:`.convolutions`), and say so once."""
        if self.repaired or not is_narrow(weight, stride, padding):
            return
        if not (is_channels_last(input) or is_channels_last(weight)):
            return
        self.repaired = True
        repair()
        named = self.root.named_parameters() if self.root is not None else ()
        name = next((name for name, parameter in named if parameter is weight), "a convolution.weight")
        warnings.warn(
            f"{name.removesuffix('.weight')}: torch's CPU library crashes in the backward pass of a strided "
            f"1x1 convolution of {weight.shape[1]} channels in channels_last, or gets its gradients wrong "
            "(peppp doctor). From now on, this process computes it at stride 1, which is right. Where you "
            "train the network without peppp, leave out channels_last",
            stacklevel=4,
        )

    def round_parameters(self, module: nn.Module) -> None:
        """Parameters to Format A, nearest: a network that is used without being trained."""
        with torch.no_grad():
            for parameter in module.parameters():
                round_to(parameter.data, self.precision.configuration.format_a, None, parameter.data)
        self.parameters_rounded = True

    def round_gradients(self, module: nn.Module) -> None:
        """Gradients of an earlier micro-batch to Format B, before the next ones are added."""
        key = self.clock.update_key()
        for index, parameter in enumerate(module.parameters()):
            if parameter.grad is not None:
                round_gradient(parameter.grad, self.precision, mix(mix(key, index), GRADIENT))


def round_gradient(gradient: Tensor, precision: Precision, key: Key) -> Tensor:
    """A gradient rounded to Format B in place."""
    return round_by(gradient, precision.configuration.format_b, precision.modes.gradient, key, gradient)


class Packed(Protocol):
    """Who stores parameters packed: it runs the operations that use them."""

    def run(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The result of an operation on what the arguments stand for."""
