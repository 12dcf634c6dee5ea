"""What a training in a folder left, used: its network with its weights, and what pictures it takes."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from peppp.errors import NetworkError, StoreError
from peppp.records import Recipe
from peppp.tasks import networks
from peppp.tasks.dataset import Images
from peppp.training.batches import Normal
from peppp.training.kept_training import WEIGHTS

_BATCH = 250


@dataclass(frozen=True, slots=True)
class Trained:
    """A network that was trained on pictures: its classes, their side in pixels, how colours are normalised.

    ``precision`` is what it was trained at, ``test_error`` how it did on its own test part.
    """

    network: nn.Module
    name: str
    classes: tuple[str, ...]
    side: int
    normal: Normal
    precision: str
    test_error: float


def read_trained(place: Path, *, network: str | None = None) -> Trained:
    """What ``peppp train`` left in a folder, or in a file of weights.

    A network of the user's own is imported only if ``network`` names it as the file does: nothing that is
    named in a file alone is ever imported. Raises StoreError for what is no such file, NetworkError for
    another network.
    """
    path = place / WEIGHTS if place.is_dir() else place
    about, weights = _read(path)
    recipe = Recipe.from_json(about["recipe"])
    if network is not None and network != recipe.network:
        raise NetworkError(f"{path} holds weights of {recipe.network}, not of {network}")
    if ":" in recipe.network and network is None:
        raise NetworkError(
            f"{path} holds weights of {recipe.network}, a network of your own; if you trust it, give "
            f"--network {recipe.network}"
        )
    inputs = about["inputs"]
    if inputs["kind"] != "images":
        raise NetworkError(f"{path} was trained on {inputs['kind']}; predictions are of images")
    classes = tuple(about["classes"])
    made = networks.build(recipe.network, classes=len(classes), channels=inputs["channels"])
    try:
        made.load_state_dict(weights)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise NetworkError(f"{path} does not fit {recipe.network}: {reason}") from None
    return Trained(
        made.eval(),
        recipe.network,
        classes,
        recipe.resolution,
        Normal(torch.tensor(inputs["shift"]), torch.tensor(inputs["scale"])),
        about["configuration"],
        about["test_error"],
    )


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads(file.metadata()["peppp"])
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
    except FileNotFoundError:
        raise StoreError(f"no weights at {path}; give the folder of a finished `peppp train --out`") from None
    except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise StoreError(f"{path} is no file of `peppp train` ({reason}); give its folder") from None
    lacking = {"recipe", "classes", "inputs", "configuration", "test_error"} - about.keys()
    if lacking:
        raise StoreError(
            f"{path} lacks {', '.join(sorted(lacking))}: an older peppp wrote it; train it again"
        )
    return about, weights


@torch.no_grad()
def probabilities(trained: Trained, images: Images) -> Tensor:
    """The probability of each class [n, classes] for images [n, side, side, 3], computed in float32."""
    found = []
    for start in range(0, len(images), _BATCH):
        batch = torch.from_numpy(images[start : start + _BATCH]).permute(0, 3, 1, 2)
        found.append(trained.network(trained.normal(batch)).softmax(1))
    return torch.cat(found)
