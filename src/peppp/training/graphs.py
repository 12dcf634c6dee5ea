"""Steps captured once as CUDA graphs, and replayed for all configurations.

THE CUDA PATH HAS NOT BEEN RUN ON A GPU YET. The tests run the same code on the CPU, where a step is called
instead of replayed, and get the same bits as training/loop.py.

Everything that differs between trainings of a network lives on the device, where a replayed step reads it:
formats, keys of the random bits, learning rate, data and their order. Weights and optimizer states are reset
for each training. Within an epoch nothing waits for the device.
"""

import gc
import math
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from peppp.formats import FloatFormat, Format
from peppp.lowprec.gpu.device import FormatSlot
from peppp.lowprec.gpu.keytable import ReplayClock, evaluation_roots, training_roots
from peppp.lowprec.network.conversion import low_precision, low_precision_state
from peppp.lowprec.optimizers.low_precision import low_precision_optimizer
from peppp.lowprec.optimizers.simulated import LowPrecisionOptimizer
from peppp.lowprec.rounding.roundings import Roundings
from peppp.precisions.known import Precision
from peppp.records import Outcome, Recipe
from peppp.tasks.dataset import Dataset
from peppp.training import loop
from peppp.training.batches import Batches
from peppp.training.exactness import formats_of
from peppp.training.losses import find_loss

_REHEARSALS = 3  # runs before a capture, in which libraries choose their algorithms and reserve memory


