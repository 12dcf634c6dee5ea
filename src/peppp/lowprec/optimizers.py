"""Format B around torch's optimizers: gradient, states and accumulator of few bits, weights in Format A.

Each step, with g, v, acc and w the gradient, momentum, accumulator and weight of a parameter:
g = qB(gradient); d = g + wd * acc; v = mu * v + d; acc = qB(acc - lr * v), of the unrounded v; w = qA(acc);
v = qB(v). Multiplications and additions are separate float32 operations, in torch.optim.SGD's order.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from peppp.errors import NetworkError
from peppp.lowprec import kernels
from peppp.lowprec.conversion import low_precision_state
from peppp.lowprec.functions import Precision
from peppp.lowprec.rounding import round_by
from peppp.lowprec.state import LowPrecision, round_gradient
from peppp.lowprec.streams import ACCUMULATOR, FIRST_STATE, GRADIENT, WEIGHT, Key, mix


def low_precision_optimizer(
    optimizer: torch.optim.Optimizer,
    module: nn.Module,
    *,
    accumulator: bool = True,
    storage: str = "simulated",
    gradients: str = "in_backward",
    weights: str = "recomputed",
) -> "LowPrecisionOptimizer":
    """A torch optimizer whose gradient, states and accumulator live in Format B of ``module``.

    ``module`` is one that :func:`peppp.lowprec.conversion.low_precision` made, ``optimizer`` a fresh one over
    its parameters: SGD (momentum, weight decay), or any other that keeps its states parameter by parameter
    (as Adam and AdamW). Parameters are rounded at once: accumulator = qB(w), w = qA(accumulator). Without an
    accumulator the update falls on the Format A weights themselves.

    ``storage`` "simulated" keeps rounded values in float32; "packed" keeps weights, what is saved for the
    backward pass, states and accumulator in as many bits as their formats have: the same numbers, bit for
    bit. Only then have ``gradients`` ("in_backward", "packed", "fp32") and ``weights`` ("recomputed",
    "packed") a meaning: see :class:`peppp.lowprec.packed_optimizer.PackedOptimizer`.

    Raises NetworkError for parameters of another module, an optimizer that has stepped already, or one of
    SGD's rarer options.
    """
    state = low_precision_state(module)
    own = set(module.parameters())
    groups = optimizer.param_groups
    if any(parameter not in own for group in groups for parameter in group["params"]):
        raise NetworkError(
            f"{type(optimizer).__name__} holds a parameter that is not one of {type(module).__name__}'s; "
            "give it the parameters of the converted module"
        )
    if optimizer.state:
        raise NetworkError(f"{type(optimizer).__name__} has stepped already; convert a fresh optimizer")
    if isinstance(optimizer, (torch.optim.LBFGS, torch.optim.SparseAdam)):
        raise NetworkError(
            f"{type(optimizer).__name__} has no low-precision form: its states are not kept parameter by "
            "parameter; use SGD, Adam, AdamW or another first-order optimizer"
        )
    if isinstance(optimizer, torch.optim.SGD):
        for option in ("nesterov", "dampening", "maximize"):
            if any(group[option] for group in groups):
                raise NetworkError(f"SGD with {option} has no low-precision form; leave it out, or use AdamW")
    if storage == "packed":
        from peppp.lowprec.packed_optimizer import PackedOptimizer, PackedSGD

        kind = PackedSGD if isinstance(optimizer, torch.optim.SGD) else PackedOptimizer
        return kind(optimizer, module, state, accumulator=accumulator, gradients=gradients, weights=weights)
    if storage != "simulated":
        raise NetworkError(f"unknown storage {storage!r}; known: simulated, packed")
    if isinstance(optimizer, torch.optim.SGD):
        return LowPrecisionSGD(optimizer, state, accumulator=accumulator)
    return LowPrecisionOptimizer(optimizer, state, accumulator=accumulator)


class LowPrecisionOptimizer(torch.optim.Optimizer):
    """Any torch optimizer, stepping on the accumulator; its states rounded to Format B after each step."""

    def __init__(self, optimizer: torch.optim.Optimizer, state: LowPrecision, *, accumulator: bool) -> None:
        super().__init__(optimizer.param_groups, optimizer.defaults)
        self.base = optimizer
        self.param_groups = optimizer.param_groups
        self.state = optimizer.state
        self.low_precision = state
        self.accumulators: dict[Tensor, Tensor] = {}
        key = state.clock.update_key()
        with torch.no_grad():
            for index, parameter in enumerate(self._parameters()):
                first = self._round_b(parameter.data, mix(mix(key, index), ACCUMULATOR))
                self._round_a(first, mix(mix(key, index), WEIGHT), out=parameter.data)
                self._begin(parameter, first if accumulator else None, mix(mix(key, index), WEIGHT))
        state.parameters_rounded = True

    def _begin(self, parameter: Tensor, accumulator: Tensor | None, weight_key: int) -> None:
        """Keep what belongs to a parameter, whose weight has just been rounded with ``weight_key``."""
        if accumulator is not None:
            self.accumulators[parameter] = accumulator

    @property
    def precision(self) -> Precision:
        """The formats and rounding modes."""
        return self.low_precision.precision

    def _parameters(self) -> list[Tensor]:
        return [parameter for group in self.param_groups for parameter in group["params"]]

    def _round_a(self, x: Tensor, key: Key, out: Tensor | None = None) -> Tensor:
        return round_by(x, self.precision.configuration.format_a, self.precision.modes.values, key, out)

    def _round_b(self, x: Tensor, key: Key, out: Tensor | None = None) -> Tensor:
        return round_by(x, self.precision.configuration.format_b, self.precision.modes.states, key, out)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step on the rounded gradients; advances the clock of the random bits."""
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        else:
            loss = None
        self._update(self.low_precision.clock.update_key())
        self.low_precision.clock.advance()
        return loss

    def _update(self, update_key: Key) -> None:
        keys = {parameter: mix(update_key, index) for index, parameter in enumerate(self._parameters())}
        weights = {}
        for parameter, key in keys.items():
            if parameter.grad is not None:
                round_gradient(parameter.grad, self.precision, mix(key, GRADIENT))
                weights[parameter] = parameter.data
                parameter.data = self.accumulators.get(parameter, parameter.data)
        self.base.step()
        for parameter, weight in weights.items():
            key = keys[parameter]
            if parameter in self.accumulators:
                self._round_b(parameter.data, mix(key, ACCUMULATOR), out=parameter.data)
            self._round_a(parameter.data, mix(key, WEIGHT), out=weight)
            parameter.data = weight
            named = sorted((name, value) for name, value in self.state[parameter].items())
            for number, (_, value) in enumerate(named):
                if isinstance(value, Tensor) and value.dim() and value.is_floating_point():
                    self._round_b(value, mix(key, FIRST_STATE + number), out=value)

    def state_dict(self) -> dict[str, Any]:
        """The base optimizer's state, the accumulators and the clock: all that resuming bit for bit needs."""
        clock = self.low_precision.clock
        return self.base.state_dict() | {
            "accumulators": [self.accumulators.get(parameter) for parameter in self._parameters()],
            "clock": {"seed": clock.seed, "step": clock.step},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave; the module's own state_dict holds the weights."""
        self.base.load_state_dict({name: state_dict[name] for name in ("state", "param_groups")})
        self.param_groups, self.state = self.base.param_groups, self.base.state
        for parameter, saved in zip(self._parameters(), state_dict["accumulators"], strict=True):
            if saved is not None:
                self.accumulators[parameter] = saved.to(parameter.device).clone()
        clock = self.low_precision.clock
        clock.seed, clock.step = state_dict["clock"]["seed"], state_dict["clock"]["step"]
        clock.training_pass = clock.evaluation_pass = -1


class LowPrecisionSGD(LowPrecisionOptimizer):
    """SGD in the order of operations that the module's docstring gives; it leaves ``.grad`` as it is."""

    def _update(self, update_key: Key) -> None:
        p = self.precision
        numbers = {parameter: index for index, parameter in enumerate(self._parameters())}
        for group in self.param_groups:
            weights = [w for w in group["params"] if w.grad is not None]
            gradients = [w.grad for w in weights]
            momenta = [self._momentum(w) for w in weights] if group["momentum"] else None
            accumulators = [self.accumulators[w] for w in weights] if self.accumulators else None
            indices = [numbers[w] for w in weights]
            rates = (group["lr"], group["momentum"], group["weight_decay"])
            if not kernels.sgd_step(
                gradients,
                momenta,
                accumulators,
                weights,
                indices,
                p.configuration,
                p.modes,
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


def sgd_step(
    gradient: Tensor,
    momentum: Tensor | None,
    accumulator: Tensor | None,
    weight: Tensor,
    precision: Precision,
    learning_rate: float | Tensor,
    momentum_factor: float,
    weight_decay: float,
    key: Key,
) -> None:
    """One parameter's step in torch operations: the meaning of the kernel, and what runs without it."""
    configuration, modes = precision.configuration, precision.modes

    def round_b(x: Tensor, mode: str, role: int) -> Tensor:
        return round_by(x, configuration.format_b, mode, mix(key, role))

    acc = weight if accumulator is None else accumulator
    v = round_b(gradient, modes.gradient, GRADIENT)
    if weight_decay:
        v = v + acc * weight_decay
    if momentum is not None:
        v = momentum * momentum_factor + v
        momentum.copy_(round_b(v, modes.states, FIRST_STATE))
    acc = acc - v * learning_rate
    if accumulator is not None:
        acc = accumulator.copy_(round_b(acc, modes.states, ACCUMULATOR))
    weight.copy_(round_by(acc, configuration.format_a, modes.values, mix(key, WEIGHT)))
