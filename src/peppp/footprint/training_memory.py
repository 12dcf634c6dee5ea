"""``training_memory``: the bytes of a training step of any module, before it runs.

The real step (forward in its context, backward, optimizer) runs on fake tensors: they have shapes, strides,
types and storages, and no memory. A dispatch mode follows the storages; what kernels allocate beside their
results is added by rule (workspaces.py).
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.module_tracker import ModuleTracker

from peppp.errors import NetworkError
from peppp.footprint.measuring import MeasuredMemory, measure_step
from peppp.footprint.workspaces import aten, lstm_workspace, workspace
from peppp.lowprec.storage.weights import weak_storage
from peppp.units import format_bytes

PRECISIONS = ("fp32", "amp-bf16", "amp-fp16", "bf16")
_AUTOCAST = {"amp-bf16": torch.bfloat16, "amp-fp16": torch.float16}
OPTIMIZERS: dict[str, Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, lr=1e-3),
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-3),
    "adafactor": lambda p: torch.optim.Adafactor(p, lr=1e-2),
}
Optimizer = str | Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


@dataclass(frozen=True, slots=True)
class TrainingMemory:
    """Bytes of a training step, estimated for torch's CPU kernels.

    ``weights``, ``buffers``, ``states`` (of the optimizer) and ``inputs`` live between steps; ``at_rest`` is
    their sum with whatever else does. ``kept`` is all that lives at the end of the forward pass,
    ``activations`` what the forward pass adds. ``gradients`` are those of all parameters together. ``peak``
    is the highest moment of a step, at the operation ``peak_at`` in the layer ``peak_in``.
    """

    weights: int
    buffers: int
    inputs: int
    states: int
    gradients: int
    activations: int
    at_rest: int
    kept: int
    peak: int
    peak_in: str
    peak_at: str

    def __str__(self) -> str:
        parts = ("weights", "buffers", "inputs", "states", "activations", "gradients")
        shown = ", ".join(f"{name} {format_bytes(getattr(self, name))}" for name in parts)
        return (
            f"peak {format_bytes(self.peak)} in {self.peak_in} ({self.peak_at}); "
            f"kept at the end of the forward pass {format_bytes(self.kept)}; {shown}; estimated, CPU kernels"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def training_memory(
    module: nn.Module,
    example_inputs: Tensor | Sequence[Any] | Mapping[str, Any],
    *,
    optimizer: Optimizer = "sgd",
    precision: str = "fp32",
    loss: Callable[[Any], Tensor] | None = None,
) -> TrainingMemory:
    """The memory of a step that trains ``module``, found without data and without allocating it.

    ``module`` is on the CPU or on the meta device, and is left as it is. ``example_inputs`` are what it is
    called with: a tensor, a sequence of positional arguments, or a mapping of keyword arguments; only shapes,
    strides and types of tensors matter. ``optimizer`` is sgd (momentum 0.9), adam, adamw, adafactor, or a
    function that makes one from the parameters. ``precision`` is ``fp32``, ``amp-bf16`` or ``amp-fp16``
    (autocast), or ``bf16`` (the whole network). ``loss`` makes a scalar of what the module returns (default:
    the mean of its first floating-point tensor).

    Raises NetworkError, in one line, for a name that is not known and for a step that needs data to run.

    >>> found = training_memory(nn.Linear(1000, 10), torch.empty(8, 1000))
    >>> found.weights, found.states, found.gradients
    (40040, 40040, 40040)
    """
    build = _checked(module, optimizer, precision)
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    network = _as_fake(fake, _without_memory(module, torch.bfloat16 if precision == "bf16" else None))
    network.train()
    args, kwargs = _arguments(fake, example_inputs, torch.bfloat16 if precision == "bf16" else None)
    parameters = [p for p in network.parameters() if p.requires_grad]
    tracker = ModuleTracker()
    live = _Live(tracker)
    live.add((*network.parameters(), *network.buffers(), *_tensors((args, kwargs))))

    def forward() -> Tensor:
        return _loss_of(network, args, kwargs, precision, loss)

    try:
        with fake, live, tracker:
            stepper = build(parameters)
            forward().backward()  # type: ignore[no-untyped-call]
            gradients = sum(p.grad.nbytes for p in parameters if p.grad is not None)
            stepper.step()
            stepper.zero_grad()
            at_rest, live.watching = live.now(), True
            scalar = forward()
            kept = live.now()
            scalar.backward()  # type: ignore[no-untyped-call]
            del scalar
            stepper.step()
    except NetworkError:
        raise
    except Exception as error:  # whatever a user's module raises
        reason = str(error).strip().splitlines()
        raise NetworkError(
            f"{type(module).__name__} cannot be rehearsed without data: "
            f"{type(error).__name__}: {reason[0] if reason else 'no reason given'}; "
            "measure real steps instead: peppp memory --measure, or measure_training"
        ) from error
    states = {_key(t): t.untyped_storage().nbytes() for t in _tensors(stepper.state.values())}
    return TrainingMemory(
        weights=_bytes_of(network.parameters()),
        buffers=_bytes_of(network.buffers()),
        inputs=_bytes_of(_tensors((args, kwargs))),
        states=sum(states.values()),
        gradients=int(gradients),
        activations=kept - at_rest,
        at_rest=at_rest,
        kept=kept,
        peak=live.peak,
        peak_in=live.peak_in,
        peak_at=live.peak_at,
    )


def measure_training(
    module: nn.Module,
    example_inputs: Tensor | Sequence[Any] | Mapping[str, Any],
    *,
    optimizer: Optimizer = "sgd",
    precision: str = "fp32",
    loss: Callable[[Any], Tensor] | None = None,
) -> MeasuredMemory:
    """The memory of two real steps on the CPU, by torch's own allocator, for a step that needs data to run.

    Arguments are those of :func:`training_memory`; ``module`` and ``example_inputs`` are real, and copied.
    Raises NetworkError for a name that is not known and for a step that does not run on this processor.
    """
    build = _checked(module, optimizer, precision)
    dtype = torch.bfloat16 if precision == "bf16" else None

    def copied(x: Tensor) -> Tensor:
        return x.to(dtype if x.is_floating_point() else None, copy=True)

    def make() -> tuple[Callable[[], Tensor], Callable[[], None]]:
        network = copy.deepcopy(module).to(dtype).train()
        stepper = build([p for p in network.parameters() if p.requires_grad])
        args, kwargs = _called_with(example_inputs, copied)

        def finish() -> None:
            stepper.step()
            stepper.zero_grad()

        return lambda: _loss_of(network, args, kwargs, precision, loss), finish

    try:
        return measure_step(make)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        reason = str(error).strip().splitlines()
        raise NetworkError(
            f"{type(module).__name__} cannot take a step: {reason[0] if reason else type(error).__name__}"
        ) from error


def _checked(
    module: nn.Module, optimizer: Optimizer, precision: str
) -> Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]:
    """What makes the optimizer, once all names are known and something is trained."""
    if precision not in PRECISIONS:
        raise NetworkError(f"unknown precision {precision!r}; known: {', '.join(PRECISIONS)}")
    if isinstance(optimizer, str) and optimizer not in OPTIMIZERS:
        raise NetworkError(f"unknown optimizer {optimizer!r}; known: {', '.join(OPTIMIZERS)}, or a function")
    if not any(p.requires_grad for p in module.parameters()):
        raise NetworkError(f"no parameter of {type(module).__name__} is trained; set requires_grad of some")
    return OPTIMIZERS[optimizer] if isinstance(optimizer, str) else optimizer


def _loss_of(
    network: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    precision: str,
    loss: Callable[[Any], Tensor] | None,
) -> Tensor:
    """A forward pass in its context, and the scalar to train on."""
    cast = _AUTOCAST.get(precision)
    with nullcontext() if cast is None else torch.autocast("cpu", dtype=cast):
        output = network(*args, **kwargs)
        return _mean(output) if loss is None else loss(output)


class _Live(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows the storages that operations make; while it is ``watching``, their sum's highest value."""

    def __init__(self, tracker: ModuleTracker) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.watching, self.peak, self.peak_in, self.peak_at = False, 0, "", ""
        self._tracker = tracker
        self._storages: dict[int, tuple[Any, int]] = {}

    def add(self, tensors: Iterable[Tensor]) -> bool:
        """Note new memory; whether there is any."""
        new = False
        for tensor in tensors:
            storage = tensor.untyped_storage()
            known = self._storages.get(storage._cdata)
            if known is None or known[0].expired():
                self._storages[storage._cdata] = (weak_storage(storage), storage.nbytes())
                new = True
        return new

    def now(self) -> int:
        """Bytes that live now."""
        self._storages = {key: entry for key, entry in self._storages.items() if not entry[0].expired()}
        return sum(nbytes for _, nbytes in self._storages.values())

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if func is aten._local_scalar_dense.default:  # .item(): data that nobody has
            return True if args[0].dtype is torch.bool else 1.0 if args[0].is_floating_point() else 1
        result = func(*args, **(kwargs or {}))
        if func is aten.mkldnn_rnn_layer.default:
            result = self._with_workspace(args, result)
        if self.add(_tensors((result,))) and self.watching:
            live = self.now() + workspace(func, args, result)
            if live > self.peak:
                self.peak, self.peak_at = live, str(func).removesuffix(".default")
                self.peak_in = self._layer()
        return result

    def _with_workspace(self, args: tuple[Any, ...], result: Any) -> Any:
        """An LSTM layer's results, the last of them as large as it really is."""
        size = lstm_workspace(args)
        return (*result[:3], torch.empty(size, dtype=torch.uint8, device=args[0].device))

    def _layer(self) -> str:
        """The innermost module that runs, forward or backward."""
        names = [name for name in self._tracker.parents if name != "Global"]
        inner = max(names, key=lambda name: name.count("."), default="")
        place = inner.partition(".")[2] or inner or "the step"
        return f"{place}, backward" if self._tracker.is_bw and names else place


