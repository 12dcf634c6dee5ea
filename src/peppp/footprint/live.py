"""Which memory lives during a step: a dispatch mode sees each operation, and storages say when they go."""

import weakref
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from peppp.footprint.fakes import tensors
from peppp.footprint.scratch import lstm_workspace

aten = torch.ops.aten
Watch = Callable[[Any, tuple[Any, ...], Any, list[int]], None]


class Live(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all storages that live; each is added when an operation makes it.

    ``watch``, once it is set, is called after every operation, with the operation, its
    arguments, its result and the storages that are new (their ``_cdata``).
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0
        self.watch: Watch | None = None
        self._sizes: dict[int, tuple[int, Any]] = {}
        self._infinite: dict[int, Any] = {}  # storages in which a scaler notes that gradients are infinite

    def add(self, made: Iterable[Tensor]) -> list[int]:
        """Note the memory of some tensors; the storages of theirs that are new."""
        new = []
        for tensor in made:
            storage = tensor.untyped_storage()
            key = storage._cdata
            if key not in self._sizes:
                nbytes = storage.nbytes()
                self._sizes[key] = nbytes, weakref.ref(storage, partial(self._forget, key))
                self.total += nbytes
                new.append(key)
        return new

    def _forget(self, key: int, _: Any) -> None:
        self.total -= self._sizes.pop(key)[0]

    def _says_infinite(self, tensor: Tensor) -> bool:
        storage = tensor.untyped_storage()
        known = self._infinite.get(storage._cdata)
        return known is not None and known() is storage

    def size(self, key: int) -> int:
        """Bytes of a storage (its ``_cdata``) when it was made; 0 where it is gone or never was."""
        return self._sizes.get(key, (0, None))[0]

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if func is aten._local_scalar_dense.default:  # .item(): data that nobody has
            if self._says_infinite(args[0]):
                return 0.0  # or a scaler of losses would leave the step out
            return True if args[0].dtype is torch.bool else 1.0 if args[0].is_floating_point() else 1
        if func is aten._amp_foreach_non_finite_check_and_unscale_.default:
            storage = args[1].untyped_storage()
            self._infinite[storage._cdata] = weakref.ref(storage)
        result = func(*args, **(kwargs or {}))
        if func is aten.mkldnn_rnn_layer.default:  # fake tensors leave its workspace empty
            workspace = torch.empty(lstm_workspace(args), dtype=torch.uint8, device=args[0].device)
            result = (*result[:3], workspace)
        new = self.add(tensors((result,)))
        if self.watch is not None:
            self.watch(func, args, result, new)
        return result
