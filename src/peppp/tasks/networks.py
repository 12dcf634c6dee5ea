"""Build networks for images, numbers and text by name, or from the user's own factory."""

import re
from collections.abc import Callable
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from peppp.arguments import checked
from peppp.errors import NetworkError
from peppp.tasks.dataset import Dataset
from peppp.tasks.own import imported
from peppp.tasks.resnet import ResNet
from peppp.tasks.small import Perceptron, Transformer
from peppp.tasks.vgg import VGG


class Network(NamedTuple):
    """A named network: the kind of data it takes, a description, and ``make(width, classes, channels)``.

    ``width`` is the default width of the first layer, which ``-wN`` in a name changes.
    """

    takes: str
    about: str
    width: int
    make: Callable[[int, int, int], nn.Module]


def _resnet(depths: tuple[int, ...], width: int, about: str) -> Network:
    def make(width: int, classes: int, channels: int) -> nn.Module:
        return ResNet(depths, width, classes, channels)

    return Network("images", about, width, make)


def _vgg(depth: int) -> Network:
    def make(width: int, classes: int, channels: int) -> nn.Module:
        return VGG(depth, width, classes, channels)

    return Network("images", f"VGG-{depth} with batch norm and one linear layer", 64, make)


NETWORKS = {
    "resnet8": _resnet((1, 1, 1), 16, "three stages of one basic block; quick"),
    "resnet18": _resnet((2, 2, 2, 2), 64, "ResNet-18 with a 3x3 stem: the paper's"),
    "resnet34": _resnet((3, 4, 6, 3), 64, "ResNet-34 with a 3x3 stem"),
    **{f"vgg{depth}": _vgg(depth) for depth in (11, 13, 16, 19)},
    "mlp": Network(
        "numbers",
        "two hidden layers of 64",
        64,
        lambda w, classes, channels: Perceptron(w, classes, channels),
    ),
    "transformer": Network(
        "text",
        "two blocks of causal attention, four heads",
        64,
        lambda w, classes, _: Transformer(w, classes),
    ),
}
_NAME = re.compile(r"([a-z]+\d*)(?:-w(\d+))?", re.ASCII)


@checked
def build(name: str, *, classes: int, channels: int = 3, device: str = "cpu") -> nn.Module:
    """Build a network with newly drawn weights.

    ``name`` is one of :data:`NETWORKS`, with ``-wN`` for another width (``resnet8-w32``), or
    ``package.module:factory``, which is called as ``factory(classes=..., channels=...)``. ``classes`` is the
    number of outputs; ``channels`` is the number of colours, features, or different characters. Weights are
    drawn from torch's generator; ``device="meta"`` allocates none. Raises NetworkError for an unknown name
    and for a factory that fails.

    >>> sum(p.numel() for p in build("resnet18", classes=10, device="meta").parameters())
    11173962
    """
    if min(classes, channels) < 1:
        raise NetworkError(f"classes={classes} and channels={channels} must both be at least 1")
    try:
        with torch.device(device):
            if ":" in name:
                return _made(name, classes, channels)
            known, width = _known(name)
            with _NotDrawn() if device == "meta" else nullcontext():
                return known.make(width, classes, channels)
    except (RuntimeError, TypeError) as problem:  # no such device, or more numbers than it can count
        reason = (str(problem).splitlines() or [""])[0]
        raise NetworkError(
            f"{name} with classes={classes}, channels={channels} cannot be made on {device}: {reason}"
        ) from problem


class _NotDrawn(TorchFunctionMode):
    """Leaves weights on the meta device undrawn: for its first draw there, torch loads 900 modules."""

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        kwargs = kwargs or {}
        if getattr(func, "__module__", "") == "torch.nn.init" or func in (Tensor.normal_, Tensor.uniform_):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def build_for(name: str, dataset: Dataset, *, device: str = "cpu") -> nn.Module:
    """Build a network for a data set; raise NetworkError if it takes another kind of inputs."""
    check(name, dataset)
    return build(name, classes=dataset.outputs, channels=dataset.channels, device=device)


def check(name: str, dataset: Dataset) -> None:
    """Raise NetworkError if a named network takes another kind of inputs than a data set has."""
    if ":" not in name and _known(name)[0].takes != dataset.kind:
        fitting = ", ".join(other for other, network in NETWORKS.items() if network.takes == dataset.kind)
        raise NetworkError(
            f"{name} takes {_known(name)[0].takes}, and {dataset.name} holds {dataset.kind}; give {fitting}, "
            "or your own as package.module:factory"
        )


def check_name(name: str) -> None:
    """Raise NetworkError for the name of no network, so that this is known before any data is read."""
    if ":" in name:
        _own_factory(name)
    else:
        _known(name)


def _made(name: str, classes: int, channels: int) -> nn.Module:
    """Call the user's factory; raise NetworkError if it fails or does not return a network."""
    try:
        network = _own_factory(name)(classes=classes, channels=channels)
    except NetworkError:
        raise
    except (Exception, SystemExit) as problem:
        reason = (str(problem).splitlines() or [""])[0]
        raise NetworkError(
            f"{name} was called with classes={classes}, channels={channels} and raised "
            f"{type(problem).__name__}: {reason}; a factory takes both by name and returns an nn.Module"
        ) from problem
    if not isinstance(network, nn.Module):
        raise NetworkError(f"{name} returned a {type(network).__name__}; a factory returns an nn.Module")
    return network


def _known(name: str) -> tuple[Network, int]:
    match = _NAME.fullmatch(name)
    known = NETWORKS.get(match[1]) if match else None
    if match is None or known is None or (match[2] is not None and not int(match[2])):
        raise NetworkError(
            f"unknown network {name!r}; known: {', '.join(NETWORKS)}, with -w16 for another width, or your "
            "own as package.module:factory"
        )
    width = int(match[2] or known.width)
    if match[1] == "transformer" and width % 8:
        raise NetworkError(f"{name}: with four heads, a transformer's width must be a multiple of 8")
    return known, width


def _own_factory(name: str) -> Callable[..., object]:
    factory = imported(name, NetworkError, "network")
    if not callable(factory):
        raise NetworkError(f"{name} is not callable; name a function that returns an nn.Module")
    return factory  # type: ignore[no-any-return]
