"""A network whose parameters and saved activations are stored in as many bits as their format has."""

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn

from peppp.errors import NetworkError
from peppp.formats import FloatFormat, Format
from peppp.lowprec.pooling import SUBSTITUTES
from peppp.lowprec.saved import SavedTensors
from peppp.lowprec.state import LowPrecision
from peppp.lowprec.weights import PackedWeights


def packable(fmt: Format) -> FloatFormat:
    """The format, if tensors can be packed in it."""
    if not isinstance(fmt, FloatFormat):
        raise NetworkError(f"{fmt} has no packed form; take floating-point formats, or storage='simulated'")
    return fmt


class PackedStorage:
    """Packs the parameters of a low-precision module and what its forward passes keep.

    ``weights`` and ``saved`` are the two; parameters are packed one by one by who rounds them.
    """

    def __init__(self, module: nn.Module, state: LowPrecision) -> None:
        fmt = packable(state.precision.configuration.format_a)
        self.weights = PackedWeights(module, fmt)
        self.saved = SavedTensors(fmt, self.weights)
        self._state = state
        self._handles = [
            module.register_forward_pre_hook(self.saved.enter),
            module.register_forward_hook(self.saved.leave, always_call=True),
        ]
        state.packed = self

    def __getstate__(self) -> dict[str, Any]:
        """What a deep copy takes: its module has copies of the hooks."""
        return self.__dict__ | {"_handles": []}

    def run(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The result of an operation: what it uses is unpacked for it, and let go of afterwards."""
        operands = list(_tensors((*args, *kwargs.values())))
        parameters = [p for p in operands if isinstance(p, nn.Parameter) and self.weights.holds(p)]
        for parameter in parameters:
            self.weights.fill(parameter)
        for tensor in operands:
            self.saved.fill(tensor)
        self.saved.operation = function.__name__
        try:
            result = SUBSTITUTES.get(function, function)(*args, **kwargs)
        finally:
            self.saved.operation = ""
            for parameter in parameters:
                self.weights.empty(parameter)
        results = {r.untyped_storage()._cdata for r in _tensors((result,))}
        for tensor in operands:
            if tensor.untyped_storage()._cdata not in results:
                self.saved.empty(tensor)
        return result

    def release(self) -> None:
        """Give the module its parameters as float32 tensors, and stop packing."""
        self.weights.release()
        for handle in self._handles:
            handle.remove()
        self._state.packed = None


def _tensors(values: Any) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from _tensors(value)
