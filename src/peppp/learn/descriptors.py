"""Describe a number format by its bits of precision and its bits of range."""

import math

from peppp.formats import BlockFormat, DynamicFormat, FloatFormat, Format, ScaledFormat, TwoLevelFormat

_BLOCK_RANGE = 8.0  # bits of range of an 8-bit scale that is a power of two


def describe(fmt: Format) -> tuple[float, float]:
    """Bits of precision, and bits of range (the base-2 logarithm of the number of binades), of a format.

    >>> from peppp.formats import parse_format
    >>> describe(FloatFormat(4, 3)), describe(parse_format("int8"))
    ((3.0, 4.0), (6.0, 3.0))
    """
    if isinstance(fmt, FloatFormat):
        return float(fmt.mantissa_bits), float(fmt.exponent_bits)
    if isinstance(fmt, ScaledFormat):  # its only scale adds no range within a tensor
        return describe(fmt.element)
    if isinstance(fmt, (BlockFormat, TwoLevelFormat)):
        return float(fmt.element.mantissa_bits), min(fmt.element.exponent_bits + 2.0, _BLOCK_RANGE)
    if isinstance(fmt, DynamicFormat):  # bits of the codes within a decade; seven decades of range
        return 5.0, math.log2(7 * math.log2(10))
    # The largest integers have all bits but the sign and the leading one as precision; smaller ones fewer.
    return fmt.bits - 2.0, math.log2(fmt.bits)
