"""What rounding to a floating-point format needs to know of it, as numbers of 32 bits."""

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from peppp.formats import FP32, FloatFormat


class Constants(NamedTuple):
    """A format as the compiled loops and Triton's kernels take it.

    ``words`` [12] are threshold, half, mask and highest, where ``highest`` clamps magnitudes; then, for ties
    to even, missing subnormals and an overflow that becomes something else: mask of a tie, magic,
    min_normal, smallest, largest and beyond; then, for stochastic rounding alone, its threshold and the
    lowest exponent field below which the mask grows by a bit a binade.

    ``rare`` says whether the second part is needed, and ``fine`` whether the third differs from what nearest
    rounding takes. Both are True or None: numba compiles a loop of its own for each.
    """

    words: NDArray[np.uint32]
    rare: bool | None
    fine: bool | None


def threshold(fmt: FloatFormat) -> float:
    """What is added below it and taken off again; 0 where float32's own subnormals are the format's."""
    return fmt.min_normal if fmt.subnormals and fmt.exponent_bits < 8 else 0.0


def is_fine(fmt: FloatFormat) -> bool:
    """Whether stochastic rounding of subnormals looks at more than the 23 - M bits that normal numbers have.

    With fewer than 5 mantissa bits those are 19 or more, which is enough. The formats that the table was
    measured with keep their numbers.
    """
    return fmt.mantissa_bits >= 5 and threshold(fmt) > 0


@lru_cache(maxsize=1024)
def constants(fmt: FloatFormat) -> Constants:
    """The constants of a format; fp32 cuts 0 bits."""
    cut = 23 - fmt.mantissa_bits
    even = fmt.ties == "even"
    scaled = even and fmt.exponent_bits < 8  # and so rounds subnormals twice
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
    """32 bits of each number, of a float as of an integer."""
    return np.array(
        [np.float32(x).view(np.uint32) if isinstance(x, float) else x for x in numbers], np.uint32
    )
