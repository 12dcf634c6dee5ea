"""``training_memory``: the bytes of a training step of any module, before it runs.

The actual step (forward in its context, backward, optimizer) runs on fake tensors (fakes.py). Storages are
followed (live.py), and what CPU kernels allocate temporarily is measured kernel by kernel (scratch.py).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from peppp.arguments import checked
from peppp.errors import NetworkError
from peppp.footprint.fakes import fake_arguments, fake_mode, fake_module, silent, tensors
from peppp.footprint.live import Live
from peppp.footprint.moment import Moment
from peppp.footprint.peak import Peak
from peppp.footprint.recipes import MakesOptimizer, check_passes, finishing, training_recipe
from peppp.footprint.segments import Cut, Segments
from peppp.footprint.where import Where
from peppp.units import format_bytes

DEVICES = ("cpu", "cuda")
# A GPU's context, kernels, cuDNN workspaces and fragmentation: this cannot be known in advance.
_RESERVE, _RESERVE_SHARE = 600_000_000, 0.1


@dataclass(frozen=True, slots=True)
class LayerMemory:
    """Bytes of one module itself: its own weights, and what its forward pass keeps."""

    name: str
    kind: str
    weights: int
    activations: int


@dataclass(frozen=True, slots=True)
class TrainingMemory:
    """Bytes of a training step, estimated.

    ``weights``, ``buffers``, ``states`` (of the optimizer) and ``inputs`` exist between steps; ``at_rest`` is
    everything that does. ``kept`` is everything that is allocated at the end of the forward pass, and
    ``activations`` what the forward pass adds. ``gradients`` is the size of all gradients together. ``peak``
    is the highest moment of a step: at the operation ``peak_at`` in the layer ``peak_in``, called at the
    source line ``peak_line``. ``device`` says whose kernels are counted; ``reserve`` is what a GPU needs in
    addition to the peak, by rule of thumb.
    """

    device: str
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
    peak_line: str
    reserve: int
    layers: tuple[LayerMemory, ...]

    def __str__(self) -> str:
        parts = ("weights", "buffers", "inputs", "states", "activations", "gradients")
        shown = ", ".join(f"{name} {format_bytes(getattr(self, name))}" for name in parts)
        how = "estimated, CPU kernels"
        if self.device == "cuda":
            how = f"cuda, by rule, not run; leave {format_bytes(self.reserve)} more to the GPU"
        line = f", {self.peak_line}" if self.peak_line else ""
        return (
            f"peak {format_bytes(self.peak)} in {self.peak_in} ({self.peak_at}{line}); "
            f"kept at the end of the forward pass {format_bytes(self.kept)}; {shown}; {how}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain data."""
        return asdict(self)


@checked
def training_memory(
    module: nn.Module,
    example_inputs: Tensor | Sequence[Any] | Mapping[str, Any],
    *,
    optimizer: str | MakesOptimizer | None = None,
    precision: str = "fp32",
    loss: Callable[[Any], Tensor] | None = None,
    device: str = "cpu",
    accumulate: int = 1,
    release_gradients: bool = False,
) -> TrainingMemory:
    """Estimate the memory of a step that trains ``module``, without data and without allocating it.

    ``module`` is on the CPU or on the meta device, and is not changed. ``example_inputs`` is what it is
    called with: a tensor, a sequence of positional arguments, or a mapping of keyword arguments; only shapes,
    strides and types of the tensors matter. ``optimizer`` is sgd (momentum 0.9, the default), adam, adamw,
    adafactor, or a function that makes one from the parameters. ``precision`` is ``fp32``, ``amp-bf16`` or
    ``amp-fp16`` (autocast, the latter with a GradScaler), ``bf16`` (the whole network), ``bf16-sr`` or
    ``bf16-kahan`` (which round weights stochastically, or carry their rounding errors along), or a precision
    such as ``mxfp8``, which keeps the same memory as ``amp-bf16``. It may end in ``-sgd8bit``, ``-adamw8bit``
    or ``-adamw4bit``. ``loss`` maps what the module returns to a scalar (default: its own loss, else the mean
    of its first floating-point tensor). ``device`` says whose kernels are counted: ``cpu``, or ``cuda`` by
    rule (fused attention, no temporary memory of oneDNN), which needs no GPU. ``accumulate`` is the number of
    forward and backward passes per step. ``release_gradients`` steps on each parameter in the backward pass.

    Raises NetworkError, in one line, for an unknown name and for a step that needs data to run.

    >>> import torch
    >>> found = training_memory(nn.Linear(1000, 10), torch.empty(8, 1000))
    >>> found.weights, found.states, found.gradients
    (40040, 40040, 40040)
    """
    return rehearse_training(
        module,
        example_inputs,
        optimizer=optimizer,
        precision=precision,
        loss=loss,
        device=device,
        accumulate=accumulate,
        release_gradients=release_gradients,
    )[0]


