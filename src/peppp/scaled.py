"""Formats with a scale: fixed point, integers, and floats that share scales by block, by tensor, or both.

Each shared scale is computed from the largest finite magnitude of the numbers that share it. None of these
formats has a code for infinity or NaN: here both stay as they are and do not affect the scale.
"""

import math
from dataclasses import dataclass
from fractions import Fraction

from peppp.arguments import checked
from peppp.errors import FormatError
from peppp.floats import FloatFormat

SCALE_MODES = ("floor", "even", "ceil", "round-up")
E2M1 = FloatFormat(2, 1, "ocp-sat")
E4M3 = FloatFormat(4, 3, "ocp-sat")
_ELEMENTS = "OCP's 1-5-2, 1-4-3, 1-3-2, 1-2-3 or 1-2-1"


@checked
@dataclass(frozen=True, slots=True)
class FixedFormat:
    """Fixed point: two's complement integers of ``bits`` bits, ``fraction_bits`` of them after the point.

    Finite numbers saturate. Infinity and NaN stay as they are.

    >>> from peppp.formats import parse_format
    >>> fmt = parse_format("fixed-8-6")
    >>> fmt.step, fmt.min, fmt.max
    (0.015625, -2.0, 1.984375)
    """

    bits: int
    fraction_bits: int

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 24 or not -64 <= self.fraction_bits <= 64:
            raise FormatError(
                f"no such format: {self}; fixed point has 2 to 24 bits, with -64 to 64 after the point, such "
                "as fixed-8-6"
            )

    def __str__(self) -> str:
        return f"fixed-{self.bits}-{self.fraction_bits}"

    @property
    def step(self) -> float:
        """Distance between neighbouring numbers."""
        return math.ldexp(1.0, -self.fraction_bits)

    @property
    def min(self) -> float:
        """The most negative number."""
        return -math.ldexp(1.0, self.bits - 1 - self.fraction_bits)

    @property
    def max(self) -> float:
        """The largest number."""
        return -self.min - self.step


@checked
@dataclass(frozen=True, slots=True)
class IntegerFormat:
    """Symmetric integers times one float32 scale per tensor: its largest finite magnitude / ``largest``.

    The scale is at least 2^-126. Infinity and NaN stay as they are.

    >>> IntegerFormat(8).largest
    127
    """

    bits: int

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 16:
            raise FormatError(f"no such format: {self}; integers have 2 to 16 bits, such as int8")

    def __str__(self) -> str:
        return f"int{self.bits}"

    @property
    def largest(self) -> int:
        """The largest integer; the smallest is its negative."""
        return int(2 ** (self.bits - 1)) - 1


@checked
@dataclass(frozen=True, slots=True)
class BlockFormat:
    """OCP microscaling (MX v1.0): ``block`` neighbours share a power-of-two scale of 8 bits (E8M0).

    Blocks run along the channels of images [N, C, H, W], and along the last dimension of other tensors. By
    default the scale is 2^(floor(log2 of the largest finite magnitude) - the element's largest exponent), and
    elements saturate. The smallest scale is 2^-126, float32's smallest normal number, where MX has 2^-127. MX
    does not define what infinity and NaN become: here they stay as they are and do not affect the scale.

    ``scale`` selects another power of two, as in mx-1-2-1/32@even:

    - ``floor``: the default above, which has no suffix;
    - ``even``: as floor, after rounding the largest magnitude to the element's mantissa bits;
    - ``ceil``: 2^(ceil(log2 of the largest magnitude) - the element's largest exponent);
    - ``round-up``: 2^ceil(log2(largest magnitude / the element's largest number)), the smallest power of two
      with which nothing saturates, as in cuBLAS.
    >>> fmt = BlockFormat(E2M1)
    >>> str(fmt), float(fmt.bits), fmt.element.max
    ('mx-1-2-1/32', 4.25, 6.0)
    """

    element: FloatFormat
    block: int = 32
    scale: str = "floor"

    def __post_init__(self) -> None:
        if self.element.flavour != "ocp-sat" or not 2 <= self.block <= 65536:
            raise FormatError(
                f"no such format: {self}; a block has 2 to 65536 elements of {_ELEMENTS}: mx-1-2-1/32"
            )
        if self.scale not in SCALE_MODES:
            raise FormatError(f"unknown scale in {self}; known: {', '.join(SCALE_MODES)}")

    def __str__(self) -> str:
        text = f"mx-1-{self.element.exponent_bits}-{self.element.mantissa_bits}/{self.block}"
        return text if self.scale == "floor" else f"{text}@{self.scale}"

    @property
    def bits(self) -> Fraction:
        """Bits of one element and its share of the scale."""
        return self.element.bits + Fraction(8, self.block)


