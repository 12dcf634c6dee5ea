"""The columns that a pick chooses among: the paper's pairs of formats, what runs here, or all."""

from collections.abc import Sequence

import numpy as np
from torch import nn

from peppp.errors import TableError
from peppp.formats import FP32_CONFIGURATION, FloatFormat
from peppp.precisions.known import is_of_formats
from peppp.precisions.named import NamedPrecision
from peppp.records import Measurement, Recipe
from peppp.table.labels import Label, TunedConfiguration
from peppp.table.matrix import ErrorMatrix
from peppp.table.measured import error_matrix
from peppp.table.select import alike, taught_by
from peppp.tasks import networks
from peppp.tasks.dataset import Dataset
from peppp.training.runs_here import lacking, wants_another_optimizer

CHOICES = ("runnable", "paper", "all")


def known_errors(
    taught: Sequence[Measurement], choices: str, *, rates: Sequence[float], with_fp32: bool
) -> ErrorMatrix:
    """The error matrix that a pick learns from: the columns of its ``choices``, and fp32 if ``with_fp32``."""
    named = choices != "paper"
    if rates or not (with_fp32 or named):
        return error_matrix(taught, learning_rates=rates, include_reference=named, include_named=named)
    found = error_matrix(taught, include_reference=True, include_named=named)
    # Rows that have nothing but fp32 teach nothing about formats.
    low = np.array([is_of_formats(label) or isinstance(label, NamedPrecision) for label in found.columns])
    return found.take(found.observed[:, low].any(axis=1))


def choosable(
    columns: Sequence[Label], choices: str, dataset: Dataset, recipe: Recipe, device: str
) -> list[Label]:
    """The columns that a pick chooses among. Raises TableError if none is left."""
    if choices == "paper":
        return [label for label in columns if label != FP32_CONFIGURATION]
    found = [label for label in columns if _suits(label, recipe)]
    if choices == "runnable":
        module = networks.build_for(recipe.network, dataset, device="meta")
        found = [label for label in found if _is_packable(label) and _runs(label, module, device)]
    if not found:
        raise TableError("the table has no column that runs here; name another table, or choose --from all")
    return found


def shipped(choices: str, dataset: Dataset, recipe: Recipe, device: str) -> list[Label]:
    """The columns that a pick from the shipped table chooses among."""
    known, _ = alike(None, recipe)
    errors = known_errors(taught_by(known, recipe), choices, rates=(), with_fp32=True)
    return choosable(errors.columns, choices, dataset, recipe, device)


def _precision(label: Label) -> object:
    return label.configuration if isinstance(label, TunedConfiguration) else label


def _suits(label: Label, recipe: Recipe) -> bool:
    """Whether the recipe has the optimizer whose states a precision stores, if the precision requires one."""
    precision = _precision(label)
    return not isinstance(precision, NamedPrecision) or not wants_another_optimizer(precision, recipe)


def _is_packable(label: Label) -> bool:
    precision = _precision(label)
    return not is_of_formats(precision) or all(isinstance(fmt, FloatFormat) for fmt in precision.sides)


def _runs(label: Label, module: nn.Module, device: str) -> bool:
    precision = _precision(label)
    return not isinstance(precision, NamedPrecision) or not lacking(precision, module, device=device)