def _without_memory(module: nn.Module, dtype: torch.dtype | None) -> nn.Module:
    """A copy whose parameters and buffers lie on the meta device, where nothing is allocated."""
    memo: dict[int, Any] = {}
    for tensor in (*module.parameters(), *module.buffers()):
        kind = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
        empty = torch.empty_strided(tensor.shape, tensor.stride(), dtype=kind, device="meta")
        memo[id(tensor)] = (
            nn.Parameter(empty, requires_grad=tensor.requires_grad)
            if isinstance(tensor, nn.Parameter)
            else empty
        )
    return copy.deepcopy(module, memo)


def _as_fake(mode: FakeTensorMode, module: nn.Module) -> nn.Module:
    """The module with its meta tensors in fake ones of the CPU."""
    seen: dict[int, Tensor] = {}
    for layer in module.modules():
        groups: tuple[dict[str, Any], ...] = (layer._parameters, layer._buffers)
        for group in groups:
            for name, tensor in group.items():
                if tensor is None:
                    continue
                if id(tensor) not in seen:
                    found = FakeTensor(mode, tensor.detach(), torch.device("cpu"))
                    seen[id(tensor)] = (
                        nn.Parameter(found, requires_grad=tensor.requires_grad)
                        if isinstance(tensor, nn.Parameter)
                        else found
                    )
                group[name] = seen[id(tensor)]
        if isinstance(layer, nn.RNNBase):
            layer._flat_weights = [getattr(layer, name) for name in layer._flat_weights_names]
            layer._flat_weight_refs = [None] * len(layer._flat_weights)
    return module


