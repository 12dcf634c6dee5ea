"""A table whose errors are known: what the methods are tried on, as if its rows were new tasks."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from peppp.errors import FormatError, TableError
from peppp.formats import Configuration
from peppp.metalearn.completion import Completion, complete_values
from peppp.metalearn.descriptors import equal_format_a
from peppp.records import Recipe


class Lacking(TableError):  # noqa: N818  it reads as what it says: the table is lacking
    """The table lacks the rows that something needs."""


@dataclass(frozen=True)
class KnownTable:
    """Errors [n, d] and memory [n, d] in bytes with their labels. Arrays are read-only copies.

    Errors are known where ``observed`` [n, d]; elsewhere they are completed, to look at but never to learn
    from or to judge by: a task is evaluated on its observed configurations, and :meth:`learn` sees no others.

    ``families`` [n] tell which rows are related and are held out together; ``tasks`` [n] name the data: rows
    of one task at two learning rates, say, are siblings. ``chance`` [n] are the errors of guessing.
    """

    errors: NDArray[np.float64]
    memory: NDArray[np.float64]
    names: tuple[str, ...]
    columns: tuple[str, ...]
    families: tuple[str, ...]
    tasks: tuple[str, ...]
    recipes: tuple[Recipe | None, ...]
    chance: NDArray[np.float64]
    observed: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        n, d = len(self.names), len(self.columns)
        for name, shape in (("errors", (n, d)), ("memory", (n, d)), ("chance", (n,))):
            array = np.array(getattr(self, name), dtype=np.float64)
            if array.shape != shape or not np.isfinite(array).all():
                raise TableError(f"{name} of {n} rows and {d} columns cannot be {array.shape} with gaps")
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        observed = np.ones((n, d), dtype=bool) if self.observed is None else np.array(self.observed)
        if observed.shape != (n, d):
            raise TableError(f"a mask of {n} rows and {d} columns cannot be {observed.shape}")
        observed.setflags(write=False)
        object.__setattr__(self, "observed", observed)
        if not {n} == {len(self.families), len(self.tasks), len(self.recipes)}:
            raise TableError(f"a known table of {n} rows has a family, a task and a recipe for each")
        if (self.memory <= 0).any():
            raise TableError("memory is a positive number of bytes in each entry")

    @cached_property
    def configurations(self) -> tuple[Configuration, ...]:
        """The columns as configurations; TableError where they are something else."""
        try:
            return tuple(Configuration.parse(column) for column in self.columns)
        except FormatError as error:
            raise Lacking(
                f"the table lacks columns that are configurations, as 1-4-1/1-6-7 ({error})"
            ) from None

    @cached_property
    def groups(self) -> NDArray[np.intp] | None:
        """Which columns are configurations of equal Format A [d]; None where they are something else."""
        try:
            return equal_format_a(self.configurations)
        except Lacking:
            return None

    @property
    def known(self) -> NDArray[np.bool_]:
        """``observed``."""
        assert self.observed is not None
        return self.observed

    @property
    def share(self) -> float:
        """The share of the entries that is observed."""
        return float(self.known.mean())

    def learn(self, rows: Sequence[int] | NDArray[np.intp], rank: int) -> Completion:
        """What some rows teach: their observed entries, completed and factorised."""
        return complete_values(self.errors[rows], self.known[rows], rank=rank, groups=self.groups)

    @property
    def is_synthetic(self) -> bool:
        """Whether the errors are invented, as those of :mod:`peppp.replay.synthetic`."""
        return any("synthetic" in name for name in self.names)

    def take(
        self, rows: Sequence[int] | NDArray[np.intp], columns: Sequence[int] | NDArray[np.intp] | None = None
    ) -> "KnownTable":
        """The table of some rows and, if given, some columns."""
        i = np.asarray(rows, dtype=np.intp)
        j = np.arange(len(self.columns)) if columns is None else np.asarray(columns, dtype=np.intp)
        return replace(
            self,
            errors=self.errors[np.ix_(i, j)],
            memory=self.memory[np.ix_(i, j)],
            observed=self.known[np.ix_(i, j)],
            columns=tuple(self.columns[c] for c in j),
            chance=self.chance[i],
            names=tuple(self.names[r] for r in i),
            families=tuple(self.families[r] for r in i),
            tasks=tuple(self.tasks[r] for r in i),
            recipes=tuple(self.recipes[r] for r in i),
        )

    def pooled(self) -> "KnownTable":
        """Columns that differ only in Format B as one: their mean error, at the memory of the smallest."""
        groups: defaultdict[str, list[int]] = defaultdict(list)
        for j, configuration in enumerate(self.configurations):
            groups[str(configuration.format_a)].append(j)
        # The column that stands for all is the one of least memory, by whose name it goes.
        kept = [min(group, key=lambda j: (self.memory[:, j].sum(), j)) for group in groups.values()]
        columns = []
        for group in groups.values():
            counted = self.known[:, group] | ~self.known[:, group].any(axis=1, keepdims=True)
            columns.append((self.errors[:, group] * counted).sum(axis=1) / counted.sum(axis=1))
        observed = np.column_stack([self.known[:, group].any(axis=1) for group in groups.values()])
        small = self.take(range(len(self.names)), kept)
        return replace(small, errors=np.column_stack(columns), observed=observed)

    def require(self, rows: int = 3, columns: int = 3) -> "KnownTable":
        """Itself, if it has so many rows and columns; else Lacking."""
        if len(self.names) < rows or len(self.columns) < columns:
            raise Lacking(
                f"the table lacks rows: {len(self.names)} are known at {len(self.columns)} common "
                f"configurations; this needs {rows} at {columns} or more"
            )
        return self
