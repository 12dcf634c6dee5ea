"""The memory and the operations of a training, worked out without running it."""

import math
from dataclasses import replace
from functools import partial

import torch

from peppp.footprint.counting import ElementCounts, count_elements
from peppp.footprint.operations import count_multiply_adds
from peppp.footprint.training_memory import rehearse_training
from peppp.precisions.known import Precision
from peppp.precisions.named import NamedPrecision
from peppp.records import Footprint, Recipe
from peppp.tasks import networks
from peppp.tasks.dataset import Dataset
from peppp.training.loop import check_recipe
from peppp.training.pretrained import freeze
from peppp.training.step import kept_for, step_key, step_loss, step_of, step_optimizer


def with_resolution(recipe: Recipe, dataset: Dataset) -> Recipe:
    """The recipe with the data set's resolution and loss."""
    return replace(recipe, resolution=dataset.resolution, loss=dataset.loss)


def footprint(dataset: Dataset, configuration: Precision, recipe: Recipe) -> Footprint:
    """Return the memory of a training of ``recipe.network`` on ``dataset``.

    For a precision by name, activations include everything that the forward pass adds, such as the copies of
    weights that autocast makes. Like the training, it raises a PepppError for a network or a recipe that does
    not fit the data.
    """
    check_recipe(with_resolution(recipe, dataset), dataset)
    key = step_key(dataset, recipe, recipe.batch_size)
    if isinstance(configuration, NamedPrecision):
        return kept_for(
            key,
            f"footprint {configuration.name}",
            partial(_rehearsed, dataset, recipe, configuration.name),
            to_plain=lambda f: [f.weights, f.activations, f.gradients, dict(f.states), f.raw],
            from_plain=lambda parts: Footprint(*parts),
        )
    counts = kept_for(
        key,
        "counts",
        partial(_counted, dataset, recipe),
        to_plain=lambda c: [c.weights, c.activations, c.raw_bytes, c.frozen],
        from_plain=lambda parts: ElementCounts(*parts),
    )
    return counts.footprint(configuration, optimizer=recipe.optimizer, accumulator=recipe.accumulator)


def _rehearsed(dataset: Dataset, recipe: Recipe, precision: str) -> Footprint:
    module, inputs = step_of(dataset, recipe)
    found, _ = rehearse_training(
        module,
        inputs(recipe.batch_size),
        optimizer=step_optimizer(recipe, precision),
        precision=precision,
        loss=step_loss(dataset, recipe.network, recipe.batch_size),
    )
    return Footprint(
        weights=found.weights,
        activations=found.activations,
        gradients=found.gradients,
        states={"states": found.states},
        raw=found.buffers + found.inputs,
    )


def _counted(dataset: Dataset, recipe: Recipe) -> ElementCounts:
    module = networks.build_for(recipe.network, dataset, device="meta")
    freeze(module, recipe.freeze)
    return count_elements(
        module,
        dataset.input_shape,
        recipe.batch_size,
        dtype=torch.int64 if dataset.kind == "text" else torch.float32,
        loss=step_loss(dataset, recipe.network, recipe.batch_size),
    )


def training_operations(dataset: Dataset, recipe: Recipe) -> tuple[int, int, int]:
    """Count the multiply-adds of a step, the parameters, and the steps of a training."""
    network = networks.build_for(recipe.network, dataset, device="meta")
    batch = min(recipe.batch_size, len(dataset.train_targets))
    operations = count_multiply_adds(
        network,
        dataset.input_shape,
        batch,
        dtype=torch.int64 if dataset.kind == "text" else torch.float32,
        loss=step_loss(dataset, recipe.network, batch),
    )
    steps = training_epochs(dataset, recipe) * (len(dataset.train_targets) // batch)
    return operations, sum(p.numel() for p in network.parameters()), steps


def training_epochs(dataset: Dataset, recipe: Recipe) -> int:
    """The number of epochs of a training: more than the recipe's if these have fewer than ``min_steps``."""
    in_epoch = len(dataset.train_targets) // min(recipe.batch_size, len(dataset.train_targets))
    return max(recipe.epochs, math.ceil(recipe.min_steps / in_epoch))
