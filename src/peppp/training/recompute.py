"""``recompute``: train a module within a memory budget by computing parts of its forward pass twice."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from peppp.arguments import checked
from peppp.errors import NetworkError
from peppp.footprint.recipes import MakesOptimizer
from peppp.lowprec.network.conversion import is_low_precision
from peppp.training.planning import Planning, Recomputation
from peppp.units import parse_bytes


@checked
def recompute(
    module: nn.Module,
    example_inputs: Tensor | Sequence[Any] | Mapping[str, Any],
    *,
    budget: int | str,
    optimizer: str | MakesOptimizer | None = None,
    precision: str | None = None,
    loss: Callable[[Any], Tensor] | None = None,
    **options: Any,
) -> Recomputation:
    """Make ``module`` recompute blocks in the backward pass, so that the peak of a step fits ``budget``.

    It chooses the blocks with the fewest extra operations, and none if the step already fits. Blocks are
    modules with children that a forward pass calls once. The module is changed in place; results, including
    batch norm's statistics, stay bit for bit the same as without recomputation, and so do the names in its
    ``state_dict``.

    The arguments are those of :func:`peppp.training_memory`. ``precision`` is one of its names (default:
    fp32), or a pair of formats such as 1-4-1/1-6-7. For a pair, ``module`` must not have been converted by
    :func:`peppp.low_precision` yet, the optimizer is sgd, adam or adamw, and ``options`` are those of
    :func:`peppp.low_precision_optimizer` (default: packed storage).

    Raises BudgetError if no choice of blocks fits; it names the block that needs most and the smallest budget
    that works. Raises NetworkError for a module that cannot be rehearsed.

    >>> import torch
    >>> layers = [nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU()) for _ in range(4)]
    >>> found = recompute(nn.Sequential(*layers), torch.empty(512, 64), budget="1.5MB")
    >>> found.peak <= 1_500_000 < found.peak_without
    True
    """
    if is_low_precision(module):
        raise NetworkError(
            "recompute comes before low_precision: give it the module as it was, and precision='1-4-1/1-6-7'"
        )
    planning = Planning(
        module, example_inputs, optimizer=optimizer, precision=precision, loss=loss, **options
    )
    found = planning.within(parse_bytes(budget))
    found.apply(module)
    return found
