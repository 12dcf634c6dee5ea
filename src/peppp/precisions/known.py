"""Every precision by its text: the names that people use, and pairs of formats."""

import difflib
from typing import TypeGuard

from peppp.errors import FormatError
from peppp.formats import FP32_CONFIGURATION, Configuration
from peppp.precisions import products, sixteen
from peppp.precisions.named import NamedPrecision
from peppp.precisions.states import FP32_WEIGHTS, OPTIMIZERS, with_states

Precision = Configuration | NamedPrecision

_PLAIN = (*sixteen.FAMILY, *products.FAMILY)
# No library has Kahan summation together with states of 8 bits.
_WITH_STATES = (FP32_WEIGHTS, *(p for p in (*sixteen.FAMILY, *products.LINEAR) if p.update != "kahan"))
PRECISIONS: dict[str, NamedPrecision] = {
    p.name: p for p in (*_PLAIN, *(with_states(p, ending) for p in _WITH_STATES for ending in OPTIMIZERS))
}
# What the shipped table measures: each kind once, with convolutions, as most of its networks are of those.
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
    """The precision of a text: a name, ``fp32``, or two formats as ``1-4-1/1-6-7``; one is handed back.

    >>> str(parse_precision("amp-bf16")), str(parse_precision("fp32")), parse_precision("bf16").update
    ('amp-bf16', 'fp32/fp32', 'nearest')

    Raises FormatError for any other text; it says which names come near.
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
        f"not a precision: {text!r}; {nearest}write a name, as fp32, amp-bf16 or mxfp8, or two formats, A "
        "for weights and activations and B for the optimizer, as 1-4-1/1-6-7"
    )


def is_of_formats(precision: object) -> TypeGuard[Configuration]:
    """Whether a precision is a pair of formats that round something, as the paper's are."""
    return isinstance(precision, Configuration) and not precision.is_fp32
