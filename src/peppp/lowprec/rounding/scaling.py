"""Rounding with a scale: fixed point, integers of one scale a tensor, blocks that share a power of two.

Eager torch operations on any device; what a floating-point element needs is rounding.py's. None of these
formats has a code for infinity or NaN. Both stay what they are, each in its own place, and the scale is made
from the finite numbers beside them: an attention mask of -inf stays a mask, a divergence stays visible.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import pad

from peppp.floats import FP32, FloatFormat
from peppp.formats import BlockFormat, FixedFormat, IntegerFormat

RoundElements = Callable[[Tensor, FloatFormat], Tensor]

_LEAST_SCALE = 2.0**-126  # float32's least normal number


def round_fixed(x: Tensor, fmt: FixedFormat, bits: Tensor | None) -> Tensor:
    """``x`` in fixed point; ``bits`` (int32, random) None is nearest, ties away from zero."""
    lowest, highest = -(2 ** (fmt.bits - 1)), 2 ** (fmt.bits - 1) - 1
    return _keep_infinity(x, _round_integers(x * 2.0**fmt.fraction_bits, bits, lowest, highest) * fmt.step)


def round_integers(x: Tensor, fmt: IntegerFormat, bits: Tensor | None) -> Tensor:
    """``x`` as integers times its largest finite magnitude / ``fmt.largest``, a scale of at least 2^-126.

    A smaller scale would be a subnormal float32, too coarse to bring the largest magnitude to
    ``fmt.largest``.
    """
    scale = (_largest(x.abs().reshape(1, -1)) / fmt.largest).clamp(min=_LEAST_SCALE).reshape(())
    rounded = _round_integers(x / scale, bits, -fmt.largest, fmt.largest) * scale
    # The scale may be rounded up, and its largest multiple then exceed float32's largest number.
    return _keep_infinity(x, rounded.clamp(-FP32.max, FP32.max))


def round_blocks(x: Tensor, fmt: BlockFormat, round_elements: RoundElements) -> Tensor:
    """``x`` in blocks along its channels (four dimensions) or its last dimension, the last one shorter.

    >>> from peppp.lowprec.rounding.quantize import quantize
    >>> from peppp.formats import parse_format
    >>> quantize(torch.tensor([100.0, 3.0, 0.4]), parse_format("mx-1-2-1/2"))
    tensor([96.0000,  0.0000,  0.3750])
    """
    if not x.numel():
        return x.clone()
    dimension = 1 if x.dim() == 4 else -1
    moved = x.reshape(1) if x.dim() == 0 else x.movedim(dimension, -1)  # [..., size]
    size = moved.shape[-1]
    padded = pad(moved, (0, -size % fmt.block))
    blocks = padded.reshape(*padded.shape[:-1], -1, fmt.block)  # [..., blocks, block]
    scale = _power_of_two(_largest(blocks.abs()), fmt.element.max_exponent)  # [..., blocks, 1]
    wide = scale.expand(blocks.shape).flatten(-2)[..., :size]
    wide = wide.reshape(()) if x.dim() == 0 else wide.movedim(-1, dimension)
    return _keep_infinity(x, round_elements(x / wide, fmt.element) * wide)


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


def _power_of_two(magnitude: Tensor, top: int) -> Tensor:
    """2^(floor(log2(magnitude)) - top), read off the bits; at least 2^-126."""
    field = (magnitude.view(torch.int32) >> 23) - top
    return (field.clamp(1, 254) << 23).view(torch.float32)
