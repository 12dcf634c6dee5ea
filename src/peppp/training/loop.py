"""The training loop, from a data set, a recipe, a configuration and a seed to errors."""

import math
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from peppp.errors import NetworkError
from peppp.lowprec.network.conversion import low_precision, low_precision_state
from peppp.lowprec.network.convolutions import holds_narrow, repair
from peppp.lowprec.optimizers.low_precision import low_precision_optimizer
from peppp.lowprec.rounding.streams import mix, mix_text
from peppp.precisions.known import Precision
from peppp.precisions.named import NamedPrecision
from peppp.records import Outcome, Recipe
from peppp.tasks import networks
from peppp.tasks.dataset import Dataset
from peppp.training.batches import Batches, check_augmentation, shuffled
from peppp.training.fitting import Fit
from peppp.training.losses import Loss, find_loss
from peppp.training.prepare import Prepared, prepare
from peppp.training.pretrained import freeze, load_into

CURVE_EPOCHS = (1, 3)
TEST_BATCH = 250
# The run seed is split into one seed for each purpose, so that they do not influence each other.
_WEIGHTS, _ORDER, _ROUNDING, _AUGMENTATION = range(4)


@dataclass(frozen=True, slots=True)
class Training:
    """The result of a training: the network, its errors in [0, 1], its outcome and the number of steps.

    ``curve`` holds pairs of an epoch and the test error after it.
    """

    network: nn.Module
    test_error: float
    train_error: float
    curve: tuple[tuple[int, float], ...]
    outcome: Outcome
    steps: int


def run_seed(seed: int, fingerprint: str, configuration: Precision) -> int:
    """The seed of one cell; if cells shared a seed, configurations with equal roundings would be copies."""
    return mix_text(mix(0, seed), f"{fingerprint} {configuration}")


