"""What a precision is: number formats, configurations of two of them, and the paper's grid of 99.

A format's text ("1-4-3", "1-4-3@ocp", "fp32", "int8", "mx-1-2-1/32") is the key under which measurements are
kept: its meaning never changes. Floating-point formats are in floats.py; here are those with a scale.
"""

import math
import re
from dataclasses import dataclass
from fractions import Fraction

from peppp.errors import FormatError
from peppp.floats import FLAVOURS, FP32, FloatFormat

__all__ = [
    "FLAVOURS",
    "FP32",
    "FP32_CONFIGURATION",
    "PAPER_FORMATS_A",
    "PAPER_FORMATS_B",
    "BlockFormat",
    "Configuration",
    "FixedFormat",
    "FloatFormat",
    "Format",
    "IntegerFormat",
    "paper_grid",
    "parse_format",
]


@dataclass(frozen=True, slots=True)
class FixedFormat:
    """Fixed point: two's complement of ``bits``, ``fraction_bits`` of them behind the point.

    Finite numbers saturate. Infinity and NaN stay.

    >>> fmt = parse_format("fixed-8-6")
    >>> fmt.step, fmt.min, fmt.max
    (0.015625, -2.0, 1.984375)
    """

    bits: int
    fraction_bits: int

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 24 or not -64 <= self.fraction_bits <= 64:
            raise FormatError(
                f"no such format: {self}; fixed point has 2 to 24 bits, -64 to 64 behind the point: fixed-8-6"
            )

    def __str__(self) -> str:
        return f"fixed-{self.bits}-{self.fraction_bits}"

    @property
    def step(self) -> float:
        """Distance between neighbours."""
        return math.ldexp(1.0, -self.fraction_bits)

    @property
    def min(self) -> float:
        """The least number."""
        return -math.ldexp(1.0, self.bits - 1 - self.fraction_bits)

    @property
    def max(self) -> float:
        """The largest number."""
        return -self.min - self.step


@dataclass(frozen=True, slots=True)
class IntegerFormat:
    """Symmetric integers times one float32 scale for each tensor, its largest magnitude / ``largest``.

    The largest magnitude is that of the finite numbers, the least scale 2^-126. Infinity and NaN stay.

    >>> parse_format("int8").largest
    127
    """

    bits: int

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 16:
            raise FormatError(f"no such format: {self}; integers have 2 to 16 bits, as int8")

    def __str__(self) -> str:
        return f"int{self.bits}"

    @property
    def largest(self) -> int:
        """The largest integer; the least is its negative."""
        return int(2 ** (self.bits - 1)) - 1


@dataclass(frozen=True, slots=True)
class BlockFormat:
    """OCP microscaling (MX v1.0): ``block`` neighbours share a power-of-two scale of 8 bits (E8M0).

    Neighbours stand along the channels of images [N, C, H, W], else along the last dimension. The scale is
    2^(floor(log2 of the largest finite magnitude) - the element's largest exponent); elements saturate. The
    least scale is 2^-126, float32's least normal number, where MX has 2^-127. MX leaves open what becomes of
    infinity and NaN: here they stay, and their neighbours are rounded as if they were not there.

    >>> fmt = parse_format("mxfp4")
    >>> str(fmt), float(fmt.bits), fmt.element.max
    ('mx-1-2-1/32', 4.25, 6.0)
    """

    element: FloatFormat
    block: int = 32

    def __post_init__(self) -> None:
        if self.element.flavour != "ocp-sat" or not 2 <= self.block <= 65536:
            raise FormatError(
                f"no such format: {self}; blocks are of 2 to 65536 elements of OCP's 1-5-2, 1-4-3, 1-3-2, "
                "1-2-3 or 1-2-1, as mx-1-2-1/32"
            )

    def __str__(self) -> str:
        return f"mx-1-{self.element.exponent_bits}-{self.element.mantissa_bits}/{self.block}"

    @property
    def bits(self) -> Fraction:
        """Bits of one element and its part of the scale."""
        return self.element.bits + Fraction(8, self.block)


Format = FloatFormat | FixedFormat | IntegerFormat | BlockFormat

