"""Chooses what rounds: compiled loops on the CPU, or kernels on a GPU.

Each function has counterparts in kernels.py (CPU) and gpu/device.py (GPU). Each returns whether it did its
work; if not, the caller uses the readable expression of quantize.py.
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
    """Whether the GPU functions apply: the tensor is on a GPU, or the format is a FormatSlot."""
    return x.is_cuda or not isinstance(fmt, Format)


def round_into(x: Tensor, out: Tensor, fmt: Format, key: Key | None) -> bool:
    """Round ``x`` into ``out``, stochastically with ``key`` or to nearest (None). ``out`` may be ``x``."""
    if on_device(x, fmt):
        return device.round_into(x, out, fmt, key)
    return kernels.round_into(x, out, fmt, key)


def relu_round_into(x: Tensor, out: Tensor, fmt: Format, key: Key | None) -> bool:
    """Write relu(``x`` rounded) into ``out``; as in torch.relu, NaN and -0 stay. ``out`` may be ``x``."""
    if on_device(x, fmt):
        return device.round_into(x, out, fmt, key, relu=True)
    return kernels.relu_round_into(x, out, fmt, key)


def masked_round_into(g: Tensor, result: Tensor, out: Tensor, fmt: Format, key: Key | None) -> bool:
    """Write rounded ``g`` into ``out`` where ``result`` > 0, else 0 (relu's backward); it may be ``g``."""
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
    """Do one step of SGD for some parameters, in place: :func:`peppp.lowprec.rounding.kernels.sgd_step`."""
    if weights and is_shape_only(weights[0]):
        return kernels.available()  # the loops would allocate nothing
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
