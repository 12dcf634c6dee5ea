"""The data of a task in memory: inputs and targets of a training and a test part, a name, a fingerprint."""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peppp.arguments import check_seed, checked
from peppp.errors import ArgumentError, DataError

Images = NDArray[np.uint8]  # [count, side, side, 3]
Labels = NDArray[np.int64]  # [count]
Array = NDArray[Any]

_KINDS = {"u": "images", "f": "numbers", "i": "text"}


@checked
@dataclass(frozen=True, slots=True)
class Dataset:
    """The training and test data of a task; the dtype of the inputs determines the ``kind``.

    | kind | inputs | targets |
    |---|---|---|
    | images | uint8 [count, side, side, 3] | int64 [count] |
    | numbers | float32 [count, features] | int64 [count], or float32 [count] for regression |
    | text | int64 [count, length]: indices of ``classes``, the characters | int64 [count, length] |

    A regression has no ``classes``. ``loss`` names the loss to minimise and how errors are counted
    (:mod:`peppp.training.losses`). ``fingerprint`` is a digest of the contents and of how they were cut.
    ``group`` names the source that related sets share, such as the partitions of one set. ``former`` is the
    fingerprint that version 0.1 gave to the same data, or "" if it has not changed. ``notes`` say what else
    the user should know about reading it, such as skipped files or rotated images.

    Raises DataError if a part is empty, its inputs and targets differ in number, a dtype is of another kind,
    or a target is not the number of a class.
    """

    name: str
    group: str
    fingerprint: str
    classes: tuple[str, ...]
    train_inputs: Array
    train_targets: Array
    test_inputs: Array
    test_targets: Array
    loss: str = "cross_entropy"
    former: str = ""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for part, inputs, targets in (
            ("training", self.train_inputs, self.train_targets),
            ("test", self.test_inputs, self.test_targets),
        ):
            if not (inputs.ndim and targets.ndim):
                raise DataError(f"{self.name}: {part} inputs and targets are arrays of one entry an example")
            if len(inputs) == 0 or len(inputs) != len(targets):
                raise DataError(
                    f"{self.name}: {len(inputs)} inputs and {len(targets)} targets in the {part} part"
                )
            if inputs.dtype.kind not in _KINDS or targets.dtype.kind not in "if":
                raise DataError(
                    f"{self.name}: {part} inputs are {inputs.dtype}, targets {targets.dtype}; inputs are "
                    "uint8 images, float32 numbers or int64 text, targets int64 or float32"
                )
            if not (inputs.size and targets.size):
                raise DataError(
                    f"{self.name}: {part} inputs {inputs.shape}, targets {targets.shape} are empty"
                )
            if self.classes and not 0 <= targets.min() <= targets.max() < len(self.classes):
                raise DataError(
                    f"{self.name}: {part} targets are {targets.min()} to {targets.max()} for "
                    f"{len(self.classes)} classes"
                )

    @property
    def kind(self) -> str:
        """``images``, ``numbers`` or ``text``."""
        return _KINDS[self.train_inputs.dtype.kind]

    @property
    def resolution(self) -> int:
        """The side of images in pixels, or the length of texts in characters; 0 for numbers."""
        return 0 if self.kind == "numbers" else int(self.train_inputs.shape[1])

    @property
    def channels(self) -> int:
        """The number of input channels for a network: colours, features, or different characters."""
        return len(self.classes) if self.kind == "text" else int(self.train_inputs.shape[-1])

    @property
    def outputs(self) -> int:
        """The number of outputs for a network: one for each class, or 1 for regression."""
        return len(self.classes) or 1

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input as a network takes it; images have their channels first."""
        shape = tuple(int(side) for side in self.train_inputs.shape[1:])
        return (shape[-1], *shape[:-1]) if self.kind == "images" else shape

    @property
    def chance_error(self) -> float:
        """The error of guessing: 1 - 1/classes, or 1 for regression."""
        return 1 - 1 / len(self.classes) if self.classes else 1.0


def described(dataset: Dataset) -> str:
    """Describe a data set in one line: its examples, classes and split, and its notes.

    >>> from peppp.tasks.readers import load
    >>> described(load("digits"))
    'digits: 1797 images of 8x8 pixels in 10 classes, 1438 to train and 359 to test'
    """
    trained, tested = len(dataset.train_inputs), len(dataset.test_inputs)
    side, classes = dataset.resolution, len(dataset.classes)
    of = {
        "images": f"images of {side}x{side} pixels in {classes} classes",
        "numbers": f"examples in {classes} classes" if classes else "examples",
        "text": f"pieces of {side} characters",
    }[dataset.kind]
    name = " ".join(dataset.name.split())  # a folder's name may contain line breaks
    line = f"{name}: {trained + tested} {of}, {trained} to train and {tested} to test"
    return "; ".join((line, *dataset.notes))


def under(dataset: Dataset, fingerprints: Collection[str]) -> Dataset:
    """Return the data set under its former fingerprint if only that one is among ``fingerprints``.

    Measurements by version 0.1 are continued under that version's fingerprint, because the random numbers of
    a training depend on it.
    """
    if dataset.former in fingerprints and dataset.fingerprint not in fingerprints:
        return replace(dataset, fingerprint=dataset.former)
    return dataset


@checked
def digest(*parts: bytes | str | NDArray[np.generic]) -> str:
    """Return a digest of the contents and their order, as sixteen hexadecimal digits."""
    total = Digest()
    for part in parts:
        total.add(part)
    return str(total)


class Digest:
    """Compute :func:`digest` incrementally, without keeping the contents."""

    def __init__(self) -> None:
        self._total = hashlib.sha256()

    @checked
    def add(self, part: bytes | str | NDArray[np.generic]) -> None:
        """Add one more part."""
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        data = np.ascontiguousarray(data).tobytes() if isinstance(data, np.ndarray) else data
        self._total.update(len(data).to_bytes(8, "little"))
        self._total.update(data)

    def copy(self) -> "Digest":
        """Return an independent digest of the same contents."""
        other = Digest()
        other._total = self._total.copy()
        return other

    def __str__(self) -> str:
        return self._total.hexdigest()[:16]


@checked
def blank_images(classes: int, side: int, count: int) -> Dataset:
    """Return a data set of black images, for computations that need only counts and shapes."""
    if min(classes, side, count) < 1:
        raise DataError(f"count={count}, side={side} and classes={classes} must all be at least 1")
    names = tuple(map(str, range(classes)))
    pixels, labels = np.zeros((count, side, side, 3), np.uint8), np.zeros(count, np.int64)
    return Dataset("blank", "blank", "", names, pixels, labels, pixels[:1], labels[:1])


@checked
def stratified(labels: Labels, counts: Sequence[int] | NDArray[np.int64], seed: int = 0) -> NDArray[np.bool_]:
    """Draw a mask over ``labels`` [count] that selects ``counts[c]`` examples of each class c."""
    check_seed(seed)
    if np.ndim(labels) != 1 or np.ndim(counts) != 1 or min(counts, default=0) < 0:
        raise ArgumentError("labels must be [count], and counts [classes] must be at least 0")
    generator = np.random.default_rng(seed)
    chosen = np.zeros(len(labels), dtype=bool)
    for label, count in enumerate(counts):
        chosen[generator.permutation(np.flatnonzero(labels == label))[:count]] = True
    return chosen


@checked
def split(labels: Labels, classes: Sequence[str], share: float = 0.2, seed: int = 0) -> NDArray[np.bool_]:
    """Draw the test part of a set that has none, as a mask over ``labels`` [count].

    It has ``share`` of each class, but at least one image. Raises DataError for a class of fewer than two.
    """
    if np.ndim(labels) != 1 or not (labels >= 0).all() or not (labels < len(classes)).all():
        raise DataError(f"labels must be [count], whole numbers from 0 to {len(classes) - 1}")
    if not 0 < share < 1:
        raise DataError(f"a share of {share} cannot be split off; give one between 0 and 1")
    sizes = np.bincount(labels, minlength=len(classes))
    for name, size in zip(classes, sizes.tolist(), strict=True):
        if size < 2:
            raise DataError(
                f"class {name!r} has {size} image{'' if size == 1 else 's'}; it needs one to train on and "
                "one to test on: add images, or remove the class"
            )
    return stratified(labels, np.maximum(1, np.round(sizes * share).astype(np.int64)), seed)


@checked
def cut(dataset: Dataset, *, train: int | None, test: int | None) -> Dataset:
    """Keep at most ``train`` training and ``test`` test examples, drawn with fixed seeds.

    Each class keeps its share. Surplus training examples join the test part before it is cut, because a
    larger test part makes errors less noisy.
    """
    limits = f"train={train}", f"test={test}"
    for part, limit in (("training", train), ("test", test)):
        if limit is not None and limit < 1:
            raise DataError(f"{limit} {part} examples cannot be kept; keep 1 or more")
    targets = dataset.train_targets
    keep = np.ones(len(targets), dtype=bool)
    if train is not None and train < len(targets):
        keep = _drawn(targets, train, dataset, seed=0)
    test_inputs = np.concatenate([dataset.test_inputs, dataset.train_inputs[~keep]])
    test_targets = np.concatenate([dataset.test_targets, targets[~keep]])
    if test is not None and test < len(test_targets):
        tested = _drawn(test_targets, test, dataset, seed=1)
        test_inputs, test_targets = test_inputs[tested], test_targets[tested]
    return replace(
        dataset,
        fingerprint=digest(dataset.fingerprint, *limits),
        former=digest(dataset.former, *limits) if dataset.former else "",
        train_inputs=dataset.train_inputs[keep],
        train_targets=targets[keep],
        test_inputs=test_inputs,
        test_targets=test_targets,
    )


def _drawn(targets: Array, count: int, dataset: Dataset, seed: int) -> NDArray[np.bool_]:
    """Draw a mask over ``targets`` that selects ``count`` examples, each class in proportion."""
    if targets.ndim == 1 and dataset.classes:
        return stratified(targets, _shares(targets, count, len(dataset.classes)), seed)
    chosen = np.zeros(len(targets), dtype=bool)
    chosen[np.random.default_rng(seed).permutation(len(targets))[:count]] = True
    return chosen


def _shares(labels: Labels, total: int, classes: int) -> NDArray[np.int64]:
    """Divide ``total`` among the classes in proportion, by largest remainders, at least 1 each."""
    if total < classes:
        raise DataError(f"cannot keep {total} images of {classes} classes; keep at least one of each")
    exact = np.bincount(labels, minlength=classes) * total / len(labels)
    counts = np.maximum(np.floor(exact).astype(np.int64), 1)
    for label in np.argsort(counts - exact, kind="stable")[: max(0, total - int(counts.sum()))]:
        counts[label] += 1
    return counts
