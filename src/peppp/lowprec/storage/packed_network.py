"""A network whose parameters and saved activations are packed into as many bits as their format has."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from peppp.errors import NetworkError
from peppp.formats import FloatFormat, Format
from peppp.lowprec.network.memory import memory_of
from peppp.lowprec.network.nested import tensors_in
from peppp.lowprec.network.parameters import Parameters
from peppp.lowprec.network.rules import KINDS, Kind
from peppp.lowprec.network.state import LowPrecision
from peppp.lowprec.storage.pooling import SUBSTITUTES
from peppp.lowprec.storage.saved import SavedTensors
from peppp.lowprec.storage.weights import PackedWeights


def packable(fmt: Format) -> FloatFormat:
    """Return the format, typed as one that can be packed; raises NetworkError for other formats."""
    if not isinstance(fmt, FloatFormat):
        raise NetworkError(f"{fmt} has no packed form; take floating-point formats, or storage='simulated'")
    return fmt


class PackedStorage:
    """Packs the parameters of a low-precision module and what its forward passes save.

    ``weights`` and ``saved`` hold the two. Each parameter is packed by whatever rounds it.
    """

    def __init__(self, module: nn.Module, state: LowPrecision, parameters: Parameters) -> None:
        fmt = packable(state.roundings.values)
        self.weights = PackedWeights(module, fmt, parameters)
        self.saved = SavedTensors(fmt, self.weights)
        self._state = state
        state.packed = self

    @contextmanager
    def keeping(self, *, fresh: bool) -> Iterator[None]:
        """Pack what operations save for the backward pass; ``fresh`` begins a pass of the network."""
        self.saved.enter(fresh=fresh)
        try:
            yield
        finally:
            self.saved.leave()

    def holds(self, parameter: Tensor) -> bool:
        """Whether a parameter is packed."""
        return self.weights.holds(parameter)

    def pack(self, parameter: Tensor) -> bool:
        """Pack a parameter that nobody trains; returns False if this is not possible."""
        return self.weights.pack(parameter)

    def run(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run an operation: unpack what it uses, and free that memory afterwards."""
        operands = [x for x in tensors_in((args, kwargs), []) if x.layout == torch.strided]
        parameters = [p for p in operands if isinstance(p, nn.Parameter) and self.weights.holds(p)]
        for parameter in parameters:
            self.weights.fill(parameter)
        for tensor in operands:
            self.saved.fill(tensor)
        self.saved.operation = function.__name__
        versions = [tensor._version for tensor in operands]
        self.saved.moves = KINDS.get(function) is Kind.KEPT
        try:
            result = SUBSTITUTES.get(function, function)(*args, **kwargs)
        finally:
            self.saved.operation = ""
            for parameter in parameters:
                self.weights.empty(parameter)
        for tensor, version in zip(operands, versions, strict=True):
            if tensor._version != version:
                self.saved.changed(tensor)
        results = {memory._cdata for r in tensors_in((result,), []) if (memory := memory_of(r)) is not None}
        for tensor in operands:
            if tensor.untyped_storage()._cdata not in results:
                self.saved.empty(tensor)
        return result

    def release(self) -> None:
        """Turn the module's parameters back into float32 tensors, and stop packing."""
        self.weights.release()
        self._state.packed = None
