"""Optimizer states of 8 bits: blocks of 256 numbers in a dynamic code, as bitsandbytes keeps them.

Kept: a byte a state and 4 for each 256 of them, in tensors of 4,096 numbers or more; smaller ones stay as the
precision has them.
"""

from dataclasses import replace

from peppp.formats import FP32, parse_format
from peppp.precisions.named import NamedPrecision

# Optimizers by the names that precisions end in.
OPTIMIZERS = {"sgd8bit": "sgd", "adamw8bit": "adamw"}
LEAST_NUMBERS = 4096  # of a tensor whose states are kept in 8 bits

FP32_WEIGHTS = NamedPrecision(
    name="fp32", about="float32 throughout", needs="anything", values=FP32, weights=FP32, states=FP32
)


def with_states(precision: NamedPrecision, ending: str) -> NamedPrecision:
    """A precision whose optimizer keeps its states in 8 bits."""
    return replace(
        precision,
        name=f"{precision.name}-{ending}",
        about=f"{precision.about}; states of {OPTIMIZERS[ending]} in 8 bits",
        needs=f"bitsandbytes; {precision.needs}" if precision.rounds_values else "bitsandbytes",
        states=parse_format("dynamic8/256"),
        optimizer=OPTIMIZERS[ending],
    )
