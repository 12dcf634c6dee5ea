"""Start a training from the weights in a file, and freeze parts of the network."""

import hashlib
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn

from peppp.errors import NetworkError

_MARK = "#"  # separates a file's path and the digest of its contents
_SHOWN = 4  # names in a message


def named_with_digest(path: Path) -> str:
    """The text by which a recipe identifies a file of weights: its path and a digest of its contents.

    Raises NetworkError if there is no such file or it is not a safetensors file.
    """
    if not path.is_file():
        raise NetworkError(f"no file of weights {path}; name one in the safetensors format")
    try:
        with safe_open(path, framework="pt") as file:
            file.keys()
    except (SafetensorError, OSError) as error:
        raise NetworkError(f"{path} is not a safetensors file: {str(error).splitlines()[0]}") from None
    return f"{path}{_MARK}{_digest(path)}"


def _digest(path: Path) -> str:
    # Not remembered by the file's time: two writes within a tick of the clock have the same.
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


def load_into(network: nn.Module, named: str) -> list[str]:
    """Load the weights of a file, and say in words which parts of network and file have no counterpart.

    Weights are loaded if their name and shape agree. Raises NetworkError if none agrees, if the file is not a
    safetensors file, or if its contents have changed since the recipe was made.
    """
    place, mark, digest = named.rpartition(_MARK)
    path = Path(place if mark else named)
    if not path.is_file():
        raise NetworkError(f"no file of weights {path}; name one in the safetensors format")
    if mark and _digest(path) != digest:
        raise NetworkError(f"{path} holds other weights than when this began; name the file anew")
    try:
        found = load_file(path)
    except (SafetensorError, OSError) as error:
        raise NetworkError(f"{path} is not a safetensors file: {str(error).splitlines()[0]}") from None
    own = network.state_dict()
    fitting = {name: x for name, x in found.items() if name in own and own[name].shape == x.shape}
    weights = {name for name, _ in network.named_parameters()}
    if not weights & fitting.keys():
        raise NetworkError(
            f"{path} holds weights of another network: none of its names and shapes fits "
            f"({_few(found)} there, {_few(own)} here)"
        )
    network.load_state_dict(own | fitting)
    said = []
    if others := [n for n in own if n in found and n not in fitting]:
        said.append(f"{_few(others)}: another shape in the file, so from scratch")
    if missing := [n for n in own if n not in found]:
        said.append(f"{_few(missing)}: not in the file, so from scratch")
    if unused := [n for n in found if n not in own]:
        said.append(f"{_few(unused)}: in the file only")
    return said


def freeze(network: nn.Module, patterns: Sequence[str]) -> None:
    """Freeze the parameters whose names match a pattern such as ``stem*`` or ``layers.[012].*``.

    A pattern that matches a module's name freezes all parameters in the module. Raises NetworkError if a
    pattern matches nothing, or if nothing is left to train.
    """
    names = [name for name, _ in network.named_parameters()]
    frozen: set[str] = set()
    for pattern in patterns:
        matched = {n for n in names if fnmatchcase(n, pattern) or fnmatchcase(n, f"{pattern}.*")}
        if not matched:
            raise NetworkError(f"no parameter is called {pattern!r}; there are {_few(names)}")
        frozen |= matched
    if frozen and len(frozen) == len(names):
        raise NetworkError(
            f"{', '.join(patterns)} freezes the whole network; leave something to train, as {names[-1]}"
        )
    for name, parameter in network.named_parameters():
        if name in frozen:
            parameter.requires_grad_(False)


def _few(names: Iterable[str]) -> str:
    shown = list(names)
    more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    return ", ".join(shown[:_SHOWN]) + more
