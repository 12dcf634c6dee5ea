"""Strided 1x1 convolutions that torch's CPU library gets wrong, and their repair.

In the backward pass of such a convolution, oneDNN (its issue 6035; torch 2.13 has version 3.12) writes past a
buffer if the input or weight is channels_last and has few channels: fewer than 8 on a processor with AVX2,
fewer than 16 with AVX-512. The process crashes, hangs, or continues with wrong gradients. The same
convolution at stride 1 is right, so the repaired backward pass first selects the pixels that the stride
visits.
"""

import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from peppp.lowprec.rounding.shape_only import is_shape_only

# With this many input channels, every instruction set is right.
_ENOUGH = 16
_SECONDS = 120
_OPERATION = torch.ops.aten.convolution_backward.default


def is_narrow(weight: Tensor, stride: Any, padding: Any) -> bool:
    """Whether a 2-d convolution on the CPU has strided 1x1 kernels without padding, and few channels.

    The memory layout does not matter here, since torch chooses one by its own rules.

    >>> is_narrow(torch.ones(8, 4, 1, 1), 2, 0), is_narrow(torch.ones(8, 4, 3, 3), 2, 1)
    (True, False)
    """
    return (
        weight.dim() == 4
        and weight.shape[-2:] == (1, 1)
        and weight.shape[1] < _ENOUGH
        and _pair(stride) != (1, 1)
        and (padding == "valid" or _pair(padding) == (0, 0))
        and weight.is_cpu
        and not is_shape_only(weight)
    )


def holds_narrow(network: nn.Module) -> bool:
    """Whether a layer of the network is such a convolution."""
    layers = (m for m in network.modules() if isinstance(m, nn.Conv2d))
    return any(is_narrow(layer.weight, layer.stride, layer.padding) for layer in layers)


def is_channels_last(tensor: Tensor) -> bool:
    """Whether torch, which looks at strides, treats a [batch, channels, height, width] as channels_last."""
    if tensor.dim() != 4:
        return False
    sizes, strides = tensor.shape, tensor.stride()
    least = 1
    for axis in (1, 3, 2, 0):
        if strides[axis] < least or (axis == 0 and least == strides[1]):
            return False
        least = strides[axis] * sizes[axis]
    return True


def _pair(value: Any) -> tuple[Any, ...]:
    """Return the values for rows and columns; torch accepts one number for both."""
    values = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    return values * 2 if len(values) == 1 else values


@cache
def repair() -> object:
    """From now on, compute the backward pass of such convolutions at stride 1 in this process.

    This covers layers, functions, recomputed blocks and TorchScript. No other result changes. The backward
    pass of every convolution takes some 20 us longer: 3 % of a float32 step of ResNet-8 at 16 pixels.
    """
    raw = torch.library.get_kernel(_OPERATION, "CPU")

    def backward(
        keys: Any,
        error: Tensor,
        x: Tensor,
        weight: Tensor,
        biases: Sequence[int] | None,
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
        transposed: bool,
        *rest: Any,
    ) -> Any:
        """Return the gradients of input, weight and bias, with the signature of torch's operation."""
        after = (padding, dilation, transposed, *rest)
        if transposed or not is_narrow(weight, stride, padding):
            return raw.call_boxed(keys, error, x, weight, biases, stride, *after)
        rows, columns = stride
        picked = x[..., ::rows, ::columns]
        for_picked, *others = raw.call_boxed(keys, error, picked, weight, biases, [1, 1], *after)
        if for_picked is None:
            return (None, *others)
        for_x = torch.zeros_like(x)
        for_x[..., ::rows, ::columns] = for_picked
        return (for_x, *others)

    library = torch.library.Library("aten", "IMPL")  # type: ignore[no-untyped-call]
    library.impl("convolution_backward", backward, "CPU", with_keyset=True)  # type: ignore[no-untyped-call]
    return library  # the replacement lives as long as this object, which the cache keeps alive


def examine(*, repaired: bool = False) -> str:
    """Test such convolutions in a separate process; return ``right``, ``wrong`` or ``crashed``.

    This compares the gradients of plain torch, or of repaired torch, with float64. A process that hangs
    counts as crashed.
    """
    line = [sys.executable, "-m", __name__, *(["repaired"] if repaired else [])]
    try:
        ended = subprocess.run(line, capture_output=True, text=True, timeout=_SECONDS)
    except subprocess.TimeoutExpired:
        return "crashed"
    verdict = ended.stdout.strip()
    return verdict if ended.returncode == 0 and verdict in ("right", "wrong") else "crashed"


def library() -> str:
    """Return the CPU library that torch was built with, and its version.

    >>> library().startswith("oneDNN")
    True
    """
    _, found, rest = torch.__config__.show().partition("MKL-DNN v")
    return f"oneDNN {rest.split()[0]}" if found else "oneDNN is not part of this torch"


# Channels, pixels and batch of the layers to test: the first three fail with AVX2, the others with AVX-512.
_LAYERS = ((2, 16, 32), (4, 16, 32), (7, 32, 8), (8, 64, 8), (12, 64, 8), (15, 64, 8))


def _verdict() -> str:
    torch.manual_seed(0)
    worst = max(_error(*layer) for layer in _LAYERS for _ in range(20))
    return "right" if worst < 1e-4 else "wrong"


def _error(channels: int, pixels: int, batch: int) -> float:
    """Return the largest error of a layer's weight gradient against float64, relative to its maximum."""
    x = torch.randn(batch, channels, pixels, pixels).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(16, channels, 1, 1).contiguous(memory_format=torch.channels_last).requires_grad_()
    y = torch.conv2d(x, weight, stride=2)
    error = torch.randn_like(y)
    (found,) = torch.autograd.grad(y, weight, error)
    picked = x[..., ::2, ::2].double().transpose(0, 1).flatten(1)  # [channels, batch * places]
    expected = error.double().transpose(0, 1).flatten(1) @ picked.T  # [16, channels]
    return float((found.flatten(1) - expected).abs().max() / expected.abs().max())


if __name__ == "__main__":
    torch.set_num_threads(1)
    if "repaired" in sys.argv[1:]:
        repair()
    print(_verdict())
