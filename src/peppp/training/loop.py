"""The one training loop: a data set, a recipe, a configuration and a seed go in; errors come out."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from peppp.errors import NetworkError
from peppp.formats import Configuration
from peppp.lowprec.conversion import low_precision
from peppp.lowprec.optimizers import low_precision_optimizer
from peppp.lowprec.streams import mix, mix_text
from peppp.records import Outcome, Recipe
from peppp.tasks import networks
from peppp.tasks.dataset import Dataset
from peppp.training.batches import Batches, check_augmentation, shuffled
from peppp.training.losses import Loss, find_loss

CURVE_EPOCHS = (1, 3)
TEST_BATCH = 250
# What the run seed is split into, so that one draw never moves another.
_WEIGHTS, _ORDER, _ROUNDING, _AUGMENTATION = range(4)


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
    check_recipe(recipe, dataset)
    loss_of = find_loss(recipe.loss)
    key = run_seed(seed, dataset.fingerprint, configuration)
    network, optimizer = prepared(dataset, configuration, recipe, key, device)
    part, test_part = Batches(dataset, "train", device), Batches(dataset, "test", device)
    order = order_generator(key)
    chance = torch.Generator().manual_seed(mix(key, _AUGMENTATION) >> 1)
    batch = min(recipe.batch_size, len(part))
    seen = len(part) // batch * batch
    epochs = max(recipe.epochs, math.ceil(recipe.min_steps / (seen // batch)))
    curve: list[tuple[int, float]] = []
    train_error, steps = dataset.chance_error, 0
    for epoch in range(1, epochs + 1):
        network.train()
        misses: Tensor | int = 0
        total = torch.zeros((), device=device)
        for indices in shuffled(len(part), batch, order, device):
            inputs = part[indices] if recipe.augmentation == "none" else part.augmented(indices, chance)
            targets = part.targets[indices]
            outputs = network(inputs)
            loss = loss_of.function(outputs, targets)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            steps += 1
            misses = misses + loss_of.misses(outputs.detach(), targets)
            total += loss.detach()
            if device == "cpu" and not math.isfinite(total.item()):
                break
        if not math.isfinite(total.item()):
            guessed = dataset.chance_error
            return Training(network, guessed, guessed, (*curve, (epoch, guessed)), Outcome.DIVERGED, steps)
        train_error = loss_of.error(float(misses), seen, part.targets)
        if epoch in (*CURVE_EPOCHS, epochs):
            curve.append((epoch, evaluate(network, test_part, loss_of)))
        if progress is not None:
            progress(epoch, epochs)
    return Training(network, curve[-1][1], train_error, tuple(curve), Outcome.FINISHED, steps)


def fresh_network(dataset: Dataset, recipe: Recipe, key: int) -> nn.Module:
    """A run's network with its initial weights, on the CPU; images lie channels_last."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mix(key, _WEIGHTS) >> 1)
        network = networks.build_for(recipe.network, dataset)
    if dataset.kind == "images":
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def prepared(
    dataset: Dataset, configuration: Configuration, recipe: Recipe, key: int, device: str
) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A run's network and optimizer at its configuration, before the first step."""
    network = fresh_network(dataset, recipe, key).to(device)
    optimizer = make_optimizer(network.parameters(), recipe)
    if not configuration.is_fp32:
        low_precision(
            network,
            configuration,
            rounding=recipe.rounding,
            error_format=recipe.error_format,
            seed=rounding_seed(key),
        )
        optimizer = low_precision_optimizer(optimizer, network, accumulator=recipe.accumulator)
    return network, optimizer


def rounding_seed(key: int) -> int:
    """The seed of a run's random bits."""
    return mix(key, _ROUNDING)


def order_generator(key: int) -> torch.Generator:
    """What draws the order of a run's examples."""
    return torch.Generator().manual_seed(mix(key, _ORDER) >> 1)


def check_recipe(recipe: Recipe, dataset: Dataset) -> None:
    """Say before a training what is wrong with it: a child of PepppError."""
    networks.check(recipe.network, dataset)
    check_augmentation(recipe.augmentation, dataset)
    find_loss(recipe.loss)
    make_optimizer([nn.Parameter(torch.zeros(1))], recipe)


def evaluate(network: nn.Module, part: Batches, loss: Loss) -> float:
    """The error on a part: of classification, the share that is wrong."""
    network.eval()
    misses = 0.0
    with torch.no_grad():
        for start in range(0, len(part), TEST_BATCH):
            indices = torch.arange(start, min(start + TEST_BATCH, len(part)), device=part.targets.device)
            misses += float(loss.misses(network(part[indices]), part.targets[indices]))
    return loss.error(misses, len(part), part.targets)


def make_optimizer(parameters: Iterable[nn.Parameter], recipe: Recipe) -> torch.optim.Optimizer:
    """A recipe's optimizer; NetworkError where torch has none like it."""
    kinds: dict[str, Callable[..., torch.optim.Optimizer]]
    kinds = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    if recipe.optimizer not in kinds:
        raise NetworkError(f"unknown optimizer {recipe.optimizer!r}; known: {', '.join(kinds)}")
    options = dict(recipe.optimizer_options)
    try:
        return kinds[recipe.optimizer](parameters, lr=recipe.learning_rate, **options)
    except (TypeError, ValueError) as error:
        raise NetworkError(f"{recipe.optimizer} refuses {options}: {error}") from None
