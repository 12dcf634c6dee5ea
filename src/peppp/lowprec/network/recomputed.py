"""Activation checkpointing: what torch recomputes is rounded as it was the first time.

Both of torch's forms of checkpointing call the function again during the backward pass, and offer no hook for
that. Here each function is wrapped together with the network's position: the container's key, and how many
operations it had seen. So any function can be recomputed: a module, a method, a lambda. Our own blocks are
wrapped before torch gets them. What others give to torch is wrapped within torch, by two private names of
torch.utils.checkpoint, which are tested with each version of torch that is allowed.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils import checkpoint as checkpointing

from peppp.lowprec.network.casting import CastingInterceptor
from peppp.lowprec.network.memory import memory_of, note_on, settle, write_note
from peppp.lowprec.network.mode import RUNNING, RoundingInterceptor
from peppp.lowprec.network.nested import mapped, tensors_in
from peppp.lowprec.network.state import LowPrecision, Pass

# What torch's checkpoint() runs: the first of these that there is. Torch 2.14 runs the first, older ones have
# only the second.
_GENERATORS = ("_checkpoint_without_reentrant_generator_impl", "_checkpoint_without_reentrant_generator")
_first_runs: list[object] = []  # reentrant functions in their first run, which has no gradients


def is_first_run() -> bool:
    """Whether torch runs something without gradients that it will run again with gradients."""
    return bool(_first_runs)


def follow_checkpoints() -> None:
    """Make torch's checkpointing wrap its functions in ours, once per process."""
    names: Any = checkpointing
    name = next(name for name in _GENERATORS if hasattr(names, name))
    original = getattr(names, name)
    if getattr(original, "_peppp", False):
        return

    def generator(function: Callable[..., Any], *rest: Any, **kwargs: Any) -> Any:
        again = repeatable(function, (*rest, kwargs), first=False)
        with again.by_hand() if isinstance(again, _Again) else nullcontext():
            yield from original(again, *rest, **kwargs)

    generator._peppp = True  # type: ignore[attr-defined]
    names.__dict__[name] = generator

    class CheckpointFunction(names.CheckpointFunction):  # type: ignore[misc]
        @classmethod
        def apply(cls, function: Callable[..., Any], *rest: Any) -> Any:
            again = repeatable(function, rest, reentrant=True)
            _first_runs.append(again)
            try:
                return super().apply(again, *rest)
            finally:
                _first_runs.pop()

    names.__dict__["CheckpointFunction"] = CheckpointFunction


def repeatable(
    function: Callable[..., Any], args: Any, *, first: bool = True, reentrant: bool = False
) -> Callable[..., Any]:
    """Wrap a function that is about to be checkpointed, so that the running network can run it again.

    ``args`` holds all its arguments. ``first`` says whether the first run goes through the wrapper, too.
    Without a running network the function stays as it is.
    """
    if not RUNNING or isinstance(function, _Again):
        return function
    values, given = [], tensors_in(args, [])
    places = {id(tensor): place for place, tensor in reversed([*enumerate(given)])}
    with torch._C.DisableTorchFunction():  # so that the network's mode ignores our own operations
        for tensor in given:
            memory = memory_of(tensor)
            values.append(type(note_on(memory)) is tuple)
            if memory is not None and values[-1]:
                settle(memory)  # so that what is saved is what is used
    same = [places[id(tensor)] for tensor in given]
    return _Again(RUNNING[-1], function, values, same, first=first, reentrant=reentrant)


class _Again:
    """A checkpointed function; each call recomputes it, except the first call if it is the ``first`` run.

    ``same`` gives, for each tensor that the function is given, the place at which that tensor comes first.
    """

    def __init__(
        self,
        state: LowPrecision,
        function: Callable[..., Any],
        values: list[bool],
        same: list[int],
        *,
        first: bool,
        reentrant: bool,
    ) -> None:
        self.state, self.function, self.values, self.reentrant = state, function, values, reentrant
        self.repeats = {place: one for place, one in enumerate(same) if place != one}
        self.scope = state.passes[-1].scope().copy()
        self.first = first
        self.waited: list[Any] = []
        owner = getattr(function, "func", function)  # of a partial
        owner = getattr(owner, "__self__", owner)
        self.is_module = isinstance(owner, nn.Module) or isinstance(getattr(owner, "module", None), nn.Module)

    @contextmanager
    def by_hand(self) -> Iterator[None]:
        """Note in the running pass that this function may run a container's children one by one."""
        running = self.state.passes[-1]
        running.by_hand += not self.is_module
        try:
            yield
        finally:
            running.by_hand -= not self.is_module

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.first:
            self.first = False
            with self.by_hand():
                results = self.function(*args, **kwargs)
            if self.reentrant:
                self.waited = [note_on(memory_of(result)) for result in tensors_in((results,), [])]
            return results
        state = self.state
        if self.repeats:
            args, kwargs = self._as_one(args, kwargs)
        for tensor, is_value in zip(tensors_in((args, kwargs), []), self.values, strict=False):
            if is_value:  # it may have been packed since, and now be in new memory
                write_note(tensor, ())
        with ExitStack() as stack:
            running = Pass([self.scope.copy()], by_hand=int(not self.is_module))
            state.passes.append(running)
            stack.callback(state.leave, running)
            RUNNING.append(state)
            stack.callback(RUNNING.pop)
            if state.packed is not None and self.reentrant:
                stack.enter_context(state.packed.keeping(fresh=False))
            kind = _RecomputingCasts if state.roundings.casts else _RecomputingRounds
            stack.enter_context(kind(state))
            results = self.function(*args, **kwargs)
            with torch._C.DisableTorchFunction():
                for result, before in zip(tensors_in((results,), []), self.waited, strict=False):
                    # The result was rounded the first time, and its error came back through torch's node.
                    memory, waiting = memory_of(result), note_on(memory_of(result))
                    if memory is not None and waiting and before and all(pending.done for pending in before):
                        settle(memory)
            return results

    def _as_one(self, args: Any, kwargs: Any) -> Any:
        """Pass one tensor wherever one was passed the first time: attention checks for identity."""
        given = tensors_in((args, kwargs), [])
        places = iter(range(len(given)))
        return mapped((args, kwargs), lambda _: given[self.repeats.get(place := next(places), place)])


class CountedAlready(TorchFunctionMode):
    """Keeps norms from counting a batch twice: they add it to copies of their statistics."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if _counts_batches(func, args):
            return args[0]
        return func(*_with_copies(func, args), **(kwargs or {}))


class _Recomputing(TorchFunctionMode):
    """The same for a low-precision network, before its operations are rounded."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if _counts_batches(func, args):
            return args[0]
        return super().__torch_function__(func, types, _with_copies(func, args), kwargs)  # type: ignore[no-untyped-call]


class _RecomputingRounds(_Recomputing, RoundingInterceptor):
    """For a pair of formats, or sixteen bits throughout."""


class _RecomputingCasts(_Recomputing, CastingInterceptor):
    """For precisions that cast as autocast does."""


def _counts_batches(func: Any, args: Any) -> bool:
    return func is Tensor.add_ and args[0].dtype == torch.int64 and args[0].dim() == 0


def _with_copies(func: Any, args: Any) -> Any:
    """Return the arguments of a norm with copies of its running statistics."""
    if func is not functional.batch_norm and func is not functional.instance_norm:
        return args
    return args[0], *(x.clone() if isinstance(x, Tensor) else x for x in args[1:3]), *args[3:]
