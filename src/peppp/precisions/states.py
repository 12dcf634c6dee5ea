"""8-bit optimizer states: blocks of 256 numbers in a dynamic code, as in bitsandbytes.

Memory: 1 byte per state and 4 for each block of 256, for tensors of at least 4,096 numbers; the states of
smaller tensors stay in float32.
"""

from dataclasses import replace

from peppp.formats import FP32, parse_format
from peppp.precisions.named import NamedPrecision

# From the ending of a precision's name to the optimizer.
OPTIMIZERS = {"sgd8bit": "sgd", "adamw8bit": "adamw"}
LEAST_NUMBERS = 4096  # numbers in the smallest tensor whose states are kept in 8 bits

FP32_WEIGHTS = NamedPrecision(
    name="fp32", about="float32 throughout", needs="anything", values=FP32, weights=FP32, states=FP32
)


def with_states(precision: NamedPrecision, ending: str) -> NamedPrecision:
    """Return ``precision`` with the optimizer's states in 8 bits."""
    return replace(
        precision,
        name=f"{precision.name}-{ending}",
        about=f"{precision.about}; states of {OPTIMIZERS[ending]} in 8 bits",
        needs=f"bitsandbytes; {precision.needs}" if precision.rounds_values else "bitsandbytes",
        states=parse_format("dynamic8/256"),
        optimizer=OPTIMIZERS[ending],
    )
