"""``measure``: run one training and return a Measurement, with its footprint and provenance."""

import math
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from torch import Tensor

from peppp.arguments import checked
from peppp.errors import NetworkError
from peppp.footprint.counting import ElementCounts, count_elements
from peppp.footprint.operations import count_multiply_adds
from peppp.precisions.known import Precision
from peppp.precisions.named import NamedPrecision
from peppp.records import Footprint, Measurement, Recipe
from peppp.tasks import networks
from peppp.tasks.dataset import Dataset
from peppp.training import graphs as replay
from peppp.training.exactness import exact_arithmetic
from peppp.training.fitting import footprint_of
from peppp.training.loop import Training, check_recipe, train
from peppp.training.losses import find_loss
from peppp.training.pretrained import freeze
from peppp.training.runs_here import check_device
from peppp.version import __version__


@checked
def measure(
    dataset: Dataset, configuration: Precision, recipe: Recipe, seed: int = 0, *, device: str = "cpu"
) -> Measurement:
    """Train ``recipe.network`` on ``dataset`` at ``configuration``, test it, and return the measurement.

    The recipe's resolution and loss are replaced by the data set's. Torch uses one thread meanwhile, so that
    results do not depend on the number of cores; one process for each core is also the better use of them.
    """
    check_device(device)
    recipe = with_resolution(recipe, dataset)
    size = footprint(dataset, configuration, recipe)  # which refuses what cannot be trained
    start = time.perf_counter()
    with _one_thread():
        training = _trained(dataset, configuration, recipe, seed, device)
    return Measurement(
        task=dataset.name,
        fingerprint=dataset.fingerprint,
        group=dataset.group,
        configuration=configuration,
        recipe=recipe,
        seed=seed,
        chance_error=dataset.chance_error,
        test_error=training.test_error,
        train_error=training.train_error,
        curve=training.curve,
        footprint=size,
        outcome=training.outcome,
        seconds=round(time.perf_counter() - start, 3),
        provenance=provenance(device),
    )


def _trained(dataset: Dataset, configuration: Precision, recipe: Recipe, seed: int, device: str) -> Training:
    """Train; on a GPU by replaying captured steps if that is possible."""
    if device == "cpu":
        return train(dataset, configuration, recipe, seed)
    if replay.serves(dataset, configuration, recipe):
        return replay.train(dataset, configuration, recipe, seed, device=device)
    with exact_arithmetic(configuration, recipe):
        return train(dataset, configuration, recipe, seed, device=device)


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def with_resolution(recipe: Recipe, dataset: Dataset) -> Recipe:
    """The recipe with the data set's resolution and loss."""
    return replace(recipe, resolution=dataset.resolution, loss=dataset.loss)


def footprint(dataset: Dataset, configuration: Precision, recipe: Recipe) -> Footprint:
    """Compute the memory of a training of ``recipe.network`` on ``dataset`` without running it.

    Like the training, it raises a PepppError for a network or a recipe that does not fit the data.
    """
    check_recipe(with_resolution(recipe, dataset), dataset)
    if isinstance(configuration, NamedPrecision):
        return footprint_of(dataset, recipe, configuration.name)
    counts = network_counts(
        recipe.network,
        dataset.outputs,
        dataset.channels,
        dataset.input_shape,
        dataset.kind == "text",
        dataset.train_targets.shape[1:],
        dataset.train_targets.dtype.kind == "f",
        dataset.loss,
        recipe.batch_size,
        recipe.freeze,
    )
    return counts.footprint(configuration, optimizer=recipe.optimizer, accumulator=recipe.accumulator)


@lru_cache(maxsize=64)
def network_counts(
    network: str,
    outputs: int,
    channels: int,
    input_shape: tuple[int, ...],
    is_text: bool,
    target_shape: tuple[int, ...],
    is_regression: bool,
    loss: str,
    batch_size: int,
    frozen: tuple[str, ...] = (),
) -> ElementCounts:
    """Count the elements of a network by name, for given shapes of inputs and targets and a batch size."""
    module = networks.build(network, classes=outputs, channels=channels, device="meta")
    freeze(module, frozen)
    dtype = torch.float32 if is_regression else torch.int64

    def loss_of(results: object) -> Tensor:
        targets = torch.zeros(batch_size, *target_shape, dtype=dtype)
        return find_loss(loss).function(_checked(results, network, targets, outputs, loss), targets)

    return count_elements(
        module,
        input_shape,
        batch_size,
        dtype=torch.int64 if is_text else torch.float32,
        loss=loss_of,
    )


def _checked(results: object, network: str, targets: Tensor, outputs: int, loss: str) -> Tensor:
    """Return what the network returned; raise NetworkError if a training cannot use it."""
    if not isinstance(results, Tensor):
        raise NetworkError(f"{network} returns a {type(results).__name__}; it must return one tensor")
    leading, shape = list(targets.shape), list(results.shape)
    if loss == "cross_entropy" and (shape[:-1] != leading or shape[-1] < outputs):
        raise NetworkError(
            f"{network} returns {shape} for a batch of {leading[0]}; classification into {outputs} classes "
            f"needs logits {[*leading, outputs]}"
        )
    if loss == "squared_error" and results.numel() != targets.numel():
        raise NetworkError(f"{network} returns {shape}; regression needs a number an example, {leading}")
    return results


def training_operations(dataset: Dataset, recipe: Recipe) -> tuple[int, int, int]:
    """Count the multiply-adds of a step, the parameters, and the steps of a training, without running it."""
    network = networks.build_for(recipe.network, dataset, device="meta")
    is_regression = dataset.train_targets.dtype.kind == "f"
    batch = min(recipe.batch_size, len(dataset.train_targets))
    targets = torch.zeros(
        batch,
        *dataset.train_targets.shape[1:],
        dtype=torch.float32 if is_regression else torch.int64,
        device="meta",
    )
    operations = count_multiply_adds(
        network,
        dataset.input_shape,
        batch,
        dtype=torch.int64 if dataset.kind == "text" else torch.float32,
        loss=lambda results: find_loss(dataset.loss).function(results, targets),
    )
    steps = training_epochs(dataset, recipe) * (len(dataset.train_targets) // batch)
    return operations, sum(p.numel() for p in network.parameters()), steps


def training_epochs(dataset: Dataset, recipe: Recipe) -> int:
    """The number of epochs of a training: more than the recipe's if these have fewer than ``min_steps``."""
    in_epoch = len(dataset.train_targets) // min(recipe.batch_size, len(dataset.train_targets))
    return max(recipe.epochs, math.ceil(recipe.min_steps / in_epoch))


@lru_cache(maxsize=8)
def provenance(device: str) -> dict[str, str]:
    """The versions and hardware that an error can depend on."""
    names = [name for name in ("numpy", "pillow") if _installed(name)]
    return (
        {"peppp": __version__, "torch": torch.__version__}  # with its build, such as 2.13.0+cpu
        | {name: version(name) for name in names}
        | {
            "python": platform.python_version(),
            "system": platform.system(),
            "processor": _processor(),
            "device": "cpu" if device == "cpu" else torch.cuda.get_device_name(device),
        }
    )


def _installed(name: str) -> bool:
    """Whether a package is installed; training does not need Pillow."""
    try:
        return bool(version(name))
    except PackageNotFoundError:
        return False


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
