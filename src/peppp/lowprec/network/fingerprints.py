"""Fingerprints that show whether a tensor still has the same numbers: 32 bits, in any memory layout.

A fingerprint is the sum over all elements of their bits times (2 * row-major index + 1), modulo 2^32.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from peppp.lowprec.rounding.kernels import available
from peppp.lowprec.rounding.shape_only import is_shape_only


def fingerprints(tensors: Sequence[Tensor]) -> list[int]:
    """Return the fingerprint of each float32 tensor; 0 for tensors without numbers (meta or fake ones).

    >>> fingerprints([torch.ones(3), torch.ones(3) * 2, torch.ones(3)])
    [998244352, 1073741824, 998244352]
    """
    layouts = [_layout(tensor) for tensor in tensors]
    if not tensors:
        return []
    if available() and None not in layouts:
        from peppp.lowprec.network.fingerprint_loops import sum_all

        addresses = np.array([tensor.data_ptr() for tensor in tensors], dtype=np.int64)
        return sum_all(addresses, np.array(layouts, dtype=np.int64)).tolist()  # type: ignore[no-any-return]
    return [_eagerly(tensor) for tensor in tensors]


def _layout(x: Tensor) -> tuple[int, int, int] | None:
    """(images, channels, pixels) of contiguous memory (as one channel) or channels_last; else None."""
    if not x.is_cpu or is_shape_only(x) or x.dtype is not torch.float32:
        return None
    if x.is_contiguous():
        return 1, 1, x.numel()
    if x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last):
        return x.shape[0], x.shape[1], x.shape[2] * x.shape[3]
    return None


def _eagerly(x: Tensor) -> int:
    if is_shape_only(x):
        return 0
    words: Any = x.detach().contiguous().flatten().view(torch.int32).to(torch.int64)
    odd = 2 * torch.arange(words.numel(), device=x.device) + 1
    return int((words * odd).sum()) & 0xFFFFFFFF
