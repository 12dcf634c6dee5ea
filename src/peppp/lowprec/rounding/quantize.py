"""Rounding float32 tensors to formats of few bits: one expression on the bits, the same on every device.

Adding the smallest normal number to what lies below it gives all numbers of one binade the same last bit;
then one integer addition rounds the significand, and a mask cuts it. No step makes a subnormal float32, which
some processors handle slowly and some settings flush to zero (formats of 8 exponent bits apart, whose
subnormals are float32's own: they only meet integer operations). This file is the readable form and the
meaning of kernels.py's.

The addition loses the low bits of a number far below the smallest normal one. Stochastic rounding to 5
mantissa bits or more keeps them: it adds the smallest subnormal number instead, and only to what lies below
that. Every other subnormal keeps its own bits, of which one more is cut off for each binade further down.
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
    """``x`` rounded to the numbers of ``fmt``, a format or its text, in ``out`` where it is given.

    ``nearest`` sends ties away from zero (to even in the ``ieee`` and ``ocp`` flavours). ``stochastic`` goes
    up with a probability equal to the fraction that would be cut off; its random bits depend on ``seed`` (64
    bits; drawn from torch's generator when None) and on each element's row-major index alone. NaN stays NaN
    (QPyTorch turns it into the maximum). ``out`` may be ``x``. Nothing is recorded for differentiation.
    Formats with a scale send nearest ties away from zero if they are of integers (``int8``, ``fixed-8-6``),
    and to even if they are of floats (``mx-1-4-3/32``, ``nv-1-2-1/16``, ``scaled-1-4-3``). They keep
    infinities, too. ``dynamic8/256`` is rounded to nearest only.

    The result is float32 of ``x``'s shape. Raises FormatError for another dtype than float32, an unknown
    format or an unknown rounding.

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
    """The key of a seed. Keys are hashed once more than seeds, so that neighbours give streams unlike."""
    return mix(seed, 0)


def round_to(x: Tensor, fmt: Format, key: Key | None, out: Tensor | None = None) -> Tensor:
    """:func:`quantize` for who has a key (None is nearest), and a float32 tensor: nothing is checked."""
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
    """:func:`round_to` in a rounding mode; nearest needs no key."""
    return round_to(x, fmt, key if mode == "stochastic" else None, out)


def quantize_eagerly(x: Tensor, fmt: Format, key: Key | None, *, out: Tensor | None = None) -> Tensor:
    """:func:`quantize` without kernels, on any device and memory layout; ``key`` None is nearest."""
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
            raise FormatError(f"{fmt} is rounded to nearest only")
        return round_codes(x, fmt)
    bits = None if key is None else random_bits(x.shape, key, x.device)
    if isinstance(fmt, FixedFormat):
        return round_fixed(x, fmt, bits)
    if isinstance(fmt, IntegerFormat):
        return round_integers(x, fmt, bits)
    return round_bits(x, fmt, bits)


def check(x: Tensor, rounding: str, out: Tensor | None = None) -> None:
    """Raise FormatError where :func:`quantize` could not do what it is asked."""
    if x.dtype != torch.float32:
        raise FormatError(f"can only round float32 tensors, not {x.dtype}; convert with .float() first")
    if rounding not in ROUNDINGS:
        raise FormatError(f"unknown rounding {rounding!r}; known: {', '.join(ROUNDINGS)}")
    if out is not None and any(n > 1 and not step for n, step in zip(out.shape, out.stride(), strict=True)):
        raise FormatError("out has several elements in one place, as an expanded tensor; give out.clone()")
    if out is not None and (out.shape != x.shape or out.dtype != x.dtype):
        raise FormatError(f"out has {tuple(out.shape)} {out.dtype}, x has {tuple(x.shape)} {x.dtype}")


def round_bits(x: Tensor, fmt: FloatFormat, bits: Tensor | None) -> Tensor:
    """The expression itself: nearest, or stochastic with the given random ``bits`` (int32, x's shape)."""
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
    """Ties to even below ``min_normal`` in one rounding: adding it would be a rounding before."""
    c = math.ldexp(1.0, fmt.min_exponent - fmt.mantissa_bits + 23)
    return (magnitude + c) - c


def _flush_subnormals(magnitude: Tensor, smallest: float) -> Tensor:
    """QPyTorch 0.2.0: what is below the smallest number becomes it when above half of it, else zero."""
    kept = torch.where(magnitude > smallest / 2, smallest, 0.0)
    return torch.where(magnitude < smallest, kept, magnitude)


def _overflow(magnitude: Tensor, fmt: FloatFormat) -> Tensor:
    beyond = {"saturate": fmt.max, "inf": math.inf, "nan": math.nan}[fmt.overflow]
    return torch.where(magnitude > fmt.max, beyond, magnitude)
