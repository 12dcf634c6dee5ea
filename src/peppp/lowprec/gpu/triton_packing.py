"""Packing on a GPU, with one Triton kernel for each direction; NOT RUN ON A GPU YET.

Words and codes equal those of packing/codes.py, bit for bit, as Triton's interpreter shows. device_packing.py
calls this, and compares it with codes.py on the actual GPU before it uses it.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from peppp.lowprec.gpu.triton_kernels import as_word, as_words, bits_of, float_of


@triton.jit
def _code(code_ptr, MOVED: tl.constexpr):
    """Load a format's constants (codes.plain_constants), as nine numbers (uint32)."""
    # If infinities and NaN need no separate treatment, no magnitude and no code reaches these two.
    first, lowest = as_word(0xFFFFFFFF), as_word(0xFFFFFFFF)
    if MOVED:
        first, lowest = tl.load(code_ptr + 7), tl.load(code_ptr + 8)
    return (
        tl.load(code_ptr),
        tl.load(code_ptr + 1),
        tl.load(code_ptr + 2),
        tl.load(code_ptr + 3),
        tl.load(code_ptr + 4),
        tl.load(code_ptr + 5),
        tl.load(code_ptr + 6),
        first,
        lowest,
    )


@triton.jit
def _encoded(bits, constants, MOVED: tl.constexpr):
    """The codes of numbers given as bits."""
    cut, offset, tiny_offset, threshold, _, magnitudes, sign_shift, first, lowest = constants
    threshold = float_of(threshold)
    magnitude = bits & as_word(0x7FFFFFFF)
    value = float_of(magnitude)
    code = tl.where(
        value < threshold, (bits_of(value + threshold) >> cut) - tiny_offset, (magnitude >> cut) - offset
    )
    if MOVED:
        code = tl.where(magnitude >= lowest, first + ((magnitude - lowest) >> cut), code)
    return (code & magnitudes) | ((bits >> 31) << sign_shift)


@triton.jit
def _decoded(code, constants, MOVED: tl.constexpr):
    """The bits of the numbers of codes."""
    cut, offset, tiny_offset, threshold, tiny_codes, magnitudes, sign_shift, first, lowest = constants
    magnitude = code & magnitudes
    tiny = magnitude < tiny_codes
    bits = (magnitude + tl.where(tiny, tiny_offset, offset)) << cut
    bits = tl.where(tiny, bits_of(float_of(bits) - float_of(threshold)), bits)
    if MOVED:
        bits = tl.where(magnitude >= first, lowest + ((magnitude - first) << cut), bits)
    return bits | (((code >> sign_shift) & 1) << 31)


@triton.jit
def _there(place, column, left, width, WIDTH: tl.constexpr, WHOLE: tl.constexpr):
    """Which places of a block's row exist; in a whole block, all do."""
    there = tl.full((WIDTH,), 1, tl.int1)
    if not WHOLE:
        there = (column < width) & (place < left)
    return there


