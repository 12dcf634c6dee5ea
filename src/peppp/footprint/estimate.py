"""The memory of a training, known before it runs: kept bytes, peak, and the batch that fits a budget."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from peppp.errors import BudgetError, FormatError
from peppp.footprint.counting import ElementCounts, bytes_of, count_elements, count_outputs
from peppp.footprint.fakes import fake_mode, fake_module
from peppp.footprint.live import Live
from peppp.footprint.rehearsal import Rehearsal, rehearse
from peppp.formats import Configuration
from peppp.records import Footprint
from peppp.units import format_bytes

PRESETS = {
    "saved": "what a training keeps (validated against measurements)",
    "paper_scale": "outputs of convolutions, norms and ReLUs, four times, gradient and momentum, read in MiB "
    "(fitted to the paper's median of 816, not proven)",
}


@dataclass(frozen=True, slots=True)
class Choices:
    """How a training stores its numbers: the options of low_precision_optimizer that change memory."""

    optimizer: str = "sgd"
    accumulator: bool = True
    storage: str = "packed"
    gradients: str = "in_backward"
    weights: str = "recomputed"


@dataclass(frozen=True, slots=True)
class Estimate:
    """The memory of training one network at one batch size, for every configuration.

    ``counts`` is what a step keeps, ``rehearsed`` a step at low precision, ``plain`` a step in float32.
    """

    counts: ElementCounts
    rehearsed: Rehearsal
    plain: Rehearsal
    choices: Choices

    def footprint(self, configuration: Configuration) -> Footprint:
        """Return what the paper counts; ``working`` is by how much the peak of a step exceeds it (or 0)."""
        chosen = self.choices
        counted = self.counts.footprint(
            configuration, optimizer=chosen.optimizer, accumulator=chosen.accumulator
        )
        return replace(counted, working=max(self.peak(configuration) - counted.total, 0))

    def peak(self, configuration: Configuration) -> int:
        """Return the bytes of a step's highest moment, as stored; float32 is plain torch."""
        return self._rehearsal(configuration).peak(configuration)

    def kept(self, configuration: Configuration) -> int:
        """Return the bytes at the end of the forward pass, as stored."""
        return self._rehearsal(configuration).kept.bytes(configuration)

    def _rehearsal(self, configuration: Configuration) -> Rehearsal:
        return self.plain if configuration.is_fp32 else self.rehearsed


def estimate(
    build: Callable[[], nn.Module],
    input_shape: Sequence[int],
    batch_size: int,
    choices: Choices = Choices(),
    *,
    dtype: torch.dtype = torch.float32,
) -> Estimate:
    """Estimate the memory of training the network that ``build`` makes on the meta device.

    ``input_shape`` has no batch dimension; inputs have ``dtype``. Raises FormatError for an unknown storage,
    and NetworkError if the network cannot run on such inputs.

    >>> network = lambda: nn.Sequential(nn.Flatten(), nn.Linear(48, 8, device="meta"))
    >>> found = estimate(network, (3, 4, 4), 2)
    >>> found.footprint(Configuration.parse("1-4-1/1-6-7")).weights
    294
    """
    if choices.storage not in ("packed", "simulated"):
        raise FormatError(f"unknown storage {choices.storage!r}; known: packed, simulated")
    module = build()
    rehearsed = rehearse(
        module,
        input_shape,
        batch_size,
        storage=choices.storage,
        gradients=choices.gradients,
        weights=choices.weights,
        optimizer=choices.optimizer,
        accumulator=choices.accumulator,
        dtype=dtype,
    )
    plain = rehearse(
        module, input_shape, batch_size, storage="fp32", optimizer=choices.optimizer, dtype=dtype
    )
    counts = count_elements(module, input_shape, batch_size, dtype=dtype)
    return Estimate(counts, rehearsed, plain, choices)


def inference_footprint(
    build: Callable[[], nn.Module],
    input_shape: Sequence[int],
    batch_size: int,
    dtype: torch.dtype = torch.float32,
) -> Callable[[Configuration], Footprint]:
    """Return the memory of using a network: weights, and the most activations at one moment, in Format A."""
    fake, live = fake_mode(), Live()
    network = fake_module(fake, build()).eval()
    live.add((*network.parameters(), *network.buffers()))
    before, totals = live.total, []
    live.watch = lambda *_: totals.append(live.total)
    with torch.no_grad(), fake, live:
        network(torch.empty(batch_size, *input_shape, dtype=dtype))
    weights = sum(p.numel() for p in network.parameters())
    activations = max(totals) - before
    raw = sum(buffer.nbytes for buffer in network.buffers())
    return lambda configuration: Footprint(
        weights=bytes_of(weights, configuration.format_a),
        activations=bytes_of(activations // 4, configuration.format_a),
        gradients=0,
        states={},
        raw=raw,
    )


def preset_bytes(
    build: Callable[[], nn.Module], input_shape: Sequence[int], batch_size: int, preset: str
) -> Callable[[Configuration], Footprint]:
    """Return footprints by a convention of :data:`PRESETS`; read those of ``paper_scale`` in MiB.

    Raises FormatError for an unknown preset.
    """
    if preset not in PRESETS:
        raise FormatError(f"unknown preset {preset!r}; known: {', '.join(PRESETS)}")
    counts = count_elements(build(), input_shape, batch_size)
    if preset == "saved":
        return counts.footprint
    layers = count_outputs(build(), input_shape, batch_size)
    counted = replace(counts, activations=4 * layers, raw_bytes=0)
    return lambda configuration: counted.footprint(configuration, accumulator=False)


def largest_batch(
    peak_of: Callable[[int], int], budget: int, first: int = 32, configuration: Configuration | None = None
) -> int:
    """Return the largest batch whose ``peak_of`` is within ``budget``, given that peaks grow with the batch.

    It interpolates linearly between known batches, to try only a few. Raises BudgetError if not even a batch
    of 1 fits.
    """
    smallest = peak_of(1)
    if smallest > budget:
        at = f" at {configuration}" if configuration else ""
        raise BudgetError(
            f"no batch fits in {format_bytes(budget)}{at}; a batch of 1 takes {format_bytes(smallest)}"
        )
    low, peak_low, high, guess = 1, smallest, 1 << 30, first
    for tries in range(64):
        if high - low <= 1:
            break
        guess = min(max(guess, low + 1), high - 1)
        peak = peak_of(guess)
        slope = (peak - peak_low) / (guess - low)
        guess_on_line = low + int((budget - peak_low) / slope) if slope > 0 else 2 * guess
        if peak <= budget:
            low, peak_low = guess, peak
        else:
            high = guess
        guess = guess_on_line if tries < 8 else (low + high) // 2
    return low
