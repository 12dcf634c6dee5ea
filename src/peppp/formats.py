"""Number formats, configurations of two formats, and the paper's grid of 99 configurations.

Measurements are stored under a format's text ("1-4-3", "1-4-3@ocp", "fp32", "int8", "mx-1-2-1/32"), so the
meaning of a text never changes. Floating-point formats are in floats.py, formats with a scale in scaled.py.
"""

import re
from dataclasses import dataclass

from peppp.arguments import checked
from peppp.errors import FormatError
from peppp.floats import FLAVOURS, FP32, FloatFormat
from peppp.scaled import BlockFormat, DynamicFormat, FixedFormat, IntegerFormat, ScaledFormat, TwoLevelFormat

__all__ = [
    "FLAVOURS",
    "FP32",
    "FP32_CONFIGURATION",
    "PAPER_FORMATS_A",
    "PAPER_FORMATS_B",
    "BlockFormat",
    "Configuration",
    "DynamicFormat",
    "FixedFormat",
    "FloatFormat",
    "Format",
    "IntegerFormat",
    "ScaledFormat",
    "TwoLevelFormat",
    "element_of",
    "paper_grid",
    "parse_format",
]


Format = (
    FloatFormat | FixedFormat | IntegerFormat | BlockFormat | TwoLevelFormat | ScaledFormat | DynamicFormat
)

_OTHER = re.compile(
    r"int(\d{1,3})|fixed-(\d{1,3})-(-?\d{1,3})|(scaled)-1-(\d)-(\d)"
    r"|dynamic8(u?)/(\d{1,6})"
    r"|(mx|nv)-1-(\d)-(\d)/(\d{1,6})(?:@([a-z\-]+))?",
    re.ASCII,
)
# The slash between two formats, but not the one before a block size, as in mx-1-4-3/32 and mx-1-4-3/32@even.
_SEPARATOR = re.compile(r"/(?!\d+(?:@[A-Za-z\-]+)?(?:/|\s*$))")
_ALIASES = {
    "mxfp8": "mx-1-4-3/32",
    "mxfp6": "mx-1-2-3/32",
    "mxfp4": "mx-1-2-1/32",
    "nvfp4": "nv-1-2-1/16",
}
# Common names of formats that peppp does not have, with the closest formats that it does have.
_NEIGHBOURS = {
    "fp6": "1-3-2@ocp or 1-2-3@ocp",
    "fp4": "1-2-1@ocp",
    "mxint8": "int8, with one scale per tensor, or mx-1-4-3/32, with one per block",
    "uint8": "int8",
    "fp64": "fp32, in which all arithmetic runs",
}


@checked
def parse_format(text: str) -> Format:
    """Parse a format: ``1-4-3``, ``fp32``, ``int8``, ``fixed-8-6``, ``mx-1-4-3/32``, ``scaled-1-4-3``.

    >>> [str(parse_format(text)) for text in ("bf16", "INT8", "mxfp4", "nvfp4", "mx-1-2-1/32@even")]
    ['1-8-7@ieee', 'int8', 'mx-1-2-1/32', 'nv-1-2-1/16', 'mx-1-2-1/32@even']

    Raises FormatError for any other text, and suggests close formats for misspelt names and names used
    elsewhere.
    """
    stripped = text.strip().lower()
    if stripped in _NEIGHBOURS:
        raise FormatError(f"no format is called {text!r} here; take {_NEIGHBOURS[stripped]}")
    match = _OTHER.fullmatch(_ALIASES.get(stripped, stripped))
    if match is None:
        return FloatFormat.parse(text)
    integer, fixed, fraction, scaled, *element, unsigned, codes, kind, exponent, mantissa, block, scale = (
        match.groups()
    )
    if integer:
        return IntegerFormat(int(integer))
    if fixed:
        return FixedFormat(int(fixed), int(fraction))
    if codes:
        return DynamicFormat(not unsigned, int(codes))
    if scaled:
        return ScaledFormat(FloatFormat(int(element[0]), int(element[1]), "ocp-sat"))
    of_block = FloatFormat(int(exponent), int(mantissa), "ocp-sat"), int(block)
    if kind == "mx":
        return BlockFormat(*of_block, scale or "floor")
    if scale:
        raise FormatError(f"no such format: {text!r}; nv-1-2-1/16 has one kind of scale: leave out @{scale}")
    return TwoLevelFormat(*of_block)


@checked
def element_of(fmt: Format) -> FloatFormat | FixedFormat | IntegerFormat | DynamicFormat:
    """Return the format of the elements of a format with shared scales; of any other, the format itself.

    >>> str(element_of(parse_format("mxfp4"))), str(element_of(parse_format("int8")))
    ('1-2-1@ocp-sat', 'int8')
    """
    return fmt.element if isinstance(fmt, (BlockFormat, TwoLevelFormat, ScaledFormat)) else fmt


@checked
@dataclass(frozen=True, slots=True)
class Configuration:
    """Format A for weights and activations and Format B for the optimizer (section 3.1 of the paper).

    >>> configuration = Configuration.parse("1-4-1/1-6-7")
    >>> configuration.format_a.bits, configuration.format_b.bits, str(configuration)
    (6, 14, '1-4-1/1-6-7')
    """

    format_a: Format
    format_b: Format

    @classmethod
    @checked
    def parse(cls, text: "str | Configuration") -> "Configuration":
        """Parse a configuration such as ``1-4-1/1-6-7``; a Configuration is returned as it is.

        Raises FormatError for anything else.
        """
        if isinstance(text, Configuration):
            return text
        parts = _SEPARATOR.split(text)
        if len(parts) != 2:
            raise FormatError(
                f"not a configuration: {text!r}; write two formats, A for weights and activations and B for "
                f"the optimizer, such as 1-4-1/1-6-7; fp32/fp32 is training without rounding"
            )
        return cls(parse_format(parts[0]), parse_format(parts[1]))

    def __str__(self) -> str:
        return f"{self.format_a}/{self.format_b}"

    @property
    def sides(self) -> tuple[Format, Format]:
        """Both formats."""
        return self.format_a, self.format_b

    @property
    def is_fp32(self) -> bool:
        """Whether both formats are fp32, so that nothing is rounded."""
        return self.format_a == FP32 and self.format_b == FP32


FP32_CONFIGURATION = Configuration(FP32, FP32)

PAPER_FORMATS_A = tuple(
    FloatFormat(e, m)
    for e, m in [(3, 1), (3, 2), (3, 3), (3, 4), (4, 1), (4, 2), (4, 3), (4, 4), (5, 1), (5, 2), (5, 3)]
)
PAPER_FORMATS_B = tuple(FloatFormat(e, m) for e in (6, 7, 8) for m in (7, 9, 11))


def paper_grid() -> tuple[Configuration, ...]:
    """Return the paper's 99 configurations: 11 Formats A (Table 3) times 9 Formats B (Table 4), A slowest.

    >>> len(paper_grid()), str(paper_grid()[0]), str(paper_grid()[-1])
    (99, '1-3-1/1-6-7', '1-5-3/1-8-11')
    """
    return tuple(Configuration(a, b) for a in PAPER_FORMATS_A for b in PAPER_FORMATS_B)
