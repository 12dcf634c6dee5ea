"""Rounding float32 tensors to narrow formats: one expression on the bits, the same on every device.

Adding the smallest normal number to a smaller one gives all numbers of one binade the same last bit. Then one
integer addition rounds the significand, and a mask cuts it. No step makes a subnormal float32, which some
processors handle slowly and some settings flush to zero. (Formats of 8 exponent bits are an exception: their
subnormals are float32's own, and only integer operations touch them.) This file is the readable form and the
specification of kernels.py.

The addition loses the low bits of numbers far below the smallest normal one. Stochastic rounding to 5 or more
mantissa bits keeps them: it adds the smallest subnormal number instead, and only to smaller numbers. Every
other subnormal keeps its own bits, and one more bit is cut off for each binade further down.
"""

import math
from typing import Any

import torch
from torch import Tensor

from peppp.arguments import checked
from peppp.errors import FormatError
from peppp.formats import (
    FP32,
    BlockFormat,
    DynamicFormat,
    FixedFormat,
    FloatFormat,
    Format,
    IntegerFormat,
    ScaledFormat,
    TwoLevelFormat,
    parse_format,
)
from peppp.lowprec.rounding import backend
from peppp.lowprec.rounding.constants import is_fine, threshold
from peppp.lowprec.rounding.scaling import (
    round_blocks,
    round_codes,
    round_fixed,
    round_integers,
    round_scaled,
)
from peppp.lowprec.rounding.shape_only import copy_if_scattered, is_shape_only
from peppp.lowprec.rounding.streams import Key, mix, random_bits
from peppp.records import ROUNDINGS


