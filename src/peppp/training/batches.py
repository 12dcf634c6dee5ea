"""Batches of a part of a data set: kept as stored, on the device; made into what networks take one by one."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from peppp.errors import FormatError
from peppp.tasks.dataset import Array, Dataset

AUGMENTATIONS = ("none", "flip-crop")


@dataclass(frozen=True, slots=True)
class Normal:
    """How inputs are normalised: ``shift`` and ``scale`` of each channel of images [n, channels, side, side],
    or of each feature.
    """

    shift: Tensor
    scale: Tensor

    def __call__(self, inputs: Tensor) -> Tensor:
        """Inputs as they are stored, as a network takes them: (x - shift) * scale."""
        shape = (1, -1, 1, 1) if inputs.dim() == 4 else (-1,)
        return (inputs.float() - self.shift.view(shape)) * self.scale.view(shape)


class Batches:
    """Inputs and targets of a part; ``batches[indices]`` are the inputs of a batch.

    Images, uint8 [count, side, side, channels], give float32 [batch, channels, side, side] in channels_last,
    each channel normalised by the training part; numbers [count, ..., features] float32 of the same shape,
    each feature normalised; text int64 as it is. Targets of regression are normalised too.
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
        """A batch of stored inputs as a network takes it."""
        return self.normal(batch) if self.normalise else batch

    def augmented(self, indices: Tensor, generator: torch.Generator) -> Tensor:
        """A batch of images, each shifted by up to an eighth of its side, and mirrored or not."""
        return self.normalised(flip_crop(self.inputs[indices], generator))


def _statistics(reference: Array, least: float) -> tuple[Tensor, Tensor]:
    """1 / deviation and mean over all but the last axis; 1 where the deviation is 0."""
    values = torch.from_numpy(reference).to(torch.float64)
    deviation, mean = torch.std_mean(values, dim=tuple(range(values.ndim - 1)), correction=0)
    deviation = torch.where(deviation == 0, 1.0, deviation) if not least else deviation.clamp(min=least)
    return (1 / deviation).float(), mean.float()


def flip_crop(images: Tensor, generator: torch.Generator) -> Tensor:
    """The usual augmentation of small images [batch, channels, side, side] (uint8, black beyond the edge).

    Each is shifted by up to an eighth of its side in both directions and mirrored with probability 1/2;
    4 pixels at 32, as in He et al. 2016. Draws come from ``generator``, a CPU one.
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
    """FormatError for one that is not known, or for data that are no images."""
    if name not in AUGMENTATIONS:
        raise FormatError(f"unknown augmentation {name!r}; known: {', '.join(AUGMENTATIONS)}")
    if name != "none" and dataset.kind != "images":
        raise FormatError(f"{name} augments images; {dataset.name} holds {dataset.kind}: write none")


def shuffled(count: int, batch: int, generator: torch.Generator, device: str) -> Iterator[Tensor]:
    """Indices of an epoch's batches; the last partial one is dropped."""
    order = torch.randperm(count, generator=generator).to(device)
    for start in range(0, count - batch + 1, batch):
        yield order[start : start + batch]
