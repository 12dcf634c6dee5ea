"""Format B around torch's optimizers: narrow gradient, states and accumulator, weights in Format A.

With g, v, acc and w the gradient, momentum, accumulator and weight of a parameter, each step computes
g = qB(gradient); d = g + wd * acc; v = mu * v + d; acc = qB(acc - lr * v), of the unrounded v; w = qA(acc);
v = qB(v). Multiplications and additions are separate float32 operations, in torch.optim.SGD's order.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from peppp.errors import NetworkError
from peppp.formats import Format
from peppp.lowprec.network.conversion import low_precision_state, parameters_of
from peppp.lowprec.network.fingerprints import fingerprints
from peppp.lowprec.network.parameters import Parameters, check_gradient, know, known
from peppp.lowprec.network.reports import has
from peppp.lowprec.network.state import LowPrecision, round_gradient
from peppp.lowprec.rounding import backend
from peppp.lowprec.rounding.quantize import round_by, round_to
from peppp.lowprec.rounding.roundings import Roundings
from peppp.lowprec.rounding.streams import ACCUMULATOR, FIRST_STATE, GRADIENT, WEIGHT, Key, mix


class LowPrecisionOptimizer(torch.optim.Optimizer):
    """Any torch optimizer; it steps on the accumulator, and its states are rounded after each step."""

    storage_name = "simulated"

    def __init__(self, optimizer: torch.optim.Optimizer, module: nn.Module, *, accumulator: bool) -> None:
        self.low_precision: LowPrecision | None = None
        super().__init__(optimizer.param_groups, optimizer.defaults)
        self.base = optimizer
        self.param_groups = optimizer.param_groups
        self.state = optimizer.state
        self.low_precision = low_precision_state(module)
        self.owned: Parameters = parameters_of(module)
        self.has_accumulator = accumulator
        self.accumulators: dict[Tensor, Tensor] = {}
        # The fingerprints of the weights that belong to the accumulators.
        self.fingerprints: dict[Tensor, int] = {}
        # The random bits of a parameter depend on its number in the module, not in the optimizer.
        self.numbers: dict[Tensor, int] = {
            parameter: number for number, parameter in enumerate(module.parameters())
        }
        self.owned.own(self)
        self._begin_all(self._parameters())

    def _begin_all(self, parameters: Iterable[Tensor], *, written: bool = False) -> None:
        """Round new parameters, and give them accumulators.

        If they were ``written`` later, weights that are in Format A already are not rounded again.
        """
        assert self.low_precision is not None
        key = self.low_precision.clock.update_key()
        parameters = list(parameters)
        with torch.no_grad():
            for parameter in parameters:
                number = self.numbers[parameter]
                first = self._round_accumulator(parameter.data, mix(mix(key, number), ACCUMULATOR))
                weight_key: Key | None = mix(mix(key, number), WEIGHT)
                if written and has(parameter.data, self.roundings.weights):
                    weight_key = None
                else:
                    self._round_weight(first, mix(mix(key, number), WEIGHT), out=parameter.data)
                self._begin(parameter, first if self.has_accumulator else None, weight_key)
        self.note_weights(parameters)

    def note_weights(self, parameters: Iterable[Tensor] | None = None) -> None:
        """Note that the current weights belong to the accumulators."""
        if not self.roundings.is_known:
            return  # nobody writes into the weights of a captured step
        plain = [
            p for p in (self._parameters() if parameters is None else parameters) if not self._is_packed(p)
        ]
        for parameter, fingerprint in zip(plain, fingerprints(plain), strict=True):
            self.fingerprints[parameter] = fingerprint
            know(parameter, fingerprint)

    def owns(self, parameter: Tensor) -> bool:
        """Whether this optimizer steps on a parameter."""
        return any(parameter is own for own in self._parameters())

    def adopt(self, parameter: Tensor, fingerprint: int) -> None:
        """Let the accumulator follow a weight that was written, unless the accumulator made it."""
        if self.fingerprints.get(parameter) == fingerprint:
            know(parameter, fingerprint)
        else:
            self._begin_all([parameter], written=True)

    def _is_packed(self, parameter: Tensor) -> bool:
        return False

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters of the same module, which are trained like the others from now on.

        Raises NetworkError for parameters of another module.
        """
        if self.low_precision is None:  # called by torch's own constructor
            super().add_param_group(param_group)
            return
        given = param_group["params"]
        parameters = [given] if isinstance(given, Tensor) else list(given)
        if any(parameter not in self.numbers for parameter in parameters):
            raise NetworkError("the new group holds a parameter that is not one of the converted module's")
        self.base.add_param_group(param_group | {"params": parameters})
        self._begin_all(parameters)

    def _begin(self, parameter: Tensor, accumulator: Tensor | None, weight_key: Key | None) -> None:
        """Keep a parameter's accumulator; ``weight_key`` is the key of the weight's rounding, if any."""
        if accumulator is not None:
            self.accumulators[parameter] = accumulator

    @property
    def roundings(self) -> Roundings:
        """The formats and rounding modes."""
        assert self.low_precision is not None
        return self.low_precision.roundings

    def _parameters(self) -> list[Tensor]:
        return [parameter for group in self.param_groups for parameter in group["params"]]

    def _round_weight(self, x: Tensor, key: Key, out: Tensor | None = None) -> Tensor:
        return round_by(x, self.roundings.weights, self.roundings.weight_mode, key, out)

    def _round_accumulator(self, x: Tensor, key: Key, out: Tensor | None = None) -> Tensor:
        return round_by(x, self.roundings.accumulator, self.roundings.modes.states, key, out)

    def _round_state(self, name: str, x: Tensor, key: Key, out: Tensor | None = None) -> Tensor:
        fmt = self.roundings.state_format(name, x.numel())
        return round_by(x, fmt, self.roundings.modes.states, key, out)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Do one step on the rounded gradients, and advance the clock of the random bits."""
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        else:
            loss = None
        assert self.low_precision is not None
        with torch._C.DisableTorchFunction():  # a method of the network may call this within its pass
            parameters = self._parameters()
            for parameter in parameters:
                check_gradient(parameter)
            plain = [p for p in parameters if not self._is_packed(p)]
            if self.roundings.is_known:
                for parameter, fingerprint in zip(plain, fingerprints(plain), strict=True):
                    if known(parameter) != fingerprint:
                        self.adopt(parameter, fingerprint)
            self._update(self.low_precision.clock.step_key(id(self)))
            self.note_weights(plain)
        return loss

    def _update(self, update_key: Key) -> None:
        keys = {parameter: mix(update_key, self.numbers[parameter]) for parameter in self._parameters()}
        weights = {}
        for parameter, key in keys.items():
            if parameter.grad is not None:
                round_gradient(parameter.grad, self.roundings, mix(key, GRADIENT))
                weights[parameter] = parameter.data
                parameter.data = self.accumulators.get(parameter, parameter.data)
        self.base.step()
        for parameter, weight in weights.items():
            key = keys[parameter]
            if parameter in self.accumulators:
                self._round_accumulator(parameter.data, mix(key, ACCUMULATOR), out=parameter.data)
            self._round_weight(parameter.data, mix(key, WEIGHT), out=weight)
            parameter.data = weight
            named = sorted((name, value) for name, value in self.state[parameter].items())
            for number, (name, value) in enumerate(named):
                if isinstance(value, Tensor) and value.dim() and value.is_floating_point():
                    self._round_state(name, value, mix(key, FIRST_STATE + number), out=value)

    def state_dict(self) -> dict[str, Any]:
        """Return the base optimizer's state, the accumulators and the clock, to resume bit for bit.

        Fingerprints identify the weights of the accumulators, so that weights may be loaded before or after.
        """
        assert self.low_precision is not None
        clock, parameters = self.low_precision.clock, self._parameters()
        return self.base.state_dict() | {
            "accumulators": [self.accumulators.get(parameter) for parameter in parameters],
            "fingerprints": [self.fingerprints.get(parameter) for parameter in parameters],
            "clock": {"seed": clock.seed, "step": clock.step},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what :meth:`state_dict` returned; the module's own state_dict holds the weights."""
        assert self.low_precision is not None
        self.base.load_state_dict({name: state_dict[name] for name in ("state", "param_groups")})
        self.param_groups, self.state = self.base.param_groups, self.base.state
        parameters = self._parameters()
        for parameter, saved in zip(parameters, state_dict["accumulators"], strict=True):
            if saved is not None:
                self.accumulators[parameter] = saved.to(parameter.device).clone()
        # Without saved fingerprints, assume that the state belongs to the current weights.
        saved_prints = state_dict.get("fingerprints") or fingerprints(parameters)
        self.fingerprints = {
            parameter: fingerprint
            for parameter, fingerprint in zip(parameters, saved_prints, strict=True)
            if fingerprint is not None
        }
        clock = self.low_precision.clock
        clock.seed, clock.step = state_dict["clock"]["seed"], state_dict["clock"]["step"]
        clock.training_pass = clock.evaluation_pass = -1