def rehearse_training(
    module: nn.Module,
    example_inputs: Tensor | Sequence[Any] | Mapping[str, Any],
    *,
    optimizer: str | MakesOptimizer | None = None,
    precision: str = "fp32",
    loss: Callable[[Any], Tensor] | None = None,
    device: str = "cpu",
    accumulate: int = 1,
    release_gradients: bool = False,
    change: Callable[[nn.Module], object] | None = None,
    blocks: Sequence[str] = (),
) -> tuple[TrainingMemory, Cut | None]:
    """Like :func:`training_memory` after ``change`` of the module, with the step cut at ``blocks``."""
    recipe = training_recipe(module, optimizer, precision, device=device)
    check_passes(accumulate, release_gradients)
    if device not in DEVICES:
        raise NetworkError(f"unknown device {device!r}; known: {', '.join(DEVICES)}")
    fake = fake_mode()
    network = fake_module(fake, module, recipe.cast).train()
    if change is not None:
        change(network)
    args, kwargs = fake_arguments(fake, example_inputs, recipe.cast)
    live, where, segments = Live(), Where(), Segments(blocks)
    peak = Peak(live, where, segments, on_cpu=device == "cpu")
    live.add((*network.parameters(), *network.buffers(), *tensors((args, kwargs))))

    def forward() -> Tensor:
        with recipe.context():
            output = network(*args, **kwargs)
            return scaler.scale(mean_of(output) if loss is None else loss(output))

    try:
        with (
            silent(),
            fake,
            live,
            where.watching(network),
            _FusedAttention() if device == "cuda" else nullcontext(),
        ):
            scaler = recipe.scaler()
            finish, steppers = finishing(network, recipe.optimizer, release_gradients, scaler)
            forward().backward()  # type: ignore[no-untyped-call]
            gradients = sum(p.grad.nbytes for p in network.parameters() if p.grad is not None)
            finish()
            at_rest, live.watch = live.total, peak.watch
            for _ in range(accumulate - 1):
                forward().backward()  # type: ignore[no-untyped-call]
            before, peak.made = live.total, {}
            with segments.following(network, lambda: Moment(live.total, 0, 0)):
                scalar = forward()
                kept, own = live.total, peak.kept_by_layer()
                scalar.backward()  # type: ignore[no-untyped-call]
                del scalar
                segments.end_passes()
                finish()
    except NetworkError:
        raise
    except Exception as error:  # the user's module can raise anything
        reason = str(error).strip().splitlines()
        raise NetworkError(
            f"{type(module).__name__} cannot be rehearsed without data: "
            f"{type(error).__name__}: {reason[0] if reason else 'no reason given'}; "
            "measure real steps instead: peppp memory --measure, or measure_training"
        ) from error
    highest, operation, place = peak.highest()
    found = TrainingMemory(
        device=device,
        weights=_bytes_of(network.parameters()),
        buffers=_bytes_of(network.buffers()),
        inputs=_bytes_of(tensors((args, kwargs))),
        states=_bytes_of(tensors([stepper.state for stepper in steppers])),
        gradients=gradients or _bytes_of(p for p in network.parameters() if p.requires_grad),
        activations=kept - before,
        at_rest=at_rest,
        kept=kept,
        peak=highest,
        peak_in=str(place) or type(module).__name__,
        peak_at=operation,
        peak_line=place.line,
        reserve=0 if device == "cpu" else _RESERVE + round(_RESERVE_SHARE * highest),
        layers=_layers(network, own),
    )
    return found, segments.cut(peak.by_position()) if blocks else None


class _FusedAttention(TorchFunctionMode):
    """Removes dropout from attention: a GPU fuses both, where torch's CPU kernels would keep its matrices."""

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        kwargs = kwargs or {}
        if func is functional.scaled_dot_product_attention:
            if len(args) > 4:
                args = (*args[:4], 0.0, *args[5:])
            else:
                kwargs = kwargs | {"dropout_p": 0.0}
        elif func is functional.multi_head_attention_forward:
            kwargs = kwargs | {"training": False}  # this only affects dropout
        return func(*args, **kwargs)


def _layers(network: nn.Module, kept: dict[str, int]) -> tuple[LayerMemory, ...]:
    """Return the modules that have weights or keep anything, in order; what no module made comes last."""
    seen: set[int] = set()
    found, rest = [], dict(kept)
    for name, module in network.named_modules():
        own = [p for p in module.parameters(recurse=False) if id(p) not in seen]
        seen.update(map(id, own))
        activations = rest.pop(name, 0)
        if own or activations:
            weights = sum(p.nbytes for p in own)
            found.append(LayerMemory(name or "(network)", type(module).__name__, weights, activations))
    if left := sum(rest.values()):
        found.append(LayerMemory("(loss)", "loss", 0, left))
    return tuple(found)


def mean_of(output: Any) -> Tensor:
    """Return a module's own loss, else the mean of the first floating-point tensor of its output."""
    value = getattr(output, "loss", None)
    if isinstance(value, Tensor):
        return value
    for tensor in tensors((output,)):
        if tensor.is_floating_point() and tensor.requires_grad:
            return tensor.float().mean()
    raise NetworkError("the module returns no floating-point tensor to train on; give loss=")


def _bytes_of(found: Iterable[Tensor]) -> int:
    storages = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in found}
    return sum(storages.values())
