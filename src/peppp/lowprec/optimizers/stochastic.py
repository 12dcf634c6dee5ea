"""Stochastically rounded bfloat16 weights, in real training: there is no float32 copy of the network."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from peppp.lowprec.rounding.quantize import round_to
from peppp.lowprec.rounding.streams import WEIGHT, mix
from peppp.precisions.named import BF16


class StochasticWeights(torch.optim.Optimizer):
    """Any torch optimizer over bfloat16 parameters; each steps in float32 temporarily.

    One after another, a parameter, its gradient and its states are converted to float32, ``optimizer`` steps
    on them, the weight is rounded stochastically back and the states to nearest. With ``keeps_states``,
    states stay as ``optimizer`` made them, as 8-bit ones must. ``seed`` determines the random bits.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, *, seed: int = 0, keeps_states: bool = False
    ) -> None:
        self.base = optimizer
        super().__init__(optimizer.param_groups, optimizer.defaults)
        self.param_groups, self.state = optimizer.param_groups, optimizer.state
        self._seed, self._steps, self._keeps_states = seed, 0, keeps_states

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Do one step; the gradients stay in bfloat16."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        whole = [list(group["params"]) for group in self.param_groups]
        number = 0
        try:
            for group, parameters in zip(self.param_groups, whole, strict=True):
                for others in self.param_groups:
                    others["params"] = []
                for parameter in parameters:
                    group["params"] = [parameter]
                    self._step_on(parameter, mix(mix(mix(self._seed, self._steps), number), WEIGHT))
                    number += 1
        finally:
            for group, parameters in zip(self.param_groups, whole, strict=True):
                group["params"] = parameters
        self._steps += 1
        return loss

    def _step_on(self, parameter: Tensor, key: int) -> None:
        if parameter.grad is None:
            return
        weight, gradient, state = parameter.data, parameter.grad, self.state[parameter]
        parameter.grad = None
        parameter.data = weight.float()
        parameter.grad = gradient.float()
        for name, x in state.items():
            if torch.is_tensor(x) and x.dtype == torch.bfloat16:
                state[name] = x.float()
        self.base.step()
        weight.copy_(round_to(parameter.data, BF16, key))
        parameter.grad = None
        parameter.data, parameter.grad = weight, gradient
        if self._keeps_states:
            return
        for name, x in state.items():
            if torch.is_tensor(x) and x.dtype == torch.float32 and (x.shape == weight.shape and x.dim()):
                state[name] = x.to(torch.bfloat16)

    def state_dict(self) -> dict[str, Any]:
        """Return the base optimizer's state, and the number of steps that the random bits depend on."""
        return self.base.state_dict() | {"steps": self._steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what :meth:`state_dict` returned."""
        self.base.load_state_dict({name: state_dict[name] for name in ("state", "param_groups")})
        self.param_groups, self.state = self.base.param_groups, self.base.state
        self._steps = state_dict["steps"]
