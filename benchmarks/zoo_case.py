"""What a network of benchmarks/zoo.py is, and how its package is imported."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import Tensor, nn

# package: what is imported of it
PACKAGES = {
    "torchvision": "torchvision",
    "timm": "timm",
    "transformers": "transformers",
    "diffusers": "diffusers",
    "torch-geometric": "torch_geometric",
    "pytorchcv": "pytorchcv",
    "vit-pytorch": "vit_pytorch",
    "x-transformers": "x_transformers",
}


@dataclass(frozen=True)
class Case:
    """One network: how to build it, its inputs, and the package's switch for recomputation.

    ``inputs`` are arguments by position (a list) or by name (a dict). ``recompute`` switches recomputation on
    in a network, and ``recomputing`` builds one that has it on; a case has at most one of the two.
    """

    package: str
    build: Callable[[], nn.Module]
    inputs: Callable[[], list[Any] | dict[str, Any]]
    recompute: Callable[[Any], Any] | None = None
    recomputing: Callable[[], nn.Module] | None = None


def installed(package: str) -> str | None:
    """The version of a package, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def load(package: str) -> Any:
    """Import a package. Most of them import torchvision, if it is there; its compiled operators may not load
    beside this torch, and it does without.
    """
    if installed("torchvision") is not None:
        _define_missing_operators()
    return importlib.import_module(PACKAGES.get(package, package))


def _define_missing_operators() -> None:
    """Give torchvision's Python the names of the operators that it asks for, without the operators."""
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        for name in ("nms", "qnms"):
            _OPERATORS.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        importlib.import_module("torchvision")


_OPERATORS = torch.library.Library("torchvision", "FRAGMENT")


def images(side: int, channels: int = 3, batch: int = 2) -> list[Tensor]:
    """A batch of images."""
    return [torch.randn(batch, channels, side, side)]
