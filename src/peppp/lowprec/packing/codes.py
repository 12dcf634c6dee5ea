"""Codes of a format's numbers: exactly 1 + E + M bits each, in words of 32 bits, on the CPU.

A code is sign, exponent, mantissa, as in the format's name; subnormals have exponent 0. Numbers without a
code (such as NaN in formats without one) cannot be packed, and packing reports them: nothing is rounded here.
"""

from functools import lru_cache
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from peppp.formats import FloatFormat
from peppp.lowprec.rounding import kernels
from peppp.lowprec.rounding.shape_only import is_shape_only

WIDTH = 256  # columns of a block, which has 32 times as many numbers
_INF = 0x7F800000
_Code = tuple[int, int, int, float, int, int, int]


def pack_into(flat: Tensor, words: Tensor, fmt: FloatFormat) -> bool:
    """Pack a flat float32 tensor into ``words`` (int32); return whether every number has a code."""
    loops = _loops()
    if is_shape_only(flat):
        return True
    if loops is None or not flat.is_cpu:
        bits = flat.view(torch.int32)
        codes = encode(bits, fmt)
        pack_codes(codes, words, fmt.bits)
        return torch.equal(decode(codes, fmt), bits)
    return bool(loops.pack_all(*_rows(flat, words), fmt.bits, WIDTH, *_constants(fmt)))


def unpack_into(words: Tensor, flat: Tensor, fmt: FloatFormat) -> None:
    """Unpack what :func:`pack_into` packed into a flat float32 tensor."""
    loops = _loops()
    if is_shape_only(flat):
        return
    if loops is None or not flat.is_cpu:
        flat.copy_(decode(unpack_codes(words, flat.numel(), fmt.bits), fmt).view(torch.float32))
    else:
        loops.unpack_all(*_rows(flat, words), fmt.bits, WIDTH, *_constants(fmt))


def _rows(flat: Tensor, words: Tensor) -> tuple[int, int, int, int]:
    """Return addresses and sizes: a numpy array of a tensor would prevent its memory from being resized."""
    assert flat.is_contiguous()
    assert words.is_contiguous()
    return flat.data_ptr(), flat.numel(), words.data_ptr(), words.numel()


def encode(x: Tensor, fmt: FloatFormat) -> Tensor:
    """Return the codes of numbers given as bits (int32); the readable form of the compiled loops."""
    (cut, offset, tiny_offset, threshold, _, magnitudes, sign_shift), special = plain_constants(fmt)
    magnitude = x & 0x7FFFFFFF
    value = magnitude.view(torch.float32)
    tiny = value < threshold
    code = torch.where(
        tiny, ((value + threshold).view(torch.int32) >> cut) - tiny_offset, (magnitude >> cut) - offset
    )
    if special is not None:
        first, lowest = special
        code = torch.where(magnitude >= lowest, first + ((magnitude - lowest) >> cut), code)
    return (code & magnitudes) | (((x >> 31) & 1) << sign_shift)


def decode(codes: Tensor, fmt: FloatFormat) -> Tensor:
    """Return the bits (int32) of the numbers of codes."""
    (cut, offset, tiny_offset, threshold, tiny_codes, magnitudes, sign_shift), special = plain_constants(fmt)
    magnitude = codes & magnitudes
    tiny = magnitude < tiny_codes
    bits = (magnitude + torch.where(tiny, tiny_offset, offset).to(torch.int32)) << cut
    bits = torch.where(tiny, (bits.view(torch.float32) - threshold).view(torch.int32), bits)
    if special is not None:
        first, lowest = special
        bits = torch.where(magnitude >= first, lowest + ((magnitude - first) << cut), bits)
    return bits | (((codes >> sign_shift) & 1) << 31)


def pack_codes(codes: Tensor, words: Tensor, bits: int) -> None:
    """Pack non-negative integers (int32) below 2^bits into ``words``."""
    block, count = 32 * WIDTH, codes.numel()
    whole = count // block * block
    middle = whole // 32 * bits
    for part, target in ((codes[:whole], words[:middle]), (codes[whole:], words[middle:])):
        if part.numel():
            width = min(WIDTH, (part.numel() + 31) // 32)
            padded = part.new_zeros(-(-part.numel() // (32 * width)), 32, width)
            padded.view(-1)[: part.numel()] = part
            columns = target.view(len(padded), bits, width).zero_()
            for j in range(32):
                row, shift = divmod(j * bits, 32)
                columns[:, row] |= padded[:, j] << shift
                if shift + bits > 32:
                    columns[:, row + 1] |= (padded[:, j] >> (32 - shift)) & ((1 << (shift + bits - 32)) - 1)


def unpack_codes(words: Tensor, count: int, bits: int) -> Tensor:
    """Return the ``count`` integers that :func:`pack_codes` packed."""
    block = 32 * WIDTH
    whole = count // block * block
    middle = whole // 32 * bits
    mask = (1 << bits) - 1 if bits < 32 else -1
    found = []
    for part, length in ((words[:middle], whole), (words[middle:], count - whole)):
        if length:
            width = min(WIDTH, (length + 31) // 32)
            columns = part.view(-1, bits, width)
            codes = words.new_empty(len(columns), 32, width)
            for j in range(32):
                row, shift = divmod(j * bits, 32)
                code = (columns[:, row] >> shift) & ((1 << (32 - shift)) - 1 if shift else -1)
                if shift + bits > 32:
                    code = code | (columns[:, row + 1] << (32 - shift))
                codes[:, j] = code & mask
            found.append(codes.view(-1)[:length])
    return torch.cat(found) if found else words.new_empty(0)


def words_of(count: int, bits: int) -> int:
    """Return how many 32-bit words hold ``count`` codes."""
    return (count + 31) // 32 * bits


@lru_cache(maxsize=1)
def _loops() -> ModuleType | None:
    if not kernels.available():
        return None
    from peppp.lowprec.packing import packloops

    return packloops


@lru_cache(maxsize=1024)
def plain_constants(fmt: FloatFormat) -> tuple[_Code, tuple[int, int] | None]:
    """Return the constants of a format's codes, and those of infinities and NaN.

    The first are (cut, offset, tiny_offset, threshold, tiny_codes, magnitudes, sign_shift). The second are
    (first code, bits of the first number), or None if infinities and NaN need no separate treatment.

    ``threshold``, the smallest normal number, is added to smaller numbers, which puts their steps into the
    last kept bits. Formats of 8 exponent bits are the leading bits of float32.
    """
    E, M = fmt.exponent_bits, fmt.mantissa_bits
    exponent = fmt.min_exponent + 127
    tiny = E < 8
    constants = (
        23 - M,
        (exponent - 1) << M,
        exponent << M,
        fmt.min_normal if tiny else 0.0,
        1 << M if tiny else 0,
        (1 << (E + M)) - 1,
        E + M,
    )
    special = None
    if tiny and fmt.has_infinities:
        special = ((1 << E) - 1) << M, _INF
    elif tiny and fmt.has_nan_only:
        special = (1 << (E + M)) - 1, 0x7FC00000
    return constants, special


@lru_cache(maxsize=1024)
def _constants(fmt: FloatFormat) -> tuple[tuple[Any, ...], tuple[Any, ...] | None]:
    """Return the same constants with the types that the loops need."""
    (cut, offset, tiny_offset, threshold, *rest), special = plain_constants(fmt)
    words = tuple(np.uint32(value) for value in (cut, offset, tiny_offset))
    code = (*words, np.float32(threshold), *(np.uint32(value) for value in rest))
    return code, None if special is None else tuple(np.uint32(value) for value in special)
