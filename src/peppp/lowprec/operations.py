"""What happens to the result of each torch operation: rounded, kept, or reported as not rounded.

A result is rounded where arithmetic made new values: convolution, linear and attention outputs, after
normalisation and residual addition, GELU and softmax outputs, pooled features. Operations that only move or
select values keep them representable.
"""

from collections.abc import Callable, Iterator
from enum import Enum, auto
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


class Kind(Enum):
    """How an operation's result is treated."""

    ROUNDED = auto()  # in place, when first used: the operation's backward does not need its own result
    ROUNDED_COPY = auto()  # at once, into a new tensor: its backward keeps the unrounded result
    RELU = auto()  # rounds and cuts at zero in one go where its input still waits to be rounded
    KEPT = auto()  # moves or selects values
    RESHAPED = auto()  # as KEPT, of the module's own result too: it waits on
    LOSS = auto()  # computed on what waits to be rounded as it is; its result is not rounded either
    UNTOUCHED = auto()  # reads no values


_NAMES = {
    Kind.ROUNDED: """
        conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d linear bilinear matmul mm bmm
        addmm baddbmm einsum batch_norm layer_norm group_norm instance_norm rms_norm local_response_norm
        add __add__ __radd__ __iadd__ add_ sub subtract rsub mul multiply div divide true_divide addcmul
        addcdiv lerp cumsum __sub__ __rsub__ __isub__ __mul__ __rmul__ __imul__ __truediv__ __rtruediv__
        __itruediv__ __matmul__ __rmatmul__ sub_ mul_ div_ gelu silu mish elu selu celu leaky_relu prelu
        softplus hardswish log square avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d
        adaptive_avg_pool2d adaptive_avg_pool3d mean sum interpolate embedding_bag dropout dropout2d
        alpha_dropout normalize
    """,
    Kind.ROUNDED_COPY: """
        softmax log_softmax logsumexp sigmoid tanh exp sqrt rsqrt pow __pow__ reciprocal norm hardsigmoid
        cosine_similarity scaled_dot_product_attention multi_head_attention_forward
    """,
    Kind.RELU: "relu relu_",
    Kind.KEPT: """
        max_pool1d max_pool2d max_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d
        max_pool1d_with_indices max_pool2d_with_indices max_pool3d_with_indices relu6 hardtanh threshold
        reshape view unflatten permute transpose t expand expand_as repeat repeat_interleave narrow select
        index_select gather take cat concat stack hstack vstack split chunk unbind tile roll flip movedim
        moveaxis swapaxes contiguous clone detach to type float pad embedding where masked_fill masked_fill_
        __getitem__ __setitem__ neg __neg__ abs maximum minimum max min amax amin sort topk unfold clamp
        pixel_shuffle pixel_unshuffle channel_shuffle zero_ fill_ copy_ zeros_like ones_like sign one_hot
        tril triu view_as reshape_as type_as cpu cuda diagonal
    """,
    Kind.RESHAPED: "squeeze unsqueeze flatten",
    Kind.UNTOUCHED: """
        size dim numel stride is_contiguous is_floating_point is_complex element_size storage_offset
        ndimension __len__ __hash__ requires_grad_ register_hook retain_grad
    """,
    Kind.LOSS: """
        cross_entropy nll_loss mse_loss l1_loss smooth_l1_loss huber_loss kl_div binary_cross_entropy
        binary_cross_entropy_with_logits
    """,
}
_PROPERTIES = {
    Kind.KEPT: "T mT H data real",
    Kind.UNTOUCHED: """
        shape ndim dtype device layout requires_grad is_leaf grad grad_fn is_cuda is_sparse is_meta is_nested
        is_quantized is_mkldnn names itemsize nbytes output_nr _version
    """,
}


def _functions(name: str) -> Iterator[Callable[..., Any]]:
    for home in (torch, functional, Tensor, torch._C._nn):
        found = getattr(home, name, None)
        if callable(found):
            yield found


def _table() -> dict[Any, Kind]:
    kinds: dict[Any, Kind] = {}
    for kind, names in _NAMES.items():
        kinds.update({function: kind for name in names.split() for function in _functions(name)})
    for kind, names in _PROPERTIES.items():
        kinds.update({getattr(Tensor, name).__get__: kind for name in names.split() if hasattr(Tensor, name)})
    return kinds


# The kind of each function that torch's function mode hands over; others are reported as not rounded.
KINDS = _table()
