"""The state of a converted module: its precision, its clock, and its running passes."""

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

_OTHERS = 1 << 62  # numbers of operations that are in no list begin here


@dataclass(frozen=True, slots=True)
class RoundingPoint:
    """A place where a forward pass rounds values and the backward pass rounds their errors."""

    module: str
    operation: str

    def __str__(self) -> str:
        return f"{self.module}: {self.operation}"


@dataclass(slots=True, eq=False)
class Scope:
    """A running container: its key, and how many operations and inner calls it has seen.

    ``sequences`` holds nn.Sequential modules within it whose children are run one by one: their scopes, and
    the last child that ran. The key is None until the pass rounds something.
    """

    key: Key | None
    operations: int = 0
    others: int = 0  # operations in no list, counted separately so that they change no other's random bits
    calls: int = 0
    owner: object = None
    sequences: dict[str, tuple["Scope", int]] = field(default_factory=dict)

    def copy(self) -> "Scope":
        """Return a copy that counts on from the same place."""
        inner = {name: (scope.copy(), last) for name, (scope, last) in self.sequences.items()}
        return replace(self, sequences=inner)


@dataclass(slots=True, eq=False)
class Pass:
    """A running pass: its containers, outermost first, and the memory that waits to be rounded.

    ``inputs`` are tensors that the caller passed to a method other than forward: operations get a rounded
    copy of each, made on first use (None before). ``begin`` returns the key of a pass that has none yet.
    """

    scopes: list[Scope]
    begin: Callable[[], Key] | None = None
    inputs: dict[int, tuple[Tensor, Tensor | None]] = field(default_factory=dict)
    waiting: dict[int, UntypedStorage] = field(default_factory=dict)
    by_hand: int = 0  # running checkpointed functions that are no modules, but may run a container's children

    def scope(self) -> Scope:
        """Return the innermost container; this determines the key of the pass if it has none yet."""
        if self.begin is not None:
            self.scopes[0].key, self.begin = self.begin(), None
        return self.scopes[-1]


@dataclass
class LowPrecision:
    """The state of one converted module: its precision, its clock and its running passes."""

    roundings: Roundings
    clock: Clock
    passes: list[Pass] = field(default_factory=list)  # running passes, the innermost last
    # Where calls began that the backward pass may run again by hand, and whether inside another pass.
    issued: dict[str, list[tuple[Scope, bool]]] = field(default_factory=dict)
    issued_step: int = -1
    recorded: list[tuple[RoundingPoint, Point]] | None = None
    leaves: list[str] = field(default_factory=list)
    unrounded: list[str] = field(default_factory=list)
    root: nn.Module | None = None  # the module, while it runs
    repaired: bool = False  # whether convolutions have been repaired and reported
    quiet: bool = False  # for networks whose reports are known: they are recorded, but do not warn
    training: bool = False  # whether the last pass that began trains
    replica: object = None  # the DistributedDataParallel with which this state has been synchronised
    optimizer: str = ""  # the kind of optimizer that the precision requires, if any
    packed: "Packed | None" = None  # set if values are stored packed (see optimizers/packed.py)

    def next_point(self, operation: str, *, listed: bool = True) -> Point:
        """Return the rounding point of the operation that runs now."""
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
        """Note a training pass, whose module the backward pass may run again by hand."""
        if self.clock.step != self.issued_step:
            self.issued.clear()
            self.issued_step = self.clock.step
        if self.training:
            self.issued.setdefault(path, []).append((scope.copy(), False))

    def wait(self, tensor: Tensor, memory: UntypedStorage, point: Point) -> None:
        """Let a result wait to be rounded until an operation uses its memory."""
        notes = memory.__dict__
        before = notes.get(NOTE)
        waiting = self.passes[-1].waiting
        notes[NOTE] = (*(before if type(before) is tuple else ()), Pending(tensor, point, waiting))
        waiting[id(memory)] = memory

    def leave(self, running: Pass) -> None:
        """End a pass: no operation has used what still waits, so it stays as it was computed.

        A precision with a name rounds these results, too: a network in bfloat16 returns bfloat16 logits.
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
        """Warn about an operation, once."""
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
        """Repair torch if it would get this convolution wrong (see :mod:`.convolutions`), and warn once."""
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
    """Round a gradient to Format B in place, and return it."""
    return round_by(gradient, roundings.gradient, roundings.modes.gradient, key, gradient)


class Packed(Protocol):
    """What stores parameters packed; it runs the operations that use them."""

    def run(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the result of an operation, with packed arguments unpacked."""

    def release(self) -> None:
        """Unpack all parameters for good, and stop packing."""

    def holds(self, parameter: Tensor) -> bool:
        """Whether a parameter is packed."""

    def pack(self, parameter: Tensor) -> bool:
        """Pack a parameter that nobody trains; returns False if this is not possible."""

    def keeping(self, *, fresh: bool) -> AbstractContextManager[None]:
        """Pack what is saved for the backward pass in this context; ``fresh`` begins a network's pass."""
