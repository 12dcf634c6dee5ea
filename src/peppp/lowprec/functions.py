"""Rounding as steps of automatic differentiation: values forward, errors backward, straight through."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from peppp.formats import FP32, Configuration, Format, parse_format
from peppp.lowprec import kernels
from peppp.lowprec.rounding import round_to
from peppp.lowprec.streams import Key, mix
from peppp.records import RoundingModes


@dataclass(frozen=True, slots=True)
class Precision:
    """The formats and rounding modes of a network: Format A forward, the error format backward."""

    configuration: Configuration
    modes: RoundingModes
    error_format: Format

    @classmethod
    def of(
        cls, configuration: Configuration | str, rounding: RoundingModes | str, error_format: str
    ) -> "Precision":
        """From texts; ``error_format`` is ``A``, ``B`` or a format."""
        configuration = Configuration.parse(configuration)
        chosen = {"A": configuration.format_a, "B": configuration.format_b}.get(error_format)
        return cls(configuration, RoundingModes.parse(rounding), chosen or parse_format(error_format))


class Point:
    """One rounding of one pass: values in Format A on the way forward, errors on the way back.

    ``used`` says that some rounded value came of it, ``done`` that the tensor itself was rounded.
    """

    __slots__ = ("done", "key", "precision", "used")

    def __init__(self, precision: Precision, key: Key) -> None:
        self.precision = precision
        self.key = key
        self.used = False
        self.done = False

    def value_key(self) -> Key | None:
        """The key of the rounding on the way forward; None is nearest."""
        self.used = True
        return mix(self.key, 0) if self.precision.modes.values == "stochastic" else None

    def error_key(self) -> Key | None:
        """The key of the rounding on the way back."""
        return mix(self.key, 1) if self.precision.modes.errors == "stochastic" else None

    def round_value(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """``x`` in Format A."""
        return round_to(x, self.precision.configuration.format_a, self.value_key(), out)

    def relu_value(self, x: Tensor) -> Tensor:
        """max(round(x), 0) in Format A."""
        key, out = self.value_key(), torch.empty_like(x)
        if x.is_meta or kernels.relu_round_into(x, out, self.precision.configuration.format_a, key):
            return out
        return torch.relu_(round_to(x, self.precision.configuration.format_a, key, out))

    def round_error(self, error: Tensor, uses: int = 1) -> Tensor:
        """A back-propagated error in the error format, in place where nobody else can see it.

        A residual addition hands one error to two branches: it is rounded already, and shared. ``uses`` is
        how often torch itself refers to an error that it hands over for good.
        """
        fmt = self.precision.error_format
        if fmt == FP32 or error.__dict__.get(_ROUNDED, -1) == error._version:
            return error
        rounded = round_to(error, fmt, self.error_key(), error if _is_owned(error, uses) else None)
        rounded.__dict__[_ROUNDED] = rounded._version  # adding to it raises its version
        return rounded

    def hook(self, error: Tensor) -> Tensor:
        """:meth:`round_error` of a tensor's hook."""
        return self.round_error(error, _USES_IN_HOOK)

    def masked_error(self, error: Tensor, result: Tensor) -> Tensor:
        """A back-propagated error where ``result`` is positive, else 0, in the error format."""
        fmt = self.precision.error_format
        if error.stride() != result.stride() and not error.is_meta:  # where layouts are not kept
            error = torch.empty_like(result).copy_(error)
        out = error if _is_owned(error, 1) else torch.empty_like(result)
        if fmt == FP32 or not (
            error.is_meta or kernels.masked_round_into(error, result, out, fmt, self.error_key())
        ):
            return self.round_error(torch.where(result > 0, error, 0.0))
        out.__dict__[_ROUNDED] = out._version
        return out


# On an error: its version when it was rounded.
_ROUNDED = "_peppp_rounded"


def _is_owned(error: Tensor, uses: int) -> bool:
    """Whether neither the tensor nor its memory has an owner beside the ``uses`` that hand it over."""
    storage = error.untyped_storage()
    return (
        error._use_count() == uses  # type: ignore[attr-defined]
        and torch._C._storage_Use_Count(storage._cdata) == _USES_OF_STORAGE
        and error.numel() * 4 == storage.nbytes()
    )


def _uses_of_storage() -> int:
    """The count that torch gives for memory of one owner, while a storage object looks at it."""
    return int(torch._C._storage_Use_Count(torch.empty(1).untyped_storage()._cdata))


def _uses_in_hook() -> int:
    """The count that torch gives in a tensor's hook for an error that nobody else has."""
    seen: list[int] = []
    with torch.enable_grad():
        x = torch.ones(2, requires_grad=True) * 1
        x.register_hook(lambda error: seen.append(error._use_count()))  # type: ignore[no-untyped-call]
        (x * x).sum().backward()  # type: ignore[no-untyped-call]
    return seen[0]


_USES_OF_STORAGE, _USES_IN_HOOK = _uses_of_storage(), _uses_in_hook()


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
    """Round an operation's fresh result where it lies, once, and its error when it comes back.

    Nobody has used ``x`` yet, and its operation does not need it for its own backward: the memory can be
    written without a node of its own in the graph.
    """
    if not point.done:
        point.done = True
        version = x._version
        point.round_value(x.detach(), out=x.detach())
        # A linear layer of inputs with more than two axes returns a view, of which torch would make the node
        # anew (and crash) if it saw it written.
        if x._is_view():
            torch._C._autograd._unsafe_set_version_counter((x,), (version,))
        if x.requires_grad:
            x.register_hook(point.hook)  # type: ignore[no-untyped-call]


def round_copy(x: Tensor, point: Point) -> Tensor:
    """A rounded copy of ``x``."""
    return _RoundCopy.apply(x, point)  # type: ignore[no-untyped-call, no-any-return]


def relu_round(x: Tensor, point: Point) -> Tensor:
    """max(round(x), 0) as a new tensor; ``x`` stays as it is, unrounded."""
    return _ReluRound.apply(x, point)  # type: ignore[no-untyped-call, no-any-return]
