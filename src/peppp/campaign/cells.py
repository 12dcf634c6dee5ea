"""Plan the cells of a campaign, which are the measurements to make, and their order."""

import heapq
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from peppp.arguments import check_seed, checked
from peppp.precisions.known import Precision
from peppp.records import Recipe
from peppp.table.sampling import nonuniform, uniform


class Source(NamedTuple):
    """The data of a task: its text (``digits``, ``folder:imgs``), fingerprint, name, resolution and loss.

    The resolution and the loss replace those of the recipes, unless they are 0 and "".
    """

    data: str
    fingerprint: str
    task: str
    resolution: int = 0
    loss: str = ""

    @checked
    def cell(self, configuration: Precision, recipe: Recipe, seed: int = 0) -> "Cell":
        """Return the cell of this data at a configuration."""
        recipe = replace(
            recipe, resolution=self.resolution or recipe.resolution, loss=self.loss or recipe.loss
        )
        return Cell(self.data, self.fingerprint, self.task, configuration, recipe, seed)


@checked
@dataclass(frozen=True, slots=True)
class Cell:
    """One measurement to make, given by its data, configuration, recipe and seed."""

    data: str
    fingerprint: str
    task: str
    configuration: Precision
    recipe: Recipe
    seed: int = 0

    @property
    def key(self) -> tuple[str, str, str, int, int]:
        """The key of its measurement, with repeat 0."""
        return (self.fingerprint, str(self.configuration), self.recipe.digest, self.seed, 0)


Row = tuple[Source, Recipe]


@checked
def rows_of(sources: Sequence[Source], recipes: Sequence[Recipe]) -> list[Row]:
    """Return the rows of the error matrix: each data set under each recipe, without duplicates."""
    unique: dict[str, Source] = {}
    for source in sources:
        unique.setdefault(source.fingerprint, source)
    return [(source, recipe) for source in unique.values() for recipe in dict.fromkeys(recipes)]


@checked
def plan(
    rows: Sequence[Row],
    configurations: Sequence[Precision],
    seeds: Sequence[int] = (0,),
    *,
    share: float | None = None,
    p_max: float | None = None,
    memory: NDArray[np.float64] | None = None,
    sampling_seed: int = 0,
) -> list[Cell]:
    """Plan the cells of rows (data under a recipe) x configurations x seeds, or of a sample of these.

    Without ``memory``, each row gets the same number of configurations, ``share`` of them (default: all).
    With ``memory``, bytes [rows, configurations], cheap cells are drawn with a higher probability, sigma(1/M)
    of section 3.2; give either ``share``, the expected share of all cells, or ``p_max``, the highest
    probability. ``sampling_seed`` determines the sample and the order. Rows take turns, so that wherever the
    campaign stops, the counts of unfinished rows differ by at most one. Duplicates in ``configurations`` and
    ``seeds`` are dropped.

    >>> from peppp import paper_grid
    >>> sources = [Source("digits", "d1", "digits"), Source("folder:imgs", "f1", "imgs")]
    >>> cells = plan(rows_of(sources, [Recipe()]), paper_grid(), share=0.2)
    >>> len(cells), [cell.task for cell in cells[:4]]
    (40, ['digits', 'imgs', 'digits', 'imgs'])
    """
    check_seed(sampling_seed)
    columns = list(dict.fromkeys(configurations))
    if not rows or not columns:
        return []
    if memory is not None:
        mask, _ = nonuniform(memory, p_max=p_max, share=share, seed=sampling_seed)
    else:
        # A few rows may be unable to cover all columns; the share that was asked for takes precedence.
        shape = (len(rows), len(columns))
        mask = uniform(shape, 1.0 if share is None else share, seed=sampling_seed, every_column=False)
    cells = []
    for i, (source, recipe) in enumerate(rows):
        order = np.random.default_rng([sampling_seed, i, 1]).permutation(np.flatnonzero(mask[i]))
        cells += [source.cell(columns[j], recipe, seed) for seed in dict.fromkeys(seeds) for j in order]
    return balanced(cells)


@checked
def balanced(cells: Sequence[Cell], present: Collection[tuple[str, str, str, int, int]] = ()) -> list[Cell]:
    """Return the cells whose keys are not ``present``, in an order that keeps rows balanced.

    Each next cell belongs to the row with the fewest measurements so far, including the present ones. Cells
    of one row keep their order.
    """
    rows: dict[tuple[str, Recipe], deque[Cell]] = {}
    counts: dict[tuple[str, Recipe], int] = {}
    for cell in cells:
        row = (cell.fingerprint, cell.recipe)
        queue = rows.setdefault(row, deque())
        there = cell.key in present
        counts[row] = counts.get(row, 0) + there
        if not there:
            queue.append(cell)
    heap = [(counts[row], i, queue) for i, (row, queue) in enumerate(rows.items()) if queue]
    heapq.heapify(heap)
    ordered = []
    while heap:
        count, i, queue = heap[0]
        ordered.append(queue.popleft())
        if queue:
            heapq.heapreplace(heap, (count + 1, i, queue))
        else:
            heapq.heappop(heap)
    return ordered
