"""Batches of a part of a data set; the device holds it as stored, and each batch is normalised when drawn."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from peppp.errors import FormatError
from peppp.tasks.dataset import Array, Dataset

AUGMENTATIONS = ("none", "flip-crop")


@dataclass(frozen=True, slots=True)
class Normal:
    """The normalisation of inputs: ``shift`` and ``scale`` [channels] for images, [features] otherwise."""

    shift: Tensor
    scale: Tensor

    def __call__(self, inputs: Tensor) -> Tensor:
        """Normalise inputs: (x - shift) * scale in float32, per channel of [n, channels, side, side]."""
        shape = (1, -1, 1, 1) if inputs.dim() == 4 else (-1,)
        return (inputs.float() - self.shift.view(shape)) * self.scale.view(shape)


class Batches:
    """The inputs and targets of a part (train or test); ``batches[indices]`` gives the inputs of a batch.

    - Images, uint8 [count, side, side, channels], become float32 [batch, channels, side, side] in
      channels_last.
    - Numbers [count, ..., features] become float32 of the same shape.
    - Text, int64, stays as it is.

    Images are normalised per channel and numbers per feature, by the mean and standard deviation of the
    training part. Regression targets are normalised too.
    """

    def __init__(self, dataset: Dataset, part: str, device: str) -> None:
        inputs = dataset.train_inputs if part == "train" else dataset.test_inputs
        targets = dataset.train_targets if part == "train" else dataset.test_targets
        self.is_images = dataset.kind == "images"
        self.inputs = torch.from_numpy(inputs).to(device)
        if self.is_images:
            self.inputs = self.inputs.permute(0, 3, 1, 2)
        self.normalise = dataset.kind != "text"
        if self.normalise:
            scale, shift = _statistics(dataset.train_inputs, least=1e-3 if self.is_images else 0.0)
            self.normal = Normal(shift.to(device), scale.to(device))
        self.targets = torch.from_numpy(targets).to(device)
        if targets.dtype.kind == "f":
            scale, shift = _statistics(dataset.train_targets.reshape(-1, 1), least=0.0)
            self.targets = (self.targets.float() - shift.to(device)) * scale.to(device)
        else:
            self.targets = self.targets.long()

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, indices: Tensor) -> Tensor:
        return self.normalised(self.inputs[indices])

    def normalised(self, batch: Tensor) -> Tensor:
        """Normalise a batch of stored inputs, unless they are text."""
        return self.normal(batch) if self.normalise else batch

    def augmented(self, indices: Tensor, generator: torch.Generator) -> Tensor:
        """A normalised batch of images, augmented by :func:`flip_crop`."""
        return self.normalised(flip_crop(self.inputs[indices], generator))


def _statistics(reference: Array, least: float) -> tuple[Tensor, Tensor]:
    """1 / standard deviation and mean over all but the last axis.

    Deviations below ``least`` are raised to it; if ``least`` is 0, deviations of 0 are replaced by 1.
    """
    values = torch.from_numpy(reference).to(torch.float64)
    deviation, mean = torch.std_mean(values, dim=tuple(range(values.ndim - 1)), correction=0)
    deviation = torch.where(deviation == 0, 1.0, deviation) if not least else deviation.clamp(min=least)
    return (1 / deviation).float(), mean.float()


def flip_crop(images: Tensor, generator: torch.Generator) -> Tensor:
    """Augment small images, uint8 [batch, channels, side, side], in the usual way (He et al. 2016).

    Each image is shifted by up to an eighth of its side in both directions (4 pixels at 32), with black
    beyond the edge, and mirrored with probability 1/2. ``generator`` must be a CPU generator.
    """
    count, _, height, width = images.shape
    margins = height // 8, width // 8
    draw: Callable[[int], Tensor] = lambda size: torch.randint(size, (count, 1), generator=generator)  # noqa: E731
    rows = draw(2 * margins[0] + 1) + torch.arange(height)  # [batch, height], in the padded image
    columns = draw(2 * margins[1] + 1) + torch.arange(width)
    columns = torch.where(draw(2) == 1, columns.flip(1), columns)
    padded = torch.nn.functional.pad(images, (margins[1], margins[1], margins[0], margins[0]))
    rows, columns = rows.to(images.device), columns.to(images.device)
    which = torch.arange(count, device=images.device)
    return padded.permute(0, 2, 3, 1)[which[:, None, None], rows[:, :, None], columns[:, None, :]].permute(
        0, 3, 1, 2
    )


def check_augmentation(name: str, dataset: Dataset) -> None:
    """Raise FormatError for an unknown augmentation, or one of images for other data."""
    if name not in AUGMENTATIONS:
        raise FormatError(f"unknown augmentation {name!r}; known: {', '.join(AUGMENTATIONS)}")
    if name != "none" and dataset.kind != "images":
        raise FormatError(f"{name} augments images; {dataset.name} holds {dataset.kind}: write none")


def shuffled(count: int, batch: int, generator: torch.Generator, device: str) -> Iterator[Tensor]:
    """Yield the indices [batch] of an epoch's batches in random order; a last partial batch is dropped."""
    order = torch.randperm(count, generator=generator).to(device)
    for start in range(0, count - batch + 1, batch):
        yield order[start : start + batch]
