"""``low_precision``: any module, its values rounded where arithmetic makes new ones.

Torch's function mode shows every operation of a forward pass, those inside layers and those written by hand
between them. A result that must be rounded is marked; the rounding happens in place when the next operation
uses it, so that a ReLU can take it over and the network's own result, which nobody uses, stays as it is.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from peppp.errors import NetworkError
from peppp.formats import Configuration
from peppp.lowprec.functions import Point, Precision, relu_round, round_copy, round_in_place
from peppp.lowprec.operations import KINDS, Kind
from peppp.lowprec.rounding import round_by, round_to
from peppp.lowprec.streams import GRADIENT, Clock, Key, mix, mix_text
from peppp.records import RoundingModes

Module = TypeVar("Module", bound=nn.Module)
_ATTRIBUTE = "_peppp_low_precision"
_ADD_IN_PLACE = Tensor.add_  # with which batch norm counts its batches, at every pass
# On a tensor that waits to be rounded: (the tensor it is a view of or None, its point).
_WAITING = "_peppp_waiting"
# On the rounded copy of a result: that result.
_ORIGINAL = "_peppp_original"


def low_precision(
    module: Module,
    configuration: Configuration | str,
    *,
    rounding: RoundingModes | str = "stochastic",
    error_format: str = "A",
    seed: int | None = None,
) -> Module:
    """Make ``module`` compute at a configuration: values in Format A, errors in the error format.

    The module is changed in place and handed back. Its parameters are rounded by the optimizer
    (:func:`peppp.lowprec.optimizers.low_precision_optimizer`), or to Format A at the first forward pass when
    there is none. Results of the module itself (logits) and its loss stay float32, and so do the running
    statistics of batch norm. ``seed`` (drawn from torch's generator when None) decides all random bits.

    Raises NetworkError for a module that is, or holds, a converted one.

    >>> net = low_precision(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), "1-4-1/1-6-7", seed=0)
    >>> [str(point) for point in rounding_points(net, torch.ones(1, 4))]
    ['input: input', '0: linear']
    """
    for name, submodule in module.named_modules():
        if hasattr(submodule, _ATTRIBUTE):
            raise NetworkError(
                f"{name or type(module).__name__} is at low precision already; convert a fresh network"
            )
    if seed is None:
        seed = int(torch.randint(1 << 62, (), dtype=torch.int64))
    state = LowPrecision(
        Precision.of(Configuration.parse(configuration), rounding, error_format), Clock(seed)
    )
    object.__setattr__(module, _ATTRIBUTE, state)
    for name, submodule in module.named_modules():
        if submodule is module or next(submodule.children(), None) is not None:
            frame = _Frame(state, name, is_root=submodule is module)
            submodule.register_forward_pre_hook(frame.enter, with_kwargs=frame.is_root, prepend=True)
            submodule.register_forward_hook(frame.leave, always_call=True)
    return module


def low_precision_state(module: nn.Module) -> "LowPrecision":
    """What :func:`low_precision` attached to a module; NetworkError where it did not."""
    state = getattr(module, _ATTRIBUTE, None)
    if not isinstance(state, LowPrecision):
        raise NetworkError(f"{type(module).__name__} is not at low precision; call low_precision on it first")
    return state


@dataclass(frozen=True, slots=True)
class RoundingPoint:
    """One place where values are rounded in a forward pass (and errors in the backward pass)."""

    module: str
    operation: str

    def __str__(self) -> str:
        return f"{self.module}: {self.operation}"


def rounding_points(module: nn.Module, *inputs: Tensor) -> tuple[RoundingPoint, ...]:
    """The rounding points of a converted module, in order, as one forward pass on ``inputs`` meets them."""
    state = low_precision_state(module)
    clock = state.clock
    state.clock = Clock(clock.seed)
    state.recorded = []
    names = {submodule: name for name, submodule in module.named_modules()}
    handles = [
        submodule.register_forward_pre_hook(lambda m, _: state.leaves.append(names[m]), prepend=True)
        for submodule in names
    ]
    handles += [
        submodule.register_forward_hook(lambda *_: state.leaves.pop() and None) for submodule in names
    ]
    try:
        with torch.no_grad():
            module(*inputs)
        return tuple(where for where, point in state.recorded if point.used)
    finally:
        for handle in handles:
            handle.remove()
        state.clock, state.recorded, state.leaves = clock, None, []


@dataclass(slots=True)
class Scope:
    """A running container: its key, and how many operations and inner calls it has seen."""

    key: Key
    operations: int = 0
    calls: int = 0


@dataclass
class LowPrecision:
    """The state of one converted module: its precision, its clock and where its forward pass stands."""

    precision: Precision
    clock: Clock
    parameters_rounded: bool = False
    scopes: list["Scope"] = field(default_factory=list)  # of the containers that are running, outermost first
    issued: dict[str, list[Key]] = field(default_factory=dict)  # keys of each container's calls in this pass
    recorded: list[tuple[RoundingPoint, Point]] | None = None
    leaves: list[str] = field(default_factory=list)
    unrounded: list[str] = field(default_factory=list)
    packed: "Packed | None" = None  # set where values are stored in few bits (see packed_optimizer.py)

    def next_point(self, operation: str) -> Point:
        """The rounding point of the operation that runs now."""
        scope = self.scopes[-1]
        point = Point(self.precision, mix(scope.key, scope.operations))
        scope.operations += 1
        if self.recorded is not None:
            module = "input" if operation == "input" else (self.leaves[-1] or "(module)")
            self.recorded.append((RoundingPoint(module, operation), point))
        return point

    def report(self, operation: str) -> None:
        """Say once that an operation's result is not rounded, as nothing is known about it."""
        if operation not in self.unrounded:
            self.unrounded.append(operation)
            warnings.warn(f"not rounded to low precision: the results of {operation}", stacklevel=4)

    def round_parameters(self, module: nn.Module) -> None:
        """Parameters to Format A, nearest: a network that is used without being trained."""
        with torch.no_grad():
            for parameter in module.parameters():
                round_to(parameter.data, self.precision.configuration.format_a, None, parameter.data)
        self.parameters_rounded = True

    def round_gradients(self, module: nn.Module) -> None:
        """Gradients of an earlier micro-batch to Format B, before the next ones are added."""
        key = self.clock.update_key()
        for index, parameter in enumerate(module.parameters()):
            if parameter.grad is not None:
                round_gradient(parameter.grad, self.precision, mix(mix(key, index), GRADIENT))


