"""A format as a page draws it: a row of cells, one a bit."""

from peppp.formats import FloatFormat, Format, element_of


def page_format(fmt: Format | str) -> dict[str, str | int]:
    """A format as the page draws it: its text and how many bits of each kind its cells show."""
    if isinstance(fmt, str):  # a column that is no configuration
        return {"text": fmt, "exponent_bits": 0, "mantissa_bits": 0}
    element = element_of(fmt)
    if not isinstance(element, FloatFormat):  # integers: a sign and the rest
        return {"text": str(fmt), "exponent_bits": 0, "mantissa_bits": int(element.bits) - 1}
    return {
        "text": str(fmt),
        "exponent_bits": element.exponent_bits,
        "mantissa_bits": element.mantissa_bits,
    }
