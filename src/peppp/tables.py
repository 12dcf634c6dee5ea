"""The error matrix: errors of tasks (rows) at configurations (columns), most of them not observed."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from peppp.errors import TableError
from peppp.formats import Configuration


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the error matrix: one task under one recipe; rows of one ``group`` are siblings."""

    task: str
    recipe_digest: str
    group: str
    chance_error: float = 1.0


@dataclass(frozen=True, slots=True)
class ErrorMatrix:
    """The paper's P_Omega(E): ``values`` [n, d] in [0, 1], NaN exactly where not ``observed`` [n, d].

    Arrays are read-only copies. Raises TableError where shapes, labels or values contradict each other.
    """

    values: NDArray[np.float64]
    observed: NDArray[np.bool_]
    rows: tuple[Row, ...]
    configurations: tuple[Configuration, ...]

    def __post_init__(self) -> None:
        values = np.array(self.values, dtype=np.float64)
        observed = np.array(self.observed, dtype=bool)
        shape = (len(self.rows), len(self.configurations))
        if values.shape != shape or observed.shape != shape:
            raise TableError(
                f"an error matrix of {values.shape} with a mask of {observed.shape} cannot have "
                f"{shape[0]} rows and {shape[1]} configurations"
            )
        if len(set(self.configurations)) != len(self.configurations):
            raise TableError("a configuration stands twice in the error matrix; each column needs its own")
        if not np.isfinite(values[observed]).all() or not np.isnan(values[~observed]).all():
            raise TableError("an error matrix has a number where observed and NaN everywhere else")
        if ((values[observed] < 0) | (values[observed] > 1)).any():
            raise TableError("errors are fractions between 0 and 1; divide percentages by 100")
        for name, array in (("values", values), ("observed", observed)):
            array.setflags(write=False)
            object.__setattr__(self, name, array)

    @classmethod
    def from_values(
        cls, values: NDArray[np.float64], rows: Sequence[Row], configurations: Sequence[Configuration]
    ) -> "ErrorMatrix":
        """The matrix of ``values`` [n, d] in which NaN means not observed."""
        return cls(values, ~np.isnan(values), tuple(rows), tuple(configurations))
