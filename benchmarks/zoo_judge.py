"""How one network of benchmarks/zoo.py is judged."""

import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import checkpoint as checkpointing
from zoo_case import Case

import peppp
from peppp.errors import PepppError

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from oracle import judge

CONFIGURATION = "1-4-1/1-6-7"
STEPS = 2
_PREFIX = "not rounded to low precision: "
State = dict[str, Tensor]


def built(case: Case, *, recomputing: bool = False) -> nn.Module:
    """The network in training mode, with the same random weights each time."""
    torch.manual_seed(0)
    if recomputing and case.recomputing is not None:
        return case.recomputing().train()
    net = case.build().train()
    if recomputing:
        assert case.recompute is not None
        case.recompute(net)
    return net


def inputs(case: Case, seed: int) -> list[Any] | dict[str, Any]:
    """One batch."""
    torch.manual_seed(1000 + seed)
    return case.inputs()


def outputs(net: nn.Module, given: list[Any] | dict[str, Any]) -> list[Tensor]:
    """The floating-point tensors of what a network returns, in whatever container."""
    return trained_on(net(**given) if isinstance(given, dict) else net(*given))


def trained_on(found: Any) -> list[Tensor]:
    """The floating-point tensors with gradients in nested containers."""
    return [x for x in tensors(found) if x.is_floating_point() and x.requires_grad]


def tensors(values: Any) -> Iterator[Tensor]:
    """The tensors in nested containers and in the attributes of results that are objects."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, dict):
        for value in values.values():
            yield from tensors(value)
    elif isinstance(values, (list, tuple)):
        for value in values:
            yield from tensors(value)
    elif hasattr(values, "__dict__") and not isinstance(values, nn.Module):
        yield from tensors(vars(values))


def loss_of(net: nn.Module, case: Case, step: int) -> Tensor:
    """The mean squares of what the network returns, added up."""
    return mean_squares(outputs(net, inputs(case, step)))


def mean_squares(found: Any) -> Tensor:
    """The mean squares of the floating-point tensors in nested containers, added up."""
    return torch.stack([x.square().mean() for x in trained_on(found)]).sum()


def trained(case: Case, storage: str, rounding: str, *, recomputing: bool = False) -> State:
    """Weights and buffers after two steps."""
    net = built(case, recomputing=recomputing)
    net = peppp.low_precision(net, CONFIGURATION, rounding=rounding, seed=3)
    base = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.05, momentum=0.9)
    optimizer = peppp.low_precision_optimizer(base, net, storage=storage)
    for step in range(STEPS):
        torch.manual_seed(step)
        optimizer.zero_grad()
        loss_of(net, case, step).backward()
        optimizer.step()
    return {name: value.clone() for name, value in net.state_dict().items() if isinstance(value, Tensor)}


def differing(one: State, other: State) -> list[str]:
    """The names of tensors that are not equal bit for bit.

    A tensor with NaN equals another with NaN: a packed one is NaN as a whole then (docs/memory.md).
    """
    if one.keys() != other.keys():
        return [f"the keys of the state: {sorted(one.keys() ^ other.keys())}"]
    return [name for name, x in one.items() if not _equal(x, other[name])]


def _equal(x: Tensor, y: Tensor) -> bool:
    if x.dtype != y.dtype or x.shape != y.shape:
        return False
    if not x.is_floating_point():
        return torch.equal(x, y)
    if bool(x.isnan().any()) and bool(y.isnan().any()):
        return True
    return bool(((x == y) & (x.signbit() == y.signbit())).all())


@contextmanager
def counted_checkpoints() -> Iterator[list[int]]:
    """How often torch's checkpointing is entered meanwhile."""
    names: Any = checkpointing
    found = [0]
    generator, function = names._checkpoint_without_reentrant_generator, names.CheckpointFunction

    def counted(*arguments: Any, **more: Any) -> Any:
        found[0] += 1
        return generator(*arguments, **more)

    class Counted(function):  # type: ignore[misc, valid-type]
        @classmethod
        def apply(cls, *arguments: Any) -> Any:
            found[0] += 1
            return function.apply(*arguments)

    names._checkpoint_without_reentrant_generator, names.CheckpointFunction = counted, Counted
    try:
        yield found
    finally:
        names._checkpoint_without_reentrant_generator, names.CheckpointFunction = generator, function


@dataclass(frozen=True)
class Failure:
    """What ended an attempt: one line of peppp's own, or anything else."""

    ours: bool
    line: str


