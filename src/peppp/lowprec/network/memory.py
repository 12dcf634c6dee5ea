"""Notes on memory, kept on the storage itself, so that all tensors in it share them.

Torch keeps the Python object of a storage alive as long as its memory. A note on it therefore needs neither a
table of addresses, which are reused, nor a list of views. A note is one of these:

- A tuple: numbers of Format A that the network computed. Its elements wait to be rounded first.
- A :class:`Constant`: numbers that the network did not compute (a buffer, a draw), which stay as they are.
- None: memory that was never seen, which counts as a constant.
"""

import weakref
from collections.abc import Callable
from typing import Any

from torch import Tensor, UntypedStorage

from peppp.lowprec.rounding.functions import Point

NOTE = "_peppp_note"


class Constant:
    """Numbers that the network did not compute; ``checked`` identifies those last found to be in Format A."""

    __slots__ = ("checked", "name")

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.checked: tuple[Any, ...] | None = None


LOSS = Constant("the loss")  # also for what is computed from it: it stays float32


class Pending:
    """A result that waits to be rounded in place, and the copies that were made of it meanwhile.

    ``waiting`` is the table of waiting memory of the running pass.
    """

    __slots__ = ("copies", "done", "lent", "point", "tensor", "waiting")

    def __init__(self, tensor: Tensor, point: Point, waiting: dict[int, UntypedStorage]) -> None:
        self.tensor: Tensor | None = tensor
        self.lent: weakref.ref[Tensor] | None = None
        self.point = point
        self.waiting = waiting
        self.copies: list[tuple[Tensor, Callable[[], Tensor]]] = []
        self.done = False

    def lend(self, memory: UntypedStorage) -> None:
        """Drop the reference to a result that a ReLU has taken over; it waits as long as others hold it."""
        assert self.tensor is not None
        self.lent, self.tensor = weakref.ref(self.tensor), None
        self.waiting.pop(id(memory), None)

    def settle(self) -> None:
        """Round the result, once, and make its copies again."""
        tensor = self.tensor if self.lent is None else self.lent()
        if self.done or tensor is None:
            return
        copies, self.tensor, self.copies, self.done = self.copies, None, [], True
        self.point.round_in_place(tensor)
        for copy, make in copies:
            copy.data.copy_(make())


def memory_of(tensor: Tensor) -> UntypedStorage | None:
    """Return a tensor's storage; None for tensors with several storages (sparse ones)."""
    try:
        return tensor.untyped_storage()
    except (NotImplementedError, RuntimeError):
        return None


def memories_of(tensors: list[Tensor]) -> list[UntypedStorage | None]:
    """Apply :func:`memory_of` to each tensor."""
    try:
        return [tensor.untyped_storage() for tensor in tensors]
    except (NotImplementedError, RuntimeError):
        return [memory_of(tensor) for tensor in tensors]


def note_on(memory: UntypedStorage | None) -> Any:
    """Return the note on a storage, or None."""
    return None if memory is None else memory.__dict__.get(NOTE)


def write_note(tensor: Tensor, note: Any) -> None:
    """Write a note on a tensor's storage."""
    memory = memory_of(tensor)
    if memory is not None:
        memory.__dict__[NOTE] = note


def settle(memory: UntypedStorage) -> None:
    """Round what waits in a storage, before it is read or written."""
    for pending in memory.__dict__[NOTE]:
        pending.settle()
        pending.waiting.pop(id(memory), None)  # the pass need not keep it alive any more
    memory.__dict__[NOTE] = ()
