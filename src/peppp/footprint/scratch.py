"""What torch's CPU kernels allocate in addition to their results, measured by running single kernels.

This depends on the processor, on the number of threads and on the versions of oneDNN and MKL, so no rule
carries over to another machine. With AVX-512, for example, a float32 convolution copies its input, weights
and result into oneDNN's layouts; with more threads, its backward pass keeps a weight gradient for each.

A kernel runs alone on zeros, with few images or time steps, and is traced. What it allocates is linear in
their number once there are several per thread, so two such runs predict the whole batch.
"""

import os
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils._python_dispatch import _disable_current_modes

from peppp.errors import NetworkError
from peppp.footprint.fakes import tensors
from peppp.lowprec.network.convolutions import is_narrow

aten = torch.ops.aten

# Kernels with memory of their own, and which of their arguments have images or time steps in dimension 0.
_BATCHED: dict[Any, tuple[int, ...]] = {
    aten.convolution.default: (0,),
    aten.convolution_backward.default: (0, 1),
    aten.native_batch_norm_backward.default: (0, 1),
    aten._scaled_dot_product_flash_attention_for_cpu.default: (0, 1, 2),
    aten._scaled_dot_product_flash_attention_for_cpu_backward.default: (0, 1, 2, 3, 4, 5),
    aten.mkldnn_rnn_layer.default: (0,),
    aten.mkldnn_rnn_layer_backward.default: (0, 7, 10),
}
# The positions of the weight and of the number of groups among the arguments.
_WEIGHTS: dict[Any, tuple[int, int]] = {
    aten.convolution.default: (1, 8),
    aten.convolution_backward.default: (2, 9),
}
_BLOCK = 16  # channels
_PRODUCTS = (aten.mm.default, aten.addmm.default, aten.bmm.default, aten.baddbmm.default)
_WIDEST = 1024  # the most rows and columns of a product that is run
_MOST = 1 << 28  # the most bytes of arguments with which a kernel is run


class _Shape(NamedTuple):
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype


class Kernel(NamedTuple):
    """A kernel's call without numbers: the operation, and its arguments with shapes in place of tensors."""

    operation: Any
    arguments: tuple[Any, ...]
    threads: int


def kernel_of(operation: Any, args: tuple[Any, ...]) -> Kernel | None:
    """Return the call to measure, or None if the kernel needs no memory of its own."""
    if operation in _BATCHED:
        return Kernel(operation, _hashable(args), torch.get_num_threads())
    if operation in _PRODUCTS and args[-1].dtype in (torch.bfloat16, torch.float16):
        return Kernel(operation, _hashable(args), torch.get_num_threads())
    return None


# Arithmetic also casts masks and integers; other elementwise operations read a mask as it is.
_PROMOTING = (aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor)


def cast_bytes(operation: Any, args: tuple[Any, ...], result: Any) -> int:
    """Return the bytes that an elementwise operation needs to copy operands of another type."""
    if torch.Tag.pointwise not in operation.tags or not isinstance(result, Tensor):
        return 0
    size, dtype = result.element_size(), result.dtype
    if not result.is_floating_point():
        return 0
    others = (x for x in args if isinstance(x, Tensor) and x.dim())
    if operation not in _PROMOTING:
        others = (x for x in others if x.is_floating_point())
    return sum(x.numel() * size for x in others if x.dtype is not dtype)


def _hashable(value: Any) -> Any:
    if isinstance(value, Tensor):
        return _Shape(tuple(value.shape), tuple(value.stride()), value.dtype)
    return tuple(map(_hashable, value)) if isinstance(value, (list, tuple)) else value


_known: dict[tuple[Kernel, int], int] = {}


def scratch(kernels: Iterable[Kernel]) -> dict[Kernel, int]:
    """Return the bytes that each call allocates temporarily, in addition to its arguments and results.

    >>> scratch([])
    {}
    """
    wanted = {kernel: _counts(kernel) for kernel in kernels}
    runs = [(kernel, n) for kernel, counts in wanted.items() for n in counts if (kernel, n) not in _known]
    if runs:
        _known.update(zip(runs, _trace(runs), strict=True))
    return {kernel: _at(kernel, counts) for kernel, counts in wanted.items()}


def most_scratch(kernel: Kernel, result: Any) -> int:
    """Return an upper bound on what a call allocates in addition to its result.

    It copies its arguments and results once each into another layout, and a weight's gradient per thread.
    """
    made = sum(x.nbytes for x in tensors((result,)))
    return (2 + kernel.threads) * (_size(kernel, _batch(kernel)) + made + 2 * _blocked_weight(kernel))


