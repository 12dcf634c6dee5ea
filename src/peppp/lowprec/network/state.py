"""The state of a converted module: its precision, its clock, and where its passes stand."""

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from torch import Tensor, UntypedStorage, nn

from peppp.lowprec.network.convolutions import is_channels_last, is_narrow, repair
from peppp.lowprec.network.memory import NOTE, Pending, settle
from peppp.lowprec.rounding.functions import Point
from peppp.lowprec.rounding.quantize import round_by
from peppp.lowprec.rounding.roundings import Roundings
from peppp.lowprec.rounding.streams import Clock, Key, mix

_OTHERS = 1 << 62  # numbers of operations that no list knows begin there


@dataclass(frozen=True, slots=True)
class RoundingPoint:
    """One place where values are rounded in a forward pass (and errors in the backward pass)."""

    module: str
    operation: str

    def __str__(self) -> str:
        return f"{self.module}: {self.operation}"


@dataclass(slots=True, eq=False)
class Scope:
    """A running container: its key, and how many operations and inner calls it has seen.

    ``sequences`` are the nn.Sequential within it whose children are run by hand: their scopes, and the last
    child that ran. A pass that has rounded nothing yet has no key (None).
    """

    key: Key | None
    operations: int = 0
    others: int = 0  # operations that no list knows, counted apart so that they move no other's random bits
    calls: int = 0
    owner: object = None
    sequences: dict[str, tuple["Scope", int]] = field(default_factory=dict)

    def copy(self) -> "Scope":
        """The same place, to go on from twice."""
        inner = {name: (scope.copy(), last) for name, (scope, last) in self.sequences.items()}
        return replace(self, sequences=inner)


@dataclass(slots=True, eq=False)
class Pass:
    """A pass that runs: its containers, outermost first, and what memory waits to be rounded.

    ``inputs`` are tensors that the caller gave to another method than forward: each is replaced by a rounded
    copy (None until then) where an operation uses it. ``begin`` gives the key of a pass that has none yet.
    """

    scopes: list[Scope]
    begin: Callable[[], Key] | None = None
    inputs: dict[int, tuple[Tensor, Tensor | None]] = field(default_factory=dict)
    waiting: dict[int, UntypedStorage] = field(default_factory=dict)
    by_hand: int = 0  # checkpointed functions that run and are no modules, but may run a container's children

    def scope(self) -> Scope:
        """The innermost container, with its key."""
        if self.begin is not None:
            self.scopes[0].key, self.begin = self.begin(), None
        return self.scopes[-1]


@dataclass
class LowPrecision:
    """The state of one converted module: its precision, its clock and where its passes stand."""

    roundings: Roundings
    clock: Clock
    passes: list[Pass] = field(default_factory=list)  # that run, the innermost last
    # Where calls began that may be run again by hand in the backward pass, and whether within another pass.
    issued: dict[str, list[tuple[Scope, bool]]] = field(default_factory=dict)
    issued_step: int = -1
    recorded: list[tuple[RoundingPoint, Point]] | None = None
    leaves: list[str] = field(default_factory=list)
    unrounded: list[str] = field(default_factory=list)
    root: nn.Module | None = None  # the module, while it runs
    repaired: bool = False  # nothing about convolutions is left to do or to say
    quiet: bool = False  # for networks whose reports are known: they are kept, but nobody is warned
    training: bool = False  # whether the last pass that began is one of training
    replica: object = None  # the DistributedDataParallel that this state is equal in
    optimizer: str = ""  # the kind of optimizer that the precision is known for, if any
    packed: "Packed | None" = None  # set where values are stored in few bits (see packed_optimizer.py)

    def next_point(self, operation: str, *, listed: bool = True) -> Point:
        """The rounding point of the operation that runs now."""
        running = self.passes[-1]
        scope = running.scopes[-1] if running.begin is None else running.scope()
        assert scope.key is not None
        if listed:
            number, scope.operations = scope.operations, scope.operations + 1
        else:
            number, scope.others = _OTHERS + scope.others, scope.others + 1
        point = Point(self.roundings, mix(scope.key, number))
        if self.recorded is not None:
            module = "input" if operation == "input" else (self.leaves[-1] if self.leaves else "")
            self.recorded.append((RoundingPoint(module or "(module)", operation.strip("_")), point))
        return point

    def begun(self, path: str, scope: Scope) -> None:
        """Note a pass of training, whose module may be run again by hand in the backward pass."""
        if self.clock.step != self.issued_step:
            self.issued.clear()
            self.issued_step = self.clock.step
        if self.training:
            self.issued.setdefault(path, []).append((scope.copy(), False))

    def wait(self, tensor: Tensor, memory: UntypedStorage, point: Point) -> None:
        """Let a result wait to be rounded until its memory is used."""
        notes = memory.__dict__
        before = notes.get(NOTE)
        waiting = self.passes[-1].waiting
        notes[NOTE] = (*(before if type(before) is tuple else ()), Pending(tensor, point, waiting))
        waiting[id(memory)] = memory

    def leave(self, running: Pass) -> None:
        """End a pass: what still waits was used by no operation, and leaves it as it was computed.

        A precision by name rounds its results, too, as a network in bfloat16 gives its logits in that.
        """
        for memory in list(running.waiting.values()):
            if memory.__dict__.get(NOTE):
                if self.roundings.is_named:
                    settle(memory)
                memory.__dict__[NOTE] = None
        running.waiting.clear()
        self.passes.remove(running)
        if not self.passes:
            self.root = None

    def report(self, operation: str, text: str) -> None:
        """Say something of an operation, once."""
        if operation in self.unrounded:
            return
        self.unrounded.append(operation)
        if not self.quiet:
            warnings.warn(f"not rounded to low precision: {text}", stacklevel=5)

    def look_at_convolution(
        self,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        *_: Any,
        **__: Any,
    ) -> None:
        """Repair torch where it would get a convolution wrong (see :mod:`.convolutions`), and say so once."""
        if self.repaired or not is_narrow(weight, stride, padding):
            return
        if not (is_channels_last(input) or is_channels_last(weight)):
            return
        self.repaired = True
        repair()
        named = self.root.named_parameters() if self.root is not None else ()
        name = next((name for name, parameter in named if parameter is weight), "a convolution.weight")
        warnings.warn(
            f"{name.removesuffix('.weight')}: torch's CPU library crashes in the backward pass of a strided "
            f"1x1 convolution of {weight.shape[1]} channels in channels_last, or gets its gradients wrong "
            "(peppp doctor). From now on, this process computes it at stride 1, which is right. Where you "
            "train the network without peppp, leave out channels_last",
            stacklevel=4,
        )


def round_gradient(gradient: Tensor, roundings: Roundings, key: Key) -> Tensor:
    """A gradient rounded to Format B in place."""
    return round_by(gradient, roundings.gradient, roundings.modes.gradient, key, gradient)


class Packed(Protocol):
    """Who stores parameters packed: it runs the operations that use them."""

    def run(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The result of an operation on what the arguments stand for."""

    def release(self) -> None:
        """Give all parameters their numbers for good, and stop."""

    def holds(self, parameter: Tensor) -> bool:
        """Whether a parameter is packed."""

    def pack(self, parameter: Tensor) -> bool:
        """Pack a parameter that nobody trains; False where it cannot be."""

    def keeping(self, *, fresh: bool) -> AbstractContextManager[None]:
        """Pack what is kept for the backward pass meanwhile; ``fresh`` begins a pass of the network."""
