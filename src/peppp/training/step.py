"""A recipe's training step without data, and where what was found out about it is kept."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from peppp.cache import kept
from peppp.errors import NetworkError
from peppp.footprint.recipes import MakesOptimizer
from peppp.footprint.surroundings import surroundings
from peppp.precisions.known import PRECISIONS
from peppp.records import Recipe
from peppp.tasks import networks
from peppp.tasks.dataset import Dataset
from peppp.training.losses import find_loss
from peppp.training.pretrained import freeze

_T = TypeVar("_T")


class StepKey(NamedTuple):
    """What decides the memory of a step beside its precision; ``is_own`` if code of the user's does."""

    parts: tuple[object, ...]
    is_own: bool


def step_key(dataset: Dataset, recipe: Recipe, batch: int) -> StepKey:
    """Return the key of a recipe's steps on ``batch`` examples of a data set."""
    targets = dataset.train_targets
    parts = (
        *(recipe.network, recipe.freeze, recipe.optimizer, recipe.optimizer_options, recipe.accumulator),
        *(dataset.kind, dataset.loss, dataset.input_shape, dataset.outputs, dataset.channels),
        *(targets.shape[1:], targets.dtype.str, batch),
    )
    return StepKey(parts, ":" in recipe.network or ":" in dataset.loss)


_FOUND: dict[tuple[StepKey, str, tuple[str, ...]], Any] = {}


def kept_for(
    key: StepKey,
    what: str,
    find: Callable[[], _T],
    *,
    to_plain: Callable[[_T], Any],
    from_plain: Callable[[Any], _T],
) -> _T:
    """Return what was found out about a step, or call ``find`` and keep what it returns.

    It is kept in this process, because a campaign asks once for each of its cells. It is also kept in the
    user's cache, unless the user's own code decides, which may be changed without our knowing.
    """
    place = (key, what, surroundings())
    if place not in _FOUND:
        _FOUND[place] = (
            find() if key.is_own else kept("steps", place, find, to_plain=to_plain, from_plain=from_plain)
        )
    found: _T = _FOUND[place]
    return found


def step_of(dataset: Dataset, recipe: Recipe) -> tuple[nn.Module, Callable[[int], Tensor]]:
    """Return a recipe's network on the meta device, and a function that makes a number of inputs for it."""
    module = networks.build_for(recipe.network, dataset, device="meta")
    freeze(module, recipe.freeze)
    if dataset.kind == "images":
        module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def inputs(count: int) -> Tensor:
        dtype = torch.int64 if dataset.kind == "text" else torch.float32
        x = torch.empty(count, *dataset.input_shape, dtype=dtype, device="meta")
        return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x

    return module, inputs


def step_loss(dataset: Dataset, network: str, batch: int | None = None) -> Callable[[Any], Tensor]:
    """Return the loss of what a network returns for ``batch`` inputs (None: for as many as it returns).

    With a ``batch``, it raises NetworkError for anything that a training cannot use.
    """
    targets = dataset.train_targets
    kind = torch.float32 if targets.dtype.kind == "f" else torch.int64

    def loss(results: Any) -> Tensor:
        if not isinstance(results, Tensor):
            raise NetworkError(f"{network} returns a {type(results).__name__}; it must return one tensor")
        shape = (batch or len(results), *targets.shape[1:])
        if batch:
            _check_shape(results, shape, network, dataset)
        wanted = torch.zeros(shape, dtype=kind, device=results.device)
        return find_loss(dataset.loss).function(results, wanted)

    return loss


def _check_shape(results: Tensor, targets: tuple[int, ...], network: str, dataset: Dataset) -> None:
    shape, leading, classes = list(results.shape), list(targets), dataset.outputs
    if dataset.loss == "cross_entropy" and (shape[:-1] != leading or shape[-1] < classes):
        raise NetworkError(
            f"{network} returns {shape} for a batch of {leading[0]}; classification into {classes} classes "
            f"needs logits {[*leading, classes]}"
        )
    if dataset.loss == "squared_error" and results.numel() != math.prod(targets):
        raise NetworkError(f"{network} returns {shape}; regression needs a number an example, {leading}")


def step_optimizer(recipe: Recipe, precision: str) -> str | MakesOptimizer:
    """A function that makes a recipe's optimizer, or its name if the precision replaces torch's optimizer."""
    named = PRECISIONS.get(precision)
    if named is not None and (named.optimizer or named.update != "nearest"):
        return recipe.optimizer
    makes = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimizer]
    return partial(makes, lr=recipe.learning_rate, **dict(recipe.optimizer_options))
