"""The error matrix: errors of tasks (rows) at configurations (columns); few may be observed."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from peppp.arguments import checked, indices
from peppp.errors import ArgumentError, TableError
from peppp.formats import Configuration
from peppp.records import Recipe
from peppp.table.labels import Label, pairs


class Lacking(TableError):  # noqa: N818  "table lacking" reads better than "lacking error"
    """The table lacks rows, columns or memory that a computation needs."""


@checked
@dataclass(frozen=True, slots=True)
class Row:
    """A row of the error matrix: one task under one recipe. Tasks of one ``group`` share a source.

    ``fingerprint`` identifies the task's data, since names may repeat. ``recipe`` is None if the errors come
    from a matrix that does not record how they were trained.
    """

    task: str
    recipe_digest: str
    group: str
    chance_error: float = 1.0
    fingerprint: str = ""
    recipe: Recipe | None = field(default=None, compare=False)


@checked
@dataclass(frozen=True)
class ErrorMatrix:
    """The paper's P_Omega(E): ``values`` [n, d] in [0, 1], and NaN where not observed.

    Columns are configurations, configurations at a learning rate, or any other texts. ``memory`` [n, d] holds
    the bytes of each training, or is None if they are not all known. A value may be the mean of several runs:
    ``counts`` [n, d] is their number, and ``squares`` [n, d] the sum of their squared distances from the
    mean; both are None if each value is a single run. Arrays are read-only copies. Raises TableError if
    shapes do not agree, a column occurs twice, an error is outside [0, 1] or memory is not positive.
    """

    values: NDArray[np.float64]
    rows: tuple[Row, ...]
    columns: tuple[Label, ...]
    memory: NDArray[np.float64] | None = None
    counts: NDArray[np.float64] | None = None
    squares: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", tuple(self.rows))
        object.__setattr__(self, "columns", tuple(self.columns))
        shape = (len(self.rows), len(self.columns))
        for name in ("values", "memory", "counts", "squares"):
            if getattr(self, name) is None:
                continue
            array = np.array(getattr(self, name), dtype=np.float64, order="C")
            if array.shape != shape:
                raise TableError(
                    f"{name} has the shape {array.shape}; it must be {shape}, the numbers of rows and columns"
                )
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        if len(set(self.columns)) != len(self.columns):
            raise TableError("two columns of the error matrix have the same label; remove or rename one")
        known = self.values[self.observed]
        if not np.isfinite(known).all():
            raise TableError("an error matrix holds an infinite value; give NaN where nothing was observed")
        if ((known < 0) | (known > 1)).any():
            raise TableError("errors are fractions between 0 and 1; divide percentages by 100")
        if self.memory is not None and not ((self.memory > 0) & np.isfinite(self.memory)).all():
            raise TableError("memory must be a positive number of bytes in each entry")

    @classmethod
    @checked
    def from_values(
        cls, values: ArrayLike, rows: Sequence[Row], columns: Sequence[Label], memory: ArrayLike | None = None
    ) -> "ErrorMatrix":
        """Make a matrix of ``values`` [n, d], in which NaN means not observed."""
        return cls(values, tuple(rows), tuple(columns), memory)  # type: ignore[arg-type]

    @cached_property
    def observed(self) -> NDArray[np.bool_]:
        """A mask [n, d] of the observed entries."""
        return np.asarray(~np.isnan(self.values))

    @property
    def share(self) -> float:
        """The share of the entries that are observed."""
        return float(self.observed.mean()) if self.values.size else 0.0

    @property
    def configurations(self) -> tuple[Configuration, ...]:
        """The columns as configurations, without learning rates; raises Lacking for any other column."""
        try:
            return pairs(self.columns)
        except TableError as error:
            raise Lacking(f"the table lacks columns that are configurations: {error}") from None

    @property
    def labels(self) -> tuple[str, ...]:
        """The columns as texts."""
        return tuple(map(str, self.columns))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """A name for each row: its task, and the fields in which the recipes of the rows differ."""
        recipes = [asdict(replace(row.recipe, resolution=0)) for row in self.rows if row.recipe is not None]
        differing = [
            f.name
            for f in fields(Recipe)
            if recipes and any(r[f.name] != recipes[0][f.name] for r in recipes)
        ]
        return tuple(
            " ".join([row.task, *(f"{f}={getattr(row.recipe, f)}" for f in differing if row.recipe)])
            for row in self.rows
        )

    @property
    def tasks(self) -> tuple[str, ...]:
        """An identifier of each row's data: its fingerprint, or its task if it has none."""
        return tuple(row.fingerprint or row.task for row in self.rows)

    @property
    def keys(self) -> tuple[tuple[str, str], ...]:
        """An identifier of each row: its data and the digest of its recipe."""
        return tuple((row.fingerprint or row.task, row.recipe_digest) for row in self.rows)

    @property
    def families(self) -> tuple[str, ...]:
        """The group of each row, or its task if it has none; evaluations hold out a family as a whole."""
        return tuple(row.group or row.task for row in self.rows)

    @property
    def chance(self) -> NDArray[np.float64]:
        """The errors of guessing [n]; raises TableError for one outside (0, 1]."""
        for row in self.rows:
            if not 0 < row.chance_error <= 1:
                raise TableError(
                    f"the chance error of {row.task} is {row.chance_error}; it must be above 0 and at most 1"
                )
        return np.array([row.chance_error for row in self.rows])

    @property
    def bytes(self) -> NDArray[np.float64]:
        """``memory`` [n, d]; raises Lacking if it is unknown."""
        if self.memory is None:
            raise Lacking("the table lacks the memory of its trainings")
        return self.memory

    @checked
    def take(self, rows: ArrayLike, columns: ArrayLike | None = None) -> "ErrorMatrix":
        """Return the matrix of some rows and, if given, some columns, by indices or masks."""
        i = indices(rows, len(self.rows), "rows")
        d = len(self.columns)
        j = np.arange(d) if columns is None else indices(columns, d, "columns")
        return ErrorMatrix(
            self.values[np.ix_(i, j)],
            tuple(self.rows[r] for r in i),
            tuple(self.columns[c] for c in j),
            *(
                None if array is None else array[np.ix_(i, j)]
                for array in (self.memory, self.counts, self.squares)
            ),
        )

    @checked
    def masked(self, mask: NDArray[np.bool_]) -> "ErrorMatrix":
        """Return the matrix with only the entries of a ``mask`` [n, d] observed."""
        if np.shape(mask) != self.values.shape:
            raise ArgumentError(f"the mask of a matrix {self.values.shape} cannot be {np.shape(mask)}")
        return replace(self, values=np.where(mask, self.values, np.nan))

    @checked
    def without(self, task: str) -> "ErrorMatrix":
        """Return the matrix without the rows that have no fingerprint and are named ``task``.

        Raises TableError if no row is left.
        """
        others = [bool(row.fingerprint) or row.task != task for row in self.rows]
        if not any(others):
            raise TableError(f"the matrix holds only errors of {task!r} itself; add errors of other tasks")
        return self.take(others)

    @checked
    def require(self, rows: int = 3, columns: int = 3) -> "ErrorMatrix":
        """Return the matrix itself; raise Lacking if it has fewer rows or columns than given."""
        if len(self.rows) < rows or len(self.columns) < columns:
            raise Lacking(
                f"the table lacks rows: it has {len(self.rows)} at {len(self.columns)} common "
                f"configurations; this needs at least {rows} at {columns}"
            )
        return self


