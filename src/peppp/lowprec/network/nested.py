"""The tensors in nested containers: find them, or make the containers again with other tensors."""

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

_NO_TENSORS = frozenset({type(None), int, float, bool, str, torch.dtype, torch.device})


def tensors_in(values: Any, found: list[Tensor]) -> list[Tensor]:
    """Append the tensors in nested tuples, lists and dicts to ``found``, and return it."""
    for value in values.values() if isinstance(values, dict) else values:
        if value.__class__ in _NO_TENSORS:
            continue
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, (tuple, list, dict)):
            tensors_in(value, found)
    return found


def mapped(values: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """Apply ``function`` to the tensors in nested tuples, lists and dicts, in the order of tensors_in."""
    if isinstance(values, Tensor):
        return function(values)
    if isinstance(values, dict):
        return {key: mapped(value, function) for key, value in values.items()}
    if isinstance(values, (tuple, list)):
        changed = [mapped(value, function) for value in values]
        return type(values)(*changed) if hasattr(values, "_fields") else type(values)(changed)
    return values


def mapped_alike(values: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """Like :func:`mapped`, but also in dataclasses, and the types of derived dicts are kept."""
    if isinstance(values, Tensor):
        return function(values)
    if isinstance(values, dict):
        changed = {key: mapped_alike(value, function) for key, value in values.items()}
        return type(values)(changed) if type(values) is not dict else changed
    if isinstance(values, tuple) and hasattr(values, "_fields"):
        return type(values)(*(mapped_alike(value, function) for value in values))
    if isinstance(values, (tuple, list)):
        return type(values)(mapped_alike(value, function) for value in values)
    if is_dataclass(values) and not isinstance(values, type):
        parts = {f.name: mapped_alike(getattr(values, f.name), function) for f in fields(values) if f.init}
        return replace(values, **parts)
    return values
