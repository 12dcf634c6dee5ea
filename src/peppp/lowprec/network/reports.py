"""Reports, once each, of what stays float32 and where the network's numbers meet it."""

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
    """Report constants that the network's numbers meet, if they are not numbers of Format A."""
    name, fmt = func.__name__, state.roundings.values
    for x, note in constants:
        if x is out or is_shape_only(x) or not (x.is_floating_point() or x.is_complex()):
            continue
        source = f"the buffer {note.name}" if note is not None else "a tensor made on the way"
        if f"{name} with {source}" not in state.unrounded and not has(x, fmt, note):
            state.report(f"{name} with {source}", f"{source}, which {name} uses ({fmt} lacks its numbers)")


def scalars(state: LowPrecision, func: Callable[..., Any], values: tuple[Any, ...]) -> None:
    """Report a number that an operation brings in, as clamp does, if it is not a number of Format A."""
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
    """Report an operation the first time that it gives infinity or NaN from finite operands."""
    name = f"{func.__name__} gave infinity"
    if name in state.unrounded or not state.roundings.is_known:
        return
    if len(args) > 1 and isinstance(args[1], (int, float)) and args[1] > 0 and func in TAME_WITH_SCALARS:
        return
    packed = state.packed
    with torch.no_grad():  # these checks must save nothing for the backward pass
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
        return True  # emptied, since it is packed in a format without infinity
    return bool(torch.isfinite(x).all())


def has(x: Tensor, fmt: Format, note: Constant | None = None) -> bool:
    """Whether a format has all finite numbers of a tensor; formats with a scale count as having any."""
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
    with _disable_current_modes():  # a rehearsal would make the tensor a fake one
        return not math.isfinite(value) or has(torch.tensor([value], dtype=torch.float32), fmt)
