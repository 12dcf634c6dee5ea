"""Fast twins of rounding.py's expression on the CPU: each call reads and writes its memory once.

They give the same bits as ``quantize``, and do what they are asked or nothing: every function returns whether
it did. They do float32 tensors of equal shape on the CPU that all lie contiguous or all channels_last, and
need numba, which is imported at the first call.
"""

import math
from functools import lru_cache
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.graph import increment_version

from peppp.formats import FP32, Configuration, FloatFormat
from peppp.lowprec.streams import GOLDEN

_Constants = tuple[tuple[Any, ...], tuple[Any, ...] | None]
_PLAIN = (Tensor, torch.nn.Parameter)
_BLOCK = 1024  # numbers; small enough for the fastest cache


@lru_cache(maxsize=1)
def _loops() -> ModuleType | None:
    """The compiled loops, None without a numba that works here."""
    try:
        import numba

        from peppp.lowprec import loops
    except (ImportError, OSError):  # OSError: LLVM's library cannot be loaded
        return None
    return None if numba.config.DISABLE_JIT else loops  # type: ignore[attr-defined]


def available() -> bool:
    """Whether the kernels can be used at all; without them the eager form does everything."""
    return _loops() is not None


def round_into(x: Tensor, out: Tensor, fmt: FloatFormat, key: int | None) -> bool:
    """``out`` = ``x`` rounded: stochastically with the given ``key``, or to nearest. ``out`` may be ``x``."""
    return _round(x, out, None, _constants(fmt), key)


def relu_round_into(x: Tensor, out: Tensor, fmt: FloatFormat, key: int | None) -> bool:
    """``out`` = relu(``x`` rounded), as torch.relu: NaN and -0 stay. ``out`` may be ``x``."""
    return _round(x, out, None, _constants(fmt, relu=True), key)


def masked_round_into(g: Tensor, result: Tensor, out: Tensor, fmt: FloatFormat, key: int | None) -> bool:
    """``out`` = ``g`` rounded where ``result`` > 0, else 0: the backward of relu. ``out`` may be ``g``."""
    return _round(g, out, result, _constants(fmt), key)


def sgd_step(
    gradient: Tensor,
    momentum: Tensor | None,
    accumulator: Tensor | None,
    weight: Tensor,
    configuration: Configuration,
    learning_rate: float,
    momentum_factor: float,
    weight_decay: float,
    keys: tuple[int | None, ...],
) -> bool:
    """One step of SGD for one parameter, in place; ``gradient`` is left alone.

    g = qB(gradient); d = g + wd * acc; v = mu * v + d; acc = qB(acc - lr * v); w = qA(acc); v = qB(v): each a
    float32 operation of its own, in this order. A weight decay of 0 leaves d = g. ``momentum`` None is v = d.
    Without an ``accumulator`` the weight takes its place: w = qA(w - lr * v). ``keys`` belong to gradient,
    accumulator, momentum and weight; each may be None for nearest.
    """
    loops = _loops()
    changed = [tensor for tensor in (momentum, accumulator, weight) if tensor is not None]
    order = _order(gradient, *changed)
    if loops is None or order is None:
        return False
    flat = (None if tensor is None else _flat(tensor) for tensor in (gradient, momentum, accumulator, weight))
    rates = np.float32(learning_rate), np.float32(momentum_factor), np.float32(weight_decay)
    loops.sgd_all(
        *flat,
        *_constants(configuration.format_a),
        *_constants(configuration.format_b),
        rates,
        *(_words(key) for key in keys),
        *order,
    )
    increment_version(changed)
    return True


def _round(x: Tensor, out: Tensor, gate: Tensor | None, constants: _Constants, key: int | None) -> bool:
    loops = _loops()
    order = _order(x, out) if gate is None else _order(x, out, gate)
    if loops is None or order is None:
        return False
    distances = [abs(t.data_ptr() - out.data_ptr()) for t in (x, gate) if t is not None]
    if any(0 < distance < 4 * x.numel() for distance in distances):  # what is written would be read later
        return False
    loops.round_all(
        _flat(x),
        None if distances[0] == 0 else _flat(out),
        None if gate is None else _flat(gate),
        *constants,
        _words(key),
        *order,
    )
    increment_version(out)
    return True


