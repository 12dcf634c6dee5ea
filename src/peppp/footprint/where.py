"""The layer that runs at some point of a step, and the line of source that called it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

_TORCH, _HERE = str(Path(torch.__file__).parent), str(Path(__file__).parent)


class Place(NamedTuple):
    """A layer's name ("" for the module itself), file and line of the call, and whether it is backward."""

    layer: str = ""
    line: str = ""
    backward: bool = False

    def __str__(self) -> str:
        return f"{self.layer}, backward" if self.backward else self.layer


class Where:
    """Follows the layers of a module in its passes, inside ``watching(module)``.

    An operation of the backward pass gets the place of the forward operation that it differentiates: torch's
    graph nodes carry the sequence number of that operation.
    """

    def __init__(self) -> None:
        self._running: list[str] = []
        self._calls: dict[int, Place] = {}

    @contextmanager
    def watching(self, module: nn.Module) -> Iterator[None]:
        """Follow which layers of the module run."""
        handles: list[Any] = []
        for name, layer in module.named_modules():
            handles.append(
                layer.register_forward_pre_hook(
                    lambda *_, name=name: self._running.append(name), prepend=True
                )
            )
            handles.append(layer.register_forward_hook(self._leave, always_call=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _leave(self, *_: Any) -> None:
        self._running.pop()

    @property
    def layer(self) -> str | None:
        """The innermost layer whose forward pass is running, or None."""
        return self._running[-1] if self._running else None

    def now(self) -> Place:
        """Return the place of the current operation; call this at every operation of the forward pass."""
        if self._running:
            place = Place(self._running[-1], _line())
            if torch.is_grad_enabled():
                self._calls.setdefault(torch._C._autograd._get_sequence_nr() - 1, place)
            return place
        node: Any = torch._C._current_autograd_node()  # None outside of a backward pass
        if node is None:
            return Place("(loss and optimizer)")
        found = self._calls.get(node._sequence_nr())
        return Place("(gradients)", "", True) if found is None else found._replace(backward=True)


def _line() -> str:
    """Return file and line of the innermost frame of the module's own code; "" if all frames are torch's."""
    frame: Any = sys._getframe(2)
    inside = False  # whether a frame of torch has been passed
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith((_TORCH, "<")):
            inside = True
        elif not name.startswith(_HERE):
            return f"{Path(name).name}:{frame.f_lineno}"
        elif inside:
            return ""
        frame = frame.f_back
    return ""
