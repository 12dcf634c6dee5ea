"""``measure``: run one training and return a Measurement, with its footprint and provenance."""

import gc
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from peppp.arguments import checked
from peppp.precisions.known import Precision
from peppp.records import Measurement, Recipe
from peppp.tasks.dataset import Dataset
from peppp.training import replay
from peppp.training.exactness import exact_arithmetic
from peppp.training.loop import Training, train
from peppp.training.runs_here import check_device
from peppp.training.sizes import footprint, with_resolution
from peppp.version import __version__

# Bytes of weights. Smaller networks are left to Python, because collecting takes time.
LARGE = 1 << 20


@checked
def measure(
    dataset: Dataset, configuration: Precision, recipe: Recipe, seed: int = 0, *, device: str = "cpu"
) -> Measurement:
    """Train ``recipe.network`` on ``dataset`` at ``configuration``, test it, and return the measurement.

    The recipe's resolution and loss are replaced by the data set's. Torch uses one thread meanwhile, so that
    results do not depend on the number of cores; one process for each core is also the better use of them.
    """
    check_device(device)
    recipe = with_resolution(recipe, dataset)
    size = footprint(dataset, configuration, recipe)  # which refuses what cannot be trained
    start = time.perf_counter()
    with _one_thread():
        training = _trained(dataset, configuration, recipe, seed, device)
    found = Measurement(
        task=dataset.name,
        fingerprint=dataset.fingerprint,
        group=dataset.group,
        configuration=configuration,
        recipe=recipe,
        seed=seed,
        chance_error=dataset.chance_error,
        test_error=training.test_error,
        train_error=training.train_error,
        curve=training.curve,
        footprint=size,
        outcome=training.outcome,
        seconds=round(time.perf_counter() - start, 3),
        provenance=provenance(device),
    )
    del training
    if size.weights > LARGE:
        gc.collect()  # a network at low precision is in cycles, and the next training would begin beside it
    return found


def _trained(dataset: Dataset, configuration: Precision, recipe: Recipe, seed: int, device: str) -> Training:
    """Train; on a GPU by replaying captured steps if that is possible."""
    if device == "cpu":
        return train(dataset, configuration, recipe, seed)
    if replay.serves(dataset, configuration, recipe):
        return replay.train(dataset, configuration, recipe, seed, device=device)
    with exact_arithmetic(configuration, recipe):
        return train(dataset, configuration, recipe, seed, device=device)


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@lru_cache(maxsize=8)
def provenance(device: str) -> dict[str, str]:
    """The versions and hardware that an error can depend on."""
    names = [name for name in ("numpy", "pillow") if _installed(name)]
    return (
        {"peppp": __version__, "torch": torch.__version__}  # with its build, such as 2.13.0+cpu
        | {name: version(name) for name in names}
        | {
            "python": platform.python_version(),
            "system": platform.system(),
            "processor": _processor(),
            "device": "cpu" if device == "cpu" else torch.cuda.get_device_name(device),
        }
    )


def _installed(name: str) -> bool:
    """Whether a package is installed; training does not need Pillow."""
    try:
        return bool(version(name))
    except PackageNotFoundError:
        return False


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