class Replay:
    """A network, its optimizer and a data set in memory that does not move, and the steps captured on it."""

    def __init__(self, dataset: Dataset, recipe: Recipe, device: str, rare: bool) -> None:
        self.device, self.loss, self.fingerprint = device, find_loss(recipe.loss), dataset.fingerprint
        self.part, self.test = Batches(dataset, "train", device), Batches(dataset, "test", device)
        self.batch = min(recipe.batch_size, len(self.part))
        self.steps, self.test_steps = len(self.part) // self.batch, len(self.test) // loop.TEST_BATCH

        def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        self.order = zeros(self.steps, self.batch, dtype=torch.int64)
        self.places = torch.arange(loop.TEST_BATCH, device=device)
        self.position = zeros(1, dtype=torch.int64)  # the number of the step within its epoch
        self.misses, self.total, self.rate = zeros(dtype=torch.float64), zeros(), zeros()
        self.results: Tensor | None = None  # outputs for the test part, once their shape is known
        self.clock = ReplayClock(device)
        self.keys = zeros(self.steps, 0, dtype=torch.int64)
        self.test_keys = zeros(self.test_steps, 0, dtype=torch.int64)
        self.slots = [FormatSlot.empty(device, rare) for _ in range(3)]
        self.network, self.optimizer = self._build(dataset, recipe)
        self.network.train()
        self.train_step = self._captured(self._train, self._reserve_keys)
        self.network.eval()
        self.test_step = self._captured(self._test, self._reserve_test_keys)

    def _build(self, dataset: Dataset, recipe: Recipe) -> tuple[nn.Module, LowPrecisionOptimizer]:
        """Build a network that reads its formats, keys and learning rate from tensors on the device."""
        network = loop.fresh_network(dataset, recipe, 0).to(self.device)
        sgd = loop.make_optimizer(network.parameters(), recipe)
        low_precision(network, "fp32/fp32", rounding=recipe.rounding, error_format="A", seed=0)
        optimizer = low_precision_optimizer(sgd, network, accumulator=recipe.accumulator)
        state = low_precision_state(network)
        state.repaired = True  # a captured step runs on a GPU
        a, b, error = (cast(Format, slot) for slot in self.slots)
        state.roundings = Roundings.of_formats(a, b, error, state.roundings.modes)
        state.clock = self.clock
        for group in optimizer.param_groups:
            group["lr"] = self.rate
        return network, optimizer

    def _train(self) -> None:
        """Take one training step, and advance the position."""
        self.clock.training.take(self.keys, self.position)
        indices = self.order.index_select(0, self.position)[0]
        targets = self.part.targets[indices]
        outputs = self.network(self.part[indices])
        loss = self.loss.function(outputs, targets)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.misses += self.loss.misses(outputs.detach(), targets)
        self.total += loss.detach()
        self.position += 1

    @torch.no_grad()
    def _test(self) -> None:
        """Compute the outputs for one batch of the test part, and advance the position."""
        self.clock.evaluation.take(self.test_keys, self.position)
        indices = self.position * loop.TEST_BATCH + self.places
        outputs = self.network(self.test[indices])
        if self.results is None:
            self.results = outputs.new_zeros(len(self.test), *outputs.shape[1:])
        self.results.index_copy_(0, indices, outputs)
        self.position += 1

    def _reserve_keys(self) -> None:
        self.keys = self.clock.training.fill(self.order.new_zeros(self.steps))

    def _reserve_test_keys(self) -> None:
        self.test_keys = self.clock.evaluation.fill(self.order.new_zeros(self.test_steps))

    def _captured(self, step: Callable[[], None], reserve_keys: Callable[[], None]) -> Callable[[], None]:
        """A function that repeats a step: its CUDA graph, or on the CPU the step itself.

        The step runs first because only then its number of keys and the size of its results are known.
        """
        if torch.device(self.device).type == "cpu":
            self.position.zero_()
            step()
            reserve_keys()
            return step
        aside = _stream(torch.cuda.current_device())
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(_REHEARSALS):
                self.position.zero_()
                step()
                reserve_keys()  # the next run uses them, so that the capture meets nothing new
            self.position.zero_()
        torch.cuda.current_stream().wait_stream(aside)
        self.optimizer.zero_grad(set_to_none=True)
        gc.collect()  # so that no reference cycle is freed during the capture
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=aside):
            step()
        return graph.replay

    def _load(
        self, dataset: Dataset, network: nn.Module, optimizer: torch.optim.Optimizer, learning_rate: float
    ) -> None:
        """Load the initial weights, optimizer state, learning rate and data of a training."""
        if dataset.fingerprint != self.fingerprint:
            for mine, part in ((self.part, "train"), (self.test, "test")):
                theirs = Batches(with_whole_test_batches(dataset), part, "cpu")
                mine.inputs.copy_(theirs.inputs)
                mine.targets.copy_(theirs.targets)
                if mine.normalise:
                    mine.normal.shift.copy_(theirs.normal.shift)
                    mine.normal.scale.copy_(theirs.normal.scale)
            self.fingerprint = dataset.fingerprint
        self.rate.fill_(learning_rate)
        accumulators = getattr(optimizer, "accumulators", {})
        with torch.no_grad():
            _copy_state(network, self.network)
            for mine_too, other in zip(self.network.parameters(), network.parameters(), strict=True):
                if mine_too in self.optimizer.accumulators:
                    self.optimizer.accumulators[mine_too].copy_(accumulators.get(other, other))
                for state in self.optimizer.state[mine_too].values():
                    state.zero_()

    def train(
        self,
        dataset: Dataset,
        configuration: Precision,
        recipe: Recipe,
        seed: int,
        progress: Callable[[int, int], None] | None,
    ) -> loop.Training:
        """See :func:`peppp.training.replay.train`."""
        key = loop.run_seed(seed, dataset.fingerprint, configuration)
        network, optimizer = loop.prepared(dataset, configuration, recipe, key, self.device)
        self._load(dataset, network, optimizer, recipe.learning_rate)
        for slot, fmt in zip(self.slots, formats_of(configuration, recipe), strict=True):
            slot.set(cast(FloatFormat, fmt))
        rounding, order = loop.rounding_seed(key), loop.order_generator(key)
        seen = self.steps * self.batch
        epochs = max(recipe.epochs, math.ceil(recipe.min_steps / self.steps))
        curve: list[tuple[int, float]] = []
        train_error, done, outcome = dataset.chance_error, 0, Outcome.FINISHED
        for epoch in range(1, epochs + 1):
            permutation = torch.randperm(len(self.part), generator=order)[:seen]
            self.order.copy_(permutation.view_as(self.order))
            roots = training_roots(rounding, done, self.steps, self.device)
            self.keys.copy_(self.clock.training.fill(roots))
            for counter in (self.position, self.misses, self.total):
                counter.zero_()
            self.network.train()
            for _ in range(self.steps):
                self.train_step()
            done += self.steps
            if not math.isfinite(self.total.item()):
                outcome, train_error = Outcome.DIVERGED, dataset.chance_error
                curve.append((epoch, dataset.chance_error))
                break
            train_error = self.loss.error(float(self.misses), seen, self.part.targets)
            if epoch in (*loop.CURVE_EPOCHS, epochs):
                curve.append((epoch, self._evaluate(rounding, done, len(dataset.test_targets))))
            if progress is not None:
                progress(epoch, epochs)
        _copy_state(self.network, network)
        return loop.Training(network, curve[-1][1], train_error, tuple(curve), outcome, done)

    def _evaluate(self, rounding: int, done: int, count: int) -> float:
        """The error on the first ``count`` examples of the test part; the rest is padding."""
        roots = evaluation_roots(rounding, done, self.test_steps, self.device)
        self.test_keys.copy_(self.clock.evaluation.fill(roots))
        self.position.zero_()
        self.network.eval()
        for _ in range(self.test_steps):
            self.test_step()
        assert self.results is not None
        targets = self.test.targets[:count]
        return self.loss.error(float(self.loss.misses(self.results[:count], targets)), count, targets)


@lru_cache(maxsize=8)
def _stream(device: int) -> torch.cuda.Stream:
    """The stream on which a GPU's steps are rehearsed and captured; one, as each needs its own workspace."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def with_whole_test_batches(dataset: Dataset) -> Dataset:
    """Repeat the last test example until the last test batch is full.

    The copies come after all real examples, so they do not change the random bits of any. Data sets of nearly
    equal size can then share their captured steps.
    """
    count = len(dataset.test_targets)
    rows = np.minimum(np.arange(-(-count // loop.TEST_BATCH) * loop.TEST_BATCH), count - 1)
    return replace(dataset, test_inputs=dataset.test_inputs[rows], test_targets=dataset.test_targets[rows])


def _copy_state(source: nn.Module, target: nn.Module) -> None:
    """Copy parameters and buffers in place, so that the target's memory does not move."""
    for mine, theirs in zip(target.state_dict().values(), source.state_dict().values(), strict=True):
        mine.copy_(theirs)
