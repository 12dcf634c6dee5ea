"""One dry run without data (meta tensors) counts what a training keeps; the rest is arithmetic."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode

from peppp.errors import NetworkError
from peppp.formats import Configuration
from peppp.lowprec.conversion import low_precision, low_precision_state
from peppp.records import Footprint

# States that live in Format B beside the gradient, by optimizer.
OPTIMIZER_STATES = {
    "sgd": ("momentum",),
    "adam": ("exp_avg", "exp_avg_sq"),
    "adamw": ("exp_avg", "exp_avg_sq"),
}


@dataclass(frozen=True, slots=True)
class ElementCounts:
    """What one training step of a network keeps: numbers that take a format, and bytes that do not."""

    weights: int
    activations: int
    raw_bytes: int

    def footprint(
        self, configuration: Configuration, *, optimizer: str = "sgd", accumulator: bool = True
    ) -> Footprint:
        """Bytes at a configuration; plain fp32 training has no accumulator, as its weights are one.

        >>> ElementCounts(1000, 0, 0).footprint(Configuration.parse("1-4-1/1-6-7")).optimizer
        5250
        """
        a, b = configuration.format_a.bits, configuration.format_b.bits
        names = OPTIMIZER_STATES[optimizer]
        if accumulator and not configuration.is_fp32:
            names = (*names, "accumulator")
        return Footprint(
            weights=_bytes(self.weights, a),
            activations=_bytes(self.activations, a),
            gradients=_bytes(self.weights, b),
            states={name: _bytes(self.weights, b) for name in names},
            raw=self.raw_bytes,
        )


def _bytes(count: int, bits: int | Fraction) -> int:
    return -int(-count * bits // 8)


def count_elements(network: nn.Module, input_shape: Sequence[int], batch_size: int) -> ElementCounts:
    """Count one step of classification by ``network`` (on the meta device) on a batch of that many inputs.

    Activations are the tensors kept for the backward pass, each storage once, parameters apart; those that
    no operation uses (statistics of norms, the loss's own) stay as they are and count as raw bytes.
    The network is run at low precision, as rounding decides what is kept twice. Raises NetworkError where it
    cannot run on inputs of that shape.
    """
    low_precision(network, "1-4-1/1-6-7", rounding="nearest", seed=0)
    low_precision_state(network).parameters_rounded = True
    network.train()
    kept: dict[int, Tensor] = {}
    used = _Operands()

    def keep(tensor: Tensor) -> Tensor:
        kept.setdefault(_storage(tensor), tensor)
        return tensor

    inputs = torch.empty(batch_size, *input_shape, device="meta")
    labels = torch.zeros(batch_size, dtype=torch.int64, device="meta")
    try:
        with saved_tensors_hooks(keep, lambda tensor: tensor):
            with used:
                logits = network(inputs)
            nn.functional.cross_entropy(logits, labels)
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        shape = "x".join(str(side) for side in input_shape)
        raise NetworkError(
            f"{type(network).__name__} cannot be counted on inputs of {shape}: {str(error).splitlines()[0]}"
        ) from None
    owned = {_storage(parameter) for parameter in (*network.parameters(), *network.buffers())}
    kept = {key: tensor for key, tensor in kept.items() if key not in owned}
    activations = [t for key, t in kept.items() if t.is_floating_point() and key in used.storages]
    raw = [t for t in kept.values() if not any(t is activation for activation in activations)]
    return ElementCounts(
        weights=sum(parameter.numel() for parameter in network.parameters()),
        activations=sum(t.untyped_storage().nbytes() for t in activations) // 4,
        raw_bytes=sum(t.untyped_storage().nbytes() for t in raw),
    )


def _storage(tensor: Tensor) -> int:
    """What tells memory apart: views of one tensor have the same."""
    return int(tensor.untyped_storage()._cdata)


class _Operands(TorchFunctionMode):
    """The storages of all tensors that the operations of a forward pass use."""

    def __init__(self) -> None:
        super().__init__()
        self.storages: dict[int, Tensor] = {}  # held, so that no address is used twice

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        values: Iterable[object] = (*args, *(kwargs or {}).values())
        for value in values:
            for item in value if isinstance(value, (tuple, list)) else (value,):
                if isinstance(item, Tensor):
                    self.storages[_storage(item)] = item
        return func(*args, **(kwargs or {}))
