"""Matrix completion: fill in a partly observed error matrix and embed its configurations.

SoftImpute (softimpute.py) fills the gaps; a singular value decomposition gives the embeddings of section 3.2.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from peppp.arguments import checked, indices, matrix_of
from peppp.errors import ArgumentError, TableError
from peppp.learn.effects import row_and_column_effects
from peppp.learn.softimpute import soft_impute
from peppp.learn.threads import single_thread
from peppp.table.labels import Label, groups
from peppp.table.matrix import ErrorMatrix

# Times the root mean square of the errors. Between 0.01 and 0.3, held-out errors hardly differ.
SHRINKAGE = 0.1


@checked
@dataclass(frozen=True, slots=True, eq=False)
class Completion:
    """A completed error matrix. The first four arrays are read-only copies.

    ``estimate`` [n, d] holds errors, or errors divided by the chance error of their row. ``singular_values``
    [min(n, d)] are the singular values of ``estimate``, in descending order. ``configuration_embeddings``
    [d, k] are the rows of Y in E ~ X Y^T: the k leading right singular vectors (section 3.2). ``observed``
    [n, d] marks the entries that were given, not estimated. ``families`` [n] and ``columns`` [d] are the
    labels of the matrix, if it has any; ``shrinkage`` is the lambda of the completion. ``counts`` [n, d] says
    how many runs an entry averages, and ``squares`` [n, d] sums the squared distances of these runs from
    their mean, in squared units of ``estimate``; None means one run each.
    """

    estimate: NDArray[np.float64]
    singular_values: NDArray[np.float64]
    configuration_embeddings: NDArray[np.float64]
    observed: NDArray[np.bool_]
    families: tuple[str, ...] = ()
    columns: tuple[Label, ...] = ()
    shrinkage: float = 0.0
    counts: NDArray[np.float64] | None = None
    squares: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        for name in ("estimate", "singular_values", "configuration_embeddings", "observed"):
            kind = bool if name == "observed" else np.float64
            array = np.array(getattr(self, name), dtype=kind, order="C")  # layouts round differently
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        shape, embedded = self.estimate.shape, self.configuration_embeddings.shape
        others = [array.shape for array in (self.observed, self.counts, self.squares) if array is not None]
        if {shape, *others} != {shape} or len(shape) != 2 or len(embedded) != 2 or embedded[0] != shape[1]:
            raise ArgumentError(
                f"estimate, observed, counts and squares are of one shape [n, d], not of {shape} and "
                f"{others}, and embeddings are [d, k], not {embedded}"
            )
        if len(self.columns) not in (0, shape[1]) or len(self.families) not in (0, shape[0]):
            raise ArgumentError(f"an estimate {shape} has a family for each row and a label for each column")

    @property
    def groups(self) -> NDArray[np.intp] | None:
        """Group numbers [d], equal for columns that differ in Format B only; None if one is plain text."""
        return groups(self.columns)

    @checked
    def take(self, columns: Sequence[int]) -> "Completion":
        """The completion of some of the columns; their embeddings do not change."""
        j = indices(columns, self.estimate.shape[1], "columns").tolist()
        return replace(
            self,
            estimate=self.estimate[:, j],
            configuration_embeddings=self.configuration_embeddings[j],
            observed=self.observed[:, j],
            columns=tuple(self.columns[k] for k in j) if self.columns else (),
            counts=None if self.counts is None else self.counts[:, j],
            squares=None if self.squares is None else self.squares[:, j],
        )


@checked
def complete(
    matrix: ErrorMatrix,
    *,
    rank: int = 5,
    shrinkage: float | None = None,
    relative_to_chance: bool = False,
    weights: NDArray[np.float64] | None = None,
) -> Completion:
    """Fill the gaps of an error matrix by :func:`soft_impute`; measured entries are kept (section 3.1).

    Keeping them does not change the embeddings: at a fixed point of Algorithm 1 (without ``weights``), its
    estimate is the kept matrix with smaller singular values and the same singular vectors.

    ``rank`` is the number of embedding dimensions. ``relative_to_chance`` first divides each row by its
    chance error, which makes tasks with few and with many classes comparable. ``weights`` [n, d] are inverse
    sampling probabilities. ``shrinkage`` is lambda. The default is :data:`SHRINKAGE` times the root mean
    square of the observed entries, so that the scale of the errors does not matter; the paper's 0.1 is
    absolute.

    Raises TableError for a row or a column without any measurement, which completion would estimate as zero.

    >>> from peppp.formats import paper_grid
    >>> from peppp.table.matrix import Row
    >>> rows = [Row(name, "", name) for name in ("digits", "letters")]
    >>> matrix = ErrorMatrix.from_values(np.array([[0.8, 0.4], [0.4, np.nan]]), rows, paper_grid()[:2])
    >>> complete(matrix, shrinkage=1e-3).estimate.round(2)
    array([[0.8, 0.4],
           [0.4, 0.2]])
    """
    _refuse_empty_lines(matrix)
    return learn(
        matrix, np.arange(len(matrix.rows)), rank=rank, shrinkage=shrinkage,
        relative_to_chance=relative_to_chance, weights=weights,
    )  # fmt: skip


@checked
def learn(
    matrix: ErrorMatrix,
    rows: ArrayLike,
    *,
    rank: int = 3,
    shrinkage: float | None = None,
    relative_to_chance: bool = False,
    weights: NDArray[np.float64] | None = None,
) -> Completion:
    """:func:`complete` some ``rows`` (indices or a mask); rows and columns may be empty here."""
    part = matrix.take(rows)
    unit = part.chance[:, None] if relative_to_chance else np.ones((len(part.rows), 1))
    found = complete_values(
        part.values / unit, part.observed, rank=rank, shrinkage=shrinkage, weights=weights,
        families=part.families, columns=part.columns,
    )  # fmt: skip
    squares = None if part.squares is None else part.squares / unit**2
    return replace(found, counts=part.counts, squares=squares)


@checked
def filled(matrix: ErrorMatrix) -> NDArray[np.float64]:
    """The errors [n, d] of a matrix, estimated where none was observed: for overviews, not for evaluation."""
    return np.clip(complete_values(matrix.values, matrix.observed).estimate, 0.0, 1.0)


@checked
@single_thread()
def complete_values(
    values: NDArray[np.float64],
    observed: NDArray[np.bool_],
    *,
    rank: int = 5,
    shrinkage: float | None = None,
    weights: NDArray[np.float64] | None = None,
    families: tuple[str, ...] = (),
    columns: tuple[Label, ...] = (),
) -> Completion:
    """:func:`complete` for plain arrays [n, d]; it reads only the ``observed`` entries of ``values``.

    ``families`` and ``columns`` label rows and columns; the completion itself does not use them.

    >>> complete_values(np.array([[0.8, 0.4], [0.4, np.nan]]), np.array([[True, True], [True, False]]),
    ...     shrinkage=1e-3).estimate.round(2)
    array([[0.8, 0.4],
           [0.4, 0.2]])
    """
    mask = np.asarray(observed, dtype=bool)
    E = np.asarray(values, dtype=np.float64)
    if E.shape != mask.shape or not mask.any():
        raise ArgumentError("completion takes values and observed of one shape [n, d], some of them observed")
    matrix_of(np.where(mask, E, 0.0), "observed values")
    if shrinkage is None:
        shrinkage = SHRINKAGE * float(np.sqrt(np.mean(E[mask] ** 2)))
    if not mask.all():
        fit = row_and_column_effects(E, mask)
        # This start changes the result only by SoftImpute's tolerance, and saves at least half of the time.
        filled = soft_impute(E, mask, shrinkage=shrinkage, weights=weights, start=fit)
        # A column without any observation keeps the additive fit: shrinkage would estimate it as zero.
        E = np.where(mask, E, np.where(mask.any(axis=0), filled, fit))
    S, Vt = _singular(E)
    return Completion(E, S, _embeddings(S, Vt, rank, max(E.shape)), mask, families, columns, shrinkage)


@checked
@single_thread()
def factorise(estimate: NDArray[np.float64], rank: int) -> NDArray[np.float64]:
    """Configuration embeddings [d, k] of an error matrix [n, d]: its leading right singular vectors.

    With E = U S V^T, the embedding of configuration j is row j of V. The columns of V are orthonormal, as in
    Oboe (section 3.2 leaves the scale open). k is ``rank``, or the rank of the matrix if that is lower.
    Raises ValueError for a rank below 1.

    >>> abs(factorise(np.array([[0.3, 0.4], [0.6, 0.8]]), rank=2)).round(6)
    array([[0.6],
           [0.8]])
    """
    S, Vt = _singular(matrix_of(estimate, "errors"))
    return _embeddings(S, Vt, rank, max(estimate.shape))


@checked
def inverse_propensity(probabilities: NDArray[np.float64], *, floor: float = 0.02) -> NDArray[np.float64]:
    """Weights 1 / P of entries sampled with probabilities P, raised to at least ``floor`` (section 3.1).

    >>> inverse_propensity(np.array([0.5, 0.001]))
    array([ 2., 50.])
    """
    if not (1e-100 < floor <= 1 and (np.asarray(probabilities) >= 0).all()):
        raise ArgumentError("probabilities are 0 or more, and their floor lies above 0 and up to 1")
    return np.asarray(1.0 / np.maximum(probabilities, floor))


def _singular(E: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Singular values and right singular vectors (as rows)."""
    _, S, Vt = np.linalg.svd(E, full_matrices=False)
    return np.asarray(S), np.asarray(Vt)


def _embeddings(
    S: NDArray[np.float64], Vt: NDArray[np.float64], rank: int, longest: int
) -> NDArray[np.float64]:
    if rank < 1:
        raise ArgumentError(f"the rank of a factorisation must be 1 or more, not {rank}")
    rounding = S[0] * longest * np.finfo(np.float64).eps
    numerical_rank = int((rounding < S).sum())  # singular vectors beyond it are noise
    return np.array(Vt[: min(rank, numerical_rank)].T)


def _refuse_empty_lines(matrix: ErrorMatrix) -> None:
    if not matrix.observed.any():
        raise TableError("the table is empty; measure some configurations on some tasks first")
    tasks = [row.task for row in matrix.rows]
    for axis, names in ((1, tasks), (0, matrix.columns)):
        unknown = np.flatnonzero(~np.any(matrix.observed, axis=axis))
        if len(unknown):
            raise TableError(
                f"the table has no error of {names[unknown[0]]}; measure at least one, or leave it out"
            )
