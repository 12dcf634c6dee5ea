"""Fast CPU kernels for the expression in quantize.py: each call reads and writes its memory once.

They give the same bits as ``quantize``. Every function returns whether it did its work; if not, it changed
nothing. They support floating-point formats and float32 CPU tensors of equal shape that are all contiguous or
all channels_last (others are rounded through copies). They need numba, which is imported at the first call.
"""

from collections.abc import Sequence
from functools import lru_cache
from types import ModuleType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.graph import increment_version

from peppp.formats import FloatFormat, Format
from peppp.lowprec.rounding.constants import Constants, constants
from peppp.lowprec.rounding.streams import GOLDEN, Key, PathKey

# How to walk the memory: pixels, channels, pattern.
_Order = tuple[int, int, NDArray[np.uint32]]
_PLAIN = (Tensor, torch.nn.Parameter)
_BLOCK = 1024  # numbers; fits the fastest cache


@lru_cache(maxsize=1)
def _loops() -> ModuleType | None:
    """Return the compiled loops, or None if numba does not work here."""
    try:
        import numba

        from peppp.lowprec.rounding import loops
    except (ImportError, OSError):  # OSError: LLVM's library cannot be loaded
        return None
    return None if numba.config.DISABLE_JIT else loops  # type: ignore[attr-defined]


def available() -> bool:
    """Whether the kernels can be used at all; without them the torch expression does everything."""
    return _loops() is not None


def round_into(x: Tensor, out: Tensor, fmt: Format, key: Key | None) -> bool:
    """Round ``x`` into ``out``, stochastically with ``key`` or to nearest (None). ``out`` may be ``x``."""
    return isinstance(fmt, FloatFormat) and _round(x, out, None, constants(fmt), key)


def relu_round_into(x: Tensor, out: Tensor, fmt: Format, key: Key | None) -> bool:
    """Write relu(``x`` rounded) into ``out``; as in torch.relu, NaN and -0 stay. ``out`` may be ``x``."""
    return isinstance(fmt, FloatFormat) and _round(x, out, None, constants(fmt), key, relu=True)


def masked_round_into(g: Tensor, result: Tensor, out: Tensor, fmt: Format, key: Key | None) -> bool:
    """Write rounded ``g`` into ``out`` where ``result`` > 0, else 0 (relu's backward); it may be ``g``."""
    return isinstance(fmt, FloatFormat) and _round(g, out, result, constants(fmt), key)


def sgd_step(
    gradients: Sequence[Tensor],
    momenta: Sequence[Tensor] | None,
    accumulators: Sequence[Tensor] | None,
    weights: Sequence[Tensor],
    indices: Sequence[int],
    formats: tuple[Format, Format],
    modes: tuple[str, str, str],
    learning_rate: float | Tensor,
    momentum_factor: float,
    weight_decay: float,
    key: Key,
    start: int = 0,
) -> bool:
    """Do one step of SGD for some parameters in place; ``gradients`` are left unchanged.

    g = qB(gradient); d = g + wd * acc; v = mu * v + d; acc = qB(acc - lr * v); w = qA(acc); v = qB(v). Each
    is a separate float32 operation, in this order. A weight decay of 0 means d = g, ``momenta`` None means v
    = d. Without ``accumulators`` the weight takes their place: w = qA(w - lr * v). The keys of the random
    bits come from the parameters' ``indices`` and the roles (see streams.py). To step on a part of a
    parameter (whole rows of its first dimension), ``start`` is the index of the part's first element in the
    parameter.
    """
    a, b = formats
    loops = _loops()
    assert not isinstance(key, PathKey)
    columns = [column for column in (gradients, momenta, accumulators, weights) if column is not None]
    orders = [_order(*tensors) for tensors in zip(*columns, strict=True)]
    if loops is None or None in orders or not (isinstance(a, FloatFormat) and isinstance(b, FloatFormat)):
        return False
    layouts, patterns = _layouts(
        tuple((*order[:2], index) for order, index in zip(orders, indices, strict=True) if order)
    )
    rows = (gradients, momenta or weights, accumulators or weights, weights)
    addresses = [[tensor.data_ptr() for tensor in row] for row in rows]
    loops.sgd_all(
        np.array(addresses, dtype=np.int64),
        np.array([weight.numel() for weight in weights], dtype=np.int64),
        layouts,
        patterns,
        *constants(a),
        *constants(b),
        np.array([learning_rate, momentum_factor, weight_decay], dtype=np.float32),
        *_words(key),
        start,
        None if momenta is None else True,
        None if accumulators is None else True,
        *(_flag(mode) for mode in modes),
    )
    increment_version([tensor for column in columns[1:] for tensor in column])
    return True


