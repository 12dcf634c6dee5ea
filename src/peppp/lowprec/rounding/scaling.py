"""Rounding with a scale: fixed point, integers and floats with one scale per tensor, and blocks.

These are torch operations for any device; floating-point elements are rounded by quantize.py. None of these
formats has a code for infinity or NaN. Both stay as they are, and the scale is computed from the finite
numbers: an attention mask of -inf stays a mask, and a divergence stays visible.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import pad

from peppp.floats import FP32, FloatFormat
from peppp.formats import BlockFormat, DynamicFormat, FixedFormat, IntegerFormat, ScaledFormat, TwoLevelFormat

RoundElements = Callable[[Tensor, FloatFormat], Tensor]

_LEAST_SCALE = 2.0**-126  # float32's smallest normal number
_LEAST_TENSOR_SCALE = 2.0**-110  # times 2^-16, 1-5-2's smallest number, gives 2^-126
_LEAST_TWO_LEVEL = 2.0**-116


def round_fixed(x: Tensor, fmt: FixedFormat, bits: Tensor | None) -> Tensor:
    """Round ``x`` to fixed point, with random ``bits`` (int32), or to nearest (None), ties away from zero."""
    lowest, highest = -(2 ** (fmt.bits - 1)), 2 ** (fmt.bits - 1) - 1
    return _keep_infinity(x, _round_integers(x * 2.0**fmt.fraction_bits, bits, lowest, highest) * fmt.step)


def round_integers(x: Tensor, fmt: IntegerFormat, bits: Tensor | None, *, by_row: bool = False) -> Tensor:
    """Round ``x`` to integers times its largest finite magnitude / ``fmt.largest``, at least 2^-126.

    A smaller scale would be a subnormal float32, too coarse to map the largest magnitude to ``fmt.largest``.
    With ``by_row``, each row along the last dimension has its own scale.
    """
    magnitudes = x.abs() if by_row else x.abs().reshape(1, -1)
    scale = (_largest(magnitudes) / fmt.largest).clamp(min=_LEAST_SCALE)
    scale = scale if by_row else scale.reshape(())
    rounded = _round_integers(x / scale, bits, -fmt.largest, fmt.largest) * scale
    # If the scale was rounded up, its largest multiple can exceed float32's largest number.
    return _keep_infinity(x, rounded.clamp(-FP32.max, FP32.max))


def round_scaled(x: Tensor, fmt: ScaledFormat, round_elements: RoundElements) -> Tensor:
    """Round ``x`` to floats times its largest finite magnitude / ``fmt.element.max``, at least 2^-110.

    >>> from peppp.lowprec.rounding.quantize import quantize
    >>> quantize(torch.tensor([12.0, 3.5, 0.3]), "scaled-1-2-1")
    tensor([12.,  4.,  0.])
    """
    largest = _largest(x.abs().reshape(1, -1)).reshape(())
    scale = _divided(largest, fmt.element.max).clamp(min=_LEAST_TENSOR_SCALE)
    return _scaled(x, scale, fmt.element, round_elements)


def round_codes(x: Tensor, fmt: DynamicFormat) -> Tensor:
    """Round ``x`` to the nearest dynamic code; ties go to the smaller number.

    >>> from peppp.lowprec.rounding.quantize import quantize
    >>> quantize(torch.tensor([2.0, -1.0, 0.0]), "dynamic8/256")
    tensor([ 2.0000, -1.0016,  0.0000])
    """
    if not x.numel():
        return x.clone()
    blocks = pad(x.reshape(-1), (0, -x.numel() % fmt.block)).reshape(-1, fmt.block)
    scale = _largest(blocks.abs())  # [blocks, 1]
    numbers = torch.tensor(fmt.numbers, dtype=torch.float32, device=x.device)  # [256]
    between = (numbers[1:] + numbers[:-1]) / 2
    shares = torch.where(scale == 0, 0.0, blocks / torch.where(scale == 0, 1.0, scale))
    rounded = (numbers[torch.searchsorted(between, shares)] * scale).reshape(-1)[: x.numel()].reshape(x.shape)
    return torch.where(x.isfinite(), rounded, x)


def round_blocks(
    x: Tensor, fmt: BlockFormat | TwoLevelFormat, round_elements: RoundElements, round_scales: RoundElements
) -> Tensor:
    """Round ``x`` in blocks along its channels (four dimensions) or its last dimension; the last is shorter.

    ``round_scales`` rounds scales that are not powers of two.

    >>> from peppp.lowprec.rounding.quantize import quantize
    >>> from peppp.formats import parse_format
    >>> quantize(torch.tensor([100.0, 3.0, 0.4]), parse_format("mx-1-2-1/2"))
    tensor([96.0000,  0.0000,  0.3750])
    >>> quantize(torch.tensor([112.0, 3.0, 0.4]), "mx-1-2-1/2@ceil")
    tensor([128.0000,   0.0000,   0.3750])
    """
    if not x.numel():
        return x.clone()
    dimension = 1 if x.dim() == 4 else -1
    moved = x.reshape(1) if x.dim() == 0 else x.movedim(dimension, -1)  # [..., size]
    size = moved.shape[-1]
    padded = pad(moved, (0, -size % fmt.block))
    blocks = padded.reshape(*padded.shape[:-1], -1, fmt.block)  # [..., blocks, block]
    largest = _largest(blocks.abs())  # [..., blocks, 1]
    if isinstance(fmt, BlockFormat):
        scale = _power_of_two(largest, fmt)
    else:
        scale = _two_level_scale(largest, fmt, round_scales)
    wide = scale.expand(blocks.shape).flatten(-2)[..., :size]
    wide = wide.reshape(()) if x.dim() == 0 else wide.movedim(-1, dimension)
    return _scaled(x, wide, fmt.element, round_elements)


def _scaled(x: Tensor, scale: Tensor, element: FloatFormat, round_elements: RoundElements) -> Tensor:
    """Return ``x`` / ``scale``, rounded, times ``scale``; where the scale is 0, finite numbers become 0."""
    rounded = round_elements(x / torch.where(scale == 0, 1.0, scale), element) * scale
    # If the scale was rounded up, the largest element can exceed float32's largest number.
    return _keep_infinity(x, rounded.clamp(-FP32.max, FP32.max))


def _keep_infinity(x: Tensor, rounded: Tensor) -> Tensor:
    return torch.where(x.isinf(), x, rounded)


def _round_integers(x: Tensor, bits: Tensor | None, lowest: int, highest: int) -> Tensor:
    magnitude = x.abs()
    whole = magnitude.floor()
    if bits is None:
        up = magnitude - whole >= 0.5
    else:
        up = (bits.bitwise_and(0xFFFFFF) * 2.0**-24) < magnitude - whole
    rounded = torch.copysign(whole + up, x).clamp(lowest, highest)
    return torch.where(x.isnan(), x, rounded)


def _largest(magnitudes: Tensor) -> Tensor:
    """Return the largest finite number along the last dimension, kept with size 1; 0 if there is none."""
    if not magnitudes.numel():
        return magnitudes.new_zeros(*magnitudes.shape[:-1], 1)
    return torch.where(magnitudes.isfinite(), magnitudes, 0.0).amax(-1, keepdim=True)


def _power_of_two(magnitude: Tensor, fmt: BlockFormat) -> Tensor:
    """Return the scale of blocks with the largest ``magnitude``, from its bits; at least 2^-126."""
    top = fmt.element.max_exponent
    if fmt.scale == "round-up":
        magnitude, top = _divided(magnitude, fmt.element.max), 0
    bits = magnitude.view(torch.int32)
    if fmt.scale == "even":  # a tie with the next power of two goes up, since that one is even
        bits = bits + (1 << (22 - fmt.element.mantissa_bits))
    elif fmt.scale != "floor":  # round up to a power of two
        bits = bits + 0x7FFFFF
    return (((bits >> 23) - top).clamp(1, 254) << 23).view(torch.float32)


def _two_level_scale(magnitude: Tensor, fmt: TwoLevelFormat, round_scales: RoundElements) -> Tensor:
    """Return the product of the tensor's scale and the scales of blocks with the largest ``magnitude``.

    The tensor's minimum scale is so large that a subnormal ``magnitude`` / 6 always gives the block scale 0.
    """
    whole = _divided(magnitude.amax(), fmt.block_scale.max * fmt.element.max).clamp(min=_LEAST_TWO_LEVEL)
    of_blocks = _divided(magnitude, fmt.element.max) / whole
    return round_scales(of_blocks, fmt.block_scale) * whole


def _divided(x: Tensor, divisor: float) -> Tensor:
    """Divide with correct rounding; GPUs multiply by the reciprocal if the divisor is not a tensor."""
    return x / torch.full_like(x, divisor)
