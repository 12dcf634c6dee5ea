"""Arithmetic on a GPU that loses no bits of what enters it, and gives the same again.

Convolutions run in TF32 where that is exact for their inputs, all else in float32, by algorithms that repeat.
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
    """Convolutions in TF32 where it is exact for their inputs, else in float32; repeatable algorithms.

    The flags are the process's, so that they hold in autograd's threads too. A captured step needs them while
    it is rehearsed and captured; replayed it runs what was chosen then.
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
    """Torch's settings of precision: two older ones, and of convolutions, recurrent networks and products.

    Torch refuses to read an older one where the program has set a newer one otherwise: then its default.
    """
    cudnn: Any = torch.backends.cudnn
    older: list[Any] = [True, "highest"]
    for number, read in enumerate((lambda: cudnn.allow_tf32, torch.get_float32_matmul_precision)):
        with suppress(RuntimeError):
            older[number] = read()
    return (*older, *(place.fp32_precision for place in _places()))


def _set_precision(convolutions: bool, products: str, *newer: str) -> None:
    """Set them all: the older ones first, which set the newer ones too."""
    torch.backends.cudnn.allow_tf32 = convolutions
    torch.set_float32_matmul_precision(products)
    for place, value in zip(_places(), newer, strict=True):
        place.fp32_precision = value


def _places() -> tuple[Any, ...]:
    cudnn: Any = torch.backends.cudnn
    return cudnn.conv, cudnn.rnn, torch.backends.cuda.matmul


def is_exact_in_tf32(configuration: Precision, recipe: Recipe) -> bool:
    """Whether TF32 holds all that enters a convolution: 10 stored bits of significand, 8 exponent bits.

    Activations, weights and errors are rounded before they do. Formats of 8 exponent bits are left out for
    their subnormals.

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
    """Format A, Format B and the error format of a training."""
    if isinstance(configuration, NamedPrecision):
        return (*configuration.sides, configuration.values)
    error = Roundings.of(configuration, recipe.rounding, recipe.error_format).errors
    return configuration.format_a, configuration.format_b, error
