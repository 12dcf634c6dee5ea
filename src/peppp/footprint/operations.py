"""Counts the multiply-adds of a training step without data (on meta tensors)."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from peppp.errors import NetworkError


def count_multiply_adds(
    network: nn.Module,
    input_shape: Sequence[int],
    batch_size: int,
    *,
    dtype: torch.dtype = torch.float32,
    loss: Callable[[Tensor], Tensor] | None = None,
) -> int:
    """Count the multiply-adds of convolutions, linear layers and attention in one step, forward and backward.

    The arguments are those of :func:`peppp.footprint.counting.count_elements`; the network is on the meta
    device. Norms and activations, a small part, are not counted. Raises NetworkError if the network cannot
    run on inputs of that shape.

    >>> count_multiply_adds(nn.Linear(10, 4, device="meta"), [10], 32)  # forward pass and weight gradient
    2560
    """
    inputs = torch.empty(batch_size, *input_shape, dtype=dtype, device="meta")
    labels = torch.zeros(batch_size, dtype=torch.int64, device="meta")
    from torch.utils.flop_counter import FlopCounterMode  # loads triton where it is installed

    counter = FlopCounterMode(display=False)
    try:
        with counter:
            outputs = network(inputs)
            found = loss(outputs) if loss else nn.functional.cross_entropy(outputs, labels)
            found.backward()  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        shape = "x".join(str(side) for side in input_shape)
        raise NetworkError(
            f"the operations of {type(network).__name__} cannot be counted on inputs of {shape}: "
            f"{str(error).splitlines()[0]}"
        ) from None
    return int(counter.get_total_flops()) // 2
