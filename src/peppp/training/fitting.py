"""Fit a training into a memory budget, by recomputing blocks and by splitting batches into micro-batches."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from peppp.errors import BudgetError, NetworkError
from peppp.footprint.fakes import tensors
from peppp.formats import Configuration
from peppp.precisions.known import PRECISIONS
from peppp.records import Recipe
from peppp.tasks.dataset import Dataset
from peppp.training.planning import Planning, Recomputation
from peppp.training.step import StepKey, step_key, step_loss, step_of, step_optimizer
from peppp.units import format_bytes


@dataclass(frozen=True, slots=True)
class Fit:
    """How a step fits a budget: the blocks it recomputes, and its micro-batch size (None: whole batches).

    ``peak`` and ``kept`` are estimated bytes. ``caution`` says how training in micro-batches differs from
    training in whole batches; "" if it does not.
    """

    peak: int
    kept: int
    recomputation: Recomputation
    micro_batch: int | None = None
    caution: str = ""

    def __str__(self) -> str:
        text = f"peak {format_bytes(self.peak)}"
        if self.micro_batch:
            text += f", in micro-batches of {self.micro_batch}{f' ({self.caution})' if self.caution else ''}"
        if blocks := self.recomputation.blocks:
            more = f"about {100 * self.recomputation.extra:.0f} % more operations a step"
            text += f", recomputed {' '.join(blocks)} ({more})"
        return text

    def to_dict(self) -> dict[str, Any]:
        """The fit as plain data for JSON."""
        found = self.recomputation
        return {
            "peak": self.peak,
            "kept": self.kept,
            "recomputed": list(found.blocks),
            "extra_operations": found.extra,
            "micro_batch": self.micro_batch,
        }


class Fitting:
    """Finds how a training step of ``module`` on ``batch`` inputs fits a budget.

    ``inputs(count)`` makes ``count`` example inputs. ``beside`` is the number of bytes that the training
    keeps in addition to its steps. ``precision``, ``kept_as`` and ``options`` are those of :class:`Planning`.
    """

    def __init__(
        self,
        module: nn.Module,
        inputs: Callable[[int], Any],
        batch: int,
        *,
        beside: int = 0,
        precision: str | None = None,
        kept_as: StepKey | None = None,
        **options: Any,
    ) -> None:
        self.batch, self._beside, self._kept_as = batch, beside, kept_as
        self._module, self._inputs, self._precision, self._options = module, inputs, precision, options
        self._is_pair = precision is not None and "/" in precision
        self._planned: dict[int, Planning] = {}

    @property
    def caution(self) -> str:
        """How training in micro-batches differs from whole batches; "" if the gradients are the same."""
        if self._is_pair:
            return "another training: each micro-batch is rounded for itself"
        if any(isinstance(m, _BatchNorm) and m.track_running_stats for m in self._module.modules()):
            return "another training: batch norm sees each micro-batch for itself"
        return ""

    def within(
        self,
        budget: int | None,
        configuration: Configuration | None = None,
        *,
        recompute: bool = True,
        micro_batch: int | str | None = None,
    ) -> Fit:
        """Find how a step fits ``budget`` bytes (None: no limit).

        ``micro_batch`` is a number of inputs that divides the batch, or ``auto`` for as few passes as fit. If
        micro-batches do not change the training, more of them are tried before blocks are recomputed;
        otherwise recomputation comes first. Raises BudgetError if nothing fits, NetworkError if
        ``micro_batch`` does not divide the batch.
        """
        limit = 1 << 62 if budget is None else budget
        if micro_batch != "auto":
            size = self._check(micro_batch)
            return self._fit(self.batch // size, limit, configuration, recompute=recompute)
        passes = [n for n in range(1, self.batch + 1) if self.batch % n == 0]
        if self.caution:
            ways = [(n, recompute) for n in passes]
        else:
            ways = [(n, again) for again in ((False, True) if recompute else (False,)) for n in passes]
        failure: BudgetError | None = None
        for n, again in ways:
            try:
                return self._fit(n, limit, configuration, recompute=again)
            except BudgetError as error:
                failure = error
        assert failure is not None
        raise failure

    def _check(self, micro_batch: int | str | None) -> int:
        if micro_batch is None:
            return self.batch
        if not isinstance(micro_batch, int) or micro_batch < 1 or self.batch % micro_batch:
            raise NetworkError(
                f"micro-batches of {micro_batch} do not make up a batch of {self.batch}; give auto, or a "
                "number that divides it"
            )
        return micro_batch

    def _fit(self, passes: int, limit: int, configuration: Configuration | None, *, recompute: bool) -> Fit:
        planning = self._planning(passes)
        if recompute:
            found = planning.within(limit, configuration)
        else:
            found = planning.without(configuration)
            if found.peak > limit:
                raise _too_small(limit, found.peak)
        several = passes > 1
        return Fit(
            found.peak,
            found.kept,
            found,
            self.batch // passes if several else None,
            self.caution if several else "",
        )

    def _planning(self, passes: int) -> Planning:
        if passes not in self._planned:
            options = self._options | ({"accumulate": passes} if passes > 1 else {})
            if passes > 1 and self._is_pair and options.get("storage", "packed") == "packed":
                options["gradients"] = "packed"  # the gradients of micro-batches are summed in packed form
            whole = sum(x.nbytes for x in tensors((self._inputs(self.batch),)))
            self._planned[passes] = Planning(
                self._module,
                self._inputs(self.batch // passes),
                precision=self._precision,
                beside=self._beside + whole * (passes - 1) // passes,  # inputs of the other micro-batches
                kept_as=self._kept_as,
                **options,
            )
        return self._planned[passes]


def _too_small(limit: int, needed: int) -> BudgetError:
    error = BudgetError(
        f"a step without recomputation does not fit into {format_bytes(limit)}: it needs {needed} bytes "
        f"({format_bytes(needed)}); give that, or take a smaller batch"
    )
    error.needed = needed
    return error


def fitting(
    dataset: Dataset,
    recipe: Recipe,
    storage: str,
    step: tuple[nn.Module, Callable[[int], Tensor]] | None = None,
) -> Fitting:
    """The :class:`Fitting` of a recipe's network on a data set.

    ``storage`` is ``packed`` or ``simulated`` for pairs of formats, and ``fp32`` or the name of a precision
    for steps in plain PyTorch. ``step`` is the result of :func:`step_of`, if it is known.
    """
    module, inputs = step or step_of(dataset, recipe)
    targets = dataset.train_targets
    batch = min(recipe.batch_size, len(targets))
    # The order of an epoch, and the indices and targets of a batch.
    beside = 8 * len(targets) + batch * (8 + targets[:1].nbytes)
    key, loss = step_key(dataset, recipe, batch), step_loss(dataset, recipe.network)
    if storage not in ("packed", "simulated"):
        if storage in PRECISIONS and PRECISIONS[storage].is_narrow and dataset.kind != "text":
            beside += 4 * batch * math.prod(dataset.input_shape)  # the batch, before it is cast
        return Fitting(
            module,
            inputs,
            batch,
            beside=beside,
            optimizer=step_optimizer(recipe, storage),
            precision=None if storage == "fp32" else storage,
            kept_as=key,
            loss=loss,
        )
    return Fitting(
        module,
        inputs,
        batch,
        beside=beside,
        precision="1-4-1/1-6-7",
        optimizer=recipe.optimizer,
        accumulator=recipe.accumulator,
        storage=storage,
        kept_as=key,
        loss=loss,
    )
