"""Refuses a GradScaler if steps happen within the backward pass: they would use scaled gradients."""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from peppp.errors import NetworkError

_steppers: "weakref.WeakSet[Any]" = weakref.WeakSet()


def refuse_scaled_losses(optimizer: Any) -> None:
    """Make GradScaler.scale raise NetworkError for losses that reach the parameters of ``optimizer``."""
    _steppers.add(optimizer)
    scale = torch.amp.GradScaler.scale
    if not hasattr(scale, "_peppp"):
        checked = _checked(scale)
        checked._peppp = True  # type: ignore[attr-defined]
        torch.amp.GradScaler.scale = checked  # type: ignore[method-assign]


def _checked(scale: Callable[..., Any]) -> Callable[..., Any]:
    def checked(self: Any, outputs: Any) -> Any:
        parameters = {
            id(p) for optimizer in _steppers for group in optimizer.param_groups for p in group["params"]
        }
        if self.is_enabled() and isinstance(outputs, Tensor) and parameters and _reaches(outputs, parameters):
            raise NetworkError(
                "a GradScaler scales the loss of a network whose optimizer steps in the backward pass, "
                "before the scale is taken off; make the optimizer with gradients='fp32', or leave out the "
                "scaler (float32 arithmetic needs none)"
            )
        return scale(self, outputs)

    return checked


def _reaches(outputs: Tensor, parameters: set[int]) -> bool:
    """Whether the graph of ``outputs`` ends in one of these parameters."""
    waiting, seen = [outputs.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if id(getattr(node, "variable", None)) in parameters:
            return True
        waiting += [following for following, _ in node.next_functions]
    return False
