"""The work for one cell: load its data, train and measure."""

from functools import lru_cache

from peppp.campaign.cells import Cell, Source
from peppp.records import Measurement
from peppp.tasks.dataset import Dataset, under
from peppp.tasks.readers import load
from peppp.training.measurement import measure


def measure_cell(cell: Cell, dataset: Dataset | None = None, *, device: str = "cpu") -> Measurement:
    """Measure a cell, on ``dataset`` if it is given, or else on the data that the cell names.

    This is a module-level function, so that it can be sent to worker processes.
    """
    return measure(dataset or load_data(cell), cell.configuration, cell.recipe, cell.seed, device=device)


def load_data(cell: Cell) -> Dataset:
    """Load the data of a cell, under the cell's fingerprint, and keep it in memory for later cells."""
    return under(_loaded(cell.data, cell.recipe.resolution), {cell.fingerprint})


def source(data: str, dataset: Dataset) -> Source:
    """Return the source of a data set that :func:`peppp.tasks.readers.load` read from the text ``data``."""
    return Source(data, dataset.fingerprint, dataset.name, dataset.resolution, dataset.loss)


@lru_cache(maxsize=4)
def _loaded(data: str, resolution: int) -> Dataset:
    return load(data, resolution=resolution)
