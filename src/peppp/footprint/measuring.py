"""Bytes that torch really allocates: its own allocator's trace on the CPU, its counters on CUDA."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile


@dataclass(slots=True)
class Trace:
    """Bytes that a traced stretch of code added: what it left behind, and its highest moment."""

    kept: int = 0
    peak: int = 0


@dataclass(slots=True)
class AllocatorTrace:
    """Stretches of one run, traced one after another: memory at rest, in a forward pass, in a step.

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
        """Trace a stretch; ``kept`` and ``peak`` go on from where the last one ended."""
        if torch.device(self.device).type == "cuda":
            torch.cuda.synchronize(self.device)
            before = torch.cuda.memory_allocated(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
            yield
            torch.cuda.synchronize(self.device)
            highest = torch.cuda.max_memory_allocated(self.device) - before
            left = torch.cuda.memory_allocated(self.device) - before
        else:
            os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler reports its own coming and going
            with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiler:
                yield
            left, highest = _replay(profiler)
        self.stretches[name] = Trace(left, highest)
        self.peak = max(self.peak, self.kept + highest)
        self.kept += left


def _replay(profiler: profile) -> tuple[int, int]:
    """The sum of all allocations and frees, and its highest value on the way."""
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
    """Build a training, run a step of it to warm up and trace the next.

    ``build`` makes the network, the optimizer and a batch, and gives back two functions: the forward pass,
    which returns the loss, and what a step does after ``backward``.
    """
    trace = AllocatorTrace(device)
    with trace.stretch("build"):
        forward, finish = build()
        forward().backward()  # type: ignore[no-untyped-call]
        finish()
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
