"""The three products of a layer in formats with shared scales: forward, input gradient, weight gradient.

Each product rounds its operands anew, with scales shared along the dimension that it sums over. Hardware with
MX formats does the same: it multiplies blocks, and applies their scales to the sum of each block.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from peppp.errors import NetworkError
from peppp.formats import Format, IntegerFormat, ScaledFormat
from peppp.lowprec.network.state import LowPrecision
from peppp.lowprec.rounding.quantize import round_to
from peppp.lowprec.rounding.scaling import round_integers
from peppp.lowprec.rounding.streams import Key, mix
from peppp.precisions.named import Products

_CONVOLUTIONS = {torch.conv1d, torch.conv2d, torch.conv3d}
_OUT_OF_SIGHT = {functional.multi_head_attention_forward}
_INPUT_GRADIENT, _WEIGHT_GRADIENT = 1, 2  # the products that round errors; they enter the random bits' keys


def in_products(func: Callable[..., Any], state: LowPrecision) -> Callable[..., Any]:
    """Return what computes ``func`` in the network's product formats, or ``func`` if they do not apply."""
    products = state.roundings.products
    if products is None:
        return func
    if func is functional.linear:
        return partial(linear, products=products, key=state.next_point("products").key)
    if func in _CONVOLUTIONS and products.convolutions:
        return partial(convolution, func, products=products, key=state.next_point("products").key)
    if func in _OUT_OF_SIGHT:
        state.report(func.__name__, f"the linear layers inside {func.__name__}, which stay as in amp-bf16")
    return func


def linear(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, *, products: Products, key: Key
) -> Tensor:
    """Compute ``functional.linear`` in the formats of ``products``."""
    result: Tensor = _Linear.apply(input, weight, products, key)  # type: ignore[no-untyped-call]
    return result if bias is None else result + bias


def convolution(
    func: Callable[..., Tensor],
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    *,
    products: Products,
    key: Key,
) -> Tensor:
    """Compute the convolution ``func`` in the formats of ``products``, with scales shared along channels."""
    sizes = weight.dim() - 2
    stride, dilation = _each(stride, sizes), _each(dilation, sizes)
    if isinstance(padding, str):
        padding = _padding(padding, weight, dilation)
    padding = _each(padding, sizes)
    batched = input if input.dim() == weight.dim() else input.unsqueeze(0)
    options = (stride, padding, dilation, groups)
    result: Tensor = _Convolution.apply(  # type: ignore[no-untyped-call]
        func, batched, weight, options, products, key
    )
    if bias is not None:
        result = result + bias.reshape(-1, *[1] * sizes)
    return result if batched is input else result.squeeze(0)


def _each(value: Any, sizes: int) -> tuple[int, ...]:
    return (value,) * sizes if isinstance(value, int) else tuple(value) * (sizes if len(value) == 1 else 1)


def _padding(padding: str, weight: Tensor, dilation: tuple[int, ...]) -> tuple[int, ...]:
    """Return the padding of ``valid`` or ``same``; torch pads unevenly if the kernel's reach is odd."""
    reach = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
    if padding == "valid":
        return (0,) * len(reach)
    if any(r % 2 for r in reach):
        raise NetworkError(
            "a convolution with padding='same' and an even kernel pads its sides unevenly, which products of "
            "few bits do not support: pad by hand, or take a precision without -all"
        )
    return tuple(r // 2 for r in reach)


def along(x: Tensor, dimension: int, fmt: Format, key: Key | None) -> Tensor:
    """Round ``x`` with scales shared along a dimension (by a whole row of it, if ``fmt`` is an integer).

    >>> from peppp.formats import parse_format
    >>> along(torch.tensor([[100.0, 1.0], [3.0, 1.0]]), 0, parse_format("mx-1-2-1/2"), None)
    tensor([[96.,  1.],
            [ 0.,  1.]])
    """
    if isinstance(fmt, ScaledFormat) or not x.numel():
        return round_to(x, fmt, key)
    moved = x.movedim(dimension, -1)
    rows = moved.reshape(math.prod(moved.shape[:-1]), moved.shape[-1]).contiguous()  # [rows, size]
    if isinstance(fmt, IntegerFormat):
        rounded = round_integers(rows, fmt, None, by_row=True)
    else:
        rounded = round_to(rows, fmt, key)
    return rounded.reshape(moved.shape).movedim(-1, dimension)


def _errors(error: Tensor, dimension: int, products: Products, key: Key, product: int) -> Tensor:
    stochastic = products.error_rounding == "stochastic"
    return along(error, dimension, products.errors, mix(key, product) if stochastic else None)


class _Linear(torch.autograd.Function):
    """y = x W', dx = e W, dW = e' x, each from rounded operands."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, products: Products, key: Key) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.products, ctx.key = products, key
        values = products.values
        rows = x.reshape(x.numel() // x.shape[-1], x.shape[-1])
        result = along(rows, -1, values, None) @ along(weight, -1, values, None).T
        return result.reshape(*x.shape[:-1], len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *errors: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, weight = ctx.saved_tensors
        products, key, values = ctx.products, ctx.key, ctx.products.values
        error, of_input, of_weight = errors[0].reshape(-1 if x.numel() else 0, weight.shape[0]), None, None
        if ctx.needs_input_grad[0]:
            rounded = _errors(error, -1, products, key, _INPUT_GRADIENT)
            of_input = (rounded @ along(weight, 0, values, None)).reshape(x.shape)
        if ctx.needs_input_grad[1]:
            rounded = _errors(error, 0, products, key, _WEIGHT_GRADIENT)
            of_weight = rounded.T @ along(x.reshape(len(error), x.shape[-1]), 0, values, None)
        return of_input, of_weight, None, None


class _Convolution(torch.autograd.Function):
    """Like a linear layer over channels; both gradients use the same rounded errors."""

    @staticmethod
    def forward(
        ctx: Any, func: Any, x: Tensor, weight: Tensor, options: Any, products: Products, key: Key
    ) -> Tensor:
        values = products.values
        rounded = along(x, 1, values, None)
        ctx.save_for_backward(rounded, weight)
        ctx.options, ctx.products, ctx.key = options, products, key
        stride, padding, dilation, groups = options
        result: Tensor = func(
            rounded, along(weight, 1, values, None), None, stride, padding, dilation, groups
        )
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *errors: Tensor) -> tuple[None, Tensor | None, Tensor | None, None, None, None]:
        x, weight = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.options
        error = _errors(errors[0], 1, ctx.products, ctx.key, _INPUT_GRADIENT)
        transposed = along(weight, 0, ctx.products.values, None)
        of_input, of_weight, _ = torch.ops.aten.convolution_backward(
            error, x, transposed, None, stride, padding, dilation, False, [0] * len(stride), groups,
            [ctx.needs_input_grad[1], ctx.needs_input_grad[2], False],
        )  # fmt: skip
        return None, of_input, of_weight, None, None, None
