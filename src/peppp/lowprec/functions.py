"""Rounding as steps of automatic differentiation: values forward, errors backward, straight through."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from peppp.formats import FP32, Configuration, FloatFormat
from peppp.lowprec import kernels
from peppp.lowprec.rounding import quantize
from peppp.lowprec.streams import mix
from peppp.records import RoundingModes


@dataclass(frozen=True, slots=True)
class Precision:
    """The formats and rounding modes of a network: Format A forward, the error format backward."""

    configuration: Configuration
    modes: RoundingModes
    error_format: FloatFormat

    @classmethod
    def of(
        cls, configuration: Configuration | str, rounding: RoundingModes | str, error_format: str
    ) -> "Precision":
        """From texts; ``error_format`` is ``A``, ``B`` or a format."""
        configuration = Configuration.parse(configuration)
        chosen = {"A": configuration.format_a, "B": configuration.format_b}.get(error_format)
        return cls(configuration, RoundingModes.parse(rounding), chosen or FloatFormat.parse(error_format))


class Point:
    """One rounding of one pass: values in Format A on the way forward, errors on the way back.

    ``used`` says that some rounded value came of it, ``done`` that the tensor itself was rounded.
    """

    __slots__ = ("done", "key", "precision", "used")

    def __init__(self, precision: Precision, key: int) -> None:
        self.precision = precision
        self.key = key
        self.used = False
        self.done = False

    def round_value(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """``x`` in Format A."""
        self.used = True
        p = self.precision
        return quantize(x, p.configuration.format_a, p.modes.values, seed=mix(self.key, 0), out=out)

    def relu_value(self, x: Tensor) -> Tensor:
        """max(round(x), 0) in Format A."""
        self.used = True
        fmt, mode = self.precision.configuration.format_a, self.precision.modes.values
        out = torch.empty_like(x)
        if kernels.relu_round_into(x, out, fmt, mix(self.key, 0) if mode == "stochastic" else None):
            return out
        return torch.relu_(self.round_value(x, out=out))

    def round_error(self, error: Tensor) -> Tensor:
        """A back-propagated error in the error format, in place where nobody else can see it.

        A residual addition hands one error to two branches: it is rounded already, and shared.
        """
        p = self.precision
        if _is_rounded(error) or p.error_format == FP32:
            return error
        out = error if _is_owned(error) else None
        return _mark_rounded(quantize(error, p.error_format, p.modes.errors, seed=mix(self.key, 1), out=out))

    def masked_error(self, error: Tensor, result: Tensor) -> Tensor:
        """A back-propagated error where ``result`` is positive, else 0, in the error format."""
        fmt, mode = self.precision.error_format, self.precision.modes.errors
        key = mix(self.key, 1) if mode == "stochastic" else None
        out = error if _is_owned(error) else torch.empty_like(result)
        if kernels.masked_round_into(error, result, out, fmt, key):
            return _mark_rounded(out)
        return self.round_error(torch.where(result > 0, error, 0.0))


def _mark_rounded(error: Tensor) -> Tensor:
    error.__dict__["_peppp_rounded"] = error._version
    return error


def _is_rounded(error: Tensor) -> bool:
    """Whether it left another point and was not added to since (which would have raised its version)."""
    return bool(error.__dict__.get("_peppp_rounded", -1) == error._version)


def _is_owned(error: Tensor) -> bool:
    """Whether neither the tensor nor its memory has another owner."""
    return (
        error._use_count() == 1  # type: ignore[attr-defined]
        and torch._C._storage_Use_Count(error.untyped_storage()._cdata) == _SOLE_USES
        and error.numel() * 4 == error.untyped_storage().nbytes()
    )


def _sole_uses() -> int:
    """The count that torch reports for memory with one owner, while a storage object looks at it."""
    storage = torch.empty(1).untyped_storage()
    return int(torch._C._storage_Use_Count(storage._cdata))


_SOLE_USES = _sole_uses()


class _RoundInPlace(torch.autograd.Function):
    """Rounds an operation's fresh result where it lies: nobody has used it yet."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, point: Point) -> Tensor:
        ctx.point = point
        ctx.mark_dirty(x)
        return point.round_value(x, out=x)

    @staticmethod
    def backward(ctx: Any, *errors: Tensor) -> tuple[Tensor, None]:
        return ctx.point.round_error(errors[0]), None


class _RoundCopy(torch.autograd.Function):
    """Rounds into a new tensor: the operation's backward needs its own result, or the user owns it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, point: Point) -> Tensor:
        ctx.point = point
        return point.round_value(x)

    @staticmethod
    def backward(ctx: Any, *errors: Tensor) -> tuple[Tensor, None]:
        return ctx.point.round_error(errors[0]), None


class _ReluRound(torch.autograd.Function):
    """ReLU of a rounded value in one node; it keeps its result, which the next layer keeps anyway."""

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


def round_in_place(x: Tensor, point: Point) -> None:
    """Round ``x`` itself, once; whoever holds it sees the rounded values, and its errors are rounded."""
    if point.done:
        return
    point.done = True
    if x.requires_grad:
        _RoundInPlace.apply(x, point)  # type: ignore[no-untyped-call]
    else:
        point.round_value(x, out=x)


def round_copy(x: Tensor, point: Point) -> Tensor:
    """A rounded copy of ``x``."""
    return _RoundCopy.apply(x, point)  # type: ignore[no-untyped-call, no-any-return]


def relu_round(x: Tensor, point: Point) -> Tensor:
    """max(round(x), 0) as a new tensor; ``x`` stays as it is, unrounded."""
    return _ReluRound.apply(x, point)  # type: ignore[no-untyped-call, no-any-return]
