"""Rounding, SGD's step and packing on a GPU, one Triton kernel each; NOT RUN ON A GPU YET.

Tested in Triton's interpreter, bit for bit, against the CPU. Formats and keys are read from device memory, so
that one kernel serves all formats and a captured graph every configuration. device.py is who calls them, and
compares them with torch operations on the GPU in question before it trusts them.

A tensor is a matrix in memory: for channels_last one row a pixel and one column a channel, otherwise a single
row. Random bits belong to the logical row-major index, image * channels * pixels + channel * pixels + pixel.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from peppp.lowprec import streams

# By arithmetic, not by measurement: a thread of four warps loads 16 bytes twice; at 32 registers 16 tiles fit
# a multiprocessor of an H100 or H200, and 64 KB in flight are twice what its latency needs.
_TILE = 1024
# Names that a kernel may read: Triton wants them marked.
_GOLDEN = tl.constexpr(streams.GOLDEN)
_MULTIPLIER_1 = tl.constexpr(streams.MULTIPLIER_1)
_MULTIPLIER_2 = tl.constexpr(streams.MULTIPLIER_2)


@triton.jit
def _word(number):
    """A number as uint32: as it stands, a small constant would be an int32."""
    return tl.full((), number, tl.uint32)


@triton.jit
def _bits(x):
    return x.to(tl.uint32, bitcast=True)


@triton.jit
def _float(bits):
    return bits.to(tl.float32, bitcast=True)


@triton.jit
def _random(index, key_ptr):
    """The bits of streams.random_bits at row-major indices (uint32)."""
    key = tl.load(key_ptr).to(tl.uint64, bitcast=True)
    low, high = key.to(tl.uint32), (key >> 32).to(tl.uint32)
    h = index * _word(_GOLDEN) + low
    h = (h ^ (h >> 16)) * _word(_MULTIPLIER_1)
    h = h ^ high
    h = (h ^ (h >> 15)) * _word(_MULTIPLIER_2)
    return h ^ (h >> 16)


@triton.jit
def _rounded(x, fmt_ptr, index, key_ptr, RARE: tl.constexpr, STOCHASTIC: tl.constexpr):
    """Numbers rounded as by kernels.py's loops, whose constants ``fmt_ptr`` holds (uint32 [11])."""
    threshold = _float(tl.load(fmt_ptr))
    half, mask, highest = tl.load(fmt_ptr + 1), tl.load(fmt_ptr + 2), tl.load(fmt_ptr + 3)
    magnitude = _bits(x) & _word(0x7FFFFFFF)
    value = _float(magnitude)
    tiny = value < threshold
    bits = tl.where(tiny, _bits(value + threshold), magnitude)
    if STOCHASTIC:
        bits = bits + (_random(index, key_ptr) & mask)
    elif RARE:
        tie = (bits & mask) == half
        bits = (bits + half) & tl.where(tie, tl.load(fmt_ptr + 5), _word(0xFFFFFFFF))
    else:
        bits = bits + half
    y = _float(bits & (mask ^ _word(0xFFFFFFFF)))
    y = tl.where(tiny, y - threshold, y)
    if RARE:
        if not STOCHASTIC:
            magic, min_normal = _float(tl.load(fmt_ptr + 6)), _float(tl.load(fmt_ptr + 7))
            y = tl.where(value < min_normal, (value + magic) - magic, y)
        smallest, largest = _float(tl.load(fmt_ptr + 8)), _float(tl.load(fmt_ptr + 9))
        y = tl.where(y >= smallest, y, tl.where(y > smallest * 0.5, smallest, 0.0))
        y = tl.where(y > largest, _float(tl.load(fmt_ptr + 10)), y)
    y = _float(tl.minimum(_bits(y), highest) | (_bits(x) & _word(0x80000000)))
    return tl.where(x != x, x, y)


