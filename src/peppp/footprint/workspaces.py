"""What operations of torch 2.13 allocate on CPUs beyond their results: by rule, an LSTM's by a real probe.

A rule takes an operation's arguments and result and gives bytes. The numbers were found by tracing the
allocator, and tests compare them with it.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from peppp.errors import NetworkError

aten = torch.ops.aten
Rule = Callable[[tuple[Any, ...], Any], int]


def workspace(operation: Any, args: tuple[Any, ...], result: Any) -> int:
    """Bytes that an operation needs while it runs, beside its arguments and its ``result``."""
    rule = _RULES.get(operation)
    return 0 if rule is None else rule(args, result)


def _is_channels_last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


@lru_cache(maxsize=1)
def _has_bf16_convolutions() -> bool:
    """Whether oneDNN convolves bf16 on this processor; elsewhere torch unfolds the images into columns."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _columns(x: Tensor, weight: Tensor, stride: Any, padding: Any, output: Tensor) -> int:
    """The unfolded images of a bf16 convolution; a 1x1 one needs none."""
    if tuple(weight.shape[2:]) == (1, 1) and all(s == 1 for s in stride) and not any(padding):
        return 0
    columns = x.shape[0] * weight[0].numel() * output.shape[2] * output.shape[3]
    return int(columns * x.element_size())


def _convolution(args: tuple[Any, ...], result: Any) -> int:
    x, weight = args[0], args[1]
    if x.dim() != 4:
        return 0
    moved = weight.nbytes if _is_channels_last(x) and not _is_channels_last(weight) else 0
    if x.dtype is torch.bfloat16 and not _has_bf16_convolutions():
        return _columns(x, weight, args[3], args[4], result) + moved
    return weight.nbytes + moved if _is_channels_last(x) else 0


def _convolution_backward(args: tuple[Any, ...], result: Any) -> int:
    """The weight gradient is copied on its way into the weight's own layout."""
    error, x, weight = args[0], args[1], args[2]
    if x.dim() != 4:
        return 0
    other_layout = _is_channels_last(x) and not _is_channels_last(weight)
    if x.dtype is torch.bfloat16 and not _has_bf16_convolutions():
        return _columns(x, weight, args[4], args[5], error) + (weight.nbytes if other_layout else 0)
    return 0 if result[1] is None else int(result[1].nbytes) * (3 if other_layout else 2)


def _batch_norm_backward(args: tuple[Any, ...], result: Any) -> int:
    """In channels_last, the input's gradient is allocated twice, before the first is let go of."""
    x = args[1]
    return int(result[0].nbytes) if x.dim() == 4 and _is_channels_last(x) and result[0] is not None else 0


def _lstm(args: tuple[Any, ...], result: Any) -> int:
    """OneDNN packs the weights anew, there and back."""
    return 2 * sum(int(weight.nbytes) for weight in args[1:5])


_RULES: dict[Any, Rule] = {
    aten.mkldnn_rnn_layer.default: _lstm,
    aten.mkldnn_rnn_layer_backward.default: _lstm,
    aten.convolution.default: _convolution,
    aten.convolution_backward.default: _convolution_backward,
    aten.native_batch_norm_backward.default: _batch_norm_backward,
}


def lstm_workspace(args: tuple[Any, ...]) -> int:
    """Bytes of the workspace that oneDNN's LSTM layer keeps for the backward pass, by its arguments.

    Fake tensors leave it empty. Two short real calls tell it, as it is linear in the time steps, in whole
    pages.
    """
    kinds = tuple((tuple(x.shape), x.dtype) if isinstance(x, Tensor) else None for x in args)
    rest = tuple(None if isinstance(x, Tensor) else tuple(x) if isinstance(x, list) else x for x in args)
    few, more = (_lstm_workspace(kinds, rest, count) for count in (_FEW, _MORE))
    exact = few + (more - few) * (args[0].shape[0] - _FEW) / (_MORE - _FEW)
    return -int(-exact // _PAGE) * _PAGE


_FEW, _MORE, _PAGE = 8, 40, 4096


@lru_cache(maxsize=256)
def _lstm_workspace(
    kinds: tuple[tuple[tuple[int, ...], torch.dtype] | None, ...], rest: tuple[Any, ...], steps: int
) -> int:
    with _disable_current_modes():
        real = [
            x if kind is None else torch.zeros(kind[0], dtype=kind[1])
            for kind, x in zip(kinds, rest, strict=True)
        ]
        real[0] = torch.zeros(steps, *real[0].shape[1:], dtype=real[0].dtype)
        try:
            return int(aten.mkldnn_rnn_layer.default(*real)[3].untyped_storage().nbytes())
        except RuntimeError:
            kind = str(real[0].dtype).removeprefix("torch.")
            raise NetworkError(
                f"an LSTM in {kind} does not run on this processor (oneDNN has none); take fp32"
            ) from None
