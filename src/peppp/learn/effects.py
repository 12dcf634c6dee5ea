"""Row and column effects: the sum of a task's and a configuration's effect. Completion has to beat it."""

import numpy as np
from numpy.typing import NDArray

from peppp.errors import ArgumentError


def row_and_column_effects(
    values: NDArray[np.float64],
    observed: NDArray[np.bool_],
    *,
    ridge: float = 1.0,
    sweeps: int = 100,
) -> NDArray[np.float64]:
    """Fit level + row effect + column effect to the observed ``values``: the fitted matrix [n, d].

    ``ridge`` penalises squared effects, as if each row and column had that many more entries, all equal to
    the level; this draws rows with few entries towards the level. The fit alternates between rows and
    columns, at most ``sweeps`` times. Raises ValueError if nothing is observed.

    >>> E = np.array([[0.1, 0.2], [0.3, 0.0]])
    >>> known = np.array([[True, True], [True, False]])
    >>> row_and_column_effects(E, known, ridge=1e-6).round(3)
    array([[0.1, 0.2],
           [0.3, 0.4]])
    """
    mask = np.asarray(observed, dtype=bool)
    if not mask.any():
        raise ArgumentError("nothing is observed, so there are no effects")
    level = float(np.mean(np.asarray(values)[mask]))
    centred = np.where(mask, np.asarray(values) - level, 0.0)
    in_row, in_column = mask.sum(axis=1), mask.sum(axis=0)
    rows, columns = np.zeros(len(mask)), np.zeros(mask.shape[1])
    for _ in range(sweeps):
        before = columns
        rows = (centred.sum(axis=1) - mask @ columns) / (in_row + ridge)
        columns = (centred.sum(axis=0) - rows @ mask) / (in_column + ridge)
        if np.abs(columns - before).max() < 1e-9:
            break
    return np.asarray(level + rows[:, None] + columns)