def _flag(mode: str) -> bool | None:
    return True if mode == "stochastic" else None


def _round(
    x: Tensor, out: Tensor, gate: Tensor | None, fmt: Constants, key: Key | None, relu: bool = False
) -> bool:
    assert not isinstance(key, PathKey)
    loops = _loops()
    others = [tensor for tensor in (out, gate) if tensor is not None and tensor is not x]
    order = _order(x, *others)
    if loops is None:
        return False
    if order is None:
        return _round_copies(x, out, gate, fmt, key, relu)
    size, source, target = x.numel(), x.data_ptr(), out.data_ptr()
    gates = target if gate is None else gate.data_ptr()
    if 0 < abs(source - target) < 4 * size or 0 < abs(gates - target) < 4 * size:
        return False  # the overlapping output would overwrite input that is read later
    loops.round_all(
        source,
        None if source == target else target,
        None if gate is None else gates,
        size,
        *fmt,
        True if relu else None,
        *_words(key or 0),
        None if key is None else True,
        *order,
    )
    increment_version(out)
    return True


def _round_copies(
    x: Tensor, out: Tensor, gate: Tensor | None, fmt: Constants, key: Key | None, relu: bool
) -> bool:
    """Round views, such as parts of a concatenation, in contiguous copies: indices and bits stay the same."""
    given = [tensor for tensor in (x, out, gate) if tensor is not None]
    if not all(type(t) in _PLAIN and t.dtype is torch.float32 and t.is_cpu for t in given):
        return False
    if any(t.shape != x.shape for t in given):
        return False
    copy = torch.empty(x.shape).copy_(x.detach())
    gates = None if gate is None else torch.empty(gate.shape).copy_(gate.detach())
    if not _round(copy, copy, gates, fmt, key, relu):
        return False
    out.detach().copy_(copy)
    return True


def _words(key: int) -> tuple[int, int]:
    """Return the low and the high word of a 64-bit key."""
    return key & 0xFFFFFFFF, key >> 32 & 0xFFFFFFFF


def _order(x: Tensor, *others: Tensor) -> _Order | None:
    """Return how to walk the memory (pixels, channels, pattern), or None if kernels cannot take the tensors.

    A contiguous tensor counts as one image of one channel: its memory order is its index order.
    """
    shape, strides, contiguous = x.shape, x.stride(), x.is_contiguous()
    memory_format = torch.contiguous_format if contiguous else torch.channels_last
    for t in (x, *others):
        if type(t) not in _PLAIN or t.dtype is not torch.float32 or not t.is_cpu or t.is_neg():
            return None
        if t is x:
            walkable = contiguous or t.is_contiguous(memory_format=memory_format)
        else:
            walkable = t.shape == shape and (
                t.stride() == strides or t.is_contiguous(memory_format=memory_format)
            )
        if not walkable:
            return None
    if contiguous:
        return max(x.numel(), 1), 1, _pattern(1, 1)
    _, channels, height, width = shape
    return height * width, channels, _pattern(height * width, channels)


@lru_cache(maxsize=256)
def _pattern(pixels: int, channels: int) -> NDArray[np.uint32]:
    """Row-major indices times GOLDEN of some whole pixels that follow each other in memory, from the first.

    A table replaces a counter, since in channels_last memory the index jumps by ``pixels`` between numbers.
    """
    place = np.arange(max(_BLOCK // channels, 1) * channels)
    index = place % channels * pixels + place // channels
    return index.astype(np.uint32) * np.uint32(GOLDEN)


@lru_cache(maxsize=64)
def _layouts(parameters: tuple[tuple[int, int, int], ...]) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
    """Return ``layouts`` for loops.sgd_all from (pixels, channels, index) of parameters, and all patterns."""
    starts: dict[tuple[int, int], int] = {}
    patterns, layouts, total = [], [], 0
    for pixels, channels, index in parameters:
        kind = (1, 1) if channels == 1 else (pixels, channels)
        if kind not in starts:
            patterns.append(_pattern(*kind))
            starts[kind] = total
            total += len(patterns[-1])
        layouts.append((pixels, channels, starts[kind], starts[kind] + len(_pattern(*kind)), index))
    return np.array(layouts, dtype=np.int64).reshape(-1, 5), np.concatenate(
        patterns or [np.empty(0, np.uint32)]
    )
