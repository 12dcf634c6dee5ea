"""Operations that choose their type as torch's autocast does: narrow, or float32.

Numbers are narrow if the note on their memory is a tuple (memory.py). All others are float32: parameters,
inputs, buffers, and the results of softmax and of layer and group norms. Products round their operands and
their results. The results of other operations are narrow if all that they read is narrow. Each use of a
weight rounds it again, where autocast caches a copy for the pass: the numbers are the same, but gradients of
several uses are added in float32.

The lists follow torch's documentation for CUDA ("autocast op reference"). On the CPU, torch leaves
softmax and norms in the type of their input.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from peppp.lowprec.network.memory import NOTE, memories_of, note_on, settle, write_note
from peppp.lowprec.network.mode import RUNNING, RoundingInterceptor, versions_of, whole
from peppp.lowprec.network.nested import mapped, tensors_in
from peppp.lowprec.network.rules import KINDS, NORMS_WITH_STATISTICS, RELUS, Kind, functions_of
from peppp.lowprec.network.scaled_products import in_products
from peppp.lowprec.rounding.functions import round_copy

_PRODUCTS = """
    __matmul__ __rmatmul__ addbmm addmm addmv addr baddbmm bmm chain_matmul multi_dot conv1d conv2d conv3d
    conv_transpose1d conv_transpose2d conv_transpose3d linear matmul mm mv prelu gru_cell lstm_cell
    rnn_tanh_cell rnn_relu_cell lstm gru rnn_tanh rnn_relu scaled_dot_product_attention
    multi_head_attention_forward einsum bilinear
"""
_FLOAT32 = """
    __pow__ __rpow__ __rtruediv__ acos asin cosh cdist cosine_similarity cumprod cumsum dist erfinv exp expm1
    group_norm layer_norm log log10 log2 log1p log_softmax norm normalize pdist pow prod reciprocal renorm
    rsqrt sinh softmax softmin softplus sum tan
"""
PRODUCTS = {function for name in _PRODUCTS.split() for function in functions_of(name)}
FLOAT32 = {function for name in _FLOAT32.split() for function in functions_of(name)}
_CASTS = {Tensor.float, Tensor.to, Tensor.type, Tensor.type_as}


class CastingInterceptor(RoundingInterceptor):
    """Sees every torch operation of a pass and gives its results the type that autocast would give them."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Round the operands of products, run ``func``, and let narrow results wait to be rounded."""
        kind, state, kwargs = KINDS.get(func), self.state, kwargs or {}
        if kind is Kind.UNTOUCHED or RUNNING[-1] is not state:
            return func(*args, **kwargs)
        run = func
        if func in PRODUCTS:
            args, kwargs = mapped((args, kwargs), self._narrow)
            run = in_products(func, state)
            if func is torch.conv2d and run is not func:
                state.look_at_convolution(*args, **kwargs)
        if func in RELUS and len(args) == 1 and not kwargs.get("inplace"):
            fused = self._relu(args[0])
            if fused is not None:
                return fused
        operands = tensors_in(kwargs, tensors_in(args, []))
        cast = _cast_to(func, args, kwargs) if func in _CASTS else None
        if cast is not None and len(operands) and operands[0].dtype == torch.float32:
            return self._cast(operands[0], cast)
        if kind is Kind.RESHAPED:
            return self._reshape(func, args, kwargs, operands)
        memories = memories_of(operands)
        for memory in memories:
            if note_on(memory):
                settle(memory)  # type: ignore[arg-type]
        narrow = (
            func not in FLOAT32 and kind is not Kind.LOSS and (func in PRODUCTS or _is_narrow(func, operands))
        )
        before = versions_of(operands)
        result = self._run(run, args, kwargs)
        changed = [
            x for x, old, new in zip(operands, before, versions_of(operands), strict=True) if old != new
        ]
        if narrow and kind is Kind.KEPT:
            for tensor in tensors_in((result,), []):
                if tensor.is_floating_point() and note_on(tensor.untyped_storage()) is None:
                    write_note(tensor, ())
        elif narrow:
            result = self._results(func, kind or Kind.ROUNDED_COPY, memories, result)
        for operand in changed:
            if kind is not Kind.KEPT and isinstance(note_on(operand.untyped_storage()), tuple):
                self._wait(func, kind or Kind.ROUNDED, whole(operand))
        return result

    def _cast(self, tensor: Tensor, narrow: bool) -> Tensor:
        """Cast float32 numbers as requested: to the narrow type, or to float32 from now on."""
        if narrow:
            return self._narrow(tensor)
        memory = tensor.untyped_storage()
        if not isinstance(note_on(memory), tuple):
            return tensor
        settle(memory)
        return tensor.clone()

    def _narrow(self, tensor: Tensor) -> Tensor:
        """Return a rounded copy of float32 numbers; narrow ones are returned as they are."""
        if tensor.dtype != torch.float32 or isinstance(note_on(tensor.untyped_storage()), tuple):
            return tensor
        copy = round_copy(tensor, self.state.next_point("cast"))
        write_note(copy, ())
        return copy


def _cast_to(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool | None:
    """Whether a cast asks for the narrow type, as of another tensor; None if it is no cast of float32."""
    if func is Tensor.float:
        return False
    for value in (*args[1:], *kwargs.values()):
        if isinstance(value, Tensor) and value.dtype == torch.float32:
            return isinstance(note_on(value.untyped_storage()), tuple)
        if value in (torch.float32, "torch.FloatTensor"):
            return False
    return None


def _is_narrow(func: Callable[..., Any], operands: list[Tensor]) -> bool:
    """Whether results are narrow: all operands are. Zero-dimensional ones do not count, unless all are."""
    if func in NORMS_WITH_STATISTICS:
        operands = operands[:1]  # weights and statistics are float32
    read = [x for x in operands if x.is_floating_point()]
    deciding = [x for x in read if x.dim()] or read
    notes = [x.untyped_storage().__dict__.get(NOTE) for x in deciding]
    return bool(notes) and all(isinstance(note, tuple) for note in notes)
