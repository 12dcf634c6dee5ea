"""Cells: the measurements that a campaign is to make, in the order in which to make them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from peppp.campaign.sampling import uniform
from peppp.formats import Configuration
from peppp.records import Recipe


class Source(NamedTuple):
    """The data of a task: its text (``digits``, ``folder:imgs``), fingerprint, name and resolution.

    The resolution and the loss become those of the recipes; 0 and "" leave them theirs.
    """

    data: str
    fingerprint: str
    task: str
    resolution: int = 0
    loss: str = ""

    def cell(self, configuration: Configuration, recipe: Recipe, seed: int = 0) -> "Cell":
        """The measurement of this data at a configuration."""
        recipe = replace(
            recipe, resolution=self.resolution or recipe.resolution, loss=self.loss or recipe.loss
        )
        return Cell(self.data, self.fingerprint, self.task, configuration, recipe, seed)


@dataclass(frozen=True, slots=True)
class Cell:
    """One measurement to make: which data, which configuration, which recipe, which seed."""

    data: str
    fingerprint: str
    task: str
    configuration: Configuration
    recipe: Recipe
    seed: int = 0

    @property
    def key(self) -> tuple[str, str, str, int, int]:
        """The key of its measurement, the first of that kind (repeat 0)."""
        return (self.fingerprint, str(self.configuration), self.recipe.digest, self.seed, 0)


def plan(
    sources: Sequence[Source],
    configurations: Sequence[Configuration],
    recipes: Sequence[Recipe],
    seeds: Sequence[int] = (0,),
    *,
    share: float = 1.0,
    sampling_seed: int = 0,
) -> list[Cell]:
    """The cells of sources x recipes (the rows of the error matrix) x configurations x seeds.

    Each row measures the same number of configurations, ``share`` of them, drawn and shuffled by
    ``sampling_seed``. Rows take turns: wherever the campaign stops, their counts differ by at most one. What
    stands twice in an argument is taken once.

    >>> from peppp import paper_grid
    >>> sources = [Source("digits", "d1", "digits"), Source("folder:imgs", "f1", "imgs")]
    >>> cells = plan(sources, paper_grid(), [Recipe()], share=0.2)
    >>> len(cells), [cell.task for cell in cells[:4]]
    (40, ['digits', 'imgs', 'digits', 'imgs'])
    """
    unique: dict[str, Source] = {}
    for source in sources:
        unique.setdefault(source.fingerprint, source)
    rows = [(source, recipe) for source in unique.values() for recipe in dict.fromkeys(recipes)]
    columns = list(dict.fromkeys(configurations))
    if not rows or not columns:
        return []
    # Few rows cannot cover all columns with their share; they are not made to measure more than was asked.
    mask = uniform((len(rows), len(columns)), share, seed=sampling_seed, every_column=False)
    turns = []
    for i, (source, recipe) in enumerate(rows):
        order = np.random.default_rng([sampling_seed, i, 1]).permutation(np.flatnonzero(mask[i]))
        turns.append([source.cell(columns[j], recipe, seed) for seed in dict.fromkeys(seeds) for j in order])
    return [cell for turn in zip(*turns, strict=True) for cell in turn]