def _flat(x: Tensor) -> NDArray[np.float32]:
    """A dense tensor's memory as one row, in the order in which it lies there."""
    row: NDArray[np.float32] = x.detach().numpy().ravel("K")
    return row


def _words(key: int | None) -> tuple[np.uint32, np.uint32] | None:
    """The low and the high word of a 64-bit key."""
    return None if key is None else (np.uint32(key & 0xFFFFFFFF), np.uint32(key >> 32 & 0xFFFFFFFF))


def _order(x: Tensor, *others: Tensor) -> tuple[tuple[int, int], NDArray[np.uint32]] | None:
    """How memory is walked: ((pixels, channels), pattern), None where the tensors are not what kernels do.

    A contiguous tensor is one image of one channel; its memory's order is that of its indices.
    """
    shape = x.shape
    memory_format = torch.contiguous_format if x.is_contiguous() else torch.channels_last
    for t in (x, *others):
        if (
            not t.is_cpu
            or t.dtype is not torch.float32
            or type(t) not in _PLAIN
            or t.shape != shape
            or not t.is_contiguous(memory_format=memory_format)
        ):
            return None
    if memory_format is torch.contiguous_format:
        return (max(shape.numel(), 1), 1), _pattern(1, 1)
    _, channels, height, width = shape
    return (height * width, channels), _pattern(height * width, channels)


@lru_cache(maxsize=256)
def _pattern(pixels: int, channels: int) -> NDArray[np.uint32]:
    """Row-major indices of some whole pixels stored one after another, from the first's, times GOLDEN.

    A table instead of a count, because channels_last memory jumps by ``pixels`` from number to number.
    """
    place = np.arange(max(_BLOCK // channels, 1) * channels)
    index = place % channels * pixels + place // channels
    return index.astype(np.uint32) * np.uint32(GOLDEN)


def threshold(fmt: FloatFormat) -> float:
    """What is added below it and taken off again; 0 where float32's own subnormals are the format's."""
    return fmt.min_normal if fmt.subnormals and fmt.exponent_bits < 8 else 0.0


@lru_cache(maxsize=1024)
def _constants(fmt: FloatFormat, *, relu: bool = False) -> _Constants:
    """What the loops need of a format: (threshold, half, mask, highest, lowest), and what is rarely needed.

    ``highest`` clamps magnitudes; ``lowest`` is the 0 of a relu, else -inf. Rarely needed, and None
    elsewhere, are ties to even, missing subnormals and an overflow that becomes something else: (mask of a
    tie, magic, min_normal, smallest, largest, beyond), of which the unneeded ones change nothing. fp32 cuts
    0 bits.
    """
    cut = 23 - fmt.mantissa_bits
    limit = fmt.max if fmt.overflow == "saturate" else math.inf
    common = (
        np.float32(threshold(fmt)),
        np.uint32((1 << cut) >> 1),
        np.uint32((1 << cut) - 1),
        np.float32(limit),
        np.float32(0.0 if relu else -math.inf),
    )
    if fmt == FP32 or (fmt.ties == "away" and fmt.subnormals):
        return common, None
    even = fmt.ties == "even"
    scaled = even and fmt.exponent_bits < 8  # and so rounds subnormals twice
    beyond = {"saturate": fmt.max, "inf": math.inf, "nan": math.nan}[fmt.overflow]
    return common, (
        np.uint32(~(1 << cut) & 0xFFFFFFFF if even else 0xFFFFFFFF),
        np.float32(math.ldexp(1.0, fmt.min_exponent - fmt.mantissa_bits + 23) if scaled else 0.0),
        np.float32(fmt.min_normal if scaled else 0.0),
        np.float32(0.0 if fmt.subnormals else fmt.min_normal),
        np.float32(fmt.max),
        np.float32(beyond),
    )