@triton.jit
def _place(rows, channels, pixels, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Of a tile: offsets in memory (int64), row-major indices (uint32), and which of them exist."""
    tiles = (channels - 1) // COLUMNS + 1  # of an int32 near its end, channels + COLUMNS would overflow
    tile = tl.program_id(0)
    row = (tile // tiles).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    column = (tile % tiles).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    # The index counts modulo 2^32, and there are fewer rows than that: 64-bit division would cost more than
    # the rounding itself.
    place, side = row.to(tl.uint32), _word(pixels)
    start = place // side * (side * _word(channels)) + place % side
    return (
        row * channels + column,
        start + column.to(tl.uint32) * side,
        (row < rows) & (column < channels),
    )


# Sizes of the walk and addresses of keys differ from tensor to tensor: whether 16 divides them says nothing,
# and would compile each kernel several times.
@triton.jit(do_not_specialize_on_alignment=["key_ptr", "rows", "pixels"])
def _round(
    x_ptr,
    out_ptr,
    gate_ptr,
    fmt_ptr,
    key_ptr,
    rows,
    channels,
    pixels,
    RARE: tl.constexpr,
    STOCHASTIC: tl.constexpr,
    RELU: tl.constexpr,
    GATED: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    offset, index, there = _place(rows, channels, pixels, ROWS, COLUMNS)
    y = _rounded(tl.load(x_ptr + offset, mask=there), fmt_ptr, index, key_ptr, RARE, STOCHASTIC)
    if RELU:
        y = tl.where(y < 0.0, 0.0, y)  # NaN and -0 stay, as with torch.relu
    if GATED:
        y = tl.where(tl.load(gate_ptr + offset, mask=there) > 0.0, y, 0.0)
    tl.store(out_ptr + offset, y, mask=there)


@triton.jit(
    do_not_specialize_on_alignment=[
        "gradient_key",
        "accumulator_key",
        "weight_key",
        "momentum_key",
        "rate_ptr",
        "rows",
        "pixels",
    ]
)
def _sgd(
    gradient_ptr,
    momentum_ptr,
    accumulator_ptr,
    weight_ptr,
    a_ptr,
    b_ptr,
    gradient_key,
    accumulator_key,
    weight_key,
    momentum_key,
    rate_ptr,
    momentum_factor,
    weight_decay,
    rows,
    channels,
    pixels,
    RARE: tl.constexpr,
    MOMENTUM: tl.constexpr,
    DECAY: tl.constexpr,
    ACCUMULATOR: tl.constexpr,
    GRADIENT_STOCHASTIC: tl.constexpr,
    STATES_STOCHASTIC: tl.constexpr,
    VALUES_STOCHASTIC: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    offset, index, there = _place(rows, channels, pixels, ROWS, COLUMNS)
    a = tl.load(accumulator_ptr + offset, mask=there)
    g = tl.load(gradient_ptr + offset, mask=there)
    v = _rounded(g, b_ptr, index, gradient_key, RARE, GRADIENT_STOCHASTIC)
    if DECAY:
        v = v + weight_decay * a
    if MOMENTUM:
        v = momentum_factor * tl.load(momentum_ptr + offset, mask=there) + v
        kept = _rounded(v, b_ptr, index, momentum_key, RARE, STATES_STOCHASTIC)
        tl.store(momentum_ptr + offset, kept, mask=there)
    a = a - tl.load(rate_ptr) * v
    if ACCUMULATOR:
        a = _rounded(a, b_ptr, index, accumulator_key, RARE, STATES_STOCHASTIC)
        tl.store(accumulator_ptr + offset, a, mask=there)
    w = _rounded(a, a_ptr, index, weight_key, RARE, VALUES_STOCHASTIC)
    tl.store(weight_ptr + offset, w, mask=there)


@triton.jit
def _code(code_ptr, MOVED: tl.constexpr):
    """What packing.py calls a format's constants, read once: nine numbers (uint32)."""
    # Where infinities and NaN are not moved, nothing is as large as the two that say where to.
    first, lowest = _word(0xFFFFFFFF), _word(0xFFFFFFFF)
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
    """Codes of the bits of numbers of a format."""
    cut, offset, tiny_offset, threshold, _, magnitudes, sign_shift, first, lowest = constants
    threshold = _float(threshold)
    magnitude = bits & _word(0x7FFFFFFF)
    value = _float(magnitude)
    code = tl.where(
        value < threshold, (_bits(value + threshold) >> cut) - tiny_offset, (magnitude >> cut) - offset
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
    bits = tl.where(tiny, _bits(_float(bits) - _float(threshold)), bits)
    if MOVED:
        bits = tl.where(magnitude >= first, lowest + ((magnitude - first) << cut), bits)
    return bits | (((code >> sign_shift) & 1) << 31)


@triton.jit
def _there(place, column, left, width, WIDTH: tl.constexpr, WHOLE: tl.constexpr):
    """Which places of a row of a block exist; of a whole block, all."""
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
    """A block of 32 * width numbers into BITS rows of ``width`` words; number j * width + c into column c."""
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
        bits = _bits(tl.load(numbers + place, mask=there, other=0.0))
        code = _encoded(bits, constants, MOVED)
        wrong = wrong | (there & (_decoded(code, constants, MOVED) != bits)).to(tl.int32)
        word = word | (code << (j * BITS % 32))
        if j * BITS % 32 + BITS >= 32:
            tl.store(words + j * BITS // 32 * width + column, word, mask=column < width)
            word = tl.full((WIDTH,), 0, tl.uint32)
            if j * BITS % 32 + BITS > 32:
                word = code >> (32 - j * BITS % 32)
    tl.store(wrong_ptr + column * 0, wrong, mask=wrong != 0)  # all that write, write 1


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
    """What :func:`_pack` packed."""
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
            code = code & _word((1 << BITS) - 1)
        place = j * width + column
        there = _there(place, column, count - first, width, WIDTH, WHOLE)
        tl.store(numbers + place, _float(_decoded(code, constants, MOVED)), mask=there)


def _tile(rows: int, channels: int) -> tuple[tuple[int], dict[str, int]]:
    """The grid for a matrix in memory, and the sides of a tile."""
    columns = min(int(triton.next_power_of_2(channels)), _TILE)
    height = min(_TILE // columns, int(triton.next_power_of_2(rows)))
    grid = triton.cdiv(rows, height) * triton.cdiv(channels, columns)
    return (grid,), {"ROWS": height, "COLUMNS": columns}


def _as_words(x: Tensor) -> Tensor:
    return x.view(torch.uint32)


def round_all(
    x: Tensor,
    out: Tensor,
    gate: Tensor | None,
    constants: Tensor,
    rare: bool,
    key: Tensor | None,
    order: tuple[int, int],
    *,
    relu: bool = False,
) -> None:
    """Round ``x`` into ``out``, or to 0 where a ``gate`` is not positive. ``order``: pixels and channels.

    The three lie alike in memory, without gaps. ``key`` (int64 [1]) None is nearest.
    """
    if not x.numel():
        return
    pixels, channels = order
    grid, sides = _tile(x.numel() // channels, channels)
    _round[grid](
        x,
        out,
        x if gate is None else gate,
        _as_words(constants),
        constants if key is None else key,
        x.numel() // channels,
        channels,
        pixels,
        RARE=rare,
        STOCHASTIC=key is not None,
        RELU=relu,
        GATED=gate is not None,
        enable_fp_fusion=False,
        **sides,
    )


def sgd(
    gradient: Tensor,
    momentum: Tensor | None,
    accumulator: Tensor | None,
    weight: Tensor,
    constants: tuple[Tensor, Tensor],
    rare: bool,
    keys: list[Tensor],
    stochastic: tuple[bool, bool, bool],
    rate: Tensor,
    momentum_factor: float,
    weight_decay: float,
    order: tuple[int, int],
) -> None:
    """One parameter's step, in place, in the order of kernels.sgd_step.

    ``constants`` are those of Formats A and B, ``keys`` (int64 [1] each) in the order of the roles' numbers,
    ``stochastic`` for gradient, states and values; ``rate`` is float32 [1].
    """
    if not weight.numel():
        return
    pixels, channels = order
    grid, sides = _tile(weight.numel() // channels, channels)
    _sgd[grid](
        gradient,
        weight if momentum is None else momentum,
        weight if accumulator is None else accumulator,
        weight,
        *map(_as_words, constants),
        *keys,
        rate,
        momentum_factor,
        weight_decay,
        weight.numel() // channels,
        channels,
        pixels,
        RARE=rare,
        MOMENTUM=momentum is not None,
        DECAY=weight_decay != 0,
        ACCUMULATOR=accumulator is not None,
        GRADIENT_STOCHASTIC=stochastic[0],
        STATES_STOCHASTIC=stochastic[1],
        VALUES_STOCHASTIC=stochastic[2],
        enable_fp_fusion=False,  # a multiplication and an addition are two roundings
        **sides,
    )


def pack(flat: Tensor, words: Tensor, bits: int, code: Tensor, width: int) -> Tensor:
    """Pack a row of float32 into ``words`` (int32), in blocks of 32 * ``width``.

    Gives int32 [1], 0 where every number had a code.

    ``code`` (int32 [7] or [9]) are the format's cut, offset, tiny_offset, threshold, tiny_codes, magnitudes
    and sign_shift, and where infinity and NaN are moved the first code and the lowest bits of these.
    """
    wrong = torch.zeros(1, dtype=torch.int32, device=flat.device)
    for part, target, grid, sides in _blocks(flat, words, bits, code, width):
        _pack[grid](part, _as_words(target), wrong, _as_words(code), part.numel(), **sides)
    return wrong


def unpack(words: Tensor, flat: Tensor, bits: int, code: Tensor, width: int) -> None:
    """The row of float32 that :func:`pack` packed."""
    for part, source, grid, sides in _blocks(flat, words, bits, code, width):
        _unpack[grid](_as_words(source), part, _as_words(code), part.numel(), **sides)


def _blocks(
    flat: Tensor, words: Tensor, bits: int, code: Tensor, width: int
) -> list[tuple[Tensor, Tensor, tuple[int], dict[str, Any]]]:
    """The whole blocks, then the rest as a narrower one: numbers, words, grid, what the kernels need else."""
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
