"""Rehearses a training step without data, to know what is allocated when before anything is allocated.

The step is the actual one, packed or not, on fake tensors. Packed tensors are counted in numbers, everything
else in bytes, so that one rehearsal serves every configuration: the peak is the maximum of a few linear
expressions.
"""

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from peppp.errors import NetworkError
from peppp.footprint.fakes import classification_loss, fake_arguments, fake_mode, fake_module, silent, tensors
from peppp.footprint.live import Live
from peppp.footprint.moment import Moment, highest_of
from peppp.footprint.scratch import Kernel, kernel_of, most_scratch, scratch
from peppp.footprint.segments import Cut, Segments
from peppp.formats import Configuration
from peppp.lowprec.network.conversion import low_precision
from peppp.lowprec.optimizers.low_precision import low_precision_optimizer
from peppp.lowprec.optimizers.packed import PackedOptimizer
from peppp.lowprec.packing.packed_tensor import PackedTensor


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """A step's memory: between steps, at the end of the forward pass, and the moments that can be highest.

    ``cut`` is the step by its blocks, if any were named.
    """

    at_rest: Moment
    kept: Moment
    highest: tuple[Moment, ...]
    cut: Cut | None = None

    def peak(self, configuration: Configuration) -> int:
        """Return the bytes of the highest moment at a configuration."""
        return max(moment.bytes(configuration) for moment in self.highest)

    def to_plain(self) -> dict[str, Any]:
        """The rehearsal as data for JSON."""
        return asdict(self)

    @classmethod
    def from_plain(cls, data: Any) -> "Rehearsal":
        """Read what :meth:`to_plain` made."""
        highest = tuple(Moment(**moment) for moment in data["highest"])
        cut = None if data["cut"] is None else Cut.from_plain(data["cut"])
        return cls(Moment(**data["at_rest"]), Moment(**data["kept"]), highest, cut)


def rehearse(
    network: nn.Module,
    input_shape: Sequence[int],
    batch_size: int,
    *,
    dtype: torch.dtype = torch.float32,
    **options: Any,
) -> Rehearsal:
    """Call :func:`rehearse_on` with a batch of ``batch_size`` inputs of ``input_shape`` and ``dtype``.

    Images are channels_last.
    """
    inputs = torch.empty(batch_size, *input_shape, dtype=dtype, device="meta")
    if inputs.dim() == 4:
        inputs = inputs.contiguous(memory_format=torch.channels_last)
    return rehearse_on(network, inputs, **options)


