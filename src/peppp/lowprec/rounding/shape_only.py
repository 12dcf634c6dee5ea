"""Tensors without numbers: rehearsals run every step on shapes only."""

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor


def is_shape_only(x: Tensor) -> bool:
    """Whether ``x`` has a shape but no numbers: it is on the meta device, or a fake tensor.

    >>> import torch
    >>> is_shape_only(torch.empty(2, device="meta")), is_shape_only(torch.empty(2))
    (True, False)
    """
    return x.is_meta or isinstance(x, FakeTensor)


def copy_if_scattered(*tensors: Tensor) -> None:
    """Allocate briefly what kernels.py needs to copy tensors whose layout its loops do not support."""
    formats = [torch.contiguous_format, torch.channels_last][: 2 if tensors[0].dim() == 4 else 1]
    if any(all(x.is_contiguous(memory_format=f) for x in tensors) for f in formats):
        return
    torch.empty(tensors[0].shape, device=tensors[0].device)