@checked
def quantize(
    x: Tensor,
    fmt: Format | str,
    rounding: str = "nearest",
    *,
    seed: int | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Round ``x`` to the numbers of ``fmt`` (a format or its text), in ``out`` if given.

    ``nearest`` sends ties away from zero (to even in the ``ieee`` and ``ocp`` flavours). ``stochastic``
    rounds up with a probability equal to the fraction that would be cut off. Its random bits depend only on
    ``seed`` (64 bits; drawn from torch's generator if None) and on each element's row-major index. NaN stays
    NaN (QPyTorch turns it into the maximum). ``out`` may be ``x``. Autograd does not record the operation.
    Formats with a scale send nearest ties away from zero if their elements are integers (``int8``,
    ``fixed-8-6``), and to even if they are floats (``mx-1-4-3/32``, ``nv-1-2-1/16``, ``scaled-1-4-3``); all
    of them keep infinities. ``dynamic8/256`` can only be rounded to nearest.

    Returns float32 of ``x``'s shape. Raises FormatError for a dtype other than float32, an unknown format or
    rounding, or an ``out`` of another shape or dtype.

    >>> quantize(torch.tensor([0.3, 1.25, -1e9, 0.01]), "1-3-1")
    tensor([  0.2500,   1.5000, -24.0000,   0.0000])
    """
    check(x, rounding, out)
    fmt = parse_format(fmt) if isinstance(fmt, str) else fmt
    if rounding == "nearest":
        return round_to(x, fmt, None, out)
    if seed is None:
        seed = int(torch.randint(-(1 << 63), (1 << 63) - 1, ()))
    return round_to(x, fmt, seed_key(seed), out)


def seed_key(seed: int) -> int:
    """Return the key of a seed. The seed is hashed once, so that adjacent seeds give unrelated streams."""
    return mix(seed, 0)


def round_to(x: Tensor, fmt: Format, key: Key | None, out: Tensor | None = None) -> Tensor:
    """Round like :func:`quantize`, with a key instead of a seed (None is nearest); nothing is checked."""
    if fmt is FP32 or fmt == FP32:
        return x.clone() if out is None else out.copy_(x)
    if isinstance(fmt, FloatFormat) or backend.on_device(x, fmt):
        result = torch.empty_like(x) if out is None else out
        if is_shape_only(x):
            copy_if_scattered(x, result)
            return result
        if backend.round_into(x, result, fmt, key):
            return result
    return quantize_eagerly(x, fmt, key, out=out)


def round_by(x: Tensor, fmt: Format, mode: str, key: Key, out: Tensor | None = None) -> Tensor:
    """Round like :func:`round_to`, in a rounding mode; nearest ignores the key."""
    return round_to(x, fmt, key if mode == "stochastic" else None, out)


def quantize_eagerly(x: Tensor, fmt: Format, key: Key | None, *, out: Tensor | None = None) -> Tensor:
    """Round like :func:`quantize`, without kernels, on any device and layout; ``key`` None is nearest."""
    result = _round_eagerly(x.detach(), fmt, key)
    if out is None:
        return result
    out.detach().copy_(result)
    return out


def _round_eagerly(x: Tensor, fmt: Format, key: Key | None) -> Tensor:
    if isinstance(fmt, ScaledFormat):
        return round_scaled(x, fmt, lambda scaled, element: round_to(scaled, element, key))
    if isinstance(fmt, (BlockFormat, TwoLevelFormat)):
        return round_blocks(
            x,
            fmt,
            lambda scaled, element: round_to(scaled, element, key),
            lambda scales, of_blocks: round_to(scales, of_blocks, None),
        )
    if isinstance(fmt, DynamicFormat):
        if key is not None:
            raise FormatError(f"{fmt} can be rounded to nearest only")
        return round_codes(x, fmt)
    bits = None if key is None else random_bits(x.shape, key, x.device)
    if isinstance(fmt, FixedFormat):
        return round_fixed(x, fmt, bits)
    if isinstance(fmt, IntegerFormat):
        return round_integers(x, fmt, bits)
    return round_bits(x, fmt, bits)


def check(x: Tensor, rounding: str, out: Tensor | None = None) -> None:
    """Raise FormatError for arguments that :func:`quantize` does not support."""
    if x.dtype != torch.float32:
        raise FormatError(f"can only round float32 tensors, not {x.dtype}; convert with .float() first")
    if rounding not in ROUNDINGS:
        raise FormatError(f"unknown rounding {rounding!r}; known: {', '.join(ROUNDINGS)}")
    if out is not None and any(n > 1 and not step for n, step in zip(out.shape, out.stride(), strict=True)):
        raise FormatError("out has several elements in one place, as an expanded tensor; give out.clone()")
    if out is not None and (out.shape != x.shape or out.dtype != x.dtype):
        raise FormatError(
            f"out has {tuple(out.shape)} {out.dtype}, x has {tuple(x.shape)} {x.dtype}; make them equal"
        )


def round_bits(x: Tensor, fmt: FloatFormat, bits: Tensor | None) -> Tensor:
    """The expression itself: nearest, or stochastic with random ``bits`` (int32 of x's shape)."""
    cut = 23 - fmt.mantissa_bits
    fine = bits is not None and is_fine(fmt)
    half, smallest = 1 << (cut - 1), fmt.min_subnormal if fine else threshold(fmt)
    mask: Any = (1 << cut) - 1
    magnitude = x.detach().abs()
    tiny = magnitude < smallest
    b = torch.where(tiny, (magnitude + smallest).view(torch.int32), magnitude.view(torch.int32))
    if fine:
        binades = (fmt.min_exponent + 127 - (b >> 23)).clamp(min=0)  # below the smallest normal number
        mask = ~(torch.full_like(b, ~mask) << binades)
    if bits is not None:
        b = b + (bits & mask)
    elif fmt.ties == "even":
        b = b + (half - 1) + ((b >> cut) & 1)
    else:
        b = b + half
    y = (b & ~mask).view(torch.float32)
    y = torch.where(tiny, y - smallest, y)
    if bits is None and fmt.ties == "even" and smallest:
        y = torch.where(tiny, _round_subnormals_to_even(magnitude, fmt), y)
    if not fmt.subnormals:
        y = _flush_subnormals(y, fmt.min_normal)
    y = _overflow(y, fmt)
    return torch.where(x.isnan(), x, torch.copysign(y, x))


def _round_subnormals_to_even(magnitude: Tensor, fmt: FloatFormat) -> Tensor:
    """Round ties to even below ``min_normal``; adding ``min_normal`` first would round twice."""
    c = math.ldexp(1.0, fmt.min_exponent - fmt.mantissa_bits + 23)
    return (magnitude + c) - c


def _flush_subnormals(magnitude: Tensor, smallest: float) -> Tensor:
    """QPyTorch 0.2.0: below the smallest number, more than half of it becomes that number, the rest zero."""
    kept = torch.where(magnitude > smallest / 2, smallest, 0.0)
    return torch.where(magnitude < smallest, kept, magnitude)


def _overflow(magnitude: Tensor, fmt: FloatFormat) -> Tensor:
    beyond = {"saturate": fmt.max, "inf": math.inf, "nan": math.nan}[fmt.overflow]
    return torch.where(magnitude > fmt.max, beyond, magnitude)
