"""The state of a training in a file, from which the training continues bit for bit.

The files are safetensors files with one line of JSON, so reading them executes nothing.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from peppp.errors import StoreError
from peppp.files import whole
from peppp.lowprec.optimizers.simulated import LowPrecisionOptimizer
from peppp.training.loop import Run

Curve = list[tuple[int, float]]


def state_of(
    run: Run, identity: Mapping[str, Any], epoch: int, curve: Curve
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Everything needed to continue bit for bit: tensors, and plain data."""
    state = run.optimizer.state_dict()
    tensors = {f"network.{name}": value for name, value in run.network.state_dict().items()}
    for index, values in state["state"].items():
        tensors |= {f"state.{index}.{name}": v for name, v in _flat(values).items() if isinstance(v, Tensor)}
    accumulators = state.get("accumulators", [])
    tensors |= {f"accumulator.{index}": v for index, v in enumerate(accumulators) if v is not None}
    tensors |= {"order": run.order.get_state(), "chance": run.chance.get_state()}
    numbers = {
        index: {name: v for name, v in _flat(values).items() if isinstance(v, (int, float))}
        for index, values in state["state"].items()
    }
    for number, group in enumerate(state["param_groups"]):  # where torch-optimi counts its steps
        tensors |= {f"group.{number}.{name}": x for name, x in group.items() if isinstance(x, Tensor)}
    plain = [
        {n: x for n, x in group.items() if isinstance(x, (bool, int, float))}
        for group in state["param_groups"]
    ]
    own = {name: value for name, value in state.items() if isinstance(value, int)}
    data = dict(identity) | {
        "numbers": numbers,
        "own": own,
        "groups": plain,
        "epoch": epoch,
        "curve": curve,
        "clock": state.get("clock"),
        "scaler": run.ready.scaler.state_dict(),
    }
    return contiguous(tensors), data


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """An optimizer's state of a parameter, flattened: nested names (of bitsandbytes) are joined by a dot."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= (
            {f"{name}.{inner}": x for inner, x in value.items()} if isinstance(value, dict) else {name: value}
        )
    return found


def _put(values: dict[str, Any], name: str, value: Any) -> None:
    """The inverse of :func:`_flat`, for one value."""
    outer, dot, inner = name.partition(".")
    if dot:
        values.setdefault(outer, {})[inner] = value
    else:
        values[outer] = value


def contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies of the tensors on the CPU, as a file takes them."""
    return {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}


def fingerprints_in(path: Path) -> set[str]:
    """The fingerprint of the data of a checkpoint, if there is one to read."""
    with suppress(OSError, KeyError, ValueError, SafetensorError), safe_open(path, framework="pt") as file:
        return {str(json.loads(file.metadata()["peppp"])["fingerprint"])}
    return set()


def known_peak(path: Path) -> int:
    """The peak that a checkpoint records; 0 if it records none."""
    try:
        with safe_open(path, framework="pt") as file:
            return int(json.loads(file.metadata()["peppp"]).get("peak", 0))
    except (OSError, KeyError, TypeError, ValueError, SafetensorError):
        return 0


def resume(path: Path, identity: Mapping[str, Any], run: Run) -> tuple[int, Curve]:
    """Load the state in a file into ``run``; return (epochs done, curve), or (0, []) without a file."""
    if not path.exists():
        return 0, []
    try:
        with safe_open(path, framework="pt") as file:
            data = json.loads(file.metadata()["peppp"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
        different = [name for name, value in identity.items() if data.get(name) != value]
        if different:
            raise StoreError(
                f"{path} is of another training: {_difference(different[0], data, identity)}; "
                "take another folder"
            )
        own = {name.removeprefix("network."): v for name, v in tensors.items() if name.startswith("network.")}
        run.network.load_state_dict(own)
        state: dict[int, dict[str, Any]] = {}
        accumulators: dict[int, Tensor] = {}
        for name, value in tensors.items():
            kind, _, rest = name.partition(".")
            if kind == "state":
                index, _, which = rest.partition(".")
                _put(state.setdefault(int(index), {}), which, _as_network(value))
            elif kind == "accumulator":
                accumulators[int(rest)] = _as_network(value)
        for index, numbers in data.get("numbers", {}).items():
            for which, number in numbers.items():
                _put(state.setdefault(int(index), {}), which, number)
        groups = run.optimizer.state_dict()["param_groups"]
        for group, known in zip(groups, data.get("groups", ()), strict=False):
            group.update(known)
        for name, value in tensors.items():
            if name.startswith("group."):
                _, number, which = name.split(".")
                groups[int(number)][which] = value
        saved = run.optimizer.state_dict() | {"state": state, "param_groups": groups} | data.get("own", {})
        if isinstance(run.optimizer, LowPrecisionOptimizer):
            count = len(saved["accumulators"])
            saved |= {"accumulators": [accumulators.get(i) for i in range(count)], "clock": data["clock"]}
            saved |= {"fingerprints": None}  # they belong to the weights that were loaded just now
        run.optimizer.load_state_dict(saved)
        if data.get("scaler"):
            run.ready.scaler.load_state_dict(data["scaler"])
        run.order.set_state(tensors["order"])
        run.chance.set_state(tensors["chance"])
        return int(data["epoch"]), [(int(epoch), float(error)) for epoch, error in data["curve"]]
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise StoreError(
            f"{path} is not a checkpoint ({reason}); take another folder, or delete it"
        ) from None


def _difference(name: str, saved: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """In words, how a saved value differs from the wanted one; for recipes, their first differing field."""
    if name != "recipe":
        return f"its {name} is {saved.get(name)}, not {wanted[name]}"
    old, new = json.loads(saved[name]), json.loads(wanted[name])
    field = next(key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key))
    return _difference(field, {field: old.get(field)}, {field: new.get(field)})


def _as_network(value: Tensor) -> Tensor:
    """The tensor in the network's memory layout, which is channels_last."""
    return value.contiguous(memory_format=torch.channels_last) if value.dim() == 4 else value


def write(path: Path, tensors: dict[str, Tensor], data: Mapping[str, Any]) -> None:
    """Write a file whole or not at all. Raises StoreError where the disk is full or cannot be written."""
    try:
        with whole(path) as unfinished:
            unfinished.touch()
            mode = unfinished.stat().st_mode  # safetensors would let nobody else read the file
            save_file(tensors, unfinished, metadata={"peppp": json.dumps(data)})
            unfinished.chmod(mode)
    except (OSError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise StoreError(
            f"cannot write {path}: {reason}; make room, and the same line again goes on from what is kept"
        ) from None
