"""Optimizers whose accumulator, states, gradients and weights are packed: the same numbers in fewer bytes.

A parameter can step in the backward pass as soon as its gradient is complete, so that no two gradients are
kept at once.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from peppp.errors import NetworkError
from peppp.lowprec.hooks import when_complete
from peppp.lowprec.network.conversion import low_precision_state, parameters_of
from peppp.lowprec.network.fingerprints import fingerprints
from peppp.lowprec.network.parameters import SPARSE, known
from peppp.lowprec.network.state import round_gradient
from peppp.lowprec.optimizers.scalers import refuse_scaled_losses
from peppp.lowprec.optimizers.simulated import LowPrecisionOptimizer
from peppp.lowprec.packing.packed_tensor import PackedTensor, is_dense
from peppp.lowprec.rounding.streams import GRADIENT, WEIGHT, Key, mix
from peppp.lowprec.storage.packed_network import PackedStorage, packable
from peppp.lowprec.storage.placeholders import UsedGradient, give
from peppp.lowprec.storage.weights import segment_length

GRADIENTS = ("fp32", "packed", "in_backward")
WEIGHTS = ("packed", "recomputed")
ACCUMULATOR = "accumulator"  # its name among the packed states of a parameter


class PackedOptimizer(LowPrecisionOptimizer):
    """Any torch optimizer over packed parameters, one parameter at a time.

    ``gradients`` selects what is kept of gradients until the step. ``fp32`` keeps torch's own ``.grad``,
    which can be read, clipped and scaled. ``packed`` keeps all in Format B until :meth:`step`, so that
    micro-batches can be added up. ``in_backward`` keeps nothing, as each parameter steps within the backward
    pass. With the last two, ``.grad`` cannot be read. ``weights`` are ``packed``, or ``recomputed`` from the
    accumulator if there is one.
    """

    storage_name = "packed"

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        module: nn.Module,
        *,
        accumulator: bool,
        gradients: str,
        weights: str,
    ) -> None:
        if gradients not in GRADIENTS:
            raise NetworkError(f"unknown gradients={gradients!r}; known: {', '.join(GRADIENTS)}")
        if weights not in WEIGHTS:
            raise NetworkError(f"unknown weights={weights!r}; known: {', '.join(WEIGHTS)}")
        state, parameters = low_precision_state(module), parameters_of(module)
        self.format = packable(state.roundings.states)
        before = state.packed
        self.storage = (
            before if isinstance(before, PackedStorage) else PackedStorage(module, state, parameters)
        )
        self.gradients = gradients
        self.recompute = weights == "recomputed" and accumulator
        self.packed: dict[Tensor, dict[str, PackedTensor]] = {}
        self.packed_gradients: dict[Tensor, PackedTensor | Tensor] = {}
        self._stepped: set[Tensor] = set()
        self._hooks: dict[Tensor, list[Any]] = {}
        super().__init__(optimizer, module, accumulator=accumulator)
        if gradients == "in_backward":
            refuse_scaled_losses(self)

    def _begin_all(self, parameters: Iterable[Tensor], *, written: bool = False) -> None:
        parameters = list(parameters)
        for parameter in parameters:
            self.storage.weights.forget_parameter(parameter)
            for other in self.owned.owners():
                if other is not self and isinstance(other, PackedOptimizer):
                    other.let_go(parameter)
        super()._begin_all(parameters, written=written)
        for parameter in parameters:
            if parameter.requires_grad and parameter in self.packed and parameter not in self._hooks:
                self._hooks[parameter] = [
                    parameter.register_hook(partial(self._stand_in, parameter)),  # type: ignore[no-untyped-call]
                    when_complete(parameter, self._complete),
                ]

    def let_go(self, parameter: Tensor) -> None:
        """Stop stepping on a parameter, because another optimizer does."""
        for handle in self._hooks.pop(parameter, ()):
            handle.remove()
        self.packed.pop(parameter, None)
        for group in self.param_groups:
            group["params"] = [own for own in group["params"] if own is not parameter]

    def adopt(self, parameter: Tensor, fingerprint: int) -> None:
        """Let the accumulator follow a loaded weight, unless the weight came from this accumulator."""
        if self._is_packed(parameter):
            own = self.fingerprints.get(parameter, known(parameter))
            if own == fingerprint and self.storage.weights.pack(parameter):
                return
        super().adopt(parameter, fingerprint)

    def _is_packed(self, parameter: Tensor) -> bool:
        return parameter in self.packed

    def _begin(self, parameter: Tensor, accumulator: Tensor | None, weight_key: Key | None) -> None:
        weights = self.storage.weights
        if not weights.pack(parameter):
            super()._begin(parameter, accumulator, weight_key)
            return
        self.packed[parameter] = {
            name: state for name, state in self.packed.get(parameter, {}).items() if name != ACCUMULATOR
        }
        if accumulator is not None:
            self._keep(parameter, ACCUMULATOR, accumulator)
            if isinstance(weight_key, int):
                self._set_key(parameter, weight_key)

    def _keep(self, parameter: Tensor, name: str, values: Tensor) -> None:
        """Pack a parameter's state; a number without a code, such as NaN, marks the parameter as spoiled."""
        fmt = self.format
        packed = PackedTensor.try_pack(values, fmt, segment_length(values))
        if packed is None:
            self.storage.weights.spoiled.add(parameter)
        else:
            self.packed[parameter][name] = packed

    def _set_key(self, parameter: Tensor, weight_key: int) -> None:
        """Note the key with which the weights were rounded, if weights are recomputed."""
        if self.recompute:
            weights, stochastic = self.storage.weights, self.roundings.modes.values == "stochastic"
            weights.recomputed[parameter] = (
                self.packed[parameter][ACCUMULATOR],
                weight_key if stochastic else None,
            )
            weights.packed.pop(parameter, None)

    def _stand_in(self, parameter: Tensor, gradient: Tensor) -> None:
        """Temporarily point ``parameter.data`` at the gradient.

        Otherwise autograd would copy a gradient whose strides differ.
        """
        if gradient.layout != torch.strided:
            raise NetworkError(SPARSE.format(shape=tuple(parameter.shape)))
        if isinstance(parameter.grad, UsedGradient):
            parameter.grad = None
        if parameter.grad is None:
            give(parameter, gradient.detach())

    @torch.no_grad()
    def _complete(self, parameter: Tensor) -> None:
        """Pack a parameter's complete gradient, or step with it, as ``gradients`` says."""
        self.storage.weights.empty(parameter)
        gradient = parameter.grad
        if gradient is None or self.gradients == "fp32":
            return
        parameter.grad = None
        assert self.low_precision is not None
        key = self.low_precision.clock.update_key()
        if self.gradients == "packed":
            if not is_dense(gradient):  # such as that of a bias with a batch of one image
                gradient = gradient.contiguous()
            before = self.packed_gradients.pop(parameter, None)
            if before is not None:
                gradient = gradient.add_(before.unpack() if isinstance(before, PackedTensor) else before)
            number = self.numbers[parameter]
            round_gradient(gradient, self.roundings, mix(mix(key, number), GRADIENT))
            fmt = self.format
            packed = PackedTensor.try_pack(gradient, fmt)
            self.packed_gradients[parameter] = gradient if packed is None else packed
        elif parameter in self._stepped:
            raise NetworkError(
                "a second backward pass before step(): the gradients of the first one are used up already; "
                'take gradients="packed" to add gradients up, or "fp32" to clip or read them'
            )
        else:
            self._stepped.add(parameter)
            self._step_packed(parameter, gradient, key)
        parameter.grad = UsedGradient.of(parameter)

    def _update(self, update_key: Key) -> None:
        assert isinstance(update_key, int)  # replayed steps do not pack
        self._stepped.clear()
        self.fingerprints = {p: f for p, f in self.fingerprints.items() if p not in self.packed}
        for parameter in self.packed:
            if isinstance(parameter.grad, UsedGradient):
                parameter.grad = None
        kept = {p: p.grad for p in self.packed if p.grad is not None}
        for parameter, gradient in self.packed_gradients.items():
            values = gradient.unpack() if isinstance(gradient, PackedTensor) else gradient
            self._step_packed(parameter, values, update_key)
        for parameter, values in kept.items():
            self._step_packed(parameter, values, update_key)
            parameter.grad = None
        if any(parameter.grad is not None for parameter in self._parameters()):
            super()._update(update_key)
        for parameter, values in kept.items():
            parameter.grad = values

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear all gradients."""
        self.packed_gradients.clear()
        super().zero_grad(set_to_none)

    def _step_packed(self, parameter: Tensor, gradient: Tensor, update_key: int) -> None:
        """Do one step of one packed parameter."""
        if parameter in self.storage.weights.spoiled:
            return
        number = self.numbers[parameter]
        others = {p: p.grad for p in self._parameters() if p.grad is not None}
        for other in others:
            other.grad = None
        give(parameter, self.storage.weights.unpacked(parameter))
        parameter.grad = gradient
        self._unpack_states(parameter)
        super()._update(update_key)
        parameter.grad = None
        self._pack_states(parameter)
        if not self.storage.weights.pack(parameter):
            self.storage.weights.spoiled.add(parameter)
            self.storage.weights.empty(parameter)
        if ACCUMULATOR in self.packed[parameter]:
            self._set_key(parameter, mix(mix(update_key, number), WEIGHT))
        for other, values in others.items():
            other.grad = values

    def _unpack_states(self, parameter: Tensor) -> None:
        unpacked = {name: packed.unpack() for name, packed in self.packed[parameter].items()}
        if ACCUMULATOR in unpacked:
            self.accumulators[parameter] = unpacked.pop(ACCUMULATOR)
        self.state[parameter] = self.state[parameter] | unpacked

    def _pack_states(self, parameter: Tensor) -> None:
        accumulator = self.accumulators.pop(parameter, None)
        if accumulator is not None:
            self._keep(parameter, ACCUMULATOR, accumulator)
        for name, value in list(self.state[parameter].items()):
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.is_floating_point():
                self._keep(parameter, name, self.state[parameter].pop(name))

    @contextmanager
    def _unpacked(self) -> Iterator[None]:
        """Provide all states as float32 tensors, as the simulated optimizer has them."""
        kept = {parameter: self.state[parameter] for parameter in self.packed}
        for parameter in self.packed:
            self._unpack_states(parameter)
        try:
            yield
        finally:
            for parameter, state in kept.items():
                self.state[parameter] = state
                self.accumulators.pop(parameter, None)

    def state_dict(self) -> dict[str, Any]:
        """Return the state unpacked, as the simulated optimizer does: each can load the other's."""
        with self._unpacked():
            state = super().state_dict()
        weights = self.storage.weights
        state["fingerprints"] = [
            self.fingerprints[p] if p in self.fingerprints else fingerprints([weights.unpacked(p)])[0]
            for p in self._parameters()
        ]
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what :meth:`state_dict`, or the simulated optimizer's, returned."""
        weights = self.storage.weights
        if not state_dict.get("fingerprints"):  # an older state_dict: assume that it belongs to these weights
            prints = [
                fingerprints([weights.unpacked(p) if self._is_packed(p) else p])[0]
                for p in self._parameters()
            ]
            state_dict = state_dict | {"fingerprints": prints}
        for parameter in self.packed:
            if parameter in weights.recomputed:  # from an accumulator that is about to be replaced
                give(parameter, weights.unpacked(parameter))
                del weights.recomputed[parameter]
                weights.pack(parameter)
        super().load_state_dict(state_dict)
        for parameter in self.packed:
            self.packed[parameter] = {}
            self._pack_states(parameter)