def _blocked_weight(kernel: Kernel) -> int:
    """Return the bytes of a convolution's weight in oneDNN's blocks, which pad the channels of each group."""
    if kernel.operation not in _WEIGHTS:
        return 0
    position, at = _WEIGHTS[kernel.operation]
    weight, groups = kernel.arguments[position], kernel.arguments[at]
    channels = (weight.shape[0] // groups, weight.shape[1])
    blocks = [-(-n // _BLOCK) * _BLOCK for n in channels]
    return int(groups * weight.dtype.itemsize * torch.Size([*blocks, *weight.shape[2:]]).numel())


def _batch(kernel: Kernel) -> int:
    return kernel.arguments[0].shape[0] if kernel.operation in _BATCHED else 1


def _counts(kernel: Kernel) -> tuple[int, ...]:
    """Return the numbers of images or time steps with which to run a call."""
    batch = _batch(kernel)
    few = 4 * kernel.threads
    if batch <= 2 * few:
        return (batch,)
    if _size(kernel, 2 * few) <= _MOST:
        return (few, 2 * few)
    return (1, 2)


def _at(kernel: Kernel, counts: tuple[int, ...]) -> int:
    found = [_known[kernel, n] for n in counts]
    if len(counts) == 1:
        return found[0]
    slope = (found[1] - found[0]) / (counts[1] - counts[0])
    return max(found[1], round(found[0] + slope * (_batch(kernel) - counts[0])))


def _size(kernel: Kernel, count: int) -> int:
    shapes = (_cut(kernel, i, x, count) for i, x in enumerate(kernel.arguments) if isinstance(x, _Shape))
    return sum(x.dtype.itemsize * torch.Size(x.shape).numel() for x in shapes)


def _cut(kernel: Kernel, position: int, x: _Shape, count: int) -> _Shape:
    """Return the shape with which to run a call."""
    if kernel.operation in _PRODUCTS:
        return x._replace(shape=tuple(min(n, _WIDEST) for n in x.shape))
    if position in _BATCHED[kernel.operation] and x.shape[0] == _batch(kernel):
        return x._replace(shape=(count, *x.shape[1:]))
    return x


def _made(kernel: Kernel, count: int) -> list[Any]:
    """Return real arguments, filled with zeros."""
    made: list[Any] = []
    for position, x in enumerate(kernel.arguments):
        if isinstance(x, _Shape):
            cut = _cut(kernel, position, x, count)
            empty = torch.empty_strided(cut.shape, _strides(x, cut.shape), dtype=cut.dtype)
            made.append(empty.zero_())
        else:
            made.append(x)
    if kernel.operation is aten.native_batch_norm_backward.default and made[2] is not None:
        for position in (5, 6):  # fake tensors get the type of these statistics wrong
            if made[position] is not None:
                made[position] = made[position].to(made[2].dtype)
    if kernel.operation is aten.convolution_backward.default and is_narrow(made[2], made[4], made[5]):
        rows, columns = made[4]  # torch's kernel may crash, so run the repaired one
        made[1], made[4] = made[1][..., ::rows, ::columns], (1, 1)
    if kernel.operation is aten.mkldnn_rnn_layer_backward.default:
        reverse, mode, hidden, layers, biases, train, both, sizes, first = made[13:-1]
        rest = (reverse, sizes, mode, hidden, layers, biases, both, first, train)
        made[-1] = _call(aten.mkldnn_rnn_layer.default, (*made[:7], *rest))[3]
    return made


def _call(operation: Any, args: Sequence[Any]) -> Any:
    try:
        return operation(*args)
    except RuntimeError as error:
        name = "an LSTM" if "rnn" in str(operation) else str(operation)
        kind = str(args[0].dtype).removeprefix("torch.")
        raise NetworkError(
            f"{name} in {kind} does not run on this processor ({str(error).splitlines()[0]}); take fp32"
        ) from None


def lstm_workspace(args: tuple[Any, ...]) -> int:
    """Return the bytes that oneDNN's LSTM layer saves as a workspace, in whole pages."""
    kernel = Kernel(aten.mkldnn_rnn_layer.default, _hashable(args), torch.get_num_threads())
    few, more = (_lstm_workspace(kernel, count) for count in (_FEW, _MORE))
    exact = few + (more - few) * (args[0].shape[0] - _FEW) / (_MORE - _FEW)
    return -int(-exact // _PAGE) * _PAGE


_FEW, _MORE, _PAGE = 8, 40, 4096


@lru_cache(maxsize=256)
def _lstm_workspace(kernel: Kernel, steps: int) -> int:
    with _disable_current_modes(), torch.enable_grad():  # an LSTM checks whether it trains
        workspace = _call(kernel.operation, _made(kernel, steps))[3]
        return int(workspace.untyped_storage().nbytes())


def _strides(x: _Shape, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return dense strides in the order of the dimensions of ``x``; 0 for expanded dimensions."""
    order = sorted(range(len(shape)), key=lambda d: (x.stride[d], -d))
    found, step = [0] * len(shape), 1
    for d in order:
        if x.stride[d]:
            found[d] = step
            step *= max(shape[d], 1)
    return tuple(found)


def _trace(runs: list[tuple[Kernel, int]]) -> list[int]:
    """Run each call alone; return the most that it allocated in addition to its arguments and results."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # otherwise the profiler logs its start and end
    recording = profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True)
    with _disable_current_modes(), torch.enable_grad(), recording:  # an LSTM checks whether it trains
        for number, (kernel, count) in enumerate(runs):
            made = _made(kernel, count)
            with record_function(f"kernel {number}"):
                result = _call(kernel.operation, made)
            del made, result
    recorded: Any = recording.profiler
    events = sorted(recorded.kineto_results.events(), key=lambda event: event.start_ns())
    runs_seen = (e for e in events if e.name().startswith("kernel "))
    spans = {e.name(): (e.start_ns(), e.start_ns() + e.duration_ns()) for e in runs_seen}
    sizes = iter([(e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"])
    found, event = [], next(sizes, None)
    for number in range(len(runs)):
        start, end = spans[f"kernel {number}"]
        live = highest = 0
        while event is not None and event[0] <= end:
            if event[0] >= start:
                live += event[1]
                highest = max(highest, live)
            event = next(sizes, None)
        found.append(highest - live)
    return found
