"""How a pass begins and ends: wrappers that replace the forward of each module, and its other methods.

Within a pass, a wrapper opens the scope of a container. Outside of one it begins a pass, so that a submodule
called directly, or a method other than forward, is rounded as the whole network is.
"""

import inspect
from collections.abc import Callable
from contextlib import ExitStack
from types import CodeType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import _get_current_function_mode_stack

from peppp.errors import NetworkError
from peppp.lowprec.network import recomputed
from peppp.lowprec.network.casting import CastingInterceptor
from peppp.lowprec.network.memory import write_note
from peppp.lowprec.network.mode import RUNNING, RoundingInterceptor
from peppp.lowprec.network.nested import mapped_alike, tensors_in
from peppp.lowprec.network.parameters import Parameters, round_gradients
from peppp.lowprec.network.replicas import agree
from peppp.lowprec.network.sequences import is_run_by_hand, note_children, sequence_around
from peppp.lowprec.network.state import LowPrecision, Pass, Scope
from peppp.lowprec.rounding.functions import round_copy
from peppp.lowprec.rounding.streams import Key, mix, mix_text

_WRAPPED = "_checkpoint_wrapped_module"  # the attribute of torch's checkpoint wrapper that holds the module


def install(module: nn.Module, state: LowPrecision, parameters: Parameters) -> None:
    """Replace the forward and the other public methods of a module and of all its submodules.

    Raises NetworkError if a submodule is part of another converted network.
    """
    recomputed.follow_checkpoints()
    for path, submodule in module.named_modules():
        if isinstance(submodule.__dict__.get("forward"), Entry) and not _is_empty(submodule):
            raise NetworkError(
                f"{path} is part of another low-precision network already; convert a fresh network"
            )
    for path, submodule in module.named_modules():
        if isinstance(submodule.__dict__.get("forward"), Entry):
            continue  # a parameterless module of another network, which serves both
        is_wrapper = hasattr(submodule, _WRAPPED)
        path = ".".join(part for part in path.split(".") if part != _WRAPPED)
        for name in ("forward", *_own_methods(type(submodule))):
            entry = Entry(state, parameters, module, submodule, path, name, is_wrapper=is_wrapper)
            object.__setattr__(submodule, name, entry)
        if isinstance(submodule, nn.Sequential) and submodule is not module:
            children = [getattr(child, _WRAPPED, child) for child in submodule.children()]
            note_children(submodule, path, children)


def _is_empty(module: nn.Module) -> bool:
    """Whether a module holds nothing: a ReLU that is a default argument belongs to many networks."""
    return not (module._parameters or module._buffers or module._modules)


def _own_methods(kind: type) -> list[str]:
    """Return the public methods of a class that do not come from torch."""
    names = {}
    for base in reversed(kind.__mro__):
        theirs = base.__module__.partition(".")[0] in ("torch", "builtins", "typing", "abc")
        for name, value in vars(base).items():
            plain = inspect.isfunction(value) and not inspect.isgeneratorfunction(value)
            names[name] = plain and not theirs and not name.startswith("_") and not hasattr(nn.Module, name)
    return [name for name, wanted in names.items() if wanted]


