"""A module's parameters, packed in Format A between uses.

A packed parameter keeps its shape, at the cost of one number. Reading or writing it outside of the module's
passes raises an error in one line (see placeholders.py).
"""

import math
import weakref
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from peppp.formats import FloatFormat
from peppp.lowprec.network.fingerprints import fingerprints
from peppp.lowprec.network.memory import write_note
from peppp.lowprec.network.parameters import Parameters, know
from peppp.lowprec.packing.packed_tensor import PackedTensor, in_memory_order, is_dense
from peppp.lowprec.rounding.quantize import round_to
from peppp.lowprec.storage.placeholders import Snapshot, emptied, give

SEGMENT = 1 << 16  # numbers; a step of SGD unpacks one segment of each tensor at a time


class PackedWeights:
    """The packed form of each parameter of a module; ``state_dict`` and ``load_state_dict`` use float32.

    A weight is kept as words, or not at all if it can be recomputed by rounding its accumulator: then
    ``recomputed`` holds the accumulator and the key of the rounding.
    """

    def __init__(self, module: nn.Module, fmt: FloatFormat, parameters: Parameters) -> None:
        self.module = module
        self.format = fmt
        self.parameters = parameters
        self.packed: dict[Tensor, PackedTensor] = {}
        self.recomputed: dict[Tensor, tuple[PackedTensor, int | None]] = {}
        self.spoiled: set[Tensor] = set()  # parameters with a number without a code, such as NaN
        self._filled: dict[int, tuple[Any, Tensor]] = {}
        self._handles: list[Any] = []
        for submodule in module.modules():
            if submodule._parameters:
                self._watch(submodule)

    def _watch(self, module: Any) -> None:
        """Register hooks so that a module's state is read and written in float32."""
        self._handles += [
            module.register_state_dict_pre_hook(self._open_state),
            module.register_state_dict_post_hook(partial(self._write_state)),  # it sets an attribute
            module.register_load_state_dict_pre_hook(self._before_load),
            module.register_load_state_dict_post_hook(self._after_load),
        ]

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for a deep copy, without the weak references to memory in use."""
        return self.__dict__ | {"_filled": {}, "_handles": []}

    def pack(self, parameter: Tensor) -> bool:
        """Pack a parameter's values; returns False, and changes nothing, if this is not possible."""
        if parameter.dtype != torch.float32 or not is_dense(parameter):
            return False
        packed = PackedTensor.try_pack(parameter.data, self.format, segment_length(parameter))
        if packed is None:
            return False
        self.packed[parameter] = packed
        self.empty(parameter)
        return True

    def holds(self, parameter: Tensor) -> bool:
        """Whether a parameter is packed or recomputed here."""
        return parameter in self.packed or parameter in self.recomputed

    def unpacked(self, parameter: Tensor) -> Tensor:
        """Return a parameter's values, in new memory."""
        if parameter in self.recomputed:
            accumulator, key = self.recomputed[parameter]
            values = accumulator.unpack()
            round_to(values, self.format, key, values)
        else:
            values = self.packed[parameter].unpack()
        return values.fill_(math.nan) if parameter in self.spoiled else values

    def fill(self, parameter: Tensor) -> None:
        """Give a parameter its values until :meth:`empty`; views keep the memory alive."""
        values = self.unpacked(parameter)
        give(parameter, values)
        write_note(values, ())
        storage = values.untyped_storage()
        self._filled[storage._cdata] = (weakref.ref(storage), parameter)

    def empty(self, parameter: Tensor) -> None:
        """Free a parameter's values."""
        emptied(parameter)  # type: ignore[arg-type]

    def forget_parameter(self, parameter: Tensor) -> None:
        """Unpack one parameter for good."""
        if self.holds(parameter):
            give(parameter, self.unpacked(parameter))
            self.packed.pop(parameter, None)
            self.recomputed.pop(parameter, None)

    def owner(self, tensor: Tensor) -> Tensor | None:
        """Return the filled parameter in whose memory a tensor is, or None."""
        entry = self._filled.get(tensor.untyped_storage()._cdata)
        return None if entry is None or entry[0]() is None else entry[1]

    def forget(self) -> None:
        """Drop the entries for memory that has been freed."""
        self._filled = {key: entry for key, entry in self._filled.items() if entry[0]() is not None}

    def release(self) -> None:
        """Unpack all parameters for good, and remove the hooks."""
        for parameter in (*self.packed, *self.recomputed):
            self.forget_parameter(parameter)
        for handle in self._handles:
            handle.remove()

    def _own(self, module: nn.Module) -> list[tuple[str, Tensor]]:
        own = module._parameters.items()
        return [(name, p) for name, p in own if p is not None and self.holds(p)]

    def _open_state(self, module: nn.Module, *_: Any) -> None:
        for _name, parameter in self._own(module):
            give(parameter, self.unpacked(parameter))

    def _write_state(self, module: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
        for name, parameter in self._own(module):
            if prefix + name in state:
                state[prefix + name] = state[prefix + name].detach().as_subclass(Snapshot)
            self.empty(parameter)

    def _before_load(self, module: nn.Module, *_: Any) -> None:
        for _name, parameter in self._own(module):
            self.fill(parameter)
            know(parameter, *fingerprints([parameter]))

    def _after_load(self, module: nn.Module, _: Any) -> None:
        for _name, parameter in self._own(module):
            self.spoiled.discard(parameter)
            self.packed.pop(parameter, None)
            self.recomputed.pop(parameter, None)  # until the next step
            (fingerprint,) = fingerprints([parameter])
            owner = self.parameters.owner(parameter)
            if owner is None:
                round_to(parameter.data, self.format, None, parameter.data)
                self.pack(parameter)
            else:
                owner.adopt(parameter, fingerprint)


def segment_length(parameter: Tensor) -> int:
    """How many numbers to pack together: whole rows of the first dimension if these are contiguous."""
    count = max(parameter.numel(), 1)
    if parameter.dim() == 0 or parameter.shape[0] == 0:
        return count
    row = count // parameter.shape[0]
    if not parameter.is_contiguous() and (
        parameter.dim() != 4 or not parameter.is_contiguous(memory_format=torch.channels_last)
    ):
        return count
    return max(SEGMENT // row, 1) * row


def rows(flat: Tensor, like: PackedTensor) -> Tensor:
    """View a flat segment in the shape of its part of the tensor."""
    count = like.shape.numel()
    if flat.numel() == count:
        return flat.as_strided(like.shape, like.stride)
    row = count // like.shape[0]
    return flat.as_strided((flat.numel() // row, *like.shape[1:]), like.stride)


def flat_rows(x: Tensor, like: PackedTensor) -> Tensor:
    """Return ``x`` as a flat tensor in the memory order of ``like``: a view if the strides agree."""
    if x.stride() != like.stride:
        x = torch.empty_strided(like.shape, like.stride, device=x.device).copy_(x)
    return in_memory_order(x)
