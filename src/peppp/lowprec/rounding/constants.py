"""The constants that rounding to a floating-point format needs, as 32-bit numbers."""

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from peppp.formats import FP32, FloatFormat


class Constants(NamedTuple):
    """The constants of a format for the compiled loops and the Triton kernels.

    ``words`` [12] has three parts. First threshold, half, mask and highest, where ``highest`` clamps
    magnitudes. Then, for ties to even, missing subnormals, and overflow that does not saturate: mask of a
    tie, magic, min_normal, smallest, largest and beyond. Then, for stochastic rounding only: its threshold,
    and the lowest exponent field, below which the mask grows by one bit per binade.

    ``rare`` says whether the second part is needed, and ``fine`` whether the third differs from the constants
    of nearest rounding. Both are True or None, as numba compiles a separate loop for each.
    """

    words: NDArray[np.uint32]
    rare: bool | None
    fine: bool | None


def threshold(fmt: FloatFormat) -> float:
    """The number added to smaller ones before rounding; 0 if the format's subnormals are float32's own."""
    return fmt.min_normal if fmt.subnormals and fmt.exponent_bits < 8 else 0.0


def is_fine(fmt: FloatFormat) -> bool:
    """Whether stochastic rounding of subnormals uses more than the 23 - M bits that normal numbers have.

    With fewer than 5 mantissa bits there are 19 or more such bits, which is enough; and the formats that the
    table was measured with keep their numbers.
    """
    return fmt.mantissa_bits >= 5 and threshold(fmt) > 0


@lru_cache(maxsize=1024)
def constants(fmt: FloatFormat) -> Constants:
    """Return the constants of a format; fp32 cuts off 0 bits."""
    cut = 23 - fmt.mantissa_bits
    even = fmt.ties == "even"
    scaled = even and fmt.exponent_bits < 8  # adding the threshold would round subnormals twice
    words = _bits(
        threshold(fmt),
        (1 << cut) >> 1,
        (1 << cut) - 1,
        fmt.max if fmt.overflow == "saturate" else 0x7FFFFFFF,
        ~(1 << cut) & 0xFFFFFFFF if even else 0xFFFFFFFF,
        math.ldexp(1.0, fmt.min_exponent - fmt.mantissa_bits + 23) if scaled else 0.0,
        fmt.min_normal if scaled else 0.0,
        0.0 if fmt.subnormals else fmt.min_normal,
        fmt.max,
        {"saturate": fmt.max, "inf": math.inf, "nan": math.nan}[fmt.overflow],
        fmt.min_subnormal if is_fine(fmt) else threshold(fmt),
        fmt.min_exponent + 127 if is_fine(fmt) else 0,
    )
    rare = fmt != FP32 and (even or not fmt.subnormals)
    return Constants(words, True if rare else None, True if is_fine(fmt) else None)


def _bits(*numbers: float) -> NDArray[np.uint32]:
    """The 32 bits of each number: a float's bits, or an integer itself."""
    return np.array(
        [np.float32(x).view(np.uint32) if isinstance(x, float) else x for x in numbers], np.uint32
    )