def averaged(matrices: Sequence[ErrorMatrix]) -> ErrorMatrix:
    """Average matrices, such as those of several seeds, each entry over the matrices that observed it.

    The result has the rows and columns of all of them. Its memory is the first that is known for each entry,
    or None if an entry has none.

    >>> row = Row("digits", "", "digits")
    >>> one, other = ErrorMatrix([[0.25]], [row], ["amp"]), ErrorMatrix([[0.75, 0.5]], [row], ["amp", "fp8"])
    >>> averaged([one, other]).values
    array([[0.5, 0.5]])
    """
    if len(matrices) == 1:
        return matrices[0]
    rows = {key: row for matrix in matrices for key, row in zip(matrix.keys, matrix.rows, strict=True)}
    columns = tuple(dict.fromkeys(column for matrix in matrices for column in matrix.columns))
    layers = np.array(
        [placed(matrix.values, matrix, list(rows), columns) for matrix in matrices]
    )  # [s, n, d]
    known = ~np.isnan(layers)
    sums, counts = np.where(known, layers, 0.0).sum(axis=0), known.sum(axis=0)
    values = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    memory = np.full(values.shape, np.nan)
    for matrix in matrices:
        if matrix.memory is not None:
            memory = np.where(np.isnan(memory), placed(matrix.memory, matrix, list(rows), columns), memory)
    return ErrorMatrix(
        values,
        tuple(rows.values()),
        columns,
        None if np.isnan(memory).any() else memory,
        counts.astype(np.float64),
        np.where(known, (layers - values) ** 2, 0.0).sum(axis=0),
    )


def placed(
    array: NDArray[np.float64],
    matrix: ErrorMatrix,
    keys: Sequence[tuple[str, str]],
    columns: Sequence[Label],
) -> NDArray[np.float64]:
    """Rearrange an ``array`` [n, d] of a matrix to other rows and columns; NaN where it lacks them."""
    at_row = {key: i for i, key in enumerate(matrix.keys)}
    at_column = {column: j for j, column in enumerate(matrix.columns)}
    wider = np.full((len(matrix.rows) + 1, len(matrix.columns) + 1), np.nan)  # index -1 is NaN
    wider[:-1, :-1] = array
    rows, places = [at_row.get(key, -1) for key in keys], [at_column.get(column, -1) for column in columns]
    return np.asarray(wider[np.ix_(rows, places)])
