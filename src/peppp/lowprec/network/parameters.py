"""The parameters of a converted module: of Format A whenever they are used, whoever wrote them.

A fingerprint of each parameter's numbers tells whether they are still those that were rounded, as torch does
not say who wrote memory through ``parameter.data``. What was written from outside is rounded; in training,
the optimizer's accumulators follow it.
"""

import weakref
from collections.abc import Iterable
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from peppp.errors import NetworkError
from peppp.lowprec.network.fingerprints import fingerprints
from peppp.lowprec.network.memory import NOTE, Constant, write_note
from peppp.lowprec.network.state import LowPrecision, round_gradient
from peppp.lowprec.rounding.functions import round_parameter
from peppp.lowprec.rounding.quantize import round_to
from peppp.lowprec.rounding.roundings import Roundings
from peppp.lowprec.rounding.streams import GRADIENT, Key, mix
from peppp.lowprec.storage.placeholders import UsedGradient

_KNOWN = "_peppp_fingerprint"  # on a parameter
SPARSE = (
    "a parameter of shape {shape} has a sparse gradient, which has no low-precision form; make the layer "
    "with sparse=False"
)


class Owner(Protocol):
    """An optimizer that keeps an accumulator for some of the parameters."""

    def owns(self, parameter: Tensor) -> bool:
        """Whether it steps on a parameter."""

    def adopt(self, parameter: Tensor, fingerprint: int) -> None:
        """Take a parameter's numbers, which somebody else wrote, for its own: accumulator and weight
        follow.
        """


class Parameters:
    """Which parameters a module has, and which optimizers step on them."""

    def __init__(self, module: nn.Module) -> None:
        modules = dict(module.named_modules())
        self._slots = [
            (m._parameters, key, f"{name}.{key}".lstrip("."))
            for name, m in modules.items()
            for key, parameter in m._parameters.items()
            if parameter is not None
        ]
        self._buffers = [
            (m._buffers, key, f"{name}.{key}".lstrip("."))
            for name, m in modules.items()
            for key in m._buffers
        ]
        self._noted: list[Tensor | None] = [None] * len(self._buffers)
        self._prepared = False
        self._owners: list[weakref.ref[Any]] = []
        for slots, key, name in self._slots:
            check_type(name, slots[key])

    def __getstate__(self) -> dict[str, Any]:
        """What a deep copy takes: its optimizers are not those of the original."""
        return self.__dict__ | {"_owners": []}

    def own(self, owner: Any) -> None:
        """Let an optimizer be told when its parameters were written."""
        self._owners.append(weakref.ref(owner))

    def owners(self) -> Iterable[Any]:
        """The optimizers that still live."""
        return [owner for reference in self._owners if (owner := reference()) is not None]

    def owner(self, parameter: Tensor) -> Owner | None:
        """The optimizer that steps on a parameter; the last one that was made."""
        return next((owner for owner in reversed(list(self.owners())) if owner.owns(parameter)), None)

    def prepare(self, state: LowPrecision, *, training: bool) -> list[Any]:
        """Before a pass: see that all parameters are of Format A. What undoes it after the pass, if anything.

        An evaluation leaves averaged or loaded weights as they are and computes on rounded copies of them.
        """
        undo: list[Any] = []
        if state.roundings.casts:
            return undo  # each operation rounds the weights that it is given
        plain, replaced, packed = [], [], state.packed
        for slots, key, name in self._slots:
            parameter = slots[key]
            if packed is not None and packed.holds(parameter):
                continue
            if parameter.dtype is not torch.float32:
                check_type(name, parameter)
            if type(parameter) is nn.Parameter or isinstance(parameter, nn.Parameter):
                plain.append(parameter)
                parameter.untyped_storage().__dict__[NOTE] = ()
            else:  # torch.func.functional_call put it there, for this pass
                replaced.append((slots, key, parameter))
        for number, (buffers, key, name) in enumerate(self._buffers):
            buffer = buffers.get(key)
            if buffer is not None and buffer is not self._noted[number]:
                buffer.untyped_storage().__dict__[NOTE] = Constant(name)
                self._noted[number] = buffer
        if state.roundings.is_known:
            for parameter, fingerprint in zip(plain, fingerprints(plain), strict=True):
                if known(parameter) != fingerprint:
                    self._round(parameter, fingerprint, state, training, undo)
        for slots, key, tensor in replaced:
            copy = round_parameter(tensor, state.roundings)
            write_note(copy, ())
            slots[key] = copy
            undo.append((slots.__setitem__, (key, tensor)))
        self._prepared = True
        return undo

    def _round(
        self, parameter: Tensor, fingerprint: int, state: LowPrecision, training: bool, undo: list[Any]
    ) -> None:
        owner, fmt = self.owner(parameter), state.roundings.weights
        with torch.no_grad():
            if training and owner is not None:
                owner.adopt(parameter, fingerprint)
                return
            if not training and (self._prepared or owner is not None) and not torch.is_grad_enabled():
                undo.append((setattr, (parameter, "data", parameter.data)))
                parameter.data = round_to(parameter.data, fmt, None)
                write_note(parameter, ())
                return
            round_to(parameter.data, fmt, None, parameter.data)
        if state.packed is not None and state.packed.pack(parameter):
            return
        know(parameter, *fingerprints([parameter]))


def known(parameter: Tensor) -> int | None:
    """The fingerprint of a parameter's numbers when they were last of Format A."""
    return parameter.__dict__.get(_KNOWN)


def know(parameter: Tensor, fingerprint: int) -> None:
    """Note that the numbers of a parameter are of Format A."""
    parameter.__dict__[_KNOWN] = fingerprint


def check_type(name: str, parameter: Tensor) -> None:
    """Refuse a parameter that is not float32, or has no numbers yet."""
    if is_lazy(parameter):
        raise NetworkError(f"{name} has no shape yet; run the network once before converting it")
    if parameter.dtype != torch.float32 and (parameter.is_floating_point() or parameter.is_complex()):
        raise NetworkError(
            f"{name} is {str(parameter.dtype).removeprefix('torch.')}; low precision is simulated in "
            "float32: convert the network with .float() first"
        )


def round_gradients(parameters: Iterable[Tensor], roundings: Roundings, key: Key) -> None:
    """Gradients of an earlier micro-batch to Format B, before the next ones are added."""
    for index, parameter in enumerate(parameters):
        if parameter.grad is not None and not isinstance(parameter.grad, UsedGradient):
            check_gradient(parameter)
            round_gradient(parameter.grad, roundings, mix(mix(key, index), GRADIENT))


def check_gradient(parameter: Tensor) -> None:
    """Refuse a sparse gradient."""
    if parameter.grad is not None and parameter.grad.layout != torch.strided:
        raise NetworkError(SPARSE.format(shape=tuple(parameter.shape)))
