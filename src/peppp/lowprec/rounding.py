"""Rounding float32 tensors to formats of few bits: one expression on the bits, the same on every device.

Multiplying by a power of two moves the target's subnormals onto float32's own; then one integer addition
rounds the significand, and a mask cuts it. This file is the readable form and the meaning of kernels.py's.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from peppp.errors import FormatError
from peppp.formats import FP32, FloatFormat
from peppp.lowprec import kernels
from peppp.lowprec.streams import random_bits
from peppp.records import ROUNDINGS


@dataclass(frozen=True, slots=True)
class Constants:
    """What the expression needs of a format; ``down`` and ``up`` are exact powers of two."""

    down: float
    up: float
    half: int
    mask: int
    max: float
    limit: float


@lru_cache(maxsize=1024)
def constants(fmt: FloatFormat) -> Constants:
    """The constants of a format (see :class:`Constants`); ``limit`` clamps, inf where overflow does not."""
    shift = fmt.min_exponent + 126 if fmt.subnormals else 0
    return Constants(
        down=math.ldexp(1.0, -shift),
        up=math.ldexp(1.0, shift),
        half=1 << (22 - fmt.mantissa_bits),
        mask=(1 << (23 - fmt.mantissa_bits)) - 1,
        max=fmt.max,
        limit=fmt.max if fmt.overflow == "saturate" else math.inf,
    )


def quantize(
    x: Tensor,
    fmt: FloatFormat,
    rounding: str = "nearest",
    *,
    seed: int | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """``x`` rounded to the numbers of ``fmt``: float32 of the same shape, in ``out`` where it is given.

    ``nearest`` sends ties away from zero (to even in the ``ieee`` and ``ocp`` flavours). ``stochastic`` goes
    up with a probability equal to the fraction that would be cut off; its random bits depend on ``seed`` (64
    bits; drawn from torch's generator when None) and on each element's row-major index alone. NaN stays NaN
    (QPyTorch turns it into the maximum). ``out`` may be ``x``. Nothing is recorded for differentiation.

    Raises FormatError for another dtype than float32 or an unknown rounding.

    >>> quantize(torch.tensor([0.3, 1.25, -1e9, 0.01]), FloatFormat.parse("1-3-1"))
    tensor([  0.2500,   1.5000, -24.0000,   0.0000])
    """
    check(x, rounding, out)
    if fmt == FP32:
        return x.clone() if out is None else out.copy_(x)
    key = None
    if rounding == "stochastic":
        key = int(torch.randint(-(1 << 63), (1 << 63) - 1, ())) if seed is None else seed
    if x.is_cpu:
        result = torch.empty_like(x) if out is None else out
        if kernels.round_into(x, result, fmt, key):
            return result
    return quantize_eagerly(x, fmt, key, out=out)


def quantize_eagerly(x: Tensor, fmt: FloatFormat, key: int | None, *, out: Tensor | None = None) -> Tensor:
    """:func:`quantize` without kernels, on any device and memory layout; ``key`` None is nearest."""
    bits = None if key is None else random_bits(x.shape, key, x.device)
    result = round_bits(x.detach(), fmt, bits)
    if out is None:
        return result
    out.detach().copy_(result)
    return out


def check(x: Tensor, rounding: str, out: Tensor | None = None) -> None:
    """Raise FormatError where :func:`quantize` could not do what it is asked."""
    if x.dtype != torch.float32:
        raise FormatError(f"can only round float32 tensors, not {x.dtype}; convert with .float() first")
    if rounding not in ROUNDINGS:
        raise FormatError(f"unknown rounding {rounding!r}; known: {', '.join(ROUNDINGS)}")
    if out is not None and (out.shape != x.shape or out.dtype != x.dtype):
        raise FormatError(f"out has {tuple(out.shape)} {out.dtype}, x has {tuple(x.shape)} {x.dtype}")


def round_bits(x: Tensor, fmt: FloatFormat, bits: Tensor | None) -> Tensor:
    """The expression itself: nearest, or stochastic with the given random ``bits`` (int32, x's shape)."""
    c = constants(fmt)
    y = x.detach() * c.down
    b = y.view(torch.int32)
    if bits is not None:
        b = b + (bits & c.mask)
    elif fmt.ties == "even":
        b = b + (c.half - 1) + ((b >> (23 - fmt.mantissa_bits)) & 1)
    else:
        b = b + c.half
    y = (b & ~c.mask).view(torch.float32) * c.up
    if bits is None and fmt.ties == "even" and fmt.exponent_bits < 8:
        y = torch.where(x.abs() < fmt.min_normal, _round_subnormals_to_even(x, fmt), y)
    if not fmt.subnormals:
        y = _flush_subnormals(y, fmt.min_normal)
    y = _overflow(y, fmt)
    return torch.where(x.isnan(), x, y)


def _round_subnormals_to_even(x: Tensor, fmt: FloatFormat) -> Tensor:
    """Ties to even below ``min_normal`` in one rounding: the scaled form would round twice."""
    c = torch.copysign(torch.tensor(math.ldexp(1.0, fmt.min_exponent - fmt.mantissa_bits + 23)), x)
    return torch.copysign((x + c) - c, x)


def _flush_subnormals(y: Tensor, smallest: float) -> Tensor:
    """QPyTorch 0.2.0: what is below the smallest number becomes it when above half of it, else zero."""
    kept = torch.where(y.abs() > smallest / 2, torch.copysign(torch.tensor(smallest), y), 0.0)
    return torch.where(y.abs() < smallest, kept, y)


def _overflow(y: Tensor, fmt: FloatFormat) -> Tensor:
    if fmt.overflow == "saturate":
        return y.clamp(-fmt.max, fmt.max)
    beyond = torch.tensor(math.inf if fmt.overflow == "inf" else math.nan)
    return torch.where(y.abs() > fmt.max, torch.copysign(beyond, y), y)
