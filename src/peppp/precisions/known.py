"""All precisions by their text: common names, and pairs of formats."""

import difflib
from typing import TypeGuard

from peppp.errors import FormatError
from peppp.formats import FP32_CONFIGURATION, Configuration
from peppp.precisions import products, sixteen
from peppp.precisions.named import NamedPrecision
from peppp.precisions.states import FP32_WEIGHTS, OPTIMIZERS, with_states

Precision = Configuration | NamedPrecision

_PLAIN = (*sixteen.FAMILY, *products.FAMILY)
# No library combines Kahan summation with 8-bit states.
_WITH_STATES = (FP32_WEIGHTS, *(p for p in (*sixteen.FAMILY, *products.LINEAR) if p.update != "kahan"))
PRECISIONS: dict[str, NamedPrecision] = {
    p.name: p for p in (*_PLAIN, *(with_states(p, ending) for p in _WITH_STATES for ending in OPTIMIZERS))
}
# The precisions in the shipped table: one of each kind, with convolutions, which most of its networks use.
MEASURED = (
    "amp-bf16", "amp-fp16", "bf16", "bf16-sr", "bf16-kahan", "fp8-all", "mxfp8-all", "mxfp6-all", "mxfp4-all",
    "nvfp4-all", "int8-all", "fp32-sgd8bit", "amp-bf16-sgd8bit", "bf16-sr-sgd8bit",
)  # fmt: skip
_NEIGHBOURS = {
    "amp": "amp-bf16 or amp-fp16",
    "fp16": "amp-fp16",
    "fp32-all": "fp32",
    "tf32": "fp32; on a GPU torch.set_float32_matmul_precision decides about tf32",
}


def parse_precision(text: "str | Precision") -> Precision:
    """Parse a precision: a name, ``fp32``, or two formats such as ``1-4-1/1-6-7``.

    A precision that is not a text is returned as it is.

    >>> str(parse_precision("amp-bf16")), str(parse_precision("fp32")), parse_precision("bf16").update
    ('amp-bf16', 'fp32/fp32', 'nearest')

    Raises FormatError for any other text, and suggests close names.
    """
    if not isinstance(text, str):
        return text
    name = text.strip().lower()
    if name == "fp32":
        return FP32_CONFIGURATION
    if name in PRECISIONS:
        return PRECISIONS[name]
    if "/" in name:
        return Configuration.parse(text)
    near = _NEIGHBOURS.get(name) or ", ".join(difflib.get_close_matches(name, [*PRECISIONS, "fp32"], n=3))
    nearest = f"near it: {near}; " if near else ""
    raise FormatError(
        f"not a precision: {text!r}; {nearest}write a name, such as fp32, amp-bf16 or mxfp8, or two formats, "
        "A for weights and activations and B for the optimizer, such as 1-4-1/1-6-7"
    )


def is_of_formats(precision: object) -> TypeGuard[Configuration]:
    """Whether a precision is a pair of formats that rounds something, as the paper's configurations do."""
    return isinstance(precision, Configuration) and not precision.is_fp32
