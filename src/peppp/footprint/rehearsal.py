"""A training step rehearsed without data: which memory lives when, known before anything is allocated.

The step is the real one, packed or not, on torch's meta device; a dispatch mode sees each operation's results
and weak references tell when they are freed. What is packed is counted in numbers, everything else in bytes,
so that one rehearsal serves every configuration: the peak is the highest of a few linear expressions.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from peppp.errors import NetworkError
from peppp.footprint.meta import as_on_cpu
from peppp.formats import Configuration
from peppp.lowprec.network.conversion import low_precision
from peppp.lowprec.optimizers.low_precision import low_precision_optimizer
from peppp.lowprec.optimizers.packed import PackedOptimizer
from peppp.lowprec.packing.packed_tensor import PackedTensor
from peppp.lowprec.storage.weights import weak_storage


@dataclass(frozen=True, slots=True)
class Moment:
    """What lives at one moment: bytes that no format changes, and numbers in Formats A and B."""

    raw: int
    numbers_a: int
    numbers_b: int

    def bytes(self, configuration: Configuration) -> int:
        """All of it at a configuration.

        >>> Moment(100, 80, 8).bytes(Configuration.parse("1-4-1/1-6-7"))
        174
        """
        bits = self.numbers_a * configuration.format_a.bits + self.numbers_b * configuration.format_b.bits
        return self.raw + ceil(Fraction(bits) / 8)


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """A step's memory: between steps, at the end of the forward pass, and the moments that can be highest."""

    at_rest: Moment
    kept: Moment
    highest: tuple[Moment, ...]

    def peak(self, configuration: Configuration) -> int:
        """Bytes of the highest moment at a configuration."""
        return max(moment.bytes(configuration) for moment in self.highest)


def rehearse(
    network: nn.Module,
    input_shape: Sequence[int],
    batch_size: int,
    *,
    storage: str = "packed",
    optimizer: str = "sgd",
    accumulator: bool = True,
    gradients: str = "in_backward",
    weights: str = "recomputed",
) -> Rehearsal:
    """Rehearse two steps of classification by ``network`` (fresh, on the meta device).

    ``storage`` is ``fp32`` (plain torch), ``simulated`` (rounded, in float32) or ``packed``; the other
    options are those of :func:`peppp.lowprec.optimizers.low_precision.low_precision_optimizer`. Memory that
    an operation needs within is that of torch on CPUs. Raises NetworkError where the network cannot run on
    such inputs.
    """
    kinds: dict[str, Callable[..., torch.optim.Optimizer]]
    kinds = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    options = {"lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4} if optimizer == "sgd" else {"lr": 0.01}
    network.train()
    live = Live()
    live.add((*network.parameters(), *network.buffers()))
    used = _Used()
    with live:
        stepper = kinds[optimizer](network.parameters(), **options)
        if storage != "fp32":
            low_precision(network, "1-4-1/1-6-7", rounding="nearest", seed=0)
            choice = {"gradients": gradients, "weights": weights} if storage == "packed" else {}
            stepper = low_precision_optimizer(
                stepper, network, accumulator=accumulator, storage=storage, **choice
            )
        if isinstance(stepper, PackedOptimizer):
            live.packed = stepper
            stepper.storage.saved.holds = used.holds
        inputs = torch.empty(batch_size, *input_shape, device="meta")
        labels = torch.zeros(batch_size, dtype=torch.int64, device="meta")
        if inputs.dim() == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)

        def forward() -> Tensor:
            with used:
                logits = network(inputs)
            return nn.functional.cross_entropy(logits, labels)

        try:
            forward().backward()  # type: ignore[no-untyped-call]
            stepper.step()
            stepper.zero_grad()
            at_rest = live.now()
            live.watching = True
            loss = forward()
            kept = live.now()
            loss.backward()  # type: ignore[no-untyped-call]
            del loss
            stepper.step()
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            shape = "x".join(str(side) for side in input_shape)
            reason = str(error).splitlines()[0]
            raise NetworkError(
                f"{type(network).__name__} cannot be rehearsed on inputs of {shape}: {reason}"
            ) from None
    return Rehearsal(at_rest, kept, _front(live.moments))


