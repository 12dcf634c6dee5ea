"""What is known of torch's operations, by name; the rule is in mode.py, and these lists only save work.

The results of an operation in no list are rounded, and it is reported once, since it may compute several
steps inside. So a missing name costs time and a warning. Only two lists can make a number wrong, and are kept
short for that reason: operations that move values (``KEPT``, ``RESHAPED``), and losses.
"""

from collections.abc import Callable, Iterator
from enum import Enum, auto
from types import GetSetDescriptorType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


class Kind(Enum):
    """How an operation treats the values that it reads."""

    ROUNDED = auto()  # arithmetic whose backward pass does not need its own result
    ROUNDED_COPY = auto()  # arithmetic whose backward pass keeps its own unrounded result
    KEPT = auto()  # moves or selects values
    RESHAPED = auto()  # moves the values of one tensor, mostly as a view of its memory
    MADE = auto()  # makes or draws numbers and reads none
    LOSS = auto()  # computes on values as they are, rounded or not; its result is not rounded either
    UNTOUCHED = auto()  # reads no values


_NAMES = {
    Kind.ROUNDED: """
        conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d linear bilinear matmul mm bmm
        mv dot addmm addmv baddbmm einsum tensordot batch_norm layer_norm group_norm instance_norm rms_norm
        local_response_norm add __add__ __radd__ __iadd__ sub subtract rsub mul multiply div divide
        true_divide addcmul addcdiv lerp cumsum __sub__ __rsub__ __isub__ __mul__ __rmul__ __imul__
        __truediv__ __rtruediv__ __itruediv__ __matmul__ __rmatmul__ gelu silu mish elu selu celu leaky_relu
        prelu softplus hardswish log log2 log10 log1p square avg_pool1d avg_pool2d avg_pool3d
        adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d mean sum interpolate embedding_bag dropout
        dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout normalize index_add scatter_add
        segment_reduce sin cos erf softsign fold index_put scatter logsigmoid vdot inner outer softshrink
        tanhshrink rrelu glu upsample grid_sample
    """,
    Kind.ROUNDED_COPY: """
        softmax log_softmax softmin logsumexp sigmoid tanh exp expm1 sqrt rsqrt pow __pow__ __rpow__
        reciprocal norm hardsigmoid cosine_similarity scaled_dot_product_attention
        multi_head_attention_forward var std prod cumprod index_reduce scatter_reduce
    """,
    Kind.KEPT: """
        max_pool1d max_pool2d max_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d
        max_pool1d_with_indices max_pool2d_with_indices max_pool3d_with_indices max_unpool1d max_unpool2d
        max_unpool3d relu relu6 hardtanh threshold hardshrink repeat repeat_interleave index_select gather
        take take_along_dim cat concat concatenate stack hstack vstack dstack tile roll flip fliplr flipud
        rot90 pad embedding where masked_fill masked_select masked_scatter __setitem__ neg negative __neg__
        abs __abs__ maximum minimum fmax fmin max min amax amin aminmax median kthvalue mode sort topk unfold
        clamp clamp_min clamp_max clip pixel_shuffle pixel_unshuffle channel_shuffle zero_ fill_ fill copy_
        index_copy index_fill _pack_padded_sequence _pad_packed_sequence tril triu sign sgn one_hot tolist
        item
    """,
    Kind.RESHAPED: """
        squeeze unsqueeze flatten ravel view view_as unflatten permute transpose t expand expand_as
        broadcast_to narrow select split tensor_split chunk unbind movedim moveaxis swapaxes swapdims diagonal
        reshape reshape_as contiguous clone detach to type type_as float cpu cuda __getitem__ as_strided
        view_as_real view_as_complex conj resolve_conj resolve_neg adjoint
    """,
    Kind.MADE: """
        zeros_like ones_like full_like empty_like rand_like randn_like randint_like new_zeros new_ones
        new_full new_empty new_empty_strided new_tensor bernoulli normal poisson uniform_ exponential_
        log_normal_ cauchy_ geometric_ random_
    """,
    Kind.UNTOUCHED: """
        size dim numel stride is_contiguous is_floating_point is_complex element_size storage_offset
        is_same_size ndimension __len__ __hash__ requires_grad_ register_hook retain_grad data_ptr
        untyped_storage is_tensor get_device is_conj is_neg is_inference is_signed is_pinned is_shared
    """,
    Kind.LOSS: """
        cross_entropy nll_loss mse_loss l1_loss smooth_l1_loss huber_loss kl_div binary_cross_entropy
        binary_cross_entropy_with_logits ctc_loss poisson_nll_loss gaussian_nll_loss margin_ranking_loss
        multi_margin_loss multilabel_margin_loss multilabel_soft_margin_loss soft_margin_loss
        hinge_embedding_loss cosine_embedding_loss triplet_margin_loss triplet_margin_with_distance_loss
    """,
}
_PROPERTIES = {
    Kind.RESHAPED: "T mT H mH data real imag",
    Kind.UNTOUCHED: """
        shape ndim dtype device layout requires_grad grad grad_fn names itemsize nbytes output_nr _version
        _base
    """,
}
# Arithmetic that can turn finite numbers into infinity, for example if a divisor was rounded to zero.
_POLES = """
    div divide true_divide addcdiv __truediv__ __rtruediv__ __itruediv__ reciprocal rsqrt log log2 log10 log1p
    pow __pow__ __rpow__ exp expm1 div_ addcdiv_ reciprocal_ rsqrt_ log_ log2_ log10_ log1p_ pow_ exp_ expm1_
"""


def functions_of(name: str) -> Iterator[Callable[..., Any]]:
    """Yield the functions that torch has under a name, in all of its namespaces."""
    for home in (torch, functional, Tensor, torch._C._nn, torch.special):
        found = getattr(home, name, None)
        if callable(found):
            yield found


def _table() -> dict[Any, Kind]:
    kinds: dict[Any, Kind] = {}
    for kind, names in _NAMES.items():
        for name in names.split():  # and its in-place form
            kinds.update({function: kind for form in (name + "_", name) for function in functions_of(form)})
    for kind, names in _PROPERTIES.items():
        kinds.update({getattr(Tensor, name).__get__: kind for name in names.split() if hasattr(Tensor, name)})
    kinds.update(
        {p.__get__: Kind.UNTOUCHED for name, p in vars(torch._C.TensorBase).items() if _tells(name, p)}
    )
    return kinds


def _tells(name: str, found: object) -> bool:
    """Whether an attribute is a property such as ``is_cuda``."""
    return name.startswith("is_") and isinstance(found, GetSetDescriptorType)


# The kind of each function that torch's function mode hands over.
KINDS = _table()
POLES = {function for name in _POLES.split() for function in functions_of(name)}
# Functions of POLES that cannot give infinity if their second operand is a positive number.
_TAME = "div divide true_divide __truediv__ __itruediv__ div_ pow __pow__ pow_"
TAME_WITH_SCALARS = {function for name in _TAME.split() for function in functions_of(name)}
RELUS = {torch.relu, functional.relu, Tensor.relu}
# Functions that move real numbers, but compute with complex ones.
COMPLEX = {function for name in ("abs", "__abs__", "sgn") for function in functions_of(name)}
# Their float32 operands are running statistics, which stay float32.
NORMS_WITH_STATISTICS = {
    functional.batch_norm,
    functional.instance_norm,
    torch.batch_norm,
    torch.instance_norm,
}
EMPTY = {torch.empty_like, Tensor.new_empty, Tensor.new_empty_strided, torch.empty, torch.empty_strided}
