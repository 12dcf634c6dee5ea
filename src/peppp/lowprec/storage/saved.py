"""The tensors that a forward pass saves for its backward pass, packed if Format A holds them exactly.

Each storage is packed once, however many operations save it or views of it: the result of a ReLU and the
input of the next convolution are one. What Format A does not hold (statistics of norms, unrounded results of
softmax) stays as it is, and is counted by name.

During the pass, a network's own code often still holds what is packed already: a block's input, until it is
added to the block's result. Such memory is emptied after each operation that used it, and filled for the
next one.
"""

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from peppp.errors import NetworkError
from peppp.formats import FloatFormat
from peppp.lowprec.network.memory import note_on
from peppp.lowprec.packing.packed_tensor import PackedTensor
from peppp.lowprec.storage.weights import PackedWeights

_SMALLEST = 64  # numbers; packing fewer is not worth the call


class _Memory:
    """One packed storage, with at most one unpacked copy at a time."""

    __slots__ = ("__weakref__", "packed", "unpacked")

    def __init__(self, packed: PackedTensor) -> None:
        self.packed = packed
        self.unpacked: weakref.ref[Tensor] | None = None

    def get(self) -> Tensor:
        values = None if self.unpacked is None else self.unpacked()
        if values is None:
            values = self.packed.unpack()
            self.unpacked = weakref.ref(values)  # the tensor lives as long as its views
        return values


@dataclass(slots=True)
class _View:
    """A saved tensor, as a view of packed memory or of a packed parameter."""

    source: "_Memory | Tensor"
    shape: torch.Size
    stride: tuple[int, ...]
    offset: int


