"""What a worker does with a cell: load its data once, train, measure."""

from functools import lru_cache

from peppp.campaign.cells import Cell, Source
from peppp.records import Measurement
from peppp.tasks.dataset import Dataset
from peppp.tasks.readers import load
from peppp.training.measurement import measure


def measure_cell(cell: Cell, device: str = "cpu") -> Measurement:
    """The measurement of a cell; a module-level function, so that worker processes can be given it."""
    dataset = _loaded(cell.data, cell.recipe.resolution)
    return measure(dataset, cell.configuration, cell.recipe, cell.seed, device=device)


def source(data: str, dataset: Dataset) -> Source:
    """How cells name a data set that :func:`peppp.tasks.readers.load` read from the text ``data``."""
    return Source(data, dataset.fingerprint, dataset.name, dataset.resolution, dataset.loss)


@lru_cache(maxsize=4)
def _loaded(data: str, resolution: int) -> Dataset:
    return load(data, resolution=resolution)