def attempt(action: Callable[[], Any]) -> Any:
    """The result, or the :class:`Failure`; what is warned of meanwhile is ignored."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return action()
        except PepppError as error:
            return Failure(True, _one_line(str(error)))
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{Path(frame.filename).name}, {frame.name}"
            return Failure(False, _one_line(f"{type(error).__name__} in {place}: {error}"))


def _one_line(text: str) -> str:
    return " ".join(text.split())[:400]


def plain(case: Case, *, recomputing: bool = False) -> tuple[int, float] | Failure:
    """How often torch's checkpointing was entered in a plain float32 step, and the loss."""

    def run() -> tuple[int, float]:
        net = built(case, recomputing=recomputing)
        with counted_checkpoints() as found:
            torch.manual_seed(0)
            loss = loss_of(net, case, 0)
            loss.backward()
        return found[0], loss.item()

    result: tuple[int, float] | Failure = attempt(run)
    return result


def seen_by_the_oracle(case: Case, rounding: str) -> tuple[list[str], list[str]]:
    """What the oracle found wrong, and what peppp reported by name; numbers that it names are allowed."""
    _, said, _ = judge(built(case), inputs(case, 0), rounding=rounding)
    brought = [float(number) for text in said for number in re.findall(r"the number (\S+), which", text)]
    bad, said, _ = judge(built(case), inputs(case, 0), rounding=rounding, allowed=brought)
    wrong = [
        f"{operation} got {n} numbers outside Format A at {place}" for (operation, place), n in bad.items()
    ]
    return wrong, [text.removeprefix(_PREFIX) for text in said if text.startswith(_PREFIX)]


def judged(case: Case) -> dict[str, Any]:
    """All that is kept of one network."""
    works = plain(case)
    if isinstance(works, Failure):
        return {"verdict": "not judged", "why": f"without peppp: {works.line}"}
    wrong: list[str] = []
    reported: set[str] = set()
    for rounding in ("nearest", "stochastic"):
        seen = attempt(lambda rounding=rounding: seen_by_the_oracle(case, rounding))
        if isinstance(seen, Failure):
            if seen.ours:
                return {"verdict": "refused in one line", "line": seen.line}
            wrong.append(f"{rounding}: {seen.line}")
        else:
            wrong += [f"{rounding}: {text}" for text in seen[0]]
            reported |= set(seen[1])
    simulated = attempt(lambda: trained(case, "simulated", "stochastic"))
    packed = attempt(lambda: trained(case, "packed", "stochastic"))
    for storage, state in (("simulated", simulated), ("packed", packed)):
        if isinstance(state, Failure) and state.ours:
            return {"verdict": "refused in one line", "line": f"{storage}: {state.line}"}
        if isinstance(state, Failure):
            wrong.append(f"{storage}: {state.line}")
    if isinstance(simulated, dict) and isinstance(packed, dict):
        wrong += _difference("packed from simulated", simulated, packed)
    verdict = "wrong" if wrong else "reported by name" if reported else "right"
    kept: dict[str, Any] = {"verdict": verdict, "reported": sorted(reported), "wrong": wrong}
    if isinstance(simulated, dict):
        kept["finite"] = all(bool(x.isfinite().all()) for x in simulated.values())
        kept["recomputation"] = recomputation(case, simulated, works[1])
    return kept


def _difference(what: str, one: State, other: State) -> list[str]:
    names = differing(one, other)
    return [f"{what}: {len(names)} of {len(one)} tensors differ, first {names[0]}"] if names else []


def recomputation(case: Case, without: State, loss: float) -> dict[str, Any] | None:
    """What the package's own switch changes; None where it has none."""
    if case.recompute is None and case.recomputing is None:
        return None
    entered = plain(case, recomputing=True)
    if isinstance(entered, Failure):
        return {"verdict": "not judged", "why": f"without peppp: {entered.line}"}
    if not entered[0]:
        return {"verdict": "not judged", "why": "the switch recomputes nothing here"}
    if entered[1] != loss:
        return {"verdict": "not judged", "why": "the switch changes the loss in float32 without peppp, too"}
    wrong, refused = [], []
    for storage in ("simulated", "packed"):
        state = attempt(lambda storage=storage: trained(case, storage, "stochastic", recomputing=True))
        if isinstance(state, Failure):
            (refused if state.ours else wrong).append(f"{storage}: {state.line}")
        else:
            wrong += _difference(f"{storage}, recomputed from not", without, state)
    if wrong:
        nearest = attempt(lambda: trained(case, "simulated", "nearest"))
        again = attempt(lambda: trained(case, "simulated", "nearest", recomputing=True))
        if isinstance(nearest, dict) and isinstance(again, dict):
            equal = not differing(nearest, again)
            wrong.append(f"under nearest rounding: {'equal' if equal else 'different, too'}")
        return {"verdict": "wrong", "wrong": wrong}
    if refused:
        return {"verdict": "refused in one line", "line": refused[0]}
    return {"verdict": "right"}
