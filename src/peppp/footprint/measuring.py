"""Bytes that torch really allocates, from its allocator's trace on the CPU and its counters on CUDA."""

import copy
import gc
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from peppp.errors import NetworkError
from peppp.footprint.fakes import arguments
from peppp.footprint.recipes import MakesOptimizer, check_passes, finishing, training_recipe
from peppp.footprint.training_memory import mean_of


@dataclass(slots=True)
class Trace:
    """Bytes that a traced piece of code added: what it left allocated, and its highest moment."""

    kept: int = 0
    peak: int = 0


@dataclass(slots=True)
class AllocatorTrace:
    """Traces pieces of one run, one after another: memory at rest, in a forward pass, in a step.

    >>> trace = AllocatorTrace()
    >>> with trace.stretch("all"):
    ...     a = torch.ones(1000); b = torch.ones(500); del a
    >>> trace.kept, trace.peak
    (2000, 6000)
    """

    device: str = "cpu"
    kept: int = 0
    peak: int = 0
    stretches: dict[str, Trace] = field(default_factory=dict)

    @contextmanager
    def stretch(self, name: str) -> Iterator[None]:
        """Trace a piece of code; ``kept`` and ``peak`` continue from where the last one ended."""
        if not self.stretches:
            gc.collect()  # so that nothing that was traced before is freed meanwhile, such as another network
        if torch.device(self.device).type == "cuda":
            torch.cuda.synchronize(self.device)
            before = torch.cuda.memory_allocated(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
            yield
            torch.cuda.synchronize(self.device)
            highest = torch.cuda.max_memory_allocated(self.device) - before
            left = torch.cuda.memory_allocated(self.device) - before
        else:
            os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # otherwise the profiler logs its start and end
            with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiler:
                yield
            left, highest = _replay(profiler)
        self.stretches[name] = Trace(left, highest)
        self.peak = max(self.peak, self.kept + highest)
        self.kept += left


def _replay(profiler: profile) -> tuple[int, int]:
    """Return the sum of all allocations and frees, and its highest intermediate value."""
    recorded: Any = profiler.profiler
    events = [event for event in recorded.kineto_results.events() if event.name() == "[memory]"]
    live = highest = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        highest = max(highest, live)
    return live, highest


@dataclass(frozen=True, slots=True)
class MeasuredMemory:
    """Bytes of a training step: between steps, at the end of the forward pass, and at its highest moment."""

    at_rest: int
    kept: int
    peak: int


def measure_step(
    build: Callable[[], tuple[Callable[[], torch.Tensor], Callable[[], None]]], device: str = "cpu"
) -> MeasuredMemory:
    """Build a training, run one step of it to warm up, and trace the next.

    ``build`` makes the network, the optimizer and a batch, and returns two functions: the forward pass, which
    returns the loss, and what a step does after ``backward``.
    """
    trace = AllocatorTrace(device)
    with trace.stretch("build"):
        forward, finish = build()
        forward().backward()  # type: ignore[no-untyped-call]
        finish()
        gc.collect()  # compiling a kernel leaves tensors of the first step in cycles
    at_rest = trace.kept
    trace.peak = 0
    with trace.stretch("forward"):
        loss = forward()
    kept = trace.kept
    with trace.stretch("backward"):
        loss.backward()  # type: ignore[no-untyped-call]
        finish()
        del loss
    return MeasuredMemory(at_rest, kept, trace.peak)


def measure_training(
    module: nn.Module,
    example_inputs: Tensor | Sequence[Any] | Mapping[str, Any],
    *,
    optimizer: str | MakesOptimizer | None = None,
    precision: str = "fp32",
    loss: Callable[[Any], Tensor] | None = None,
    accumulate: int = 1,
    release_gradients: bool = False,
) -> MeasuredMemory:
    """Measure the memory of two real steps on the CPU with torch's own allocator.

    This also works for steps that need data to run. The arguments are those of :func:`peppp.training_memory`;
    ``module`` and ``example_inputs`` have real numbers, and are copied. Raises NetworkError for an unknown
    name, a step that does not run on this processor, and a precision or optimizer that can only be counted.
    """
    recipe = training_recipe(module, optimizer, precision)
    check_passes(accumulate, release_gradients)
    if not recipe.fits_real_steps:
        raise NetworkError(
            f"{precision} is counted, and not run; measure fp32, amp-bf16, amp-fp16 or bf16, or give an "
            "optimizer of your own that does it"
        )

    def copied(x: Tensor) -> Tensor:
        return x.to(recipe.cast if x.is_floating_point() else None, copy=True)

    def make() -> tuple[Callable[[], Tensor], Callable[[], None]]:
        network = copy.deepcopy(module).to(recipe.cast).train()
        scaler = recipe.scaler()
        finish, _ = finishing(network, recipe.optimizer, release_gradients, scaler)
        args, kwargs = arguments(example_inputs, copied)

        def one_pass() -> Tensor:
            with recipe.context():
                output = network(*args, **kwargs)
                return scaler.scale(mean_of(output) if loss is None else loss(output))

        def forward() -> Tensor:
            for _ in range(accumulate - 1):
                one_pass().backward()  # type: ignore[no-untyped-call]
            return one_pass()

        return forward, finish

    try:
        return measure_step(make)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        reason = str(error).strip().splitlines()
        raise NetworkError(
            f"{type(module).__name__} cannot take a step: {reason[0] if reason else type(error).__name__}"
        ) from error