@checked
@dataclass(frozen=True, slots=True)
class TwoLevelFormat:
    """NVIDIA's NVFP4: blocks of E2M1 with an E4M3 scale each, and one float32 scale for the whole tensor.

    The tensor's scale is its largest finite magnitude / (448 * 6), at least 2^-116. A block's scale is its
    largest finite magnitude / 6 / the tensor's scale, rounded to the nearest E4M3, ties to even. Elements are
    divided by the float32 product of both scales, and saturate. Blocks run as in :class:`BlockFormat`.

    NVIDIA's description leaves the smallest block scale open. Here it is E4M3's smallest number, 2^-9; if a
    block's scale rounds to 0, all its finite elements become 0.

    >>> fmt = TwoLevelFormat()
    >>> str(fmt), float(fmt.bits)
    ('nv-1-2-1/16', 4.5)
    """

    element: FloatFormat = E2M1
    block: int = 16

    def __post_init__(self) -> None:
        if self.element != E2M1 or not 2 <= self.block <= 65536:
            raise FormatError(f"no such format: {self}; blocks have 2 to 65536 of 1-2-1, as in nv-1-2-1/16")

    def __str__(self) -> str:
        return f"nv-1-{self.element.exponent_bits}-{self.element.mantissa_bits}/{self.block}"

    @property
    def block_scale(self) -> FloatFormat:
        """The format of a block's scale."""
        return E4M3

    @property
    def bits(self) -> Fraction:
        """Bits of one element and its share of the block's scale; the tensor's scale is not counted."""
        return self.element.bits + Fraction(self.block_scale.bits, self.block)


@checked
@dataclass(frozen=True, slots=True)
class ScaledFormat:
    """Floats times one float32 scale per tensor: its largest finite magnitude / ``element.max``.

    8-bit training recipes with current scaling do the same. The scale is not a power of two. It is at least
    2^-110, so that no number of the format is a subnormal float32. Infinity and NaN stay as they are.

    >>> fmt = ScaledFormat(E4M3)
    >>> str(fmt), fmt.bits
    ('scaled-1-4-3', 8)
    """

    element: FloatFormat

    def __post_init__(self) -> None:
        if self.element.flavour != "ocp-sat":
            raise FormatError(f"no such format: {self}; elements are {_ELEMENTS}, such as scaled-1-4-3")

    def __str__(self) -> str:
        return f"scaled-1-{self.element.exponent_bits}-{self.element.mantissa_bits}"

    @property
    def bits(self) -> int:
        """Bits of one element; the scale is not counted."""
        return self.element.bits


@checked
@dataclass(frozen=True, slots=True)
class DynamicFormat:
    """The 8-bit codes of bitsandbytes' optimizers: ``block`` neighbours share one float32 scale.

    The scale is their largest finite magnitude. The codes are 256 numbers between -1 and 1 (0 and 1 if not
    ``signed``), spaced more closely towards 0: they cover seven decades, each with twice as many numbers as
    the one below. Blocks follow the tensor's elements in row-major order.

    Source: Dettmers et al., 8-bit optimizers via block-wise quantization (ICLR 2022), section 2.

    >>> fmt = DynamicFormat()
    >>> str(fmt), float(fmt.bits), len(fmt.numbers), fmt.numbers[-2:]
    ('dynamic8/256', 8.125, 256, (0.99296875, 1.0))
    """

    signed: bool = True
    block: int = 256

    def __post_init__(self) -> None:
        if not 2 <= self.block <= 65536:
            raise FormatError(f"no such format: {self}; blocks have 2 to 65536 numbers, such as dynamic8/256")

    def __str__(self) -> str:
        return f"dynamic8{'' if self.signed else 'u'}/{self.block}"

    @property
    def bits(self) -> Fraction:
        """Bits of one code and its share of the scale."""
        return 8 + Fraction(32, self.block)

    @property
    def numbers(self) -> tuple[float, ...]:
        """The 256 numbers of the codes, ascending; multiply by the scale."""
        found = [0.0, 1.0]
        for decade in range(7):
            count = 2 ** (decade if self.signed else decade + 1)
            width = 0.9 / count
            middles = [0.1 + width * (i + 0.5) for i in range(count)]
            found += [middle * 10.0 ** (decade - 6) for middle in middles]
            found += [-middle * 10.0 ** (decade - 6) for middle in middles] if self.signed else []
        return tuple(sorted(found))
