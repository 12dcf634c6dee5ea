"""The one training loop: a network, a data set, a recipe, a configuration, a seed; errors come out."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from peppp.errors import FormatError, NetworkError
from peppp.formats import Configuration
from peppp.lowprec.conversion import low_precision
from peppp.lowprec.optimizers import low_precision_optimizer
from peppp.lowprec.streams import mix, mix_text
from peppp.records import Outcome, Recipe
from peppp.tasks import networks
from peppp.tasks.dataset import Dataset, Images

_CURVE_EPOCHS = (1, 3)
_TEST_BATCH = 250
# What the run seed is split into, so that one draw never moves another.
_WEIGHTS, _ORDER, _ROUNDING = range(3)


@dataclass(frozen=True, slots=True)
class Training:
    """What a training gave: the network, its errors in [0, 1], and how it ended."""

    network: nn.Module
    test_error: float
    train_error: float
    curve: tuple[tuple[int, float], ...]
    outcome: Outcome
    steps: int


def run_seed(seed: int, fingerprint: str, configuration: Configuration) -> int:
    """Each cell its own: with one seed for all, configurations of equal roundings would be copies."""
    return mix_text(mix(0, seed), f"{fingerprint} {configuration}")


def train(
    dataset: Dataset,
    configuration: Configuration,
    recipe: Recipe,
    seed: int,
    *,
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> Training:
    """Train and test. ``progress`` is called with (epochs done, epochs) after each.

    A loss that is not finite ends the training: its outcome is ``diverged`` and its error that of guessing.
    On the CPU the result depends on the arguments alone, bit for bit, for a given number of threads.
    """
    key = run_seed(seed, dataset.fingerprint, configuration)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mix(key, _WEIGHTS) >> 1)
        network = networks.build(recipe.network, classes=len(dataset.classes))
    network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = _optimizer(network, recipe)
    if not configuration.is_fp32:
        low_precision(
            network,
            configuration,
            rounding=recipe.rounding,
            error_format=recipe.error_format,
            seed=mix(key, _ROUNDING),
        )
        optimizer = low_precision_optimizer(optimizer, network, accumulator=recipe.accumulator)

    images = _Batches(dataset.train_images, dataset.train_images, device)
    labels = torch.from_numpy(dataset.train_labels).to(device)
    test_images = _Batches(dataset.test_images, dataset.train_images, device)
    test_labels = torch.from_numpy(dataset.test_labels).to(device)
    order = torch.Generator().manual_seed(mix(key, _ORDER) >> 1)
    batch = min(recipe.batch_size, len(labels))
    epochs = max(recipe.epochs, math.ceil(recipe.min_steps / (len(labels) // batch)))
    curve: list[tuple[int, float]] = []
    wrong, steps = 0, 0
    for epoch in range(1, epochs + 1):
        network.train()
        wrong_now = torch.zeros((), dtype=torch.int64, device=device)
        total = torch.zeros((), device=device)
        for indices in _shuffled(len(labels), batch, order, device):
            logits = network(images[indices])
            loss = nn.functional.cross_entropy(logits, labels[indices])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            steps += 1
            wrong_now += (logits.detach().argmax(1) != labels[indices]).sum()
            total += loss.detach()
            if device == "cpu" and not math.isfinite(total.item()):
                break
        if not math.isfinite(total.item()):
            chance = dataset.chance_error
            return Training(network, chance, chance, (*curve, (epoch, chance)), Outcome.DIVERGED, steps)
        wrong = int(wrong_now)
        if epoch in (*_CURVE_EPOCHS, epochs):
            curve.append((epoch, evaluate(network, test_images, test_labels)))
        if progress is not None:
            progress(epoch, epochs)
    seen = len(labels) // batch * batch
    return Training(network, curve[-1][1], wrong / seen, tuple(curve), Outcome.FINISHED, steps)


def evaluate(network: nn.Module, images: "_Batches", labels: Tensor) -> float:
    """The share of images that are classified wrongly."""
    network.eval()
    wrong = 0
    with torch.no_grad():
        for start in range(0, len(labels), _TEST_BATCH):
            indices = torch.arange(start, min(start + _TEST_BATCH, len(labels)), device=labels.device)
            wrong += int((network(images[indices]).argmax(1) != labels[indices]).sum())
    return wrong / len(labels)


class _Batches:
    """Images kept as bytes; batches of them as float32 in channels_last, normalised by the training part."""

    def __init__(self, images: Images, reference: Images, device: str) -> None:
        self.images = torch.from_numpy(images).to(device).permute(0, 3, 1, 2)
        values = torch.from_numpy(reference).to(torch.float64)
        deviation, mean = torch.std_mean(values, dim=(0, 1, 2), correction=0)
        self.scale = (1 / deviation.clamp(min=1e-3)).float().view(1, -1, 1, 1).to(device)
        self.shift = mean.float().view(1, -1, 1, 1).to(device)

    def __getitem__(self, indices: Tensor) -> Tensor:
        return (self.images[indices].float() - self.shift) * self.scale


def _shuffled(count: int, batch: int, generator: torch.Generator, device: str) -> Iterator[Tensor]:
    """Indices of an epoch's batches; the last partial one is dropped."""
    order = torch.randperm(count, generator=generator).to(device)
    for start in range(0, count - batch + 1, batch):
        yield order[start : start + batch]


def _optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    kinds: dict[str, Callable[..., torch.optim.Optimizer]]
    kinds = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    if recipe.optimizer not in kinds:
        raise NetworkError(f"unknown optimizer {recipe.optimizer!r}; known: {', '.join(kinds)}")
    if recipe.loss != "cross_entropy":
        raise NetworkError(f"unknown loss {recipe.loss!r}; known: cross_entropy")
    if recipe.augmentation != "none":
        raise FormatError(f"unknown augmentation {recipe.augmentation!r}; known: none")
    options = dict(recipe.optimizer_options)
    try:
        return kinds[recipe.optimizer](network.parameters(), lr=recipe.learning_rate, **options)
    except (TypeError, ValueError) as error:
        raise NetworkError(f"{recipe.optimizer} refuses {options}: {error}") from None
