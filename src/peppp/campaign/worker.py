"""What a worker does with a cell: load its data once, train, measure."""

from functools import lru_cache

from peppp.campaign.cells import Cell, Source
from peppp.records import Measurement
from peppp.tasks.dataset import Dataset, under
from peppp.tasks.readers import load
from peppp.training.measurement import measure


def measure_cell(cell: Cell, dataset: Dataset | None = None, *, device: str = "cpu") -> Measurement:
    """The measurement of a cell; a module-level function, so that worker processes can be given it.

    Its data is loaded here unless it came along.
    """
    return measure(dataset or load_data(cell), cell.configuration, cell.recipe, cell.seed, device=device)


def load_data(cell: Cell) -> Dataset:
    """The data of a cell, under the fingerprint that the cell knows it by; kept for the cells after it."""
    return under(_loaded(cell.data, cell.recipe.resolution), {cell.fingerprint})


def source(data: str, dataset: Dataset) -> Source:
    """How cells name a data set that :func:`peppp.tasks.readers.load` read from the text ``data``."""
    return Source(data, dataset.fingerprint, dataset.name, dataset.resolution, dataset.loss)


@lru_cache(maxsize=4)
def _loaded(data: str, resolution: int) -> Dataset:
    return load(data, resolution=resolution)