_OTHER = re.compile(r"int(\d{1,3})|fixed-(\d{1,3})-(-?\d{1,3})|mx-1-(\d)-(\d)/(\d{1,6})", re.ASCII)
# Between two formats; the one in mx-1-4-3/32 stands before its block.
_SEPARATOR = re.compile(r"/(?!\d+(?:/|\s*$))")
_ALIASES = {"mxfp4": "mx-1-2-1/32"}
# Names in use for what has no text of its own here, and the texts that come near.
_NEIGHBOURS = {
    "1-8-23": "fp32, which is the same",
    "tf32": "1-8-10@ieee, which has the same numbers",
    "fp8": "1-4-3@ocp or 1-5-2@ocp",
    "fp6": "1-3-2@ocp or 1-2-3@ocp",
    "fp4": "1-2-1@ocp",
    "e4m3fn": "1-4-3@ocp, which is the same",
    "float8_e4m3fn": "1-4-3@ocp, which is the same",
    "float8_e5m2": "1-5-2@ocp, which is the same",
    "mxfp8": "mx-1-4-3/32 or mx-1-5-2/32",
    "mxfp6": "mx-1-3-2/32 or mx-1-2-3/32",
    "mxint8": "int8, of one scale for each tensor, or mx-1-4-3/32, of one for each block",
    "nvfp4": "mx-1-2-1/16, whose scales are powers of two",
    "uint8": "int8",
    "fp64": "fp32, in which everything is computed",
}


def parse_format(text: str) -> Format:
    """The format of a text: ``1-4-3``, ``1-4-3@ocp``, ``fp32``, ``int8``, ``fixed-8-6``, ``mx-1-4-3/32``.

    >>> [str(parse_format(text)) for text in ("bf16", "INT8", "mxfp4")]
    ['1-8-7@ieee', 'int8', 'mx-1-2-1/32']

    Raises FormatError for any other text; for names in use elsewhere it says what comes near.
    """
    stripped = text.strip().lower()
    if stripped in _NEIGHBOURS:
        raise FormatError(f"no format is called {text!r} here; take {_NEIGHBOURS[stripped]}")
    match = _OTHER.fullmatch(_ALIASES.get(stripped, stripped))
    if match is None:
        return FloatFormat.parse(text)
    integer, fixed, fraction, exponent, mantissa, block = match.groups()
    if integer:
        return IntegerFormat(int(integer))
    if fixed:
        return FixedFormat(int(fixed), int(fraction))
    return BlockFormat(FloatFormat(int(exponent), int(mantissa), "ocp-sat"), int(block))


@dataclass(frozen=True, slots=True)
class Configuration:
    """Format A for weights and activations, Format B for the optimizer (section 3.1 of the paper).

    >>> configuration = Configuration.parse("1-4-1/1-6-7")
    >>> configuration.format_a.bits, configuration.format_b.bits, str(configuration)
    (6, 14, '1-4-1/1-6-7')
    """

    format_a: Format
    format_b: Format

    @classmethod
    def parse(cls, text: "str | Configuration") -> "Configuration":
        """The configuration of a text such as ``1-4-1/1-6-7``; a configuration is handed back."""
        if isinstance(text, Configuration):
            return text
        parts = _SEPARATOR.split(text)
        if len(parts) != 2:
            raise FormatError(
                f"not a configuration: {text!r}; write two formats, A for weights and activations and B for "
                f"the optimizer, as 1-4-1/1-6-7; fp32/fp32 is training without rounding"
            )
        return cls(parse_format(parts[0]), parse_format(parts[1]))

    def __str__(self) -> str:
        return f"{self.format_a}/{self.format_b}"

    @property
    def is_fp32(self) -> bool:
        """Whether nothing is rounded at all."""
        return self.format_a == FP32 and self.format_b == FP32


FP32_CONFIGURATION = Configuration(FP32, FP32)

PAPER_FORMATS_A = tuple(
    FloatFormat(e, m)
    for e, m in [(3, 1), (3, 2), (3, 3), (3, 4), (4, 1), (4, 2), (4, 3), (4, 4), (5, 1), (5, 2), (5, 3)]
)
PAPER_FORMATS_B = tuple(FloatFormat(e, m) for e in (6, 7, 8) for m in (7, 9, 11))


def paper_grid() -> tuple[Configuration, ...]:
    """The paper's 99 configurations: 11 Formats A (Table 3) times 9 Formats B (Table 4), A varying slowest.

    >>> len(paper_grid()), str(paper_grid()[0]), str(paper_grid()[-1])
    (99, '1-3-1/1-6-7', '1-5-3/1-8-11')
    """
    return tuple(Configuration(a, b) for a in PAPER_FORMATS_A for b in PAPER_FORMATS_B)