class LowPrecisionSGD(LowPrecisionOptimizer):
    """SGD in the order of operations in the module's docstring; ``.grad`` stays unrounded."""

    def _update(self, update_key: Key) -> None:
        p = self.roundings
        for group in self.param_groups:
            weights = [w for w in group["params"] if w.grad is not None]
            gradients = [w.grad for w in weights]
            momenta = [self._momentum(w) for w in weights] if group["momentum"] else None
            accumulators = [self.accumulators[w] for w in weights] if self.has_accumulator else None
            indices = [self.numbers[w] for w in weights]
            rates = (group["lr"], group["momentum"], group["weight_decay"])
            if not backend.sgd_step(
                gradients,
                momenta,
                accumulators,
                weights,
                indices,
                p,
                *rates,
                update_key,
            ):
                for i, w in enumerate(weights):
                    sgd_step(
                        gradients[i],
                        None if momenta is None else momenta[i],
                        None if accumulators is None else accumulators[i],
                        w.data,
                        p,
                        *rates,
                        mix(update_key, indices[i]),
                    )

    def _momentum(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        momentum: Tensor = state["momentum_buffer"]
        return momentum


class KahanOptimizer(LowPrecisionOptimizer):
    """Any torch optimizer on 16-bit weights that carries their rounding errors along (Kahan summation).

    A weight and its rounding error, each rounded, are kept as their sum: the accumulator.
    """

    def _round_accumulator(self, x: Tensor, key: Key, out: Tensor | None = None) -> Tensor:
        fmt = self.roundings.weights
        weight = round_to(x, fmt, None)
        return torch.add(weight, round_to(x - weight, fmt, None), out=out)


def sgd_step(
    gradient: Tensor,
    momentum: Tensor | None,
    accumulator: Tensor | None,
    weight: Tensor,
    roundings: Roundings,
    learning_rate: float | Tensor,
    momentum_factor: float,
    weight_decay: float,
    key: Key,
) -> None:
    """Do one parameter's step in torch operations: the kernel's specification, and its replacement."""
    modes, states = roundings.modes, roundings.state_format("momentum_buffer", weight.numel())

    def rounded(x: Tensor, fmt: Format, mode: str, role: int) -> Tensor:
        return round_by(x, fmt, mode, mix(key, role))

    acc = weight if accumulator is None else accumulator
    v = rounded(gradient, roundings.gradient, modes.gradient, GRADIENT)
    if weight_decay:
        v = v + acc * weight_decay
    if momentum is not None:
        v = momentum * momentum_factor + v
        momentum.copy_(rounded(v, states, modes.states, FIRST_STATE))
    acc = acc - v * learning_rate
    if accumulator is not None:
        acc = accumulator.copy_(rounded(acc, roundings.accumulator, modes.states, ACCUMULATOR))
    weight.copy_(rounded(acc, roundings.weights, roundings.weight_mode, WEIGHT))
