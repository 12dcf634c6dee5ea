"""``low_precision``: any module, its values rounded where arithmetic makes new ones.

Hooks of its containers name the places where values are rounded; mode.py sees the operations between them.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from peppp.errors import NetworkError
from peppp.formats import Configuration
from peppp.lowprec.functions import Precision, round_copy
from peppp.lowprec.mode import RoundingMode, unrounded
from peppp.lowprec.state import LowPrecision, RoundingPoint, Scope
from peppp.lowprec.streams import Clock, Key, mix, mix_text
from peppp.records import RoundingModes

Module = TypeVar("Module", bound=nn.Module)
_ATTRIBUTE = "_peppp_low_precision"


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
        self.modes: list[RoundingMode | None] = []

    def enter(self, module: nn.Module, args: Any, kwargs: Any = None) -> Any:
        """Open the container: a key for its points, and the mode where it is not on yet."""
        state = self.state
        if self.is_root:
            state.root = module
            scope = Scope(self._begin_pass(module))
        elif state.scopes:
            outer = state.scopes[-1]
            scope = Scope(mix(mix(outer.key, self.name_key), outer.calls))
            outer.calls += 1
            state.issued.setdefault(self.name, []).append(scope.key)
        else:
            scope = Scope(self._issued_key())
        self.modes.append(None if state.scopes else RoundingMode(state))
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
        if self.is_root:
            self.state.root = None
        mode = self.modes.pop()
        if mode is not None:
            mode.__exit__(None, None, None)  # type: ignore[no-untyped-call]
        return _map_tensors(output, unrounded) if self.is_root else None

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
