"""Rounding in automatic differentiation (straight-through): values in the forward pass, errors backward."""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from peppp.lowprec.rounding import backend
from peppp.lowprec.rounding.quantize import round_to
from peppp.lowprec.rounding.roundings import Roundings
from peppp.lowprec.rounding.shape_only import is_shape_only
from peppp.lowprec.rounding.streams import Key, mix


class Point:
    """One rounding in one pass: values in Format A in the forward pass, errors in the backward pass.

    ``used`` is set once a value has been rounded, ``done`` once the result has been rounded in place.
    """

    __slots__ = ("done", "key", "roundings", "used")

    def __init__(self, roundings: Roundings, key: Key) -> None:
        self.roundings = roundings
        self.key = key
        self.used = False
        self.done = False

    def round_value(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """Return ``x`` rounded to Format A, in ``out`` if given."""
        self.used = True
        roundings = self.roundings
        key = mix(self.key, 0) if roundings.modes.values == "stochastic" else None
        return round_to(x, roundings.values, key, out)

    def relu_value(self, x: Tensor) -> Tensor:
        """Return max(round(x), 0) in Format A, in new memory."""
        self.used = True
        roundings, out = self.roundings, torch.empty_like(x)
        key = mix(self.key, 0) if roundings.modes.values == "stochastic" else None
        if is_shape_only(x) or backend.relu_round_into(x, out, roundings.values, key):
            return out
        return torch.relu_(round_to(x, roundings.values, key, out))

    def masked_error(self, error: Tensor, result: Tensor) -> Tensor:
        """Return the error of a ReLU's input, rounded here if the ReLU was the only use of that input."""
        if self.done or not self.roundings.rounds_errors:
            return _masked(error, result)
        if error.stride() != result.stride() and not is_shape_only(error):  # an operation changed the layout
            error = torch.empty_like(result).copy_(error)
        out = error if _is_owned(error, 1) else torch.empty_like(result)
        key = mix(self.key, 1) if self.roundings.modes.errors == "stochastic" else None
        fmt, plain = self.roundings.errors, is_shape_only(error) or error.requires_grad
        if plain or not backend.masked_round_into(error, result, out, fmt, key):
            return self.round_error(_masked(error, result))
        out.__dict__[_ROUNDED] = out._version
        return out

    def round_in_place(self, x: Tensor) -> None:
        """Round a result in place, and register a hook that rounds its error.

        Rounding in place also changes what operations saved for the backward pass. It goes through ``data``,
        which has a version counter of its own, so that autograd does not report a modified tensor.
        """
        self.done = True
        values, roundings = x.data, self.roundings
        if values.is_complex():
            values = as_real(values)
        self.used = True
        key = mix(self.key, 0) if roundings.modes.values == "stochastic" else None
        fmt = roundings.values
        if not backend.round_into(values, values, fmt, key):
            round_to(values, fmt, key, values)
        if x.requires_grad and not x.is_leaf:
            x.register_hook(self.hook)  # type: ignore[no-untyped-call]

    def round_error(self, error: Tensor, uses: int = 1) -> Tensor:
        """Return a back-propagated error in the error format, rounded in place if nobody else refers to it.

        A residual addition passes one error to two branches: the second finds it rounded already. ``uses`` is
        the number of references that torch itself holds to an error that it no longer needs.
        """
        roundings = self.roundings
        if not roundings.rounds_errors or error.__dict__.get(_ROUNDED, -1) == error._version:
            return error
        if error.requires_grad:  # create_graph: the error is differentiated in turn
            rounded: Tensor = _RoundError.apply(error, self)  # type: ignore[no-untyped-call]
        else:
            key = mix(self.key, 1) if roundings.modes.errors == "stochastic" else None
            out = error if _is_owned(error, uses) else None
            rounded = round_to(error, roundings.errors, key, out)
        rounded.__dict__[_ROUNDED] = rounded._version  # adding to it raises its version
        return rounded

    def hook(self, error: Tensor) -> Tensor:
        """Apply :meth:`round_error` as a tensor's gradient hook."""
        if error.is_complex():
            parts = torch.view_as_real(error.resolve_conj()).contiguous()
            return torch.view_as_complex(self.round_error(parts, 0))
        return self.round_error(error, uses_in_hook())


def as_real(x: Tensor) -> Tensor:
    """View complex memory as real, with one more axis for the two parts; a real ``x`` is returned as is."""
    if not x.is_complex():
        return x
    return torch.view_as_real(x.conj() if x.is_conj() else x)


def round_copy(x: Tensor, point: Point) -> Tensor:
    """Return a rounded copy of ``x``."""
    return _RoundCopy.apply(x, point)  # type: ignore[no-untyped-call, no-any-return]


def relu_round(x: Tensor, point: Point) -> Tensor:
    """Return max(round(x), 0) as a new tensor; ``x`` itself is not rounded."""
    return _ReluRound.apply(x, point)  # type: ignore[no-untyped-call, no-any-return]


def round_parameter(x: Tensor, roundings: Roundings) -> Tensor:
    """Return a copy of ``x``, which replaces a parameter, rounded to nearest in Format A.

    The gradient passes through unrounded.
    """
    return _RoundParameter.apply(x, roundings)  # type: ignore[no-untyped-call, no-any-return]


def _masked(error: Tensor, result: Tensor) -> Tensor:
    """The gradient of ReLU as torch computes it, which supports higher derivatives."""
    masked: Tensor = torch.ops.aten.threshold_backward(error, result, 0)
    return masked


# Attribute of an error: its version when it was rounded.
_ROUNDED = "_peppp_rounded"


def _is_owned(error: Tensor, uses: int) -> bool:
    """Whether only the ``uses`` references of torch hold the tensor, and only the tensor its whole memory."""
    storage = error.untyped_storage()
    return (
        error._use_count() == uses  # type: ignore[attr-defined]
        and torch._C._storage_Use_Count(storage._cdata) == _uses_of_storage()
        and error.numel() * 4 == storage.nbytes()
    )


@lru_cache(maxsize=1)
def _uses_of_storage() -> int:
    """The use count of a storage with one owner, while a Python storage object looks at it."""
    x = torch.empty(1, device="cpu")
    storage = x.untyped_storage()
    return int(torch._C._storage_Use_Count(storage._cdata))


@lru_cache(maxsize=1)
def uses_in_hook() -> int:
    """The use count of an error in a tensor's hook if nobody else refers to it.

    A small backward pass measures it; the conversion of a network calls this before any pass of that network.
    """
    seen: list[int] = []
    with torch.inference_mode(False), torch.enable_grad():
        x = torch.ones(2, requires_grad=True, device="cpu") * 1
        x.register_hook(lambda error: seen.append(error._use_count()))  # type: ignore[no-untyped-call]
        (x * x).sum().backward()  # type: ignore[no-untyped-call]
    return seen[0]


class _RoundCopy(torch.autograd.Function):
    """Rounds into new memory, since the old memory belongs to the user."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, point: Point) -> Tensor:
        ctx.point = point
        return point.round_value(x)

    @staticmethod
    def backward(ctx: Any, *errors: Tensor) -> tuple[Tensor, None]:
        return ctx.point.round_error(errors[0]), None


class _ReluRound(torch.autograd.Function):
    """Rounds and applies ReLU in one pass; it saves its result, which the next layer saves anyway."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, point: Point) -> Tensor:
        ctx.point = point
        result = point.relu_value(x)
        ctx.save_for_backward(result)
        return result

    @staticmethod
    def backward(ctx: Any, *errors: Tensor) -> tuple[Tensor, None]:
        (result,) = ctx.saved_tensors
        return ctx.point.masked_error(errors[0], result), None


class _RoundParameter(torch.autograd.Function):
    """Rounds to nearest; the gradient stays as it is, since it is not a back-propagated error."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, roundings: Roundings) -> Tensor:
        return round_to(x, roundings.weights, None)

    @staticmethod
    def backward(ctx: Any, *errors: Tensor) -> tuple[Tensor, None]:
        return errors[0], None


class _RoundError(torch.autograd.Function):
    """Rounds an error that is differentiated itself: straight-through, and its own error is rounded too."""

    @staticmethod
    def forward(ctx: Any, error: Tensor, point: Point) -> Tensor:
        ctx.point = point
        key = mix(point.key, 1) if point.roundings.modes.errors == "stochastic" else None
        return round_to(error, point.roundings.errors, key)

    @staticmethod
    def backward(ctx: Any, *errors: Tensor) -> tuple[Tensor, None]:
        return ctx.point.round_error(errors[0]), None