def rehearse_on(
    network: nn.Module,
    example_inputs: Tensor | Sequence[Any] | Mapping[str, Any],
    *,
    storage: str = "packed",
    optimizer: str = "sgd",
    accumulator: bool = True,
    gradients: str = "in_backward",
    weights: str = "recomputed",
    accumulate: int = 1,
    loss: Callable[[Any], Tensor] | None = None,
    change: Callable[[nn.Module], object] | None = None,
    blocks: Sequence[str] = (),
) -> Rehearsal:
    """Rehearse two steps that train ``network`` (on the CPU or the meta device; it is not changed).

    ``example_inputs`` is what it is called with; only shapes, strides and types of tensors matter. ``loss``
    maps what the network returns to a scalar; the default is :func:`classification_loss`.

    ``storage`` is ``fp32`` (plain torch), ``simulated`` (rounded, in float32) or ``packed``; the next options
    are those of :func:`peppp.lowprec.optimizers.low_precision.low_precision_optimizer`. ``accumulate`` is the
    number of passes per step. ``change`` is applied to the rehearsed copy of the network before it is
    converted. ``blocks`` names modules at whose ends the step is cut. Temporary memory within an operation is
    that of torch on CPUs. Raises NetworkError if the network cannot run on such inputs.
    """
    kinds: dict[str, Callable[..., torch.optim.Optimizer]]
    kinds = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    rates = {"lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4} if optimizer == "sgd" else {"lr": 0.01}
    fake, live, used, segments = fake_mode(), Live(), _Used(), Segments(blocks)
    network = fake_module(fake, network).train()
    if change is not None:
        change(network)
    args, kwargs = fake_arguments(fake, example_inputs)
    live.add((*network.parameters(), *network.buffers(), *tensors((args, kwargs))))
    moments = _Moments(live, used, segments)
    live.watch = moments.watch
    with silent(), fake, live:
        stepper = kinds[optimizer](network.parameters(), **rates)
        if storage != "fp32":
            low_precision(network, "1-4-1/1-6-7", rounding="nearest", seed=0)
            choice = {"gradients": gradients, "weights": weights} if storage == "packed" else {}
            stepper = low_precision_optimizer(
                stepper, network, accumulator=accumulator, storage=storage, **choice
            )
        if isinstance(stepper, PackedOptimizer):
            moments.packed = stepper
            stepper.storage.saved.holds = used.holds

        def forward() -> Tensor:
            with used:
                outputs = network(*args, **kwargs)
            return (loss or classification_loss)(outputs)

        def step() -> None:
            segments.end_passes()
            stepper.step()
            stepper.zero_grad()

        try:
            forward().backward()  # type: ignore[no-untyped-call]
            step()
            at_rest = moments.now()
            moments.recorded = True
            for _ in range(accumulate - 1):
                forward().backward()  # type: ignore[no-untyped-call]
            with segments.following(network, moments.now):
                scalar = forward()
                kept = moments.now()
                scalar.backward()  # type: ignore[no-untyped-call]
                del scalar
                step()
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            shapes = ", ".join("x".join(map(str, x.shape[1:])) for x in tensors((args, kwargs)))
            reason = str(error).splitlines()[0]
            raise NetworkError(
                f"{type(network).__name__} cannot be rehearsed on inputs of {shapes}: {reason}"
            ) from None
    cut = segments.cut(moments.by_position()) if blocks else None
    return Rehearsal(at_rest, kept, moments.front(), cut)


class _Used(TorchFunctionMode):
    """Collects the memory that operations have used: it has been rounded, so Format A holds it."""

    def __init__(self) -> None:
        super().__init__()
        self.storages: dict[int, Any] = {}

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        for tensor in tensors((args, kwargs or {})):
            self._add(tensor)
        return func(*args, **(kwargs or {}))

    def follow(self, operation: Any, args: tuple[Any, ...], result: Any) -> None:
        """Note that a copy of rounded memory is rounded, too, such as the one that attention makes."""
        if operation is torch.ops.aten.clone.default and self.holds(args[0]):
            self._add(result)

    def _add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if not self._holds(storage):
            self.storages[storage._cdata] = weakref.ref(storage)

    def holds(self, tensor: Tensor) -> bool:
        """Whether an operation has used a tensor's memory."""
        return self._holds(tensor.untyped_storage())

    def _holds(self, storage: torch.UntypedStorage) -> bool:
        known = self.storages.get(storage._cdata)
        return known is not None and known() is storage


class _Moments:
    """Records what is allocated after each operation, in numbers of Formats A and B and in other bytes."""

    def __init__(self, live: Live, used: _Used, segments: Segments) -> None:
        self.packed: PackedOptimizer | None = None
        self.recorded = False
        self._live, self._used, self._segments = live, used, segments
        self._seen: dict[int, dict[Kernel | None, set[Moment]]] = {}  # by position in the step, and kernel
        self._most: dict[Kernel, int] = {}

    def watch(self, operation: Any, args: tuple[Any, ...], result: Any, new: list[int]) -> None:
        """Note what is allocated after an operation that made memory, once ``recorded`` is set."""
        self._used.follow(operation, args, result)
        self._segments.count(operation, args, result)
        if new and self.recorded:
            kernel = kernel_of(operation, args)
            self._seen.setdefault(self._segments.now, {}).setdefault(kernel, set()).add(self.now())
            if kernel is not None and kernel not in self._most:
                self._most[kernel] = most_scratch(kernel, result)

    def now(self) -> Moment:
        """Return what is allocated now."""
        total = self._live.total
        if self.packed is None:
            return Moment(total, 0, 0)
        saved, weights = self.packed.storage.saved, self.packed.storage.weights
        in_a = [*saved.memories(), *weights.packed.values()]
        in_b = [packed for states in self.packed.packed.values() for packed in states.values()]
        in_b += [g for g in self.packed.packed_gradients.values() if isinstance(g, PackedTensor)]
        elsewhere = {p.words.untyped_storage()._cdata for p in (*in_a, *in_b)} | saved.emptied()
        counted = sum(map(self._live.size, elsewhere))
        numbers_a, numbers_b = (sum(p.places for p in group) for group in (in_a, in_b))
        return Moment(total - counted, numbers_a, numbers_b)

    def front(self) -> tuple[Moment, ...]:
        """Return the moments that no other exceeds: at any configuration, one of them is the highest.

        They include what kernels allocate temporarily.
        """
        together: dict[Kernel | None, set[Moment]] = {}
        for groups in self._seen.values():
            for kernel, group in groups.items():
                together.setdefault(kernel, set()).update(group)
        return self._front(together)

    def by_position(self) -> dict[int, tuple[Moment, ...]]:
        """Return the same for each position in the step."""
        return {position: self._front(groups) for position, groups in self._seen.items()}

    def _front(self, groups: dict[Kernel | None, set[Moment]]) -> tuple[Moment, ...]:
        surely = highest_of({m for group in groups.values() for m in group})

        def can_be_highest(kernel: Kernel, group: set[Moment]) -> bool:
            most = {m.with_raw(self._most[kernel]) for m in group}
            return any(not any(s.exceeds(m) for s in surely) for m in most)

        extra = scratch(k for k, group in groups.items() if k is not None and can_be_highest(k, group))
        return highest_of(
            {m.with_raw(extra.get(k, 0)) if k else m for k, group in groups.items() for m in group}
        )
