"""What is known of a piece of memory, noted on the memory itself, so that every tensor that lies in it shares
it.

Torch keeps the Python object of a storage for as long as its memory lives. A note on it needs no table of
addresses, which are used again, and no list of views.

- A tuple: numbers of Format A that the network computed. What it holds waits to be rounded first.
- A :class:`Constant`: numbers that the network did not compute (a buffer, a draw), which stay as they are.
- Nothing: memory that was never seen, which counts as a constant.
"""

import weakref
from collections.abc import Callable
from typing import Any

from torch import Tensor, UntypedStorage

from peppp.lowprec.rounding.functions import Point

NOTE = "_peppp_note"


class Constant:
    """Numbers that the network did not compute; ``checked`` is what of them Format A was found to have."""

    __slots__ = ("checked", "name")

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.checked: tuple[Any, ...] | None = None


LOSS = Constant("the loss")  # and what is computed from it: it stays float32


class Pending:
    """A result that waits to be rounded where it lies, and the copies that were made of it meanwhile.

    ``waiting`` is where the pass that runs knows its memory by.
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
        """Hold a result no longer that a ReLU has taken over: it waits for as long as others have it."""
        assert self.tensor is not None
        self.lent, self.tensor = weakref.ref(self.tensor), None
        self.waiting.pop(id(memory), None)

    def settle(self) -> None:
        """Round it, once, and make its copies again."""
        tensor = self.tensor if self.lent is None else self.lent()
        if self.done or tensor is None:
            return
        copies, self.tensor, self.copies, self.done = self.copies, None, [], True
        self.point.round_in_place(tensor)
        for copy, make in copies:
            copy.data.copy_(make())


def memory_of(tensor: Tensor) -> UntypedStorage | None:
    """The memory that a tensor lies in; None for those that lie in several pieces (sparse ones)."""
    try:
        return tensor.untyped_storage()
    except (NotImplementedError, RuntimeError):
        return None


def memories_of(tensors: list[Tensor]) -> list[UntypedStorage | None]:
    """:func:`memory_of` each."""
    try:
        return [tensor.untyped_storage() for tensor in tensors]
    except (NotImplementedError, RuntimeError):
        return [memory_of(tensor) for tensor in tensors]


def note_on(memory: UntypedStorage | None) -> Any:
    """The note on a piece of memory, or None."""
    return None if memory is None else memory.__dict__.get(NOTE)


def write_note(tensor: Tensor, note: Any) -> None:
    """Note something on a tensor's memory."""
    memory = memory_of(tensor)
    if memory is not None:
        memory.__dict__[NOTE] = note


def settle(memory: UntypedStorage) -> None:
    """Round what waits in a piece of memory, before it is read or written."""
    for pending in memory.__dict__[NOTE]:
        pending.settle()
        pending.waiting.pop(id(memory), None)  # nothing keeps it alive from now on
    memory.__dict__[NOTE] = ()
