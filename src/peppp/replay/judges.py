"""By which errors a pick is judged: those it was picked for are lucky, too.

Of many noisy errors the least is less than any of the configurations errs on average, and a method that
measures much finds it. On another seed that luck is gone. Where a table has one seed only, the task's other
configurations of the same Format A stand in: Format B hardly matters and each is a run of its own.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from peppp.errors import TableError
from peppp.tables import ErrorMatrix, Lacking, averaged, placed

JUDGES = ("same", "seed", "siblings")


def judge(matrix: ErrorMatrix, name: str, others: Sequence[ErrorMatrix] = ()) -> NDArray[np.float64] | None:
    """The errors [n, d] that picks on ``matrix`` are judged by, NaN where there is none; None are its own.

    ``same`` are its own, ``seed`` the means over the matrices of ``others``, the other seeds, ``siblings``
    those of the other configurations of equal Format A. Raises Lacking where there are none.
    """
    if name not in JUDGES:
        raise TableError(f"picks are judged by {', '.join(JUDGES)}, not by {name!r}")
    if name == "same":
        return None
    found = _siblings(matrix) if name == "siblings" else _other_seeds(matrix, others)
    if not np.isfinite(found).any():
        raise Lacking(f"the table lacks {'another seed' if name == 'seed' else 'siblings'} to judge picks by")
    return found


def _siblings(matrix: ErrorMatrix) -> NDArray[np.float64]:
    of = np.unique([str(c.format_a) for c in matrix.configurations], return_inverse=True)[1]
    alike = (of[:, None] == of).astype(np.float64)  # [d, d]
    errors = np.where(matrix.observed, matrix.values, 0.0)
    counts = matrix.observed @ alike - matrix.observed
    return np.where(counts > 0, (errors @ alike - errors) / np.maximum(counts, 1), np.nan)


def _other_seeds(matrix: ErrorMatrix, others: Sequence[ErrorMatrix]) -> NDArray[np.float64]:
    if not others:
        return np.full(matrix.values.shape, np.nan)
    mean = averaged(others)
    return placed(mean.values, mean, matrix.keys, matrix.columns)
