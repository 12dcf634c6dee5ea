"""What stays float32, found where the network's numbers meet it, and named once."""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from peppp.formats import FP32, FixedFormat, FloatFormat, Format
from peppp.lowprec.network.memory import Constant
from peppp.lowprec.network.rules import TAME_WITH_SCALARS
from peppp.lowprec.network.state import LowPrecision
from peppp.lowprec.rounding.functions import as_real
from peppp.lowprec.rounding.quantize import round_to
from peppp.lowprec.rounding.shape_only import is_shape_only


def meeting(
    state: LowPrecision, func: Callable[..., Any], constants: list[tuple[Tensor, Any]], out: Any
) -> None:
    """Name constants that the network's numbers meet, where Format A does not have their numbers."""
    name, fmt = func.__name__, state.roundings.values
    for x, note in constants:
        if x is out or is_shape_only(x) or not (x.is_floating_point() or x.is_complex()):
            continue
        source = f"the buffer {note.name}" if note is not None else "a tensor made on the way"
        if f"{name} with {source}" not in state.unrounded and not has(x, fmt, note):
            state.report(f"{name} with {source}", f"{source}, which {name} uses ({fmt} lacks its numbers)")


def scalars(state: LowPrecision, func: Callable[..., Any], values: tuple[Any, ...]) -> None:
    """Name a number that an operation brings in, as clamp does, where Format A does not have it."""
    fmt = state.roundings.values
    for value in values:
        if type(value) is float and isinstance(fmt, (FloatFormat, FixedFormat)) and not _has(value, fmt):
            name = f"{func.__name__} with {value}"
            state.report(name, f"the number {value}, which {func.__name__} brings in ({fmt} lacks it)")


def infinities(
    state: LowPrecision,
    func: Callable[..., Any],
    args: tuple[Any, ...],
    operands: list[Tensor],
    results: list[Tensor],
) -> None:
    """Name an operation at its first infinity or NaN that finite operands gave."""
    name = f"{func.__name__} gave infinity"
    if name in state.unrounded or not state.roundings.is_known:
        return
    if len(args) > 1 and isinstance(args[1], (int, float)) and args[1] > 0 and func in TAME_WITH_SCALARS:
        return
    packed = state.packed
    with torch.no_grad():  # looking must leave nothing behind for the backward pass
        if all(_is_finite(x) for x in results):
            return
        if all(_is_finite(x) for x in operands if packed is None or not packed.holds(x)):
            state.report(
                name,
                f"{func.__name__} gave infinity or NaN from finite numbers: a divisor or a small "
                f"constant was rounded to zero; {state.roundings.values} may be too "
                "coarse here",
            )


def _is_finite(x: Tensor) -> bool:
    if is_shape_only(x) or not x.is_floating_point() or x.layout != torch.strided:
        return True
    if not x.untyped_storage().nbytes():
        return True  # packed meanwhile, in a format that has no infinity
    return bool(torch.isfinite(x).all())


def has(x: Tensor, fmt: Format, note: Constant | None = None) -> bool:
    """Whether a format has all numbers of a tensor, infinity and NaN apart; formats with a scale have any."""
    if not isinstance(fmt, (FloatFormat, FixedFormat)) or fmt == FP32:
        return True
    seen = (x._version, x.data_ptr(), x.shape) if x.layout == torch.strided else None
    if seen is not None and note is not None and note.checked == seen:
        return True
    with torch._C.DisableTorchFunction(), torch.no_grad():
        values = x.detach()
        if x.layout == torch.sparse_coo:
            values = values._values()
        elif x.layout != torch.strided:
            values = values.values()
        values = as_real(values).float().contiguous()
        found = bool(((round_to(values, fmt, None) == values) | ~values.isfinite()).all())
    if found and note is not None:
        note.checked = seen
    return found


@lru_cache(maxsize=1024)
def _has(value: float, fmt: Format) -> bool:
    with _disable_current_modes():  # in a rehearsal the tensor would be a fake one
        return not math.isfinite(value) or has(torch.tensor([value], dtype=torch.float32), fmt)
