"""Max pooling that saves which place in each window won: 2 bits for a 2 x 2 window instead of 64."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from peppp.lowprec.packing.codes import pack_codes, unpack_codes

_Pair = tuple[int, int]
_TOGETHER = 1 << 17  # numbers that are packed at a time


class _MaxPool2d(torch.autograd.Function):
    """max_pool2d whose backward pass rebuilds the indices of torch from the packed places."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, window: _Pair, stride: _Pair, padding: _Pair, ceil_mode: bool) -> Tensor:
        pooled: Tensor
        pooled, indices = torch.ops.aten.max_pool2d_with_indices(
            x, window, stride, padding, (1, 1), ceil_mode
        )
        ctx.geometry = x.shape, x.stride(), window, stride, padding, ceil_mode
        ctx.places = pack_places(indices, x.shape[-1], window, stride, padding)
        ctx.memory_format = _memory_format(indices)
        return pooled

    @staticmethod
    def backward(ctx: Any, *errors: Tensor) -> tuple[Tensor | None, ...]:
        shape, strides, window, stride, padding, ceil_mode = ctx.geometry
        indices = torch.empty_like(errors[0], dtype=torch.int64, memory_format=ctx.memory_format)
        unpack_places(ctx.places, indices, shape[-1], window, stride, padding)
        like = torch.empty_strided(shape, strides, device=errors[0].device)  # its numbers are not read
        error = torch.ops.aten.max_pool2d_with_indices_backward(
            errors[0], like, window, stride, padding, (1, 1), ceil_mode, indices
        )
        return error, None, None, None, None


def max_pool2d(
    input: Tensor,
    kernel_size: int | _Pair,
    stride: int | _Pair | None = None,
    padding: int | _Pair = 0,
    dilation: int | _Pair = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Replace torch.nn.functional.max_pool2d, with the same arguments.

    Torch's own runs with dilation, returned indices, no gradient, or an input that is not 4-d.
    """
    window = _pair(kernel_size)
    if return_indices or _pair(dilation) != (1, 1) or input.dim() != 4 or not input.requires_grad:
        plain: Callable[..., Any] = functional.max_pool2d
        return plain(input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)
    return _MaxPool2d.apply(  # type: ignore[no-untyped-call]
        input, window, _pair(stride or kernel_size), _pair(padding), ceil_mode
    )


# Operations with a replacement that stores fewer bits for the backward pass.
SUBSTITUTES: dict[Callable[..., Any], Callable[..., Any]] = {functional.max_pool2d: max_pool2d}


def bits_of(window: _Pair) -> int:
    """Return the bits of a place in a window."""
    return max((window[0] * window[1] - 1).bit_length(), 1)


def pack_places(indices: Tensor, width: int, window: _Pair, stride: _Pair, padding: _Pair) -> Tensor:
    """Pack the winners' places; ``indices`` [batch, channels, rows, columns] index the numbers of an image.

    A few images at a time are packed, to save memory.
    """
    images, bits = _in_order(indices), bits_of(window)
    words = torch.empty(_some(images, bits)[-1][2], dtype=torch.int32, device=indices.device)
    corner = _corners(indices, images, width, stride, padding)
    end = 0
    for first, stop, after in _some(images, bits):
        codes = images[first:stop].to(torch.int32).sub_(corner)
        # Within a window, rows differ by multiples of width, and columns by less than the window.
        row = torch.div(codes, width, rounding_mode="floor")
        codes.sub_(row, alpha=width).add_(row, alpha=window[1])
        pack_codes(codes.reshape(-1), words[end:after], bits)
        end = after
    return words


def unpack_places(
    words: Tensor, indices: Tensor, width: int, window: _Pair, stride: _Pair, padding: _Pair
) -> None:
    """Fill ``indices`` from what :func:`pack_places` packed, in the memory layout that they had."""
    images, bits = _in_order(indices), bits_of(window)
    corner = _corners(indices, images, width, stride, padding)
    end = 0
    for first, stop, after in _some(images, bits):
        some = images[first:stop]
        codes = unpack_codes(words[end:after], some.numel(), bits).view(some.shape)
        row = torch.div(codes, window[1], rounding_mode="floor")
        some.copy_(codes.sub_(row, alpha=window[1]).add_(row, alpha=width).add_(corner))
        end = after


def _some(images: Tensor, bits: int) -> list[tuple[int, int, int]]:
    """Return (first, last + 1, words so far) of the groups of images that are packed together."""
    size = images[0].numel()
    step = max(_TOGETHER // max(size, 1), 1)
    groups, words = [], 0
    for first in range(0, len(images), step):
        stop = min(first + step, len(images))
        words += ((stop - first) * size + 31) // 32 * bits
        groups.append((first, stop, words))
    return groups


def _corners(indices: Tensor, images: Tensor, width: int, stride: _Pair, padding: _Pair) -> Tensor:
    """Return the index of each window's upper left corner, broadcast over images; negative in padding."""
    rows, columns = indices.shape[-2:]
    down = torch.arange(rows, dtype=torch.int32, device=indices.device) * stride[0] - padding[0]
    right = torch.arange(columns, dtype=torch.int32, device=indices.device) * stride[1] - padding[1]
    corners = down[:, None] * width + right
    return corners[:, :, None] if images is not indices else corners


def _memory_format(x: Tensor) -> torch.memory_format:
    last = not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


def _in_order(x: Tensor) -> Tensor:
    """Return a view whose row-major order is the order in memory."""
    return x.permute(0, 2, 3, 1) if _memory_format(x) is torch.channels_last else x


def _pair(value: Any) -> _Pair:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[-1]))