class _Used(TorchFunctionMode):
    """The memory that operations have used: what they use is rounded, and Format A holds it."""

    def __init__(self) -> None:
        super().__init__()
        self.storages: dict[int, Any] = {}

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        for tensor in _tensors((args, kwargs or {})):
            storage = tensor.untyped_storage()
            if storage._cdata not in self.storages or self.storages[storage._cdata].expired():
                self.storages[storage._cdata] = weak_storage(storage)
        return as_on_cpu(func, args, kwargs or {})

    def holds(self, tensor: Tensor) -> bool:
        """Whether an operation has used a tensor's memory."""
        known = self.storages.get(tensor.untyped_storage()._cdata)
        return known is not None and not known.expired()


class Live(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees what lives after each operation, while it is ``watching``."""

    def __init__(self, *, watching: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.packed: PackedOptimizer | None = None
        self.watching = watching
        self.moments: set[Moment] = set()
        self._storages: dict[int, tuple[Any, int]] = {}

    def add(self, tensors: Sequence[Tensor]) -> bool:
        """Note new memory; whether there is any."""
        new = False
        for tensor in tensors:
            storage = tensor.untyped_storage()
            if storage._cdata not in self._storages or self._storages[storage._cdata][0].expired():
                self._storages[storage._cdata] = (weak_storage(storage), storage.nbytes())
                new = True
        return new

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        if self.add(list(_tensors((result,)))) and self.watching:
            moment = self.now()
            extra = _WITHIN.get(func, _nothing)(args, result)
            self.moments.add(Moment(moment.raw + extra, moment.numbers_a, moment.numbers_b))
        return result

    def now(self) -> Moment:
        """What lives now."""
        self._storages = {key: entry for key, entry in self._storages.items() if not entry[0].expired()}
        if self.packed is None:
            return Moment(sum(nbytes for _, nbytes in self._storages.values()), 0, 0)
        saved, weights = self.packed.storage.saved, self.packed.storage.weights
        emptied = saved.emptied()
        total = sum(nbytes for key, (_, nbytes) in self._storages.items() if key not in emptied)
        in_a = [*saved.memories(), *weights.packed.values()]
        in_b = [packed for states in self.packed.packed.values() for packed in states.values()]
        in_b += [g for g in self.packed.packed_gradients.values() if isinstance(g, PackedTensor)]
        words = sum(
            self._storages[key][1] for p in (*in_a, *in_b) if (key := _key(p.words)) in self._storages
        )
        numbers_a, numbers_b = (sum(p.shape.numel() for p in group) for group in (in_a, in_b))
        return Moment(total - words, numbers_a, numbers_b)


def _key(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _nothing(args: tuple[Any, ...], result: Any) -> int:
    return 0


def _weight_gradients(args: tuple[Any, ...], result: Any) -> int:
    """The weight gradient is copied twice on its way into the weight's own layout."""
    return 2 * result[1].nbytes if result[1] is not None else 0


def _input_gradient(args: tuple[Any, ...], result: Any) -> int:
    """In channels_last, the input's gradient is allocated twice, before the first is let go of.

    All images are taken to be so: that is how a training runs, but the meta device does not keep it.
    """
    return int(result[0].nbytes) if args[1].dim() == 4 and result[0] is not None else 0


# Bytes that operations of torch 2.13 allocate on CPUs beyond their results.
_WITHIN: dict[Any, Callable[[tuple[Any, ...], Any], int]] = {
    torch.ops.aten.convolution_backward.default: _weight_gradients,
    torch.ops.aten.native_batch_norm_backward.default: _input_gradient,
}


def _tensors(values: Any) -> Iterator[Tensor]:
    for value in values.values() if isinstance(values, dict) else values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (tuple, list, dict)):
            yield from _tensors(value)


def _front(moments: set[Moment]) -> tuple[Moment, ...]:
    """The moments that none other exceeds in all three: one of them is the highest at any configuration."""
    found: list[Moment] = []
    for m in sorted(moments, key=lambda m: (m.raw, m.numbers_a, m.numbers_b), reverse=True):
        if not any(f.numbers_a >= m.numbers_a and f.numbers_b >= m.numbers_b for f in found):
            found.append(m)
    return tuple(found)
