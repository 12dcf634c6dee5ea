"""Follows allocated memory in a step: a dispatch mode sees each operation, weak references see each free."""

import operator
import weakref
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from peppp.footprint.fakes import laid_out, tensors
from peppp.footprint.scratch import lstm_workspace

aten = torch.ops.aten
# Formulas of backward passes write into fresh zeros in place, but not into tensors of a subclass.
_IN_PLACE = {
    aten.index_add.default: aten.index_add_.default,
    aten.index_put.default: aten.index_put_.default,
    aten.scatter.src: aten.scatter_.src,
    aten.scatter.value: aten.scatter_.value,
    aten.scatter_add.default: aten.scatter_add_.default,
}
_COMPARISONS = {
    aten.lt.Scalar: operator.lt,
    aten.le.Scalar: operator.le,
    aten.gt.Scalar: operator.gt,
    aten.ge.Scalar: operator.ge,
}
Watch = Callable[[Any, tuple[Any, ...], Any, list[int]], None]


class Live(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all storages that exist; each is added when an operation makes it.

    ``watch``, if set, is called after every operation with the operation, its arguments, its result, and the
    ``_cdata`` of the new storages.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0
        self.watch: Watch | None = None
        self._sizes: dict[int, tuple[int, Any]] = {}
        self._values: dict[int, tuple[Any, float | bool]] = {}  # of storages whose numbers steer the program

    def add(self, made: Iterable[Tensor]) -> list[int]:
        """Add the storages of some tensors; return the ``_cdata`` of those that are new."""
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

    def _note(self, tensor: Tensor, value: float | bool) -> None:
        storage = tensor.untyped_storage()
        self._values[storage._cdata] = weakref.ref(storage), value

    def _value(self, tensor: Tensor) -> float | bool | None:
        storage = tensor.untyped_storage()
        known, value = self._values.get(storage._cdata, (None, None))
        return value if known is not None and known() is storage else None

    def size(self, key: int) -> int:
        """Return the bytes that a storage (its ``_cdata``) had when it was made; 0 if it does not exist."""
        return self._sizes.get(key, (0, None))[0]

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if func is torch.ops.prim.device.default:  # the attribute, which is asked for all the time
            return func(*args)
        if func is aten._local_scalar_dense.default:  # .item(), of a number that does not exist
            value = self._value(args[0])
            if value is not None:
                return value
            return True if args[0].dtype is torch.bool else 1.0 if args[0].is_floating_point() else 1
        if func is aten._amp_foreach_non_finite_check_and_unscale_.default:
            self._note(args[1], 0.0)  # found no infinity; otherwise a GradScaler would skip the step
        if func in _IN_PLACE and torch._C._current_graph_task_id() != -1 and not torch.is_grad_enabled():
            func = _IN_PLACE[func]
        result = laid_out(func, args, func(*args, **(kwargs or {})))
        if func is aten.rand.default and not result.dim():
            self._note(result, 1.0)  # drawn to drop a layer if it is small
        if func in _COMPARISONS and (value := self._value(args[0])) is not None:
            self._note(result, _COMPARISONS[func](value, args[1]))
        if func is aten.mkldnn_rnn_layer.default:  # fake tensors have an empty workspace
            workspace = torch.empty(lstm_workspace(args), dtype=torch.uint8, device=args[0].device)
            result = (*result[:3], workspace)
        new = self.add(tensors((result,)))
        if self.watch is not None:
            self.watch(func, args, result, new)
        return result
