"""An image classification data set in memory: uint8 images, labels, a name and a fingerprint."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from peppp.errors import DataError

Images = NDArray[np.uint8]  # [count, side, side, 3]
Labels = NDArray[np.int64]  # [count]


@dataclass(frozen=True, slots=True)
class Dataset:
    """Images [count, side, side, 3] uint8 and labels [count] int64 of a training and a test part.

    ``fingerprint`` is a digest of the source's contents and of how it was cut; ``group`` names the source
    that siblings share (partitions of one set).
    """

    name: str
    group: str
    fingerprint: str
    classes: tuple[str, ...]
    train_images: Images
    train_labels: Labels
    test_images: Images
    test_labels: Labels

    @property
    def resolution(self) -> int:
        """The side of the images in pixels."""
        return int(self.train_images.shape[1])

    @property
    def chance_error(self) -> float:
        """The error of guessing: 1 - 1/classes."""
        return 1 - 1 / len(self.classes)


def digest(*parts: bytes | str | NDArray[np.generic]) -> str:
    """Sixteen hexadecimal digits of some contents and their order."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        data = np.ascontiguousarray(data).tobytes() if isinstance(data, np.ndarray) else data
        total.update(len(data).to_bytes(8, "little"))
        total.update(data)
    return total.hexdigest()[:16]


def stratified(labels: Labels, counts: Sequence[int] | NDArray[np.int64], seed: int = 0) -> NDArray[np.bool_]:
    """A seeded mask over ``labels`` that takes ``counts[c]`` of each class c."""
    generator = np.random.default_rng(seed)
    chosen = np.zeros(len(labels), dtype=bool)
    for label, count in enumerate(counts):
        chosen[generator.permutation(np.flatnonzero(labels == label))[:count]] = True
    return chosen


def split(labels: Labels, classes: Sequence[str], share: float = 0.2, seed: int = 0) -> NDArray[np.bool_]:
    """The test part of a set without one: ``share`` of each class, at least one image; mask over labels."""
    sizes = np.bincount(labels, minlength=len(classes))
    for name, size in zip(classes, sizes.tolist(), strict=True):
        if size < 2:
            raise DataError(
                f"class {name!r} has {size} image{'' if size == 1 else 's'}; one trains and "
                "one tests: add images, or remove the class"
            )
    return stratified(labels, np.maximum(1, np.round(sizes * share).astype(np.int64)), seed)


def cut(dataset: Dataset, *, train: int | None, test: int | None) -> Dataset:
    """At most ``train`` training images, stratified and seeded; the rest joins the test part, of ``test``.

    The more images are tested, the less noise in an error.
    """
    labels = dataset.train_labels
    keep = np.ones(len(labels), dtype=bool)
    if train is not None and train < len(labels):
        keep = stratified(labels, _shares(labels, train, len(dataset.classes)))
    test_images = np.concatenate([dataset.test_images, dataset.train_images[~keep]])
    test_labels = np.concatenate([dataset.test_labels, labels[~keep]])
    if test is not None and test < len(test_labels):
        tested = stratified(test_labels, _shares(test_labels, test, len(dataset.classes)), seed=1)
        test_images, test_labels = test_images[tested], test_labels[tested]
    return replace(
        dataset,
        fingerprint=digest(dataset.fingerprint, f"train={train}", f"test={test}"),
        train_images=dataset.train_images[keep],
        train_labels=labels[keep],
        test_images=test_images,
        test_labels=test_labels,
    )


def _shares(labels: Labels, total: int, classes: int) -> NDArray[np.int64]:
    """How many of each class make ``total``, in proportion; largest remainders round up."""
    if total < classes:
        raise DataError(f"cannot keep {total} images of {classes} classes; keep at least one of each")
    exact = np.bincount(labels, minlength=classes) * total / len(labels)
    counts = np.maximum(np.floor(exact).astype(np.int64), 1)
    for label in np.argsort(counts - exact, kind="stable")[: max(0, total - int(counts.sum()))]:
        counts[label] += 1
    return counts
