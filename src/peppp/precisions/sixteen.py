"""Sixteen bits: torch's autocast over float32 weights, and networks entirely in bfloat16.

Memory: under autocast, float32 weights, gradients and states, activations of 2 bytes, and a 2-byte copy of
the weights during a pass; in bfloat16, 2 bytes for everything, and 2 more per weight with Kahan summation.
"""

from dataclasses import replace

from peppp.formats import FP32
from peppp.precisions.named import BF16, FP16, NamedPrecision

AMP_BF16 = NamedPrecision(
    name="amp-bf16",
    about="autocast to bfloat16 over float32 weights",
    needs="any processor or GPU; fast with units for bfloat16",
    values=BF16,
    weights=FP32,
    states=FP32,
    casts=True,
)
AMP_FP16 = replace(
    AMP_BF16,
    name="amp-fp16",
    about="autocast to float16 over float32 weights, with a loss scale that adapts",
    needs="a GPU; slow on processors",
    values=FP16,
    scales_loss=True,
)
BF16_ALONE = NamedPrecision(
    name="bf16",
    about="the whole network and its optimizer in bfloat16, without a float32 copy",
    needs="any processor or GPU; fast with units for bfloat16",
    values=BF16,
    weights=BF16,
    states=BF16,
)
BF16_SR = replace(
    BF16_ALONE,
    name="bf16-sr",
    about="bfloat16 throughout, weights rounded stochastically",
    needs="an optimizer that rounds so, as torchao's",
    update="stochastic",
)
BF16_KAHAN = replace(
    BF16_ALONE,
    name="bf16-kahan",
    about="bfloat16 throughout, the rounding errors of weights carried along (Kahan summation)",
    needs="an optimizer that sums so, as torch-optimi's",
    update="kahan",
)

FAMILY = (AMP_BF16, AMP_FP16, BF16_ALONE, BF16_SR, BF16_KAHAN)
