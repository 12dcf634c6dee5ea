"""Rounding and a step of SGD on a GPU, with one Triton kernel each; NOT RUN ON A GPU YET.

They are tested bit for bit against the CPU in Triton's interpreter. Formats and keys are read from device
memory, so that one kernel serves all formats, and a captured graph every configuration. device.py calls the
kernels, and compares them with torch operations on the actual GPU before it uses them.

A tensor is treated as a matrix in memory: for channels_last, one row per pixel and one column per channel;
otherwise a single row. Random bits depend on the logical row-major index, image * channels * pixels + channel
* pixels + pixel.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from peppp.lowprec.rounding import streams

# Calculated, not measured: a thread of four warps loads 16 bytes twice; at 32 registers, 16 tiles fit a
# multiprocessor of an H100 or H200, and 64 KB in flight are twice what its latency needs.
_TILE = 1024
# Triton requires globals that a kernel reads to be marked.
_GOLDEN = tl.constexpr(streams.GOLDEN)
_MULTIPLIER_1 = tl.constexpr(streams.MULTIPLIER_1)
_MULTIPLIER_2 = tl.constexpr(streams.MULTIPLIER_2)


@triton.jit
def as_word(number):
    """A number as uint32; a plain small constant would be an int32."""
    return tl.full((), number, tl.uint32)


@triton.jit
def bits_of(x):
    """The bits of float32 numbers, as uint32."""
    return x.to(tl.uint32, bitcast=True)


@triton.jit
def float_of(bits):
    """The float32 numbers with these bits."""
    return bits.to(tl.float32, bitcast=True)


@triton.jit
def _random(index, key_ptr):
    """The bits of streams.random_bits at row-major indices (uint32)."""
    key = tl.load(key_ptr).to(tl.uint64, bitcast=True)
    low, high = key.to(tl.uint32), (key >> 32).to(tl.uint32)
    h = index * as_word(_GOLDEN) + low
    h = (h ^ (h >> 16)) * as_word(_MULTIPLIER_1)
    h = h ^ high
    h = (h ^ (h >> 15)) * as_word(_MULTIPLIER_2)
    return h ^ (h >> 16)


@triton.jit
def _rounded(x, fmt_ptr, index, key_ptr, RARE: tl.constexpr, STOCHASTIC: tl.constexpr):
    """Round numbers as the loops of kernels.py do; ``fmt_ptr`` holds their constants (uint32 [12])."""
    threshold = float_of(tl.load(fmt_ptr + 10 if STOCHASTIC else fmt_ptr))
    half, mask, highest = tl.load(fmt_ptr + 1), tl.load(fmt_ptr + 2), tl.load(fmt_ptr + 3)
    magnitude = bits_of(x) & as_word(0x7FFFFFFF)
    value = float_of(magnitude)
    tiny = value < threshold
    bits = tl.where(tiny, bits_of(value + threshold), magnitude)
    if STOCHASTIC:
        lowest = tl.load(fmt_ptr + 11)
        binades = lowest - tl.minimum(bits >> 23, lowest)  # below the smallest normal number
        mask = ((mask ^ as_word(0xFFFFFFFF)) << binades) ^ as_word(0xFFFFFFFF)
        bits = bits + (_random(index, key_ptr) & mask)
    elif RARE:
        tie = (bits & mask) == half
        bits = (bits + half) & tl.where(tie, tl.load(fmt_ptr + 4), as_word(0xFFFFFFFF))
    else:
        bits = bits + half
    y = float_of(bits & (mask ^ as_word(0xFFFFFFFF)))
    y = tl.where(tiny, y - threshold, y)
    if RARE:
        if not STOCHASTIC:
            magic, min_normal = float_of(tl.load(fmt_ptr + 5)), float_of(tl.load(fmt_ptr + 6))
            y = tl.where(value < min_normal, (value + magic) - magic, y)
        smallest, largest = float_of(tl.load(fmt_ptr + 7)), float_of(tl.load(fmt_ptr + 8))
        y = tl.where(y >= smallest, y, tl.where(y > smallest * 0.5, smallest, 0.0))
        y = tl.where(y > largest, float_of(tl.load(fmt_ptr + 9)), y)
    y = float_of(tl.minimum(bits_of(y), highest) | (bits_of(x) & as_word(0x80000000)))
    return tl.where(x != x, x, y)


@triton.jit
def _place(rows, channels, pixels, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """A tile's offsets in memory (int64), its row-major indices (uint32), and which of them exist."""
    tiles = (channels - 1) // COLUMNS + 1  # channels + COLUMNS could overflow an int32
    tile = tl.program_id(0)
    row = (tile // tiles).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    column = (tile % tiles).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    # The index counts modulo 2^32, and there are fewer rows than that; 64-bit division would cost more than
    # the rounding itself.
    place, side = row.to(tl.uint32), as_word(pixels)
    start = place // side * (side * as_word(channels)) + place % side
    return (
        row * channels + column,
        start + column.to(tl.uint32) * side,
        (row < rows) & (column < channels),
    )


# These sizes and key addresses differ from tensor to tensor. Specialising on whether 16 divides them would
# not help, and would compile each kernel several times.
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


def _tile(rows: int, channels: int) -> tuple[tuple[int], dict[str, int]]:
    """Return the grid for a matrix in memory, and the sides of a tile."""
    columns = min(int(triton.next_power_of_2(channels)), _TILE)
    height = min(_TILE // columns, int(triton.next_power_of_2(rows)))
    grid = triton.cdiv(rows, height) * triton.cdiv(channels, columns)
    return (grid,), {"ROWS": height, "COLUMNS": columns}


def as_words(x: Tensor) -> Tensor:
    """View an int32 tensor as the kernels read it (uint32)."""
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
    """Round ``x`` into ``out``, or write 0 where a ``gate`` is not positive.

    All three have the same memory layout without gaps; ``order`` is its pixels and channels. ``key`` (int64
    [1]) None is nearest.
    """
    if not x.numel():
        return
    pixels, channels = order
    grid, sides = _tile(x.numel() // channels, channels)
    _round[grid](
        x,
        out,
        x if gate is None else gate,
        as_words(constants),
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
    """Do one parameter's step, in place, in the order of kernels.sgd_step.

    ``constants`` belong to Formats A and B. ``keys`` (int64 [1] each) are in the order of the roles' numbers,
    ``stochastic`` in the order gradient, states, values. ``rate`` is float32 [1].
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
        *map(as_words, constants),
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
        enable_fp_fusion=False,  # a multiplication and an addition must round separately
        **sides,
    )
