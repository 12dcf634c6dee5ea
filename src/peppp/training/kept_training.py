"""Train in a folder: the training can resume after any epoch, and it leaves its weights there."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from peppp.errors import StoreError
from peppp.footprint.measuring import AllocatorTrace
from peppp.precisions.known import Precision
from peppp.precisions.named import NamedPrecision
from peppp.records import Outcome, Recipe
from peppp.tasks.dataset import Dataset, under
from peppp.training import checkpoint
from peppp.training.exactness import exact_arithmetic
from peppp.training.fitting import Fit
from peppp.training.loop import Run

CHECKPOINT, WEIGHTS, LOCK = "checkpoint.safetensors", "weights.safetensors", ".lock"


@dataclass(frozen=True, slots=True)
class KeptTraining:
    """The result of a training in a folder; ``peak`` is a step's measured peak in bytes, 0 if unknown."""

    configuration: Precision
    test_error: float
    curve: tuple[tuple[int, float], ...]
    outcome: Outcome
    epochs: int
    resumed_after: int
    peak: int
    weights: Path


def train_in_folder(
    dataset: Dataset,
    configuration: Precision,
    recipe: Recipe,
    seed: int,
    folder: Path,
    *,
    storage: str = "packed",
    device: str = "cpu",
    fit: Fit | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> KeptTraining:
    """Train as :func:`peppp.training.loop.train` does, bit for bit, and keep the state in ``folder``.

    ``storage`` is packed, simulated, or real (see :class:`peppp.training.loop.Run`). ``fit`` gives the blocks
    to recompute, which changes no results, and the size of micro-batches.

    After each epoch the state is written to ``folder``, and a second call continues from it. Raises
    StoreError if the folder holds the state of another training or cannot be made. The peak is measured
    during the second step of this call.
    """
    dataset = under(dataset, checkpoint.fingerprints_in(folder / CHECKPOINT))
    identity = {
        "configuration": str(configuration),
        "recipe": recipe.to_json(),
        "fingerprint": dataset.fingerprint,
        "seed": seed,
        "micro_batch": fit.micro_batch if fit else None,
    }
    if isinstance(configuration, NamedPrecision):  # packed and simulated pairs have the same bits
        identity["storage"] = storage
    trace = AllocatorTrace(device)
    with trace.stretch("build"):
        run = Run(dataset, configuration, recipe, seed, device=device, storage=storage, fit=fit)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"cannot make the folder {folder}: {error.strerror}; name another") from None
    with _alone_in(folder):
        done, curve = checkpoint.resume(folder / CHECKPOINT, identity, run)
        outcome, resumed_after = Outcome.FINISHED, done

        @contextmanager
        def traced(step: int) -> Iterator[None]:
            if step > 2:
                yield
                return
            with trace.stretch(f"step {step}"):
                yield
                if step == 1:
                    gc.collect()  # compiling a kernel leaves tensors of the first step in cycles
            if step == 1:  # a warm-up; what it leaves allocated counts as memory at rest
                trace.peak = 0

        with nullcontext() if device == "cpu" else exact_arithmetic(configuration, recipe):
            for epoch in range(done + 1, run.epochs + 1):
                if run.train_epoch(traced) is None:
                    curve.append((epoch, dataset.chance_error))
                    outcome = Outcome.DIVERGED
                    break
                curve.append((epoch, run.test()))
                tensors, data = checkpoint.state_of(run, identity, epoch, curve)
                checkpoint.write(folder / CHECKPOINT, tensors, data | {"peak": trace.peak})
                if progress is not None:
                    progress(epoch, run.epochs)
        peak = trace.peak if run.steps > 1 else checkpoint.known_peak(folder / CHECKPOINT)
        about = identity | {
            "test_error": curve[-1][1],
            "outcome": str(outcome),
            "classes": list(dataset.classes),
            "inputs": _inputs(dataset, run),
        }
        checkpoint.write(folder / WEIGHTS, checkpoint.contiguous(run.network.state_dict()), about)
        return KeptTraining(
            configuration,
            curve[-1][1],
            tuple(curve),
            outcome,
            curve[-1][0],
            resumed_after,
            peak,
            folder / WEIGHTS,
        )


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Hold the folder's lock. Raises StoreError where another process holds it."""
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise StoreError(
            f"another training is at work in the folder {folder}; wait for it, or name another --out"
        ) from None
    except OSError as error:
        raise StoreError(f"cannot write to the folder {folder}: {error.strerror}; name another") from None
    try:
        yield
    finally:
        lock.release()


def _inputs(dataset: Dataset, run: Run) -> dict[str, Any]:
    """What predictions need to know about the inputs."""
    found: dict[str, Any] = {"kind": dataset.kind, "channels": dataset.channels}
    if run.part.normalise:
        normal = run.part.normal
        found |= {"shift": normal.shift.tolist(), "scale": normal.scale.tolist()}
    return found


def to_plain(training: KeptTraining) -> dict[str, Any]:
    """The result of a training as plain data for JSON."""
    data = asdict(training)
    return data | {"configuration": str(training.configuration), "weights": str(training.weights)}
