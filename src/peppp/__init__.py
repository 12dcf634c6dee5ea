"""peppp: at which low-precision number format to train a network, given the memory there is.

Importing this package imports neither torch nor SQLAlchemy: the names below are loaded when first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from peppp.errors import PepppError
from peppp.formats import FP32, FP32_CONFIGURATION, Configuration, FloatFormat, paper_grid
from peppp.records import Footprint, Measurement, Outcome, Recipe, RoundingModes

__version__ = "0.1.0"

_LAZY = {
    "Advisor": "peppp.advisor",
    "ErrorMatrix": "peppp.tables",
    "Pick": "peppp.picks",
    "low_precision": "peppp.lowprec.conversion",
    "low_precision_optimizer": "peppp.lowprec.optimizers",
    "measure": "peppp.training.measurement",
    "open_table": "peppp.known",
    "pick": "peppp.choice",
    "quantize": "peppp.lowprec.rounding",
    "read_measurements": "peppp.known",
    "rounding_points": "peppp.lowprec.conversion",
}

if TYPE_CHECKING:
    from peppp.advisor import Advisor
    from peppp.choice import pick
    from peppp.known import open_table, read_measurements
    from peppp.lowprec.conversion import low_precision, rounding_points
    from peppp.lowprec.optimizers import low_precision_optimizer
    from peppp.lowprec.rounding import quantize
    from peppp.picks import Pick
    from peppp.tables import ErrorMatrix
    from peppp.training.measurement import measure

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
    "quantize",
    "read_measurements",
    "rounding_points",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'peppp' has no attribute {name!r}")
