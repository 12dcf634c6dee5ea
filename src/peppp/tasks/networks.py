"""Networks by name: ResNets in their small-image form (3x3 stem, no first pooling), or the user's own."""

import importlib
import re
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from peppp.errors import NetworkError

_DEPTHS = {"resnet8": (1, 1, 1), "resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3)}
_WIDTHS = {"resnet8": 16, "resnet18": 64, "resnet34": 64}
_NAME = re.compile(r"(resnet\d+)(?:-w(\d+))?", re.ASCII)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch norm, and what came in added to what comes out."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        """[batch, inputs, side, side] to [batch, outputs, side / stride, side / stride]."""
        y = functional.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        return functional.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class ResNet(nn.Module):
    """Stages of basic blocks, each stage after the first at half the side and twice the channels."""

    def __init__(self, depths: Sequence[int], width: int, classes: int, channels: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        blocks: list[nn.Module] = []
        inputs = width
        for stage, depth in enumerate(depths):
            outputs = width << stage
            for number in range(depth):
                blocks.append(BasicBlock(inputs, outputs, 2 if stage and not number else 1))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(inputs, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Images [batch, channels, side, side] to logits [batch, classes]."""
        x = functional.relu(self.norm(self.conv(x)))
        return self.head(self.blocks(x).mean((2, 3)))  # type: ignore[no-any-return]


def build(name: str, *, classes: int, channels: int = 3, device: str = "cpu") -> nn.Module:
    """A fresh network: ``resnet8``, ``resnet18``, ``resnet34``, ``-wN`` for another width, or
    ``package.module:factory``, called as ``factory(classes=..., channels=...)``.

    Weights are drawn from torch's generator; ``device="meta"`` allocates none. Raises NetworkError.

    >>> sum(p.numel() for p in build("resnet18", classes=10, device="meta").parameters())
    11173962
    """
    with torch.device(device):
        if ":" in name:
            network = _own_factory(name)(classes=classes, channels=channels)
            if not isinstance(network, nn.Module):
                raise NetworkError(f"{name} gave a {type(network).__name__}; a factory returns an nn.Module")
            return network
        match = _NAME.fullmatch(name)
        if match is None or match[1] not in _DEPTHS or match[2] == "0":
            raise NetworkError(
                f"unknown network {name!r}; known: {', '.join(_DEPTHS)}, with -w16 for another width, "
                "or your own as package.module:factory"
            )
        return ResNet(_DEPTHS[match[1]], int(match[2] or _WIDTHS[match[1]]), classes, channels)


def _own_factory(name: str) -> Callable[..., object]:
    module_name, _, attribute = name.partition(":")
    try:
        factory = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise NetworkError(f"cannot load the network {name}: {error}") from None
    if not callable(factory):
        raise NetworkError(f"{name} is not callable; name a function that returns an nn.Module")
    return factory  # type: ignore[no-any-return]
