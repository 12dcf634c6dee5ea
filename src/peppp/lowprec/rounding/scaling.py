"""Rounding with a scale: fixed point, integers and floats of one scale a tensor, blocks that share a scale.

Eager torch operations on any device; what a floating-point element needs is rounding.py's. None of these
formats has a code for infinity or NaN. Both stay what they are, each in its own place, and the scale is made
from the finite numbers beside them: an attention mask of -inf stays a mask, a divergence stays visible.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import pad

from peppp.floats import FP32, FloatFormat
from peppp.formats import BlockFormat, DynamicFormat, FixedFormat, IntegerFormat, ScaledFormat, TwoLevelFormat

RoundElements = Callable[[Tensor, FloatFormat], Tensor]

_LEAST_SCALE = 2.0**-126  # float32's least normal number
_LEAST_TENSOR_SCALE = 2.0**-110  # times 1-5-2's least number, 2^-16, that is the same
_LEAST_TWO_LEVEL = 2.0**-116


def round_fixed(x: Tensor, fmt: FixedFormat, bits: Tensor | None) -> Tensor:
    """``x`` in fixed point; ``bits`` (int32, random) None is nearest, ties away from zero."""
    lowest, highest = -(2 ** (fmt.bits - 1)), 2 ** (fmt.bits - 1) - 1
    return _keep_infinity(x, _round_integers(x * 2.0**fmt.fraction_bits, bits, lowest, highest) * fmt.step)


def round_integers(x: Tensor, fmt: IntegerFormat, bits: Tensor | None, *, by_row: bool = False) -> Tensor:
    """``x`` as integers times its largest finite magnitude / ``fmt.largest``, a scale of at least 2^-126.

    A smaller scale would be a subnormal float32, too coarse to bring the largest magnitude to
    ``fmt.largest``. With ``by_row`` each row along the last dimension has a scale of its own.
    """
    magnitudes = x.abs() if by_row else x.abs().reshape(1, -1)
    scale = (_largest(magnitudes) / fmt.largest).clamp(min=_LEAST_SCALE)
    scale = scale if by_row else scale.reshape(())
    rounded = _round_integers(x / scale, bits, -fmt.largest, fmt.largest) * scale
    # The scale may be rounded up, and its largest multiple then exceed float32's largest number.
    return _keep_infinity(x, rounded.clamp(-FP32.max, FP32.max))


def round_scaled(x: Tensor, fmt: ScaledFormat, round_elements: RoundElements) -> Tensor:
    """``x`` as floats times its largest finite magnitude / ``fmt.element.max``, at least 2^-110.

    >>> from peppp.lowprec.rounding.quantize import quantize
    >>> quantize(torch.tensor([12.0, 3.5, 0.3]), "scaled-1-2-1")
    tensor([12.,  4.,  0.])
    """
    largest = _largest(x.abs().reshape(1, -1)).reshape(())
    scale = _divided(largest, fmt.element.max).clamp(min=_LEAST_TENSOR_SCALE)
    return _scaled(x, scale, fmt.element, round_elements)


def round_codes(x: Tensor, fmt: DynamicFormat) -> Tensor:
    """``x`` in dynamic codes, to nearest; halfway between two numbers the smaller is taken.

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
    """``x`` in blocks along its channels (four dimensions) or its last dimension, the last one shorter.

    ``round_scales`` rounds the scales that are no powers of two.

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
    """``x`` / ``scale`` rounded, times ``scale``; where that is 0, finite numbers become 0."""
    rounded = round_elements(x / torch.where(scale == 0, 1.0, scale), element) * scale
    # A scale that was rounded up can bring the largest element beyond float32's largest number.
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
    """The largest finite number along the last dimension, which stays; 0 where there is none."""
    if not magnitudes.numel():
        return magnitudes.new_zeros(*magnitudes.shape[:-1], 1)
    return torch.where(magnitudes.isfinite(), magnitudes, 0.0).amax(-1, keepdim=True)


def _power_of_two(magnitude: Tensor, fmt: BlockFormat) -> Tensor:
    """The scale of blocks of the largest ``magnitude``, read off its bits; at least 2^-126."""
    top = fmt.element.max_exponent
    if fmt.scale == "round-up":
        magnitude, top = _divided(magnitude, fmt.element.max), 0
    bits = magnitude.view(torch.int32)
    if fmt.scale == "even":  # what is halfway to the next power of two goes up: that one is even
        bits = bits + (1 << (22 - fmt.element.mantissa_bits))
    elif fmt.scale != "floor":  # up, unless it is a power of two
        bits = bits + 0x7FFFFF
    return (((bits >> 23) - top).clamp(1, 254) << 23).view(torch.float32)


def _two_level_scale(magnitude: Tensor, fmt: TwoLevelFormat, round_scales: RoundElements) -> Tensor:
    """The product of the tensor's scale and those of blocks of the largest ``magnitude``.

    The least scale of a tensor is so large that a subnormal ``magnitude`` / 6 gives the scale 0 in any case.
    """
    whole = _divided(magnitude.amax(), fmt.block_scale.max * fmt.element.max).clamp(min=_LEAST_TWO_LEVEL)
    of_blocks = _divided(magnitude, fmt.element.max) / whole
    return round_scales(of_blocks, fmt.block_scale) * whole


def _divided(x: Tensor, divisor: float) -> Tensor:
    """The quotient, correctly rounded; GPUs multiply by the reciprocal of a divisor that is no tensor."""
    return x / torch.full_like(x, divisor)