def train(
    dataset: Dataset,
    configuration: Precision,
    recipe: Recipe,
    seed: int,
    *,
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> Training:
    """Train and test; ``progress`` is called with (epochs done, all epochs) after each epoch.

    A loss that is not finite ends the training, with the outcome ``diverged`` and the error of guessing. On
    the CPU the result depends only on the arguments, bit for bit, for a given number of threads.
    """
    run = Run(dataset, configuration, recipe, seed, device=device)
    curve: list[tuple[int, float]] = []
    train_error = dataset.chance_error
    for epoch in range(1, run.epochs + 1):
        error = run.train_epoch()
        if error is None:
            guessed = dataset.chance_error
            curve.append((epoch, guessed))
            return Training(run.network, guessed, guessed, tuple(curve), Outcome.DIVERGED, run.steps)
        train_error = error
        if epoch in (*CURVE_EPOCHS, run.epochs):
            curve.append((epoch, run.test()))
        if progress is not None:
            progress(epoch, run.epochs)
    return Training(run.network, curve[-1][1], train_error, tuple(curve), Outcome.FINISHED, run.steps)


class Run:
    """The state of a training between epochs: network, optimizer, data and random generators.

    ``storage`` is that of :func:`peppp.lowprec.optimizers.low_precision.low_precision_optimizer`, or ``real``
    for a precision that :func:`peppp.prepare` trains. ``fit`` says how a step keeps within a memory budget.
    """

    def __init__(
        self,
        dataset: Dataset,
        configuration: Precision,
        recipe: Recipe,
        seed: int,
        *,
        device: str = "cpu",
        storage: str = "simulated",
        fit: Fit | None = None,
    ) -> None:
        check_recipe(recipe, dataset)
        self.recipe, self.device, self.steps = recipe, device, 0
        self.loss = find_loss(recipe.loss)
        key = run_seed(seed, dataset.fingerprint, configuration)
        if storage == "real":
            self.ready = _really_prepared(dataset, configuration, recipe, key, device, fit)
        else:
            made = prepared(dataset, configuration, recipe, key, device, storage, fit)
            scales = isinstance(configuration, NamedPrecision) and configuration.scales_loss
            self.ready = Prepared(*made, scales=scales, device=device)
        self.network, self.optimizer = self.ready.module, self.ready.optimizer
        self.part, self.test_part = Batches(dataset, "train", device), Batches(dataset, "test", device)
        self.order = order_generator(key)
        self.chance = torch.Generator().manual_seed(mix(key, _AUGMENTATION) >> 1)
        self.batch = min(recipe.batch_size, len(self.part))
        self.micro_batch = (fit.micro_batch if fit else None) or self.batch
        self.epochs = max(recipe.epochs, math.ceil(recipe.min_steps / (len(self.part) // self.batch)))

    def train_epoch(self, around: Callable[[int], AbstractContextManager[Any]] | None = None) -> float | None:
        """Train for an epoch and return the error on its batches; None if the loss is no longer finite.

        Each step runs within the context ``around(number)``; numbers start at 1 and go on over epochs.
        """
        self.network.train()
        misses: Tensor | int = 0
        total = torch.zeros((), device=self.device)
        for indices in shuffled(len(self.part), self.batch, self.order, self.device):
            self.steps += 1
            with around(self.steps) if around else nullcontext():
                loss, missed = self._step(indices)
            misses = misses + missed
            total += loss
            if self.device == "cpu" and not math.isfinite(total.item()):
                break
        if not math.isfinite(total.item()):
            return None
        seen = len(self.part) // self.batch * self.batch
        return self.loss.error(float(misses), seen, self.part.targets)

    def _step(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Take one step on a batch; return its loss and its misses."""
        plain = self.recipe.augmentation == "none"
        inputs = self.part[indices] if plain else self.part.augmented(indices, self.chance)
        targets = self.part.targets[indices]
        size = self.micro_batch
        parts = zip(torch.split(inputs, size), torch.split(targets, size), strict=True)
        passes = [self._pass(some, wanted, len(some) / len(inputs)) for some, wanted in parts]
        self.ready.step()
        losses, misses = zip(*passes, strict=True)
        return sum(losses[1:], losses[0]), sum(misses[1:], misses[0])

    def _pass(self, inputs: Tensor, targets: Tensor, share: float) -> tuple[Tensor, Tensor]:
        """Add the gradients of a part of a batch; return its share of the batch's loss and its misses."""
        outputs = self.ready.forward(inputs)
        loss = self.loss.function(outputs, targets) * share
        self.ready.backward(loss)
        return loss.detach(), self.loss.misses(outputs.detach(), targets)

    def test(self) -> float:
        """The error on the test part."""
        self.network.eval()
        return evaluate(self.ready.forward, self.test_part, self.loss)


def fresh_network(dataset: Dataset, recipe: Recipe, key: int) -> nn.Module:
    """A run's network with its initial weights, on the CPU; in channels_last for images."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mix(key, _WEIGHTS) >> 1)
        network = networks.build_for(recipe.network, dataset)
    if recipe.pretrained:
        load_into(network, recipe.pretrained)
    freeze(network, recipe.freeze)
    if dataset.kind == "images":
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def fitted_weights(dataset: Dataset, recipe: Recipe) -> list[str]:
    """In words: the parts of a network and of its pretrained weights that have no counterpart."""
    return load_into(networks.build_for(recipe.network, dataset), recipe.pretrained)


def trained(network: nn.Module) -> list[nn.Parameter]:
    """The parameters that are not frozen."""
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def prepared(
    dataset: Dataset,
    configuration: Precision,
    recipe: Recipe,
    key: int,
    device: str,
    storage: str = "simulated",
    fit: Fit | None = None,
) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A run's network and optimizer at its configuration, before the first step."""
    network = fresh_network(dataset, recipe, key).to(device)
    if fit is not None:
        fit.recomputation.apply(network)
    if ":" in recipe.network or holds_narrow(network):  # a user's network may call functions too
        repair()
    optimizer = make_optimizer(trained(network), recipe)
    if not configuration.is_fp32:
        low_precision(
            network,
            configuration,
            rounding=recipe.rounding,
            error_format=recipe.error_format,
            seed=rounding_seed(key),
        )
        state = low_precision_state(network)
        state.repaired = True
        state.quiet = ":" not in recipe.network  # the transformer's positions
        optimizer = low_precision_optimizer(
            optimizer,
            network,
            accumulator=recipe.accumulator,
            storage=storage,
            # Micro-batches add up their gradients, so these must be stored. The simulation ignores this.
            gradients="packed" if fit is not None and fit.micro_batch else "in_backward",
        )
    return network, optimizer


def _really_prepared(
    dataset: Dataset, precision: Precision, recipe: Recipe, key: int, device: str, fit: Fit | None
) -> Prepared:
    """A run's network and optimizer as :func:`peppp.prepare` makes them, before the first step."""
    network = fresh_network(dataset, recipe, key).to(device)
    if ":" in recipe.network or holds_narrow(network):
        repair()
    optimizer = make_optimizer(trained(network), recipe)
    again = () if fit is None else fit.recomputation
    return prepare(network, optimizer, precision, recompute=again, seed=rounding_seed(key))


def rounding_seed(key: int) -> int:
    """The seed of a run's random bits."""
    return mix(key, _ROUNDING)


def order_generator(key: int) -> torch.Generator:
    """The generator of the order of a run's examples."""
    return torch.Generator().manual_seed(mix(key, _ORDER) >> 1)


def check_recipe(recipe: Recipe, dataset: Dataset) -> None:
    """Raise a PepppError, before training, if the recipe is invalid or does not fit the data set."""
    networks.check(recipe.network, dataset)
    for name, least in (("epochs", 1), ("batch_size", 1), ("min_steps", 0)):
        if getattr(recipe, name) < least:
            raise NetworkError(f"the recipe's {name} must be at least {least}, not {getattr(recipe, name)}")
    if not 0 <= recipe.learning_rate < 1e38:  # a float32
        raise NetworkError(f"the learning rate is {recipe.learning_rate}; give a number such as 0.001")
    if recipe.freeze:
        freeze(networks.build_for(recipe.network, dataset, device="meta"), recipe.freeze)
    check_augmentation(recipe.augmentation, dataset)
    find_loss(recipe.loss)
    usual = Recipe()
    if (recipe.optimizer, recipe.optimizer_options) != (usual.optimizer, usual.optimizer_options):
        make_optimizer([nn.Parameter(torch.zeros(1))], recipe)  # for the first, torch loads 900 modules


def evaluate(network: Callable[[Tensor], Tensor], part: Batches, loss: Loss) -> float:
    """The error of a network on a part, as its loss defines it (for classification the share of mistakes)."""
    misses = 0.0
    with torch.no_grad():
        for start in range(0, len(part), TEST_BATCH):
            indices = torch.arange(start, min(start + TEST_BATCH, len(part)), device=part.targets.device)
            misses += float(loss.misses(network(part[indices]), part.targets[indices]))
    return loss.error(misses, len(part), part.targets)


def make_optimizer(parameters: Iterable[nn.Parameter], recipe: Recipe) -> torch.optim.Optimizer:
    """Make a recipe's optimizer; raise NetworkError if it is unknown or refuses the recipe's options."""
    kinds: dict[str, Callable[..., torch.optim.Optimizer]]
    kinds = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    if recipe.optimizer not in kinds:
        raise NetworkError(f"unknown optimizer {recipe.optimizer!r}; known: {', '.join(kinds)}")
    options = dict(recipe.optimizer_options)
    try:
        return kinds[recipe.optimizer](parameters, lr=recipe.learning_rate, **options)
    except (TypeError, ValueError) as error:
        raise NetworkError(f"{recipe.optimizer} refuses {options}: {error}") from None
