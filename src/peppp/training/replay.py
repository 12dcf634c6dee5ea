"""Train on a GPU by replaying steps: which trainings can be replayed, and whose captured steps are kept.

Convolutions run in TF32 if that is exact for their inputs, and everything else in float32.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, cast

import torch

from peppp.formats import FloatFormat
from peppp.lowprec.gpu.device import is_rare
from peppp.precisions.known import Precision
from peppp.precisions.named import NamedPrecision
from peppp.records import Recipe
from peppp.tasks.dataset import Dataset
from peppp.training import loop
from peppp.training.exactness import exact_arithmetic, formats_of, is_exact_in_tf32
from peppp.training.graphs import Replay, with_whole_test_batches

_KEPT = 4  # captured networks to keep, since each holds its memory until it is dropped


def serves(dataset: Dataset, configuration: Precision, recipe: Recipe) -> bool:
    """Whether a training can be replayed.

    It needs a pair of floating-point formats, SGD with at most momentum and weight decay, no augmentation
    (which is drawn on the CPU), no pretrained or frozen weights, and a network and a loss of this package,
    which are known not to read values back to the CPU during a step.

    >>> from peppp import Configuration
    >>> from peppp.tasks.readers import load
    >>> configuration = Configuration.parse("1-4-1/1-6-7")
    >>> [serves(load("digits"), configuration, Recipe(optimizer=name)) for name in ("sgd", "adam")]
    [True, False]
    """
    known = {name for name, _ in recipe.optimizer_options} <= {"momentum", "weight_decay"}
    formats = all(isinstance(fmt, FloatFormat) for fmt in formats_of(configuration, recipe))
    named = isinstance(configuration, NamedPrecision)
    ours = not (named or recipe.pretrained or recipe.freeze) and ":" not in recipe.network + recipe.loss
    return recipe.optimizer == "sgd" and known and formats and recipe.augmentation == "none" and ours


def train(
    dataset: Dataset,
    configuration: Precision,
    recipe: Recipe,
    seed: int,
    *,
    device: str = "cuda",
    progress: Callable[[int, int], None] | None = None,
) -> loop.Training:
    """Train as :func:`peppp.training.loop.train` does, by replaying; :func:`serves` says if that is possible.

    The first training of a kind captures its steps, which takes seconds; later ones replay them. A loss that
    is not finite is noticed at the end of its epoch. The same call on the same GPU and with the same versions
    gives the same result. It differs from the CPU's result by the order of summation.
    """
    loop.check_recipe(recipe, dataset)
    on_device = nullcontext() if torch.device(device).type == "cpu" else torch.cuda.device(device)
    with on_device, exact_arithmetic(configuration, recipe):
        return _replay(dataset, configuration, recipe, device).train(
            dataset, configuration, recipe, seed, progress
        )


_replays: dict[Any, Replay] = {}


def _replay(dataset: Dataset, configuration: Precision, recipe: Recipe, device: str) -> Replay:
    """The captured steps for a network and shapes; they are captured first if there are none."""
    rare = any(is_rare(cast(FloatFormat, fmt)) for fmt in formats_of(configuration, recipe))
    padded = with_whole_test_batches(dataset)
    arrays = (padded.train_inputs, padded.train_targets, padded.test_inputs, padded.test_targets)
    shapes = tuple((array.shape, array.dtype.str) for array in arrays)
    same = replace(recipe, learning_rate=0.0, epochs=1, min_steps=0, error_format="A")
    tf32 = is_exact_in_tf32(configuration, recipe)
    key = (device, same, dataset.outputs, dataset.channels, shapes, tf32, rare)
    if key not in _replays:
        while len(_replays) >= _KEPT:
            del _replays[next(iter(_replays))]
        _replays[key] = Replay(padded, recipe, device, rare)
    return _replays[key]
