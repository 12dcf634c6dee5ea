"""Every torch operation of a forward pass, those inside layers and those written by hand, seen and rounded.

A result that must be rounded is marked; the rounding happens in place when the next operation uses it, so
that a ReLU can take it over and the network's own result, which nobody uses, stays as it is.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from peppp.lowprec.functions import relu_round, round_copy, round_in_place
from peppp.lowprec.operations import KINDS, Kind
from peppp.lowprec.state import LowPrecision

_ADD_IN_PLACE = Tensor.add_  # with which batch norm counts its batches, at every pass
# On a tensor that waits to be rounded: (the tensor it is a view of or None, its point).
_WAITING = "_peppp_waiting"
# On the rounded copy of a result: that result.
_ORIGINAL = "_peppp_original"


class RoundingMode(TorchFunctionMode):
    """Sees every torch operation of a forward pass and rounds what it must."""

    def __init__(self, state: LowPrecision) -> None:
        super().__init__()
        self.state = state

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run ``func``; settle what waits before it, and let its result wait in turn."""
        kind = KINDS.get(func)
        if kind is Kind.UNTOUCHED or (func is _ADD_IN_PLACE and args[0].dtype == torch.int64):
            return func(*args, **kwargs) if kwargs else func(*args)
        kwargs = kwargs or {}
        if kind is Kind.LOSS:
            return self._run(func, args, kwargs)
        if kind is Kind.RELU and func.__name__ == "relu" and not kwargs.get("inplace") and len(args) == 1:
            base, point = args[0].__dict__.get(_WAITING, (None, None))
            if point is not None and base is None and not point.done:
                return relu_round(args[0], point)
        if kind is Kind.RESHAPED:
            return self._reshape(func, args, kwargs)
        operands = _tensors((args, kwargs) if kwargs else args, [])
        for tensor in operands:
            if _WAITING in tensor.__dict__:
                _settle(tensor)
        result = self._run(func, args, kwargs)
        if kind is Kind.KEPT or kind is Kind.RELU:
            return result
        return self._result(func, kind, operands, result)

    def _run(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        packed = self.state.packed
        if func is torch.conv2d:
            self.state.look_at_convolution(*args, **kwargs)
        return func(*args, **kwargs) if packed is None else packed.run(func, args, kwargs)

    def _reshape(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A view of a tensor that waits goes on waiting for it."""
        result = self._run(func, args, kwargs)
        base, point = args[0].__dict__.get(_WAITING, (None, None))
        if point is not None and result is not args[0]:
            result.__dict__[_WAITING] = (args[0] if base is None else base, point)
        return result

    def _result(
        self, func: Callable[..., Any], kind: Kind | None, operands: list[Tensor], result: Any
    ) -> Any:
        if isinstance(result, tuple) and result and isinstance(result[0], Tensor) and kind is not None:
            return (self._result(func, kind, operands, result[0]), *result[1:])
        if not isinstance(result, Tensor) or not result.is_floating_point():
            return result
        name = func.__name__
        if result.dtype != torch.float32:
            self.state.report(f"{name} in {result.dtype}")
            return result
        in_place = name.endswith("_") and (not name.startswith("__") or name.startswith("__i"))
        if not in_place and any(result is operand for operand in operands):
            return result  # handed through, as by dropout at evaluation
        if kind is None:
            if any(operand.is_floating_point() for operand in operands):
                self.state.report(name)
            return result
        point = self.state.next_point(name.strip("_"))
        if kind is Kind.ROUNDED_COPY:
            rounded = round_copy(result, point)
            rounded.__dict__[_ORIGINAL] = result
            return rounded
        result.__dict__[_WAITING] = (None, point)
        return result


def unrounded(tensor: Tensor) -> Tensor:
    """A result of the whole network as it was computed."""
    tensor.__dict__.pop(_WAITING, None)
    original: Tensor = tensor.__dict__.pop(_ORIGINAL, tensor)
    return original


def _settle(tensor: Tensor) -> None:
    """Round a tensor that waits for it, before it is used."""
    base, point = tensor.__dict__.pop(_WAITING)
    round_in_place(tensor if base is None else base, point)


def _tensors(values: Any, found: list[Tensor]) -> list[Tensor]:
    """The tensors in nested tuples, lists and dicts, appended to ``found``."""
    for value in values.values() if isinstance(values, dict) else values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, (tuple, list, dict)):
            _tensors(value, found)
    return found
