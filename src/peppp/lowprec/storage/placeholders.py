"""Placeholder tensors for packed numbers: they raise an error in one line instead of giving wrong numbers.

Torch calls ``__torch_function__`` of a tensor's class for every operation on it. A packed parameter, a used
gradient and a copy of packed weights each refuse the operations that would lose numbers or give wrong ones.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from peppp.errors import NetworkError
from peppp.lowprec.network.memory import write_note
from peppp.lowprec.network.nested import tensors_in
from peppp.lowprec.network.rules import KINDS, Kind
from peppp.lowprec.rounding.shape_only import is_shape_only

_PROPERTIES: Any = Tensor  # typed as Any: mypy does not know the functions of its properties
_ALSO = {
    _PROPERTIES.grad.__set__,
    _PROPERTIES.grad.__delete__,
    _PROPERTIES.requires_grad.__set__,
    _PROPERTIES._backward_hooks.__get__,
    _PROPERTIES._backward_hooks.__set__,
    _PROPERTIES._post_accumulate_grad_hooks.__get__,
    _PROPERTIES._post_accumulate_grad_hooks.__set__,
    Tensor.register_post_accumulate_grad_hook,
    torch._has_compatible_shallow_copy_type,
    torch.autograd.grad,  # its inputs need no numbers
}
_CASTS = {Tensor.to, Tensor.cpu, Tensor.float, Tensor.contiguous}


class _Refusing:
    """Refuses, with the message ``refusal``, all operations that need numbers."""

    refusal = ""
    allowed: frozenset[Any] = frozenset()

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with torch._C.DisableTorchFunctionSubclass():
            if KINDS.get(func) is Kind.UNTOUCHED or func in _ALSO or func in cls.allowed:
                return func(*args, **(kwargs or {}))
            if func in _CASTS:  # allowed if there is nothing to convert
                result = func(*args, **(kwargs or {}))
                if result is args[0]:
                    return result
            if func == _PROPERTIES.data.__set__ and args[1] is args[0]:  # as Module.to does in that case
                return None
        raise NetworkError(cls.refusal.format(name=getattr(func, "__name__", "this")))


class PackedParameter(_Refusing, nn.Parameter):
    """A parameter between uses: it has a shape and a gradient, but no numbers."""

    refusal = (
        "a packed parameter has no numbers to read or write outside of its network's passes ({name}): "
        "state_dict() gives them, load_state_dict() sets them; copies, averages and DistributedDataParallel "
        "need storage='simulated'"
    )

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if id(self) not in memo:
            with torch._C.DisableTorchFunctionSubclass():
                memo[id(self)] = emptied(nn.Parameter(self.data, self.requires_grad))
        return memo[id(self)]

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"a packed parameter of shape {tuple(self.shape)}"


def emptied(parameter: nn.Parameter) -> nn.Parameter:
    """Remove the numbers of a parameter, except for one, and return it."""
    give(parameter, torch.full((), math.nan, device=parameter.device).expand(parameter.shape))
    write_note(parameter, ())
    if not is_shape_only(parameter):  # the class of a fake tensor must stay
        parameter.__class__ = PackedParameter
    return parameter


def give(parameter: Tensor, values: Tensor) -> None:
    """Make a parameter a plain one again, with these numbers."""
    if not is_shape_only(parameter):
        parameter.__class__ = nn.Parameter
    parameter.data = values


class UsedGradient(_Refusing, Tensor):
    """Takes the place of a gradient that has been used up, or is kept packed."""

    refusal = (
        "the gradients of this network are not kept in float32 ({name}): its optimizer steps in the backward "
        "pass or keeps them packed; for clipping, a GradScaler or reading them, make it with gradients='fp32'"
    )
    allowed = frozenset({Tensor.zero_, Tensor.detach_})

    @classmethod
    def of(cls, parameter: Tensor) -> Tensor:
        """Return the placeholder for a parameter's gradient."""
        used = torch.zeros((), device=parameter.device).expand(parameter.shape)
        return used if is_shape_only(used) else used.as_subclass(cls)

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"a used gradient of shape {tuple(self.shape)}"


class Snapshot(Tensor):
    """A copy of packed weights, as ``state_dict()`` returns it; it refuses writes, which would be lost."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = [x for x in tensors_in((args, kwargs or {}), []) if isinstance(x, Snapshot)]
        with torch._C.DisableTorchFunctionSubclass():
            before = [x._version for x in given]
            result = func(*args, **(kwargs or {}))
            if before != [x._version for x in given]:
                raise NetworkError(
                    "state_dict() of a packed network gives copies of its weights: writing into them changes "
                    "nothing; clone them, and set weights by load_state_dict()"
                )
            if isinstance(result, Tensor) and result.layout == torch.strided:
                memory = result.untyped_storage()
                if any(memory is x.untyped_storage() for x in given):
                    return result.as_subclass(Snapshot)
        return result

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        return self.as_subclass(Tensor).clone()

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.as_subclass(Tensor).__reduce_ex__(protocol)  # type: ignore[no-untyped-call]
