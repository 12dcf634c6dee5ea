"""A module's parameters, packed in Format A between uses.

While packed, a parameter keeps its shape, at the cost of one number, and refuses to be read or written: who
uses it outside of the module's passes is told so in one line (see packed_tensors.py).
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

SEGMENT = 1 << 16  # numbers; a step on a parameter needs memory for a few of them


class PackedWeights:
    """The packed form of each parameter of a module; ``state_dict`` and ``load_state_dict`` see float32.

    A weight is kept as its words, or not at all where it can be made again from its accumulator: with the
    key of its rounding (``recompute``).
    """

    def __init__(self, module: nn.Module, fmt: FloatFormat, parameters: Parameters) -> None:
        self.module = module
        self.format = fmt
        self.parameters = parameters
        self.packed: dict[Tensor, PackedTensor] = {}
        self.recomputed: dict[Tensor, tuple[PackedTensor, int | None]] = {}
        self.spoiled: set[Tensor] = set()  # hold NaN, for which there is no code
        self._filled: dict[int, tuple[Any, Tensor]] = {}
        self._handles: list[Any] = []
        for submodule in module.modules():
            if submodule._parameters:
                self._watch(submodule)

    def _watch(self, module: Any) -> None:
        """Have a module's states read and written in float32."""
        self._handles += [
            module.register_state_dict_pre_hook(self._open_state),
            module.register_state_dict_post_hook(partial(self._write_state)),  # it sets an attribute
            module.register_load_state_dict_pre_hook(self._before_load),
            module.register_load_state_dict_post_hook(self._after_load),
        ]

    def __getstate__(self) -> dict[str, Any]:
        """What a deep copy takes: not the weak references to what is in use now."""
        return self.__dict__ | {"_filled": {}, "_handles": []}

    def pack(self, parameter: Tensor) -> bool:
        """Pack a parameter that holds its values; False where it cannot be, and stays as it is."""
        if parameter.dtype != torch.float32 or not is_dense(parameter):
            return False
        packed = PackedTensor.try_pack(parameter.data, self.format, segment_length(parameter))
        if packed is None:
            return False
        self.packed[parameter] = packed
        self.empty(parameter)
        return True

    def holds(self, parameter: Tensor) -> bool:
        """Whether a tensor is a parameter that is packed or recomputed here."""
        return parameter in self.packed or parameter in self.recomputed

    def unpacked(self, parameter: Tensor) -> Tensor:
        """A parameter's values, in new memory."""
        if parameter in self.recomputed:
            accumulator, key = self.recomputed[parameter]
            values = accumulator.unpack()
            round_to(values, self.format, key, values)
        else:
            values = self.packed[parameter].unpack()
        return values.fill_(math.nan) if parameter in self.spoiled else values

    def fill(self, parameter: Tensor) -> None:
        """Give a parameter its values until it is emptied; views keep the memory for as long as they live."""
        values = self.unpacked(parameter)
        give(parameter, values)
        write_note(values, ())
        storage = values.untyped_storage()
        self._filled[storage._cdata] = (weakref.ref(storage), parameter)

    def empty(self, parameter: Tensor) -> None:
        """Let go of a parameter's values."""
        emptied(parameter)  # type: ignore[arg-type]

    def forget_parameter(self, parameter: Tensor) -> None:
        """Give one parameter its values for good."""
        if self.holds(parameter):
            give(parameter, self.unpacked(parameter))
            self.packed.pop(parameter, None)
            self.recomputed.pop(parameter, None)

    def owner(self, tensor: Tensor) -> Tensor | None:
        """The parameter whose memory a tensor lies in, if it is one of those filled."""
        entry = self._filled.get(tensor.untyped_storage()._cdata)
        return None if entry is None or entry[0]() is None else entry[1]

    def forget(self) -> None:
        """Drop what is known of memory that has been freed."""
        self._filled = {key: entry for key, entry in self._filled.items() if entry[0]() is not None}

    def release(self) -> None:
        """Give all parameters their values for good, and stop."""
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
    """Numbers that are packed together: whole rows of the first dimension, where these lie in a row."""
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
    """A segment's row of numbers in the shape of its part of the tensor."""
    count = like.shape.numel()
    if flat.numel() == count:
        return flat.as_strided(like.shape, like.stride)
    row = count // like.shape[0]
    return flat.as_strided((flat.numel() // row, *like.shape[1:]), like.stride)


def flat_rows(x: Tensor, like: PackedTensor) -> Tensor:
    """``x`` as one row in the memory order of ``like``: a view where it lies so already."""
    if x.stride() != like.stride:
        x = torch.empty_strided(like.shape, like.stride, device=x.device).copy_(x)
    return in_memory_order(x)
