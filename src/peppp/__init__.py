"""peppp: at which low-precision number format to train a network, given the memory there is.

Importing this package imports neither torch nor SQLAlchemy: the names below are loaded when first used.
"""

from importlib import import_module
from typing import Any

from peppp.errors import PepppError
from peppp.formats import FP32, FP32_CONFIGURATION, Configuration, FloatFormat, paper_grid
from peppp.records import Footprint, Measurement, Outcome, Recipe, RoundingModes

__version__ = "0.1.0"

_LAZY: dict[str, str] = {}

__all__ = [
    "FP32",
    "FP32_CONFIGURATION",
    "Configuration",
    "FloatFormat",
    "Footprint",
    "Measurement",
    "Outcome",
    "PepppError",
    "Recipe",
    "RoundingModes",
    "__version__",
    "paper_grid",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'peppp' has no attribute {name!r}")
