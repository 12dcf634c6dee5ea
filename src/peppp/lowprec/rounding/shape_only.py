"""Whether a tensor has numbers: rehearsals run every step on shapes alone."""

from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor


def is_shape_only(x: Tensor) -> bool:
    """Whether ``x`` has a shape and no numbers: it lies on the meta device, or is a fake tensor.

    >>> import torch
    >>> is_shape_only(torch.empty(2, device="meta")), is_shape_only(torch.empty(2))
    (True, False)
    """
    return x.is_meta or isinstance(x, FakeTensor)
