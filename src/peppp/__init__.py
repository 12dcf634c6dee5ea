"""peppp picks the low-precision number format to train a network in, within a memory budget.

Importing this package imports neither torch nor SQLAlchemy: each name below is loaded when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from peppp.errors import PepppError
from peppp.formats import FP32, FP32_CONFIGURATION, Configuration, FloatFormat, paper_grid
from peppp.records import Footprint, Measurement, Outcome, Recipe, RoundingModes
from peppp.version import __version__

_LAZY = {
    "Advisor": "peppp.advise.advisor",
    "ErrorMatrix": "peppp.table.matrix",
    "Pick": "peppp.advise.pick",
    "low_precision": "peppp.lowprec.network.conversion",
    "low_precision_optimizer": "peppp.lowprec.optimizers.low_precision",
    "measure": "peppp.training.measurement",
    "open_table": "peppp.table.select",
    "pick": "peppp.advise.session",
    "prepare": "peppp.training.prepare",
    "quantize": "peppp.lowprec.rounding.quantize",
    "read_measurements": "peppp.table.select",
    "recompute": "peppp.training.recompute",
    "rounding_points": "peppp.lowprec.network.conversion",
    "training_memory": "peppp.footprint.training_memory",
}

if TYPE_CHECKING:
    from peppp.advise.advisor import Advisor
    from peppp.advise.pick import Pick
    from peppp.advise.session import pick
    from peppp.footprint.training_memory import training_memory
    from peppp.lowprec.network.conversion import low_precision, rounding_points
    from peppp.lowprec.optimizers.low_precision import low_precision_optimizer
    from peppp.lowprec.rounding.quantize import quantize
    from peppp.table.matrix import ErrorMatrix
    from peppp.table.select import open_table, read_measurements
    from peppp.training.measurement import measure
    from peppp.training.prepare import prepare
    from peppp.training.recompute import recompute

__all__ = [
    "FP32",
    "FP32_CONFIGURATION",
    "Advisor",
    "Configuration",
    "ErrorMatrix",
    "FloatFormat",
    "Footprint",
    "Measurement",
    "Outcome",
    "PepppError",
    "Pick",
    "Recipe",
    "RoundingModes",
    "__version__",
    "low_precision",
    "low_precision_optimizer",
    "measure",
    "open_table",
    "paper_grid",
    "pick",
    "prepare",
    "quantize",
    "read_measurements",
    "recompute",
    "rounding_points",
    "training_memory",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'peppp' has no attribute {name!r}")
