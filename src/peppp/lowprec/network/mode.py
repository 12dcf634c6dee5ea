"""Intercepts every torch operation of a pass, inside layers or outside, and rounds its results.

An operation that reads numbers of the network and computes leaves results that wait to be rounded: those in
memory of their own, and memory that it changed in place (whose version rose). Whatever waits is rounded in
place before any operation reads or writes its memory, through any tensor or view. So a result that no
operation uses, such as the network's output in whatever container, stays as it was computed. An operation
that reads only constants makes constants. These stay as they are, and are reported if the network's numbers
meet them.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from peppp.lowprec.network import reports
from peppp.lowprec.network.memory import (
    LOSS,
    NOTE,
    Constant,
    Pending,
    memories_of,
    memory_of,
    note_on,
    settle,
    write_note,
)
from peppp.lowprec.network.nested import mapped, tensors_in
from peppp.lowprec.network.rules import (
    COMPLEX,
    EMPTY,
    KINDS,
    NORMS_WITH_STATISTICS,
    POLES,
    RELUS,
    Kind,
)
from peppp.lowprec.network.state import LowPrecision
from peppp.lowprec.rounding.functions import relu_round, round_copy
from peppp.lowprec.rounding.quantize import round_to

_ADD_IN_PLACE = Tensor.add_  # batch norm uses it to count its batches, in every pass
_ROUNDED_TYPES = (torch.float32, torch.complex64)
# The networks that are running, the innermost last: operations belong to that one.
RUNNING: list[LowPrecision] = []


class RoundingInterceptor(TorchFunctionMode):
    """Sees every torch operation of a pass and rounds by the rule in the module's docstring."""

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
        """Round the waiting results that are used, run ``func``, and let its own results wait."""
        kind, state = KINDS.get(func), self.state
        if (
            kind is Kind.UNTOUCHED
            or (func is _ADD_IN_PLACE and args[0].dtype == torch.int64)
            or RUNNING[-1] is not state
        ):
            return func(*args, **kwargs) if kwargs else func(*args)
        kwargs = kwargs or {}
        if kind is Kind.LOSS:
            return self._lost(self._run(func, args, kwargs))
        if state.passes[-1].inputs:
            args, kwargs = mapped((args, kwargs), self._rounded_input)
        if func in RELUS and len(args) == 1 and not kwargs.get("inplace"):
            fused = self._relu(args[0])
            if fused is not None:
                return fused
        operands = tensors_in(args, [])
        if kwargs:
            tensors_in(kwargs, operands)
        if kind is Kind.RESHAPED:
            return self._reshape(func, args, kwargs, operands)
        if kind is Kind.KEPT and func in COMPLEX and args[0].is_complex():
            kind = Kind.ROUNDED_COPY
        memories, constants = memories_of(operands), []
        for operand, memory in zip(operands, memories, strict=True):
            note = None if memory is None else memory.__dict__.get(NOTE)
            if note.__class__ is not tuple:
                constants.append((operand, note))
            elif note:
                settle(memory)  # type: ignore[arg-type]
        if len(constants) == len(operands) or any(note is LOSS for _, note in constants):
            return self._constant(func, constants, self._run(func, args, kwargs))
        if constants and kind is not Kind.MADE and func not in NORMS_WITH_STATISTICS:
            reports.meeting(state, func, constants, kwargs.get("out"))
        versions = versions_of(operands)
        packed = state.packed
        if func is torch.conv2d and not state.repaired:
            state.look_at_convolution(*args, **kwargs)
        result = func(*args, **kwargs) if packed is None else packed.run(func, args, kwargs)
        changed: Sequence[Tensor] = ()
        if (after := versions_of(operands)) != versions:
            pairs = zip(operands, versions, after, strict=True)
            changed = [operand for operand, before, now in pairs if before != now]
        if state.roundings.rounds_statistics and func in NORMS_WITH_STATISTICS:
            self._round_statistics(func, args, kwargs)
        if (
            kind is Kind.KEPT
            and changed
            and isinstance(result, Tensor)
            and all(x is not result for x in changed)
        ):
            kind = Kind.ROUNDED  # it also changed values, as an embedding with max_norm does
        if kind is Kind.KEPT:
            reports.scalars(state, func, (*args[1:], *kwargs.values()))
            for tensor in (*tensors_in((result,), []), *changed):
                if tensor.is_floating_point() and note_on(memory_of(tensor)) is None:
                    write_note(tensor, ())
        elif kind is Kind.MADE:
            for operand in changed:
                self._drawn(func, operand)
            if func in EMPTY:
                write_note(result, ())
        else:
            if kind is None or func in POLES:
                reports.infinities(state, func, args, operands, tensors_in((result,), []))
            result = self._results(func, kind, memories, result)
            for operand in changed:
                self._wait(func, kind, whole(operand))
        return result

    def _round_statistics(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        """Round running statistics to the format of values, for networks entirely in sixteen bits."""
        first = 3 if func in (torch.batch_norm, torch.instance_norm) else 1
        named = (kwargs.get("running_mean"), kwargs.get("running_var"))
        with torch._C.DisableTorchFunction(), torch.no_grad():
            for x in (*args[first : first + 2], *named):
                if isinstance(x, Tensor):
                    round_to(x.data, self.state.roundings.values, None, x.data)

    def _relu(self, x: Tensor) -> Tensor | None:
        """Round a waiting result and apply ReLU in one pass; the result itself still waits for other uses.

        Returns None if this is not possible.
        """
        memory = memory_of(x)
        note = note_on(memory)
        if memory is None or not isinstance(note, tuple) or len(note) != 1:
            return None
        waiting = note[0]
        if waiting.tensor is not x or waiting.copies or x._is_view() or x.dtype != torch.float32:
            return None
        result = relu_round(x, waiting.point)
        waiting.lend(memory)
        write_note(result, ())
        return result

    def _lost(self, result: Any) -> Any:
        """Mark a loss, or what is computed from one, so that it stays float32."""
        for tensor in tensors_in((result,), []):
            write_note(tensor, LOSS)
        return result

    def _run(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        packed = self.state.packed
        if func is torch.conv2d:
            self.state.look_at_convolution(*args, **kwargs)
        return func(*args, **kwargs) if packed is None else packed.run(func, args, kwargs)

    def _results(
        self,
        func: Callable[..., Any],
        kind: Kind | None,
        memories: list[Any],
        result: Any,
    ) -> Any:
        """Let the results of arithmetic that are in new memory wait, in whatever tuple or list they are."""
        if isinstance(result, Tensor):
            memory = memory_of(result)
            if memory is not None and any(memory is other for other in memories):
                return result  # a view of an operand, or the operand itself
            own = kind is not Kind.ROUNDED and result.requires_grad  # the operation may save its result
            if own and result.dtype in _ROUNDED_TYPES and result.layout == torch.strided:
                result = result.clone()
            self._wait(func, kind, result)
            return result
        if isinstance(result, (tuple, list)) and not isinstance(result, torch.Size):
            parts = [self._results(func, kind, memories, part) for part in result]
            named = isinstance(result, tuple) and hasattr(result, "_fields")
            if named or type(result) in (tuple, list):
                return type(result)(*parts) if named else type(result)(parts)
            return type(result)(parts)  # torch's own types, such as that of torch.max
        return result

    def _wait(self, func: Callable[..., Any], kind: Kind | None, tensor: Tensor) -> None:
        """Give a new or changed result its rounding point, or report why it stays unrounded."""
        state, dtype, name, memory = self.state, tensor.dtype, func.__name__, memory_of(tensor)
        if dtype not in _ROUNDED_TYPES or tensor.layout is not torch.strided:
            if dtype.is_floating_point or dtype.is_complex:
                what = f"in {dtype}" if tensor.layout == torch.strided else "in sparse form"
                state.report(f"{name} {what}", f"the results of {name}, which are {what}")
            return
        if memory is None or memory.__dict__.get(NOTE).__class__ is Constant:
            return  # a buffer that the network writes stays unrounded
        if kind is None:
            state.report(name, f"what {name} computes inside, in several steps (its results are rounded)")
        state.wait(tensor, memory, state.next_point(name, listed=kind is not None))

    def _reshape(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], operands: list[Tensor]
    ) -> Any:
        """Run an operation that views or copies: a view shares its memory's note, and a copy waits, too."""
        result = self._run(func, args, kwargs)
        notes = [
            (memory, memory.__dict__.get(NOTE)) for x in operands if (memory := memory_of(x)) is not None
        ]
        parts = tensors_in((result,), [])
        for number, part in enumerate(parts):
            memory = memory_of(part)
            if memory is None or any(memory is other for other, _ in notes):
                continue
            waiting: list[Pending] = [p for _, note in notes if type(note) is tuple for p in note]
            if part.dtype not in _ROUNDED_TYPES:
                if part.dtype.is_floating_point and any(type(note) is tuple for _, note in notes):
                    self.state.report(
                        f"{part.dtype}", f"numbers in {part.dtype}, which {func.__name__} makes"
                    )
            elif waiting:

                def again(number: int = number) -> Tensor:
                    with torch.no_grad():
                        return tensors_in((self._run(func, args, kwargs),), [])[number]

                waiting[-1].copies.append((part, again))
                memory.__dict__[NOTE] = tuple(waiting)
                self.state.passes[-1].waiting[id(memory)] = memory
            else:
                found = [note for _, note in notes if note is not None]
                memory.__dict__[NOTE] = () if () in found else (found[0] if found else None)
        return result

    def _drawn(self, func: Callable[..., Any], tensor: Tensor) -> None:
        """Note numbers drawn in place: a constant if they fill the memory, else part of what waits."""
        memory = memory_of(tensor)
        if memory is not None and tensor.numel() * tensor.element_size() == memory.nbytes():
            memory.__dict__[NOTE] = None
        else:
            self._wait(func, Kind.MADE, whole(tensor))

    def _rounded_input(self, tensor: Tensor) -> Tensor:
        """Return the rounded copy of a tensor that the caller passed to a method, made on first use."""
        inputs = self.state.passes[-1].inputs
        kept, copy = inputs.get(id(tensor), (None, None))
        if kept is None:
            return tensor
        if copy is None:
            copy = round_copy(tensor, self.state.next_point("input"))
            write_note(copy, ())
            inputs[id(tensor)] = kept, copy
        return copy

    def _constant(self, func: Callable[..., Any], constants: list[tuple[Tensor, Any]], result: Any) -> Any:
        """Mark what is computed only from constants, or from the loss, as such; it inherits their name."""
        if func in EMPTY:  # it has no numbers yet: whatever writes them decides
            write_note(result, ())
            return result
        named = [note for _, note in constants if note is not None]
        if LOSS in named:
            return self._lost(result)
        if named:
            note = Constant(named[0].name)
            for tensor in tensors_in((result,), []):
                if note_on(memory_of(tensor)) is None:
                    write_note(tensor, note)
        return result


def whole(x: Tensor) -> Tensor:
    """Return the tensor that ``x`` is a view of, or ``x`` itself."""
    return x._base if x._is_view() and x._base is not None else x


def versions_of(tensors: list[Tensor]) -> list[int]:
    """Return the version counters of the tensors, which count changes in place."""
    try:
        return [tensor._version for tensor in tensors]
    except RuntimeError:  # inference tensors have no counter, and nobody may change them here
        return [-1 if tensor.is_inference() else tensor._version for tensor in tensors]
