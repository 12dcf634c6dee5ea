"""Cuts a step at the ends of its blocks, to know the memory of any choice of recomputed blocks.

Position 2i+1 is inside block i, in either pass; position 2i is between block i-1 and block i. What a block's
forward pass leaves behind is allocated at all positions beyond it.
"""

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from peppp.footprint.fakes import tensors
from peppp.footprint.moment import Moment


@dataclass(frozen=True, slots=True)
class Cut:
    """A rehearsed step by position: its highest moments, what each block leaves behind, its operations.

    ``blocks`` are names in the order of the forward pass. ``operations`` counts those of each block's forward
    pass: two per multiply-add, and one per number made. ``step_operations`` counts those of the whole step.
    """

    blocks: tuple[str, ...]
    highest: Mapping[int, tuple[Moment, ...]]
    left_behind: tuple[Moment, ...]
    operations: tuple[int, ...]
    step_operations: int

    @classmethod
    def from_plain(cls, data: Any) -> "Cut":
        """Read what :func:`dataclasses.asdict` made of a cut, also after it was JSON."""
        highest = {int(at): tuple(Moment(**m) for m in moments) for at, moments in data["highest"].items()}
        left_behind = tuple(Moment(**moment) for moment in data["left_behind"])
        blocks, operations = tuple(data["blocks"]), tuple(data["operations"])
        return cls(blocks, highest, left_behind, operations, data["step_operations"])


class Segments:
    """Follows a step through its blocks, inside ``following(module)``; ``now`` is the position."""

    def __init__(self, blocks: Sequence[str] = ()) -> None:
        self.now = 0
        self.recorded = False
        self._blocks = blocks
        self._order: list[str] = []
        self._before: dict[str, Moment] = {}
        self._left_behind: dict[str, Moment] = {}
        self._operations: dict[int, int] = {}
        self._total = 0
        self._last: weakref.ref[Tensor] | None = None

    def count(self, operation: Any, args: tuple[Any, ...], result: Any) -> None:
        """Count the operations of a call, if the step is recorded."""
        if self.recorded and self._blocks:
            from torch.utils.flop_counter import flop_registry  # loads triton where it is installed

            counts = flop_registry.get(operation._overloadpacket)
            found = sum(x.numel() for x in tensors((result,)))
            found += counts(*args, out_val=result) if counts is not None else 0
            self._total += found
            self._operations[self.now] = self._operations.get(self.now, 0) + found

    @contextmanager
    def following(self, module: nn.Module, moment: Callable[[], Moment]) -> Iterator[None]:
        """Follow positions from now on; ``moment`` returns what is allocated."""
        handles = []
        for name in self._blocks:
            block = module.get_submodule(name)
            enter, leave = partial(self._enter, name, moment), partial(self._leave, name, moment)
            handles.append(block.register_forward_pre_hook(enter, with_kwargs=True))
            handles.append(block.register_forward_hook(leave))
        self.recorded = True
        try:
            yield
        finally:
            self.recorded = False
            for handle in handles:
                handle.remove()

    def _enter(self, name: str, moment: Callable[[], Moment], _: Any, args: Any, kwargs: Any) -> None:
        self._order.append(name)
        position = 2 * len(self._order) - 1
        last = None if self._last is None else self._last()
        given = next((x for x in tensors((args, kwargs)) if x.requires_grad), None)
        if given is not None and given is not last:  # otherwise the previous block's hook covers it
            _call_back(given, partial(self._go, position - 1))
        self._before[name] = moment()
        self._go(position)

    def _leave(self, name: str, moment: Callable[[], Moment], _: Any, __: Any, result: Any) -> None:
        position = 2 * len(self._order) - 1
        self._left_behind[name] = moment().less(self._before[name])
        made = next(x for x in tensors((result,)) if x.requires_grad)
        _call_back(made, partial(self._go, position))
        self._last = weakref.ref(made)
        self._forward = dict(self._operations)
        self._go(position + 1)

    def _go(self, position: int, _: Any = None) -> None:
        self.now = position

    def end_passes(self) -> None:
        """Note that the backward pass has ended, and no block is active."""
        self.now = 0

    def cut(self, highest: Mapping[int, tuple[Moment, ...]]) -> Cut:
        """Return what was recorded, with the highest moments of each position."""
        positions = [2 * i + 1 for i in range(len(self._order))]
        return Cut(
            tuple(self._order),
            highest,
            tuple(self._left_behind[name] for name in self._order),
            tuple(self._forward.get(p, 0) for p in positions),
            self._total,
        )


def _call_back(tensor: Tensor, function: Callable[[Any], None]) -> None:
    """Call a function when the error of a tensor arrives in the backward pass."""
    tensor.register_hook(function)  # type: ignore[no-untyped-call]