class Entry:
    """Called in place of a method of a module."""

    def __init__(
        self,
        state: LowPrecision,
        parameters: Parameters,
        root: nn.Module,
        module: nn.Module,
        path: str,
        name: str,
        *,
        is_wrapper: bool,
    ) -> None:
        self.state, self.parameters, self.root, self.module = state, parameters, root, module
        self.path, self.name, self.key = path, name, mix_text(0, path)
        self.is_forward = name == "forward"
        self.is_root = module is root and self.is_forward
        self.is_container = name == "forward" and not is_wrapper and next(module.children(), None) is not None
        own = module.__dict__.get(name)
        self.function: Callable[..., Any] = own if own is not None else getattr(type(module), name)
        self.bound = own is not None

    @property
    def __signature__(self) -> inspect.Signature:
        """The signature of the method, for code that inspects what a network takes."""
        return inspect.signature(self.function if self.bound else self.function.__get__(self.module))

    @property
    def __code__(self) -> CodeType:
        """The code of the method, which torch.export inspects."""
        code: CodeType = inspect.unwrap(self.function).__code__
        return code

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the method, in the running pass or in a new one."""
        state = self.state
        if not state.passes or self.is_root:
            if RUNNING and RUNNING[-1] is not state and _is_empty(self.module):
                return self._run(args, kwargs)  # as part of another network
            return self._begin(args, kwargs)
        if not self.is_forward:
            return self._run(args, kwargs)
        running = state.passes[-1]
        if is_run_by_hand(running, self.module):
            scope = sequence_around(running.scope(), self.module)
            running.scopes.append(scope)
            try:
                return self._within(running, args, kwargs)
            finally:
                running.scopes.pop()
        return self._within(running, args, kwargs)

    def _within(self, running: Pass, args: Any, kwargs: Any) -> Any:
        """Run the method as part of a pass; a container opens its own scope."""
        if not self.is_container:
            if not torch.is_grad_enabled():
                self._note(running)
            return self._run(args, kwargs)
        outer = running.scope()
        assert outer.key is not None
        scope = Scope(mix(mix(outer.key, self.key), outer.calls), owner=self.module)
        outer.calls += 1
        running.scopes.append(scope)
        try:
            self._note(running)
            return self._run(args, kwargs)
        finally:
            running.scopes.pop()

    def _run(self, args: Any, kwargs: Any) -> Any:
        return self.function(*args, **kwargs) if self.bound else self.function(self.module, *args, **kwargs)

    def _note(self, running: Pass) -> None:
        """Note where a module begins that a custom autograd Function may run again in the backward pass."""
        if not torch.is_grad_enabled() and self.state.training:
            self.state.issued.setdefault(self.path, []).append((running.scope().copy(), True))

    def _begin(self, args: Any, kwargs: Any) -> Any:
        """Run the method as a new pass."""
        check_surroundings()
        state = self.state
        noted = state.issued.get(self.path) if torch._C._current_graph_task_id() != -1 else None
        again, inside = noted.pop() if noted else (None, False)  # the last call is rerun first
        training = self.root.training and (torch.is_grad_enabled() or recomputed.is_first_run())
        with ExitStack() as stack:
            if torch.is_inference_mode_enabled():  # its tensors have no version counters
                stack.enter_context(torch.inference_mode(False))
                stack.enter_context(torch.no_grad())
            state.training, state.root = training, self.root
            if state.passes:  # a method that calls the network in a loop: the network rounds its own inputs
                state.passes[-1].inputs.clear()
            if again is not None:
                running = Pass([again])
            else:
                running = Pass([Scope(None, owner=self.module)], lambda: self._first_key(training))
            state.passes.append(running)
            stack.callback(state.leave, running)
            if self.is_forward and again is None:
                running.scope()
            for function, arguments in reversed(self.parameters.prepare(state, training=training)):
                stack.callback(function, *arguments)
            if state.packed is not None:
                stack.enter_context(state.packed.keeping(fresh=self.is_root and again is None))
            if state.roundings.casts:
                pass  # operations round their operands
            elif inside:
                for tensor in tensors_in((args, kwargs), []):
                    write_note(tensor, () if tensor.is_floating_point() else None)
            elif self.is_forward:
                args, kwargs = mapped_alike((args, kwargs), self._input)
            else:
                given = tensors_in((args, kwargs), [])
                running.inputs = {id(x): (x, None) for x in given if x.is_floating_point()}
            stack.enter_context(running_mode(state))
            return self._run(args, kwargs)

    def _first_key(self, training: bool) -> Key:
        state = self.state
        if training:
            agree(state, self.parameters)
            if state.clock.training_pass >= 0:
                round_gradients(self.root.parameters(), state.roundings, state.clock.update_key())
        key = state.clock.begin_pass(training)
        state.begun(self.path if self.is_forward else "", Scope(key, owner=self.module))
        return key

    def _input(self, tensor: Tensor) -> Tensor:
        if tensor.dtype == torch.float32 and tensor.layout == torch.strided:
            rounded = round_copy(tensor, self.state.next_point("input"))
            write_note(rounded, ())
            return rounded
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise NetworkError(f"an input is {kind}; low precision is simulated in float32: give it .float()")
        return tensor.clone() if tensor.is_inference() else tensor


def running_mode(state: LowPrecision) -> ExitStack:
    """Enter the mode that rounds what the network of ``state`` computes; closing the stack leaves it."""
    with ExitStack() as stack:
        modes = _get_current_function_mode_stack() if RUNNING else ()  # type: ignore[no-untyped-call]
        if not any(isinstance(mode, RoundingInterceptor) and mode.state is state for mode in modes):
            kind = CastingInterceptor if state.roundings.casts else RoundingInterceptor
            stack.enter_context(kind(state))
        RUNNING.append(state)
        stack.callback(RUNNING.pop)
        return stack.pop_all()


def is_compiled() -> bool:
    """Whether torch.compile is tracing the frames that run."""
    frames: Any = torch._C._dynamo.eval_frame
    callback = frames.set_eval_frame(None)
    frames.set_eval_frame(callback)
    return callback not in (None, False)


def check_surroundings() -> None:
    """Raise NetworkError, in one line, in surroundings that would not compute at low precision."""
    if torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None or is_compiled():
        raise NetworkError(
            "a low-precision network cannot be traced or compiled: its roundings are decided as it runs; "
            "leave out torch.compile, torch.export and torch.jit.trace"
        )
    if (
        torch._C._functorch.peek_interpreter_stack() is not None
        or torch.autograd.forward_ad._current_level >= 0
    ):
        raise NetworkError(
            "a low-precision network runs under none of torch.func's transforms (vmap, grad, jvp) and "
            "forward-mode differentiation; call it on a batch and use backward()"
        )
    for kind in ("cpu", "cuda"):
        if torch.is_autocast_enabled(kind):
            raise NetworkError(
                "autocast would compute a low-precision network in another type, unrounded; call it outside "
                "of torch.autocast"
            )
