"""Counts what a training keeps, in one dry run without data (fake tensors)."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode

from peppp.arguments import checked
from peppp.errors import NetworkError, PepppError
from peppp.footprint.fakes import classification_loss, fake_mode, fake_module
from peppp.footprint.where import Where
from peppp.formats import Configuration, Format
from peppp.lowprec.network.conversion import low_precision
from peppp.lowprec.network.rules import KINDS, Kind
from peppp.records import Footprint

# The optimizer's states in Format B, in addition to the gradient.
OPTIMIZER_STATES = {
    "sgd": ("momentum",),
    "adam": ("exp_avg", "exp_avg_sq"),
    "adamw": ("exp_avg", "exp_avg_sq"),
}


@checked
@dataclass(frozen=True, slots=True)
class ElementCounts:
    """What one training step keeps: how many numbers take a format, and bytes that do not.

    ``frozen`` weights of ``weights`` are not trained: they have no gradient and no states.
    """

    weights: int
    activations: int
    raw_bytes: int
    frozen: int = 0

    @checked
    def footprint(
        self, configuration: Configuration, *, optimizer: str = "sgd", accumulator: bool = True
    ) -> Footprint:
        """Return the bytes at a configuration; fp32 training needs no accumulator, as its weights are one.

        >>> ElementCounts(1000, 0, 0).footprint(Configuration.parse("1-4-1/1-6-7")).optimizer
        5250
        """
        a, b = configuration.format_a, configuration.format_b
        if optimizer not in OPTIMIZER_STATES:
            raise NetworkError(f"unknown optimizer {optimizer!r}; known: {', '.join(OPTIMIZER_STATES)}")
        names = OPTIMIZER_STATES[optimizer]
        if accumulator and not configuration.is_fp32:
            names = (*names, "accumulator")
        trained = bytes_of(self.weights - self.frozen, b)
        return Footprint(
            weights=bytes_of(self.weights, a),
            activations=bytes_of(self.activations, a),
            gradients=trained,
            states=dict.fromkeys(names, trained),
            raw=self.raw_bytes,
        )


@checked
def bytes_of(count: int, fmt: Format) -> int:
    """Return the bytes of ``count`` packed numbers of a format."""
    return ceil(count * fmt.bits / 8)


@dataclass(frozen=True, slots=True)
class LayerCounts:
    """The counts of one module itself: its own parameters, and what its operations are the first to save."""

    name: str
    kind: str
    counts: ElementCounts


@checked
def count_elements(
    network: nn.Module,
    input_shape: Sequence[int],
    batch_size: int,
    *,
    dtype: torch.dtype = torch.float32,
    loss: Callable[[Tensor], Tensor] | None = None,
) -> ElementCounts:
    """Count one step of ``network`` (on the CPU or meta device) on ``batch_size`` inputs of ``input_shape``.

    ``loss`` maps what the network returns to a scalar; the default is cross entropy.

    Activations are the tensors saved for the backward pass, each storage once, without parameters. Tensors
    that no operation uses (statistics of norms, what the loss saves) stay as they are, and count as raw
    bytes. The network runs at low precision, since rounding determines what is saved twice. Raises
    NetworkError if the network cannot run on inputs of that shape.
    """
    layers = count_layers(network, input_shape, batch_size, dtype=dtype, loss=loss)
    return ElementCounts(
        weights=sum(layer.counts.weights for layer in layers),
        activations=sum(layer.counts.activations for layer in layers),
        raw_bytes=sum(layer.counts.raw_bytes for layer in layers),
        frozen=sum(layer.counts.frozen for layer in layers),
    )


@checked
def count_layers(
    network: nn.Module,
    input_shape: Sequence[int],
    batch_size: int,
    *,
    dtype: torch.dtype = torch.float32,
    loss: Callable[[Tensor], Tensor] | None = None,
) -> tuple[LayerCounts, ...]:
    """Count as :func:`count_elements` does, by module in the order of the modules; the loss comes last."""
    fake = fake_mode()
    network = fake_module(fake, network).train()
    low_precision(network, "1-4-1/1-6-7", rounding="nearest", seed=0)
    kept: dict[int, tuple[Tensor, str]] = {}
    used = _Operands()
    where = Where()

    def keep(tensor: Tensor) -> Tensor:
        kept.setdefault(_storage(tensor), (tensor, "loss" if where.layer is None else where.layer))
        return tensor

    with fake, _as_inputs_allow(network, input_shape), where.watching(network):
        inputs = torch.empty(batch_size, *input_shape, dtype=dtype)
        with saved_tensors_hooks(keep, lambda tensor: tensor):
            with used:
                outputs = network(inputs)
            (loss or classification_loss)(outputs)
    owned = {_storage(parameter) for parameter in (*network.parameters(), *network.buffers())}
    activations: dict[str, int] = {}
    raw: dict[str, int] = {}
    for key, (tensor, name) in kept.items():
        if key not in owned:
            group = activations if tensor.is_floating_point() and key in used.storages else raw
            group[name] = group.get(name, 0) + tensor.untyped_storage().nbytes()
    seen: set[int] = set()
    layers = []
    for name, module in [*network.named_modules(), ("loss", None)]:
        own = [] if module is None else [p for p in module.parameters(recurse=False) if id(p) not in seen]
        seen.update(id(p) for p in own)
        counts = ElementCounts(
            sum(p.numel() for p in own),
            activations.get(name, 0) // 4,
            raw.get(name, 0),
            sum(p.numel() for p in own if not p.requires_grad),
        )
        if counts != ElementCounts(0, 0, 0):
            kind = "loss" if module is None else type(module).__name__
            layers.append(LayerCounts(name or "(network)", kind, counts))
    return tuple(layers)


def count_outputs(network: nn.Module, input_shape: Sequence[int], batch_size: int) -> int:
    """Count the numbers that the convolutions, norms and ReLUs of a forward pass return.

    Papers and tools use this count of activations; it is not what a training keeps.
    """
    outputs = _Outputs()
    with _as_inputs_allow(network, input_shape), outputs:
        network(torch.empty(batch_size, *input_shape, device="meta"))
    return outputs.count


@contextmanager
def _as_inputs_allow(network: nn.Module, input_shape: Sequence[int]) -> Iterator[None]:
    try:
        yield
    except PepppError:
        raise
    except Exception as error:  # the network's own code can raise anything
        shape = "x".join(str(side) for side in input_shape)
        raise NetworkError(
            f"{type(network).__name__} cannot be counted on inputs of {shape}: "
            f"{(str(error).splitlines() or [type(error).__name__])[0]}"
        ) from None


def _storage(tensor: Tensor) -> int:
    """Return what identifies memory: it is equal for all views of one tensor."""
    return int(tensor.untyped_storage()._cdata)


class _Operands(TorchFunctionMode):
    """Collects the storages of all tensors that the operations of a forward pass use."""

    def __init__(self) -> None:
        super().__init__()
        self.storages: dict[int, Tensor] = {}  # kept alive, so that no address is reused

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        values: Iterable[object] = (*args, *(kwargs or {}).values())
        for value in values:
            for item in value if isinstance(value, (tuple, list)) else (value,):
                if isinstance(item, Tensor):
                    self.storages[_storage(item)] = item
        return func(*args, **(kwargs or {}))


class _Outputs(TorchFunctionMode):
    """Counts the numbers that convolutions, norms and ReLUs return."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result: Any = func(*args, **(kwargs or {}))
        name = func.__name__
        counted = KINDS.get(func) in (Kind.ROUNDED, Kind.ROUNDED_COPY) or name in ("relu", "relu_")
        if counted and isinstance(result, Tensor):
            self.count += result.numel() if name.startswith(("conv", "relu")) or name.endswith("norm") else 0
        return result