@triton.jit
def _pack(
    x_ptr,
    words_ptr,
    wrong_ptr,
    code_ptr,
    count,
    width,
    BITS: tl.constexpr,
    WIDTH: tl.constexpr,
    WHOLE: tl.constexpr,
    MOVED: tl.constexpr,
):
    """Pack 32 * width numbers into BITS rows of ``width`` words; number j * width + c goes to column c."""
    constants = _code(code_ptr, MOVED)
    if WHOLE:
        width = WIDTH
    column = tl.arange(0, WIDTH)
    first = tl.program_id(0).to(tl.int64) * 32 * width
    numbers, words = x_ptr + first, words_ptr + tl.program_id(0).to(tl.int64) * BITS * width
    word = tl.full((WIDTH,), 0, tl.uint32)
    wrong = tl.full((WIDTH,), 0, tl.int32)
    for j in tl.static_range(32):
        place = j * width + column
        there = _there(place, column, count - first, width, WIDTH, WHOLE)
        bits = bits_of(tl.load(numbers + place, mask=there, other=0.0))
        code = _encoded(bits, constants, MOVED)
        wrong = wrong | (there & (_decoded(code, constants, MOVED) != bits)).to(tl.int32)
        word = word | (code << (j * BITS % 32))
        if j * BITS % 32 + BITS >= 32:
            tl.store(words + j * BITS // 32 * width + column, word, mask=column < width)
            word = tl.full((WIDTH,), 0, tl.uint32)
            if j * BITS % 32 + BITS > 32:
                word = code >> (32 - j * BITS % 32)
    tl.store(wrong_ptr + column * 0, wrong, mask=wrong != 0)  # all threads that write, write 1


@triton.jit
def _unpack(
    words_ptr,
    out_ptr,
    code_ptr,
    count,
    width,
    BITS: tl.constexpr,
    WIDTH: tl.constexpr,
    WHOLE: tl.constexpr,
    MOVED: tl.constexpr,
):
    """Unpack what :func:`_pack` packed."""
    constants = _code(code_ptr, MOVED)
    if WHOLE:
        width = WIDTH
    column = tl.arange(0, WIDTH)
    first = tl.program_id(0).to(tl.int64) * 32 * width
    numbers, words = out_ptr + first, words_ptr + tl.program_id(0).to(tl.int64) * BITS * width
    for j in tl.static_range(32):
        row = words + j * BITS // 32 * width + column
        code = tl.load(row, mask=column < width, other=0) >> (j * BITS % 32)
        if j * BITS % 32 + BITS > 32:
            code = code | (tl.load(row + width, mask=column < width, other=0) << (32 - j * BITS % 32))
        if BITS < 32:
            code = code & as_word((1 << BITS) - 1)
        place = j * width + column
        there = _there(place, column, count - first, width, WIDTH, WHOLE)
        tl.store(numbers + place, float_of(_decoded(code, constants, MOVED)), mask=there)


def pack(flat: Tensor, words: Tensor, bits: int, code: Tensor, width: int) -> Tensor:
    """Pack a flat float32 tensor into ``words`` (int32), in blocks of 32 * ``width``.

    Returns int32 [1], which is 0 if every number had a code.

    ``code`` (int32 [7] or [9]) holds the format's cut, offset, tiny_offset, threshold, tiny_codes, magnitudes
    and sign_shift; and, if infinity and NaN need separate treatment, their first code and lowest bits.
    """
    wrong = torch.zeros(1, dtype=torch.int32, device=flat.device)
    for part, target, grid, sides in _blocks(flat, words, bits, code, width):
        _pack[grid](part, as_words(target), wrong, as_words(code), part.numel(), **sides)
    return wrong


def unpack(words: Tensor, flat: Tensor, bits: int, code: Tensor, width: int) -> None:
    """Unpack what :func:`pack` packed into a flat float32 tensor."""
    for part, source, grid, sides in _blocks(flat, words, bits, code, width):
        _unpack[grid](as_words(source), part, as_words(code), part.numel(), **sides)


def _blocks(
    flat: Tensor, words: Tensor, bits: int, code: Tensor, width: int
) -> list[tuple[Tensor, Tensor, tuple[int], dict[str, Any]]]:
    """Return the whole blocks, then the rest as a narrower one: numbers, words, grid, other arguments."""
    whole = flat.numel() // (32 * width) * 32 * width
    middle = whole // 32 * bits
    rest = flat.numel() - whole
    parts = [(flat[:whole], words[:middle], width), (flat[whole:], words[middle:], (rest + 31) // 32)]
    found = []
    for numbers, target, columns in parts:
        if numbers.numel():
            sides = {"width": columns, "BITS": bits, "WIDTH": int(triton.next_power_of_2(columns))}
            sides["WHOLE"] = numbers.numel() % (32 * sides["WIDTH"]) == 0
            grid = (triton.cdiv(numbers.numel(), 32 * columns),)
            found.append((numbers, target, grid, sides | {"MOVED": len(code) > 7}))
    return found