def _arguments(
    mode: FakeTensorMode, example: Any, dtype: torch.dtype | None
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The example inputs as fake ones: positional and by keyword."""

    def fake(x: Tensor) -> Tensor:
        kind = dtype if dtype is not None and x.is_floating_point() else x.dtype
        empty = torch.empty_strided(x.shape, x.stride(), dtype=kind, device="meta")
        return FakeTensor(mode, empty, torch.device("cpu"))

    return _called_with(example, fake)


def _called_with(example: Any, change: Callable[[Tensor], Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments, each tensor in them changed."""

    def convert(value: Any) -> Any:
        if isinstance(value, Tensor):
            return change(value)
        if isinstance(value, (list, tuple)):
            return type(value)(map(convert, value))
        if isinstance(value, dict):
            return {name: convert(one) for name, one in value.items()}
        return value

    if isinstance(example, Tensor):
        return (change(example),), {}
    if isinstance(example, Mapping):
        return (), {name: convert(value) for name, value in example.items()}
    return tuple(map(convert, example)), {}


def _mean(output: Any) -> Tensor:
    """The mean of the first floating-point tensor of an output."""
    value = getattr(output, "loss", None)
    if isinstance(value, Tensor):
        return value
    for tensor in _tensors((output,)):
        if tensor.is_floating_point() and tensor.requires_grad:
            return tensor.float().mean()
    raise NetworkError("the module returns no floating-point tensor to train on; give loss=")


def _tensors(values: Any) -> Iterator[Tensor]:
    for value in values.values() if isinstance(values, Mapping) else values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (tuple, list, Mapping)):
            yield from _tensors(value)


def _key(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _bytes_of(tensors: Iterable[Tensor]) -> int:
    return sum({_key(t): t.untyped_storage().nbytes() for t in tensors}.values())
