"""Number formats as the pages draw them: a row of cells, one for each bit."""

from peppp.formats import FloatFormat, Format, element_of


def page_format(fmt: Format | str) -> dict[str, str | int]:
    """Describe a format for the page: its text and its numbers of exponent and mantissa bits.

    The page always adds a sign bit. For integer formats all other bits count as mantissa bits.
    """
    if isinstance(fmt, str):  # a column that is not a configuration
        return {"text": fmt, "exponent_bits": 0, "mantissa_bits": 0}
    element = element_of(fmt)
    if not isinstance(element, FloatFormat):  # integers
        return {"text": str(fmt), "exponent_bits": 0, "mantissa_bits": int(element.bits) - 1}
    return {
        "text": str(fmt),
        "exponent_bits": element.exponent_bits,
        "mantissa_bits": element.mantissa_bits,
    }
