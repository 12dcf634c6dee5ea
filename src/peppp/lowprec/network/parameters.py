"""The parameters of a converted module: they are in Format A whenever they are used, whoever wrote them.

Torch does not report writes through ``parameter.data``, so a fingerprint of each parameter shows whether its
numbers are still the ones that were rounded. Numbers written from outside are rounded; in training, the
optimizer's accumulators are updated to match.
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

_KNOWN = "_peppp_fingerprint"  # attribute of a parameter
SPARSE = (
    "a parameter of shape {shape} has a sparse gradient, which has no low-precision form; make the layer "
    "with sparse=False"
)


class Owner(Protocol):
    """An optimizer that may keep an accumulator for each of its parameters."""

    def owns(self, parameter: Tensor) -> bool:
        """Whether it steps on a parameter."""

    def adopt(self, parameter: Tensor, fingerprint: int) -> None:
        """Accept numbers that somebody else wrote into a parameter: update the accumulator and weight."""


class Parameters:
    """The parameters of a module, and the optimizers that step on them."""

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
        """Return the state for a deep copy, without the original's optimizers."""
        return self.__dict__ | {"_owners": []}

    def own(self, owner: Any) -> None:
        """Register an optimizer, so that it can adopt numbers written into its parameters."""
        self._owners.append(weakref.ref(owner))

    def owners(self) -> Iterable[Any]:
        """Return the optimizers that still exist."""
        return [owner for reference in self._owners if (owner := reference()) is not None]

    def owner(self, parameter: Tensor) -> Owner | None:
        """Return the optimizer that steps on a parameter (the newest one), or None."""
        return next((owner for owner in reversed(list(self.owners())) if owner.owns(parameter)), None)

    def prepare(self, state: LowPrecision, *, training: bool) -> list[Any]:
        """Round all parameters that need it before a pass; return the calls that undo this afterwards.

        An evaluation leaves averaged or loaded weights unchanged and computes on rounded copies of them.
        """
        undo: list[Any] = []
        if state.roundings.casts:
            return undo  # each operation rounds the weights that it reads
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
    """Return the fingerprint that a parameter's numbers had when they were last in Format A, or None."""
    return parameter.__dict__.get(_KNOWN)


def know(parameter: Tensor, fingerprint: int) -> None:
    """Note that the numbers of a parameter, with this fingerprint, are in Format A."""
    parameter.__dict__[_KNOWN] = fingerprint


def check_type(name: str, parameter: Tensor) -> None:
    """Raise NetworkError for a parameter that is not float32, or has no shape yet."""
    if is_lazy(parameter):
        raise NetworkError(f"{name} has no shape yet; run the network once before converting it")
    if parameter.dtype != torch.float32 and (parameter.is_floating_point() or parameter.is_complex()):
        raise NetworkError(
            f"{name} is {str(parameter.dtype).removeprefix('torch.')}; low precision is simulated in "
            "float32: convert the network with .float() first"
        )


def round_gradients(parameters: Iterable[Tensor], roundings: Roundings, key: Key) -> None:
    """Round the gradients of earlier micro-batches to Format B, before the next ones are added."""
    for index, parameter in enumerate(parameters):
        if parameter.grad is not None and not isinstance(parameter.grad, UsedGradient):
            check_gradient(parameter)
            round_gradient(parameter.grad, roundings, mix(mix(key, index), GRADIENT))


def check_gradient(parameter: Tensor) -> None:
    """Raise NetworkError for a sparse gradient."""
    if parameter.grad is not None and parameter.grad.layout != torch.strided:
        raise NetworkError(SPARSE.format(shape=tuple(parameter.shape)))