def round_gradient(gradient: Tensor, precision: Precision, key: Key) -> Tensor:
    """A gradient rounded to Format B in place."""
    return round_by(gradient, precision.configuration.format_b, precision.modes.gradient, key, gradient)


class Packed(Protocol):
    """Who stores parameters packed: it runs the operations that use them."""

    def run(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The result of an operation on what the arguments stand for."""


class _Frame:
    """The hooks of one container module: they name its rounding points and switch the mode on.

    The number of a point counts within its container, so that recomputing a container alone (as activation
    checkpointing does during backward) meets the same random bits.
    """

    def __init__(self, state: LowPrecision, name: str, *, is_root: bool) -> None:
        self.state = state
        self.name = name
        self.name_key = mix_text(0, name)
        self.is_root = is_root
        self.modes: list[_RoundingMode | None] = []

    def enter(self, module: nn.Module, args: Any, kwargs: Any = None) -> Any:
        """Open the container: a key for its points, and the mode where it is not on yet."""
        state = self.state
        if self.is_root:
            scope = Scope(self._begin_pass(module))
        elif state.scopes:
            outer = state.scopes[-1]
            scope = Scope(mix(mix(outer.key, self.name_key), outer.calls))
            outer.calls += 1
            state.issued.setdefault(self.name, []).append(scope.key)
        else:
            scope = Scope(self._issued_key())
        self.modes.append(None if state.scopes else _RoundingMode(state))
        state.scopes.append(scope)
        if self.is_root:
            args, kwargs = _map_tensors((args, kwargs), self._round_input)
        if self.modes[-1] is not None:
            self.modes[-1].__enter__()  # type: ignore[no-untyped-call]
        return (args, kwargs) if self.is_root else None

    def _issued_key(self) -> Key:
        """The key of a container that runs by itself, as when it is recomputed: that of its call before.

        Backward recomputes the last call first.
        """
        keys: list[Key] = self.state.issued.get(self.name, [0])
        return keys.pop() if len(keys) > 1 else keys[0]

    def leave(self, module: nn.Module, args: Any, output: Any) -> Any:
        """Close it; the whole network's own results lose their mark, and so stay unrounded."""
        self.state.scopes.pop()
        mode = self.modes.pop()
        if mode is not None:
            mode.__exit__(None, None, None)  # type: ignore[no-untyped-call]
        return _map_tensors(output, _unrounded) if self.is_root else None

    def _begin_pass(self, module: nn.Module) -> Key:
        state = self.state
        if not state.parameters_rounded:
            state.round_parameters(module)
        training = module.training and torch.is_grad_enabled()
        if training and state.clock.training_pass >= 0:
            state.round_gradients(module)
        state.issued.clear()
        return state.clock.begin_pass(training)

    def _round_input(self, tensor: Tensor) -> Tensor:
        if tensor.dtype != torch.float32:
            return tensor
        return round_copy(tensor, self.state.next_point("input"))


class _RoundingMode(TorchFunctionMode):
    """Sees every torch operation of a forward pass and rounds what it must."""

    def __init__(self, state: LowPrecision) -> None:
        super().__init__()
        self.state = state

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run ``func``; settle what waits before it, and let its result wait in turn."""
        kind = KINDS.get(func)
        if kind is Kind.UNTOUCHED or (func is _ADD_IN_PLACE and args[0].dtype == torch.int64):
            return func(*args, **kwargs) if kwargs else func(*args)
        kwargs = kwargs or {}
        if kind is Kind.LOSS:
            return self._run(func, args, kwargs)
        if kind is Kind.RELU and func.__name__ == "relu" and not kwargs.get("inplace") and len(args) == 1:
            base, point = args[0].__dict__.get(_WAITING, (None, None))
            if point is not None and base is None and not point.done:
                return relu_round(args[0], point)
        if kind is Kind.RESHAPED:
            return self._reshape(func, args, kwargs)
        operands = _tensors((args, kwargs) if kwargs else args, [])
        for tensor in operands:
            if _WAITING in tensor.__dict__:
                _settle(tensor)
        result = self._run(func, args, kwargs)
        if kind is Kind.KEPT or kind is Kind.RELU:
            return result
        return self._result(func, kind, operands, result)

    def _run(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        packed = self.state.packed
        return func(*args, **kwargs) if packed is None else packed.run(func, args, kwargs)

    def _reshape(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A view of a tensor that waits goes on waiting for it."""
        result = self._run(func, args, kwargs)
        base, point = args[0].__dict__.get(_WAITING, (None, None))
        if point is not None and result is not args[0]:
            result.__dict__[_WAITING] = (args[0] if base is None else base, point)
        return result

    def _result(
        self, func: Callable[..., Any], kind: Kind | None, operands: list[Tensor], result: Any
    ) -> Any:
        if isinstance(result, tuple) and result and isinstance(result[0], Tensor) and kind is not None:
            return (self._result(func, kind, operands, result[0]), *result[1:])
        if not isinstance(result, Tensor) or not result.is_floating_point():
            return result
        name = func.__name__
        if result.dtype != torch.float32:
            self.state.report(f"{name} in {result.dtype}")
            return result
        in_place = name.endswith("_") and (not name.startswith("__") or name.startswith("__i"))
        if not in_place and any(result is operand for operand in operands):
            return result  # handed through, as by dropout at evaluation
        if kind is None:
            if any(operand.is_floating_point() for operand in operands):
                self.state.report(name)
            return result
        point = self.state.next_point(name.strip("_"))
        if kind is Kind.ROUNDED_COPY:
            rounded = round_copy(result, point)
            rounded.__dict__[_ORIGINAL] = result
            return rounded
        result.__dict__[_WAITING] = (None, point)
        return result


def _settle(tensor: Tensor) -> None:
    """Round a tensor that waits for it, before it is used."""
    base, point = tensor.__dict__.pop(_WAITING)
    round_in_place(tensor if base is None else base, point)


def _unrounded(tensor: Tensor) -> Tensor:
    """A result of the whole network as it was computed."""
    tensor.__dict__.pop(_WAITING, None)
    original: Tensor = tensor.__dict__.pop(_ORIGINAL, tensor)
    return original


def _tensors(values: Any, found: list[Tensor]) -> list[Tensor]:
    """The tensors in nested tuples, lists and dicts, appended to ``found``."""
    for value in values.values() if isinstance(values, dict) else values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, (tuple, list, dict)):
            _tensors(value, found)
    return found


def _map_tensors(values: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """The same nested tuples, lists and dicts with ``function`` applied to each tensor."""
    if isinstance(values, Tensor):
        return function(values)
    if isinstance(values, dict):
        changed = {key: _map_tensors(value, function) for key, value in values.items()}
        return type(values)(changed) if type(values) is not dict else changed
    if isinstance(values, tuple) and hasattr(values, "_fields"):
        return type(values)(*(_map_tensors(value, function) for value in values))
    if isinstance(values, (tuple, list)):
        return type(values)(_map_tensors(value, function) for value in values)
    return values
