"""A user's module and inputs as fake tensors, for which torch selects its CPU kernels.

A fake tensor has a shape, strides, a type and a storage, but no memory. The meta device would not work: there
torch ignores autocast, does not fuse attention and decomposes an LSTM.
"""

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.nn.parameter import is_lazy

from peppp.errors import NetworkError

aten = torch.ops.aten


def fake_mode() -> FakeTensorMode:
    """Return the mode for a rehearsal; it admits constants that a module makes during a pass."""
    return FakeTensorMode(allow_non_fake_inputs=True)


@contextmanager
def silent() -> Iterator[None]:
    """Suppress torch's warnings: nobody who only asks for a step's memory needs them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def fake_module(mode: FakeTensorMode, module: nn.Module, dtype: torch.dtype | None = None) -> nn.Module:
    """Return a copy of ``module`` with fake parameters and buffers; floating-point ones become ``dtype``.

    Raises NetworkError for lazy parameters, which have no shape yet.
    """
    if any(map(is_lazy, module.parameters())):
        raise NetworkError("the module has lazy parameters without a shape; call it once before this")
    module = _on_meta(module, dtype)
    seen: dict[int, Tensor] = {}
    for layer in module.modules():
        groups: tuple[dict[str, Any], ...] = (layer._parameters, layer._buffers)
        for group in groups:
            for name, tensor in group.items():
                if tensor is None:
                    continue
                if id(tensor) not in seen:
                    found = FakeTensor(mode, tensor.detach(), torch.device("cpu"))
                    seen[id(tensor)] = (
                        nn.Parameter(found, requires_grad=tensor.requires_grad)
                        if isinstance(tensor, nn.Parameter)
                        else found
                    )
                group[name] = seen[id(tensor)]
        if isinstance(layer, nn.RNNBase):
            layer._flat_weights = [getattr(layer, name) for name in layer._flat_weights_names]
            layer._flat_weight_refs = [None] * len(layer._flat_weights)
    return module


def _on_meta(module: nn.Module, dtype: torch.dtype | None) -> nn.Module:
    """Return a copy with parameters and buffers on the meta device, where nothing is allocated."""
    memo: dict[int, Any] = {}
    for tensor in (*module.parameters(), *module.buffers()):
        kind = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
        empty = torch.empty_strided(tensor.shape, tensor.stride(), dtype=kind, device="meta")
        memo[id(tensor)] = (
            nn.Parameter(empty, requires_grad=tensor.requires_grad)
            if isinstance(tensor, nn.Parameter)
            else empty
        )
    return copy.deepcopy(module, memo)


def fake_arguments(
    mode: FakeTensorMode, example: Any, dtype: torch.dtype | None = None
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the example inputs as fake tensors: positional and keyword arguments."""

    def fake(x: Tensor) -> Tensor:
        kind = dtype if dtype is not None and x.is_floating_point() else x.dtype
        empty = torch.empty_strided(x.shape, x.stride(), dtype=kind, device="meta")
        return FakeTensor(mode, empty, torch.device("cpu"))

    return arguments(example, fake)


def arguments(example: Any, change: Callable[[Tensor], Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return positional and keyword arguments with ``change`` applied to each tensor."""

    def convert(value: Any) -> Any:
        if isinstance(value, Tensor):
            return change(value)
        if isinstance(value, (list, tuple)):
            return type(value)(map(convert, value))
        if isinstance(value, dict):
            return {name: convert(one) for name, one in value.items()}
        return value

    if isinstance(example, Tensor):
        return (change(example),), {}
    if isinstance(example, Mapping):
        return (), {name: convert(value) for name, value in example.items()}
    return tuple(map(convert, example)), {}


def tensors(values: Any) -> Iterator[Tensor]:
    """Yield the tensors in nested sequences and mappings."""
    for value in values.values() if isinstance(values, Mapping) else values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (tuple, list, Mapping)):
            yield from tensors(value)


def laid_out(operation: Any, args: tuple[Any, ...], result: Any) -> Any:
    """Return a fake result with the strides of torch's kernels, where fake tensors get other strides.

    Later operations choose kernels and copies by strides. A layer norm returns dense results, in its backward
    pass, too; a batch norm's backward pass returns a gradient with the strides of its input. A group norm
    keeps channels_last in both passes, which torch 2.14's fake tensors do not.
    """
    norms = (aten.native_layer_norm.default, aten.native_layer_norm_backward.default)
    if operation in norms and result[0] is not None:
        return (_dense(result[0]), *result[1:])
    if operation is aten.native_batch_norm_backward.default and result[0] is not None:
        return (_like(result[0], args[1]), *result[1:])
    if operation in (aten.native_group_norm.default, aten.native_group_norm_backward.default):
        x = args[0] if operation is aten.native_group_norm.default else args[1]
        if result[0] is not None and _is_channels_last(x):
            return (_like(result[0], x), *result[1:])
    return result


def _dense(x: Tensor) -> Tensor:
    empty = x.new_empty(x.shape)
    return x if x.stride() == empty.stride() else empty


def _is_channels_last(x: Tensor) -> bool:
    """Whether a tensor, which may be a part of a larger one, has its channels last in memory."""
    last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(x.dim())
    return last is not None and _strides(x) == _strides(x, last)


def _strides(x: Tensor, memory_format: torch.memory_format = torch.preserve_format) -> tuple[int, ...]:
    return torch.empty_like(x, memory_format=memory_format).stride()


def _like(x: Tensor, other: Tensor) -> Tensor:
    return x if x.stride() == other.stride() else torch.empty_like(other, dtype=x.dtype)


def classification_loss(logits: Tensor) -> Tensor:
    """Return the cross entropy of logits, with zeros as labels.

    Logits are [batch, classes], [batch, classes, ...] for pixels, or [batch, length, classes] for sequences.
    """
    if logits.dim() == 3:
        logits = logits.flatten(0, 1)
    shape = (logits.shape[0], *logits.shape[2:])
    labels = torch.zeros(shape, dtype=torch.int64, device=logits.device)
    return nn.functional.cross_entropy(logits.float(), labels)
