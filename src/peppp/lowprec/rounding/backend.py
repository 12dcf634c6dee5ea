"""The one place that chooses who rounds: compiled loops on the CPU, or a GPU's kernels.

Each function has twins in kernels.py (CPU) and gpu/device.py (GPU). Each returns whether it did what it was
asked; where it did not, the caller rounds by the readable expression of quantize.py.
"""

from collections.abc import Sequence

from torch import Tensor

from peppp.formats import Format
from peppp.lowprec.gpu import device
from peppp.lowprec.rounding import kernels
from peppp.lowprec.rounding.roundings import Roundings
from peppp.lowprec.rounding.shape_only import is_shape_only
from peppp.lowprec.rounding.streams import Key


def on_device(x: Tensor, fmt: object) -> bool:
    """Whether the GPU's functions do it: the tensor lies there, or the format is one that only they know."""
    return x.is_cuda or not isinstance(fmt, Format)


def round_into(x: Tensor, out: Tensor, fmt: Format, key: Key | None) -> bool:
    """``out`` = ``x`` rounded: stochastically with the given ``key``, or to nearest. ``out`` may be ``x``."""
    if on_device(x, fmt):
        return device.round_into(x, out, fmt, key)
    return kernels.round_into(x, out, fmt, key)


def relu_round_into(x: Tensor, out: Tensor, fmt: Format, key: Key | None) -> bool:
    """``out`` = relu(``x`` rounded), as torch.relu: NaN and -0 stay. ``out`` may be ``x``."""
    if on_device(x, fmt):
        return device.round_into(x, out, fmt, key, relu=True)
    return kernels.relu_round_into(x, out, fmt, key)


def masked_round_into(g: Tensor, result: Tensor, out: Tensor, fmt: Format, key: Key | None) -> bool:
    """``out`` = ``g`` rounded where ``result`` > 0, else 0: the backward of relu. ``out`` may be ``g``."""
    if on_device(g, fmt):
        return device.round_into(g, out, fmt, key, gate=result)
    return kernels.masked_round_into(g, result, out, fmt, key)


def sgd_step(
    gradients: Sequence[Tensor],
    momenta: Sequence[Tensor] | None,
    accumulators: Sequence[Tensor] | None,
    weights: Sequence[Tensor],
    indices: Sequence[int],
    roundings: Roundings,
    learning_rate: float | Tensor,
    momentum_factor: float,
    weight_decay: float,
    key: Key,
    start: int = 0,
) -> bool:
    """One step of SGD for some parameters, in place; see :func:`peppp.lowprec.rounding.kernels.sgd_step`."""
    if weights and is_shape_only(weights[0]):
        return kernels.available()  # whose loops need no memory of their own
    formats = roundings.weights, roundings.states
    modes = roundings.modes.gradient, roundings.modes.states, roundings.weight_mode
    if not roundings.gradient == roundings.states == roundings.accumulator:
        return False
    columns, rates = (
        (gradients, momenta, accumulators, weights),
        (learning_rate, momentum_factor, weight_decay),
    )
    if weights and on_device(weights[0], formats[0]):
        return device.sgd_step(*columns, indices, formats, modes, *rates, key)
    return kernels.sgd_step(*columns, indices, formats, modes, *rates, key, start)
