"""Set up GPU arithmetic that loses no bits of its inputs and is reproducible.

Convolutions run in TF32 if that is exact for their inputs, and everything else in float32, by deterministic
algorithms.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch

from peppp.formats import FloatFormat, Format
from peppp.lowprec.rounding.roundings import Roundings
from peppp.precisions.known import Precision
from peppp.precisions.named import NamedPrecision
from peppp.records import Recipe


@contextmanager
def exact_arithmetic(configuration: Precision, recipe: Recipe) -> Iterator[None]:
    """Within the context, use TF32 for convolutions if it is exact, else float32; deterministic algorithms.

    The flags apply to the whole process, so they hold in autograd's threads too. A captured step needs them
    only while it is rehearsed and captured, because a replay runs the kernels that were chosen then.
    """
    cudnn, tf32 = torch.backends.cudnn, is_exact_in_tf32(configuration, recipe)
    before = _precision()
    flags = ("enabled", "benchmark", "deterministic")
    values = [getattr(cudnn, flag) for flag in flags]
    try:
        for flag, value in zip(flags, (True, False, True), strict=True):
            setattr(cudnn, flag, value)
        _set_precision(tf32, "highest", *["tf32" if tf32 else "ieee"] * 2, "ieee")
        yield
    finally:
        _set_precision(*before)
        for flag, value in zip(flags, values, strict=True):
            setattr(cudnn, flag, value)


def _precision() -> tuple[Any, ...]:
    """Torch's precision settings: two older ones, then convolutions, recurrent networks and products.

    Torch refuses to read an older setting that contradicts a newer one; its default is used then.
    """
    cudnn: Any = torch.backends.cudnn
    older: list[Any] = [True, "highest"]
    for number, read in enumerate((lambda: cudnn.allow_tf32, torch.get_float32_matmul_precision)):
        with suppress(RuntimeError):
            older[number] = read()
    return (*older, *(place.fp32_precision for place in _places()))


def _set_precision(convolutions: bool, products: str, *newer: str) -> None:
    """Set all precision settings; the older ones come first because they overwrite the newer ones."""
    torch.backends.cudnn.allow_tf32 = convolutions
    torch.set_float32_matmul_precision(products)
    for place, value in zip(_places(), newer, strict=True):
        place.fp32_precision = value


def _places() -> tuple[Any, ...]:
    cudnn: Any = torch.backends.cudnn
    return cudnn.conv, cudnn.rnn, torch.backends.cuda.matmul


def is_exact_in_tf32(configuration: Precision, recipe: Recipe) -> bool:
    """Whether TF32 (10 stored bits of significand, 8 exponent bits) represents all inputs of convolutions.

    These inputs are activations, weights and errors, which have been rounded to their formats. Formats with 8
    exponent bits do not count as exact because of their subnormal numbers.

    >>> from peppp import Configuration
    >>> is_exact_in_tf32(Configuration.parse("1-4-1/1-6-11"), Recipe(error_format="A"))
    True
    >>> is_exact_in_tf32(Configuration.parse("1-4-1/1-6-11"), Recipe(error_format="B"))
    False
    """
    a, _, error = formats_of(configuration, recipe)
    return all(
        isinstance(fmt, FloatFormat) and fmt.mantissa_bits <= 10 and fmt.exponent_bits < 8
        for fmt in (a, error)
    )


def formats_of(configuration: Precision, recipe: Recipe) -> tuple[Format, Format, Format]:
    """Format A, Format B and the format of errors of a training."""
    if isinstance(configuration, NamedPrecision):
        return (*configuration.sides, configuration.values)
    error = Roundings.of(configuration, recipe.rounding, recipe.error_format).errors
    return configuration.format_a, configuration.format_b, error