class SavedTensors:
    """Packs what is saved for the backward pass between ``enter`` and ``leave``.

    ``raw`` counts the bytes that the last pass left unpacked, by operation and shape. ``holds`` is for
    tensors without numbers: it says whether Format A has what an ``operation`` saves. Tensors saved outside
    of an operation have been rounded.
    """

    def __init__(
        self, fmt: FloatFormat, weights: PackedWeights, holds: Callable[[Tensor], bool] | None = None
    ) -> None:
        self.format = fmt
        self.weights = weights
        self.holds = holds
        self.raw: dict[str, int] = {}
        self.operation = ""
        self.moves = False  # whether the operation only moves values of Format A
        self._known: dict[tuple[int, int], tuple[Any, weakref.ref[_Memory]]] = {}
        self._memories: weakref.WeakSet[_Memory] = weakref.WeakSet()
        self._raw_known: dict[int, Any] = {}
        self._emptied: dict[int, tuple[Any, _Memory]] = {}
        self._hooks: list[saved_tensors_hooks] = []

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for a deep copy, without that of a running pass."""
        return self.__dict__ | {
            "_known": {},
            "_memories": weakref.WeakSet(),
            "_raw_known": {},
            "_emptied": {},
            "_hooks": [],
        }

    def enter(self, *, fresh: bool = True) -> None:
        """Start packing; ``fresh`` begins a forward pass of the network."""
        if fresh and not self._hooks:
            self._known, self._raw_known, self.raw = {}, {}, {}
            self._memories = weakref.WeakSet()
        self._hooks.append(saved_tensors_hooks(self.pack, self.unpack))
        self._hooks[-1].__enter__()

    def leave(self) -> None:
        """Stop packing, and fill the memory that the network's caller still holds."""
        self._hooks.pop().__exit__()
        if self._hooks:
            return
        for reference, memory in self._emptied.values():
            storage = reference()
            if storage is not None:
                _write(memory, storage)
        self._emptied.clear()

    def fill(self, tensor: Tensor) -> None:
        """Refill a tensor's memory if it was emptied."""
        if self._emptied:
            storage = tensor.untyped_storage()
            emptied = self._emptied.pop(storage._cdata, None)
            if emptied is not None and emptied[0]() is not None:
                _write(emptied[1], storage)

    def empty(self, tensor: Tensor) -> None:
        """Empty a computed tensor's memory if it is packed and a pass is running."""
        if not self._hooks or tensor.is_leaf:
            return
        storage = tensor.untyped_storage()
        if type(waits := note_on(storage)) is tuple and waits:
            return  # it will be rounded in place
        memory = self._memory(storage._cdata, tensor._version)
        if memory is not None and storage.nbytes() and storage.resizable():
            self._emptied[storage._cdata] = (weakref.ref(storage), memory)
            storage.resize_(0)

    def changed(self, tensor: Tensor) -> None:
        """Forget the packed form of a tensor's memory, since an operation wrote to it."""
        written = tensor.untyped_storage()._cdata
        for key in [key for key in self._known if key[0] == written]:
            del self._known[key]

    def memories(self) -> list[PackedTensor]:
        """Return all packed memory that is still in use."""
        return [memory.packed for memory in self._memories]

    def emptied(self) -> set[int]:
        """Return the ``_cdata`` of the storages that are empty now."""
        return {key for key, (reference, _) in self._emptied.items() if reference() is not None}

    def pack(self, tensor: Tensor) -> Any:
        """Return what is saved in place of a tensor."""
        with torch._C.DisableTorchFunction():  # the rounding mode must not see these operations
            return self._pack(tensor)

    def _pack(self, tensor: Tensor) -> Any:
        if tensor.layout != torch.strided or self.operation.startswith("rrelu"):
            return tensor.detach()  # rrelu saves the tensor for its draws before it fills it
        storage = tensor.untyped_storage()
        place = (tensor.shape, tensor.stride(), int(tensor.storage_offset()))
        plain = tensor.dtype == torch.float32 and not tensor.is_neg()
        owner = self.weights.owner(tensor)
        if owner is not None and plain:
            return _View(owner, *place)
        key = (storage._cdata, tensor._version)
        memory = self._memory(*key) if plain else None
        if memory is None:
            memory = self._packed(tensor, storage)
            if memory is None:
                return tensor.detach()
            self._known[key] = (weakref.ref(storage), weakref.ref(memory))
            self._memories.add(memory)
        return _View(memory, *place)

    def _memory(self, storage: int, version: int) -> _Memory | None:
        """Return the packed form of a storage at this version, or None."""
        known = self._known.get((storage, version))
        return None if known is None or known[0]() is None else known[1]()

    def unpack(self, kept: Any) -> Tensor:
        """Return the saved tensor."""
        if torch.is_grad_enabled():
            raise NetworkError(
                "create_graph=True and packed storage do not go together: what is kept packed has no graph; "
                "take storage='simulated' for gradient penalties"
            )
        if not isinstance(kept, _View):
            return kept  # type: ignore[no-any-return]
        values = kept.source.get() if isinstance(kept.source, _Memory) else self.weights.unpacked(kept.source)
        return values.as_strided(kept.shape, kept.stride, kept.offset)

    def _packed(self, tensor: Tensor, storage: torch.UntypedStorage) -> _Memory | None:
        if tensor.dtype == torch.float32 and storage.nbytes() >= 4 * _SMALLEST and storage.nbytes() % 4 == 0:
            whole = tensor.detach().as_strided((storage.nbytes() // 4,), (1,), 0)
            if self.holds is None or not self.operation or self.moves or self.holds(tensor):
                packed = PackedTensor.try_pack(whole, self.format)
                if packed is not None:
                    return _Memory(packed)
        known = self._raw_known.get(storage._cdata)
        if known is None or known() is None:
            self._raw_known[storage._cdata] = weakref.ref(storage)
            shape = "x".join(map(str, tensor.shape)) or "1"
            name = f"{self.operation} {shape} {str(tensor.dtype).removeprefix('torch.')}"
            self.raw[name] = self.raw.get(name, 0) + storage.nbytes()
        return None


def _write(memory: _Memory, storage: torch.UntypedStorage) -> None:
    """Fill emptied memory, without a change to its version counter."""
    packed = memory.packed
    storage.resize_(4 * packed.shape.numel())
    if storage.device.type != "meta":  # where there are no numbers to write
        packed.unpack_to(torch.empty(0, device=storage.device).set_(storage, 0, packed.shape, packed.stride))
