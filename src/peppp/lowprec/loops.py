"""The compiled loops behind kernels.py: one pass over memory, one thread, vectorised by LLVM.

Arguments that may be None choose what is compiled: each ``is None`` is decided when the types are known.
What keeps LLVM vectorising: 32-bit numbers cast back after each operation, since numba widens them; loops
over slices, whose indices cannot be negative; one array instead of twice the same; no branches within.
There are no fast-math flags: every operation rounds as torch's does, and none is fused with another.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numpy as np

from peppp.lowprec.streams import GOLDEN, MULTIPLIER_1, MULTIPLIER_2

_Function = TypeVar("_Function", bound=Callable[..., Any])

U32, F32 = np.uint32, np.float32
_ZERO, _SIGN, _UNSIGNED, _ALL = F32(0), U32(1 << 31), U32((1 << 31) - 1), U32(0xFFFFFFFF)
_GOLDEN, _MULTIPLIER_1, _MULTIPLIER_2 = U32(GOLDEN), U32(MULTIPLIER_1), U32(MULTIPLIER_2)


def _compiled(function: _Function, cache: bool = False) -> _Function:
    compiled: _Function = numba.njit(function, nogil=True, error_model="numpy", cache=cache)
    return compiled


def _kernel(function: _Function) -> _Function:
    """Compiled and kept on disk, where there is a place for it, until this file (no other one) changes."""
    try:
        return _compiled(function, cache=True)
    except RuntimeError:  # numba found no folder that can be written
        return _compiled(function)


@_compiled
def _random(counter: Any, key: Any) -> Any:
    """The bits of streams.random_bits; ``counter`` is index * GOLDEN, ``key`` (low word, high word)."""
    if key is None:
        return None
    h = U32(counter + key[0])
    h = U32((h ^ (h >> U32(16))) * _MULTIPLIER_1)
    late = U32(key[1] ^ (key[1] >> U32(15)))  # shifts distribute over ^, so it is the same for all numbers
    h = U32((h ^ (h >> U32(15)) ^ late) * _MULTIPLIER_2)
    return U32(h ^ (h >> U32(16)))


@_compiled
def _bits(x: Any) -> Any:
    return F32(x).view(U32)


@_compiled
def _float(bits: Any) -> Any:
    return U32(bits).view(F32)


@_compiled
def _with_sign(magnitude: Any, x: Any) -> Any:
    """The float32 of the bits ``magnitude`` with the sign of ``x``."""
    return _float(magnitude | (_bits(x) & _SIGN))


@_compiled
def _rounded(x: Any, fmt: Any, rare: Any, random: Any) -> Any:
    """One number rounded, as by rounding.round_bits: with ``random`` bits, or to nearest where it is None."""
    threshold, half, mask, highest, lowest = fmt
    magnitude = U32(_bits(x) & _UNSIGNED)
    tiny = _float(magnitude) < threshold
    bits = _bits(F32(_float(magnitude) + threshold)) if tiny else magnitude
    if random is not None:
        bits = U32(bits + (random & mask))
    elif rare is None:
        bits = U32(bits + half)
    else:
        kept = rare[0] if U32(bits & mask) == half else _ALL
        bits = U32(bits + half) & kept
    y = _float(bits & ~mask)
    y = F32(y - threshold) if tiny else y
    if rare is not None:
        _, magic, min_normal, smallest, largest, beyond = rare
        if random is None:
            y = F32(F32(_float(magnitude) + magic) - magic) if _float(magnitude) < min_normal else y
        y = y if y >= smallest else (smallest if y > smallest * F32(0.5) else _ZERO)
        y = beyond if y > largest else y
    y = highest if y > highest else y
    y = _with_sign(_bits(y), x)
    y = lowest if y < lowest else y
    return x if x != x else y


@_compiled
def _block_count(count: Any, pixels: Any, channels: Any, length: Any) -> Any:
    """Blocks of at most ``length`` numbers in which ``count`` are walked; no block spans two images."""
    size = pixels * channels
    return count // size * ((size + length - 1) // length)


@_compiled
def _block(number: Any, pixels: Any, channels: Any, length: Any) -> Any:
    """Where a block starts and ends in memory, and the counter of its first number (see pattern)."""
    size = pixels * channels
    per_image = (size + length - 1) // length
    image = number // per_image * size
    start = number % per_image * length
    counter = U32(U32(image + start // channels) * _GOLDEN)
    return image + start, image + min(start + length, size), counter


@_kernel
def round_all(x: Any, out: Any, gate: Any, fmt: Any, rare: Any, key: Any, order: Any, pattern: Any) -> None:
    """Round ``x`` into ``out`` (None: into itself), or to 0 where ``gate`` is there and not positive."""
    pixels, channels = order
    length = max(x.size, 1) if key is None else pattern.size
    randoms = np.empty(0 if key is None else length, U32)
    for number in range(_block_count(x.size, pixels, channels, length)):
        first, stop, counter = _block(number, pixels, channels, length)
        source = x[first:stop]
        target = source if out is None else out[first:stop]
        passes = source if gate is None else gate[first:stop]
        if key is not None:  # two short loops keep the processor busier than one long one
            for i in range(source.size):
                randoms[i] = _random(U32(counter + pattern[i]), key)
        for i in range(source.size):
            y = _rounded(source[i], fmt, rare, None if key is None else randoms[i])
            if gate is not None:
                y = y if passes[i] > _ZERO else _ZERO
            target[i] = y


@_kernel
def sgd_all(
    gradient: Any,
    momentum: Any,
    accumulator: Any,
    weight: Any,
    fmt_a: Any,
    rare_a: Any,
    fmt_b: Any,
    rare_b: Any,
    rates: Any,
    gradient_key: Any,
    accumulator_key: Any,
    momentum_key: Any,
    weight_key: Any,
    order: Any,
    pattern: Any,
) -> None:
    """One step of kernels.sgd_step; ``momentum`` and ``accumulator`` may be None."""
    pixels, channels = order
    learning_rate, momentum_factor, weight_decay = rates
    for number in range(_block_count(weight.size, pixels, channels, pattern.size)):
        first, stop, counter = _block(number, pixels, channels, pattern.size)
        gradients, weights = gradient[first:stop], weight[first:stop]
        momenta = weights if momentum is None else momentum[first:stop]
        sums = weights if accumulator is None else accumulator[first:stop]
        for i in range(weights.size):
            c = U32(counter + pattern[i])
            a = sums[i]
            v = _rounded(gradients[i], fmt_b, rare_b, _random(c, gradient_key))
            v = v if weight_decay == _ZERO else F32(v + F32(weight_decay * a))
            if momentum is not None:
                v = F32(F32(momentum_factor * momenta[i]) + v)
                momenta[i] = _rounded(v, fmt_b, rare_b, _random(c, momentum_key))
            a = F32(a - F32(learning_rate * v))
            if accumulator is not None:
                a = _rounded(a, fmt_b, rare_b, _random(c, accumulator_key))
                sums[i] = a
            weights[i] = _rounded(a, fmt_a, rare_a, _random(c, weight_key))
