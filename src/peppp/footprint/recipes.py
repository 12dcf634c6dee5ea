"""How a module is trained in plain PyTorch: a precision by its common name, and an optimizer."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from math import ceil
from typing import Any

import torch
from torch import Tensor, nn

from peppp.errors import NetworkError
from peppp.formats import FP32, Format
from peppp.lowprec.hooks import when_complete
from peppp.precisions import products, sixteen
from peppp.precisions.named import BF16, FP16
from peppp.precisions.states import FP32_WEIGHTS

MakesOptimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]

BASES = {p.name: p for p in (FP32_WEIGHTS, *sixteen.FAMILY, *products.FAMILY)}
_TYPES: dict[Format, torch.dtype] = {BF16: torch.bfloat16, FP16: torch.float16, FP32: torch.float32}
_LOW_BIT = {"sgd8bit": 8, "adamw8bit": 8, "adamw4bit": 4}  # bits per number of the states
OPTIMIZERS: dict[str, MakesOptimizer] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, lr=1e-3),
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-3),
    "adafactor": lambda p: torch.optim.Adafactor(p, lr=1e-2),
}
_STATES = {"sgd": 1, "adam": 2, "adamw": 2}  # numbers that an optimizer keeps for each weight


@dataclass(frozen=True, slots=True)
class TrainingRecipe:
    """How a step in plain PyTorch computes, and which optimizer it uses."""

    cast: torch.dtype | None  # of the module and its inputs; None leaves them as they are
    autocast: torch.dtype | None
    optimizer: MakesOptimizer
    fits_real_steps: bool  # whether this recipe can run, and not only be counted

    def scaler(self) -> "torch.amp.GradScaler":
        """Return a GradScaler, which is enabled for float16 only.

        Its scale begins at 1: with torch's default, 65536, the first steps would be skipped until it adapts.
        """
        return torch.amp.GradScaler("cpu", init_scale=1.0, enabled=self.autocast is torch.float16)

    def context(self) -> AbstractContextManager[Any]:
        """Return the context of a forward pass."""
        return nullcontext() if self.autocast is None else torch.autocast("cpu", dtype=self.autocast)


def training_recipe(
    module: nn.Module, optimizer: str | MakesOptimizer | None, precision: str, *, device: str = "cpu"
) -> TrainingRecipe:
    """Return the recipe for the given names.

    ``precision`` is a name such as ``amp-bf16`` or ``mxfp8`` (:mod:`peppp.precisions`). It may end in
    ``-sgd8bit``, ``-adamw8bit`` or ``-adamw4bit``, which selects that optimizer with block-wise narrow
    states.

    Raises NetworkError for an unknown name, or if no parameter of ``module`` is trained.
    """
    base, dash, low_bit = precision.rpartition("-")
    if not dash or low_bit not in _LOW_BIT:
        base, low_bit = precision, ""
    if base not in BASES:
        raise NetworkError(
            f"unknown precision {precision!r}; known: {', '.join(BASES)}; -{', -'.join(_LOW_BIT)} may follow"
        )
    named = BASES[base]
    if not any(p.requires_grad for p in module.parameters()):
        raise NetworkError(f"no parameter of {type(module).__name__} is trained; set requires_grad of some")
    cast = None if named.weights == FP32 else _TYPES[named.weights]
    extra = {"stochastic": "sr", "kahan": "kahan"}.get(named.update, "")
    make, real = _optimizer(optimizer, low_bit, extra, device)
    real = real and named.products is None
    return TrainingRecipe(cast, _TYPES[named.values] if named.casts else None, make, real)


def _optimizer(
    optimizer: str | MakesOptimizer | None, low_bit: str, extra: str, device: str
) -> tuple[MakesOptimizer, bool]:
    """Return what makes the optimizer, and whether it really steps."""
    if low_bit:
        kind = low_bit[:-4]
        if optimizer not in (None, kind):
            raise NetworkError(f"-{low_bit} names the optimizer; leave {optimizer!r} out")
        if extra == "kahan":
            raise NetworkError(f"no optimizer has both Kahan summation and {low_bit} states")
        return (
            lambda p: CountedOptimizer(p, _STATES[kind], bits=_LOW_BIT[low_bit], extra=extra, device=device)
        ), False
    optimizer = "sgd" if optimizer is None else optimizer
    if not isinstance(optimizer, str):
        if extra:
            raise NetworkError(f"bf16-{extra} needs an optimizer of its own; name sgd, adam or adamw")
        return optimizer, True
    if optimizer not in OPTIMIZERS:
        raise NetworkError(f"unknown optimizer {optimizer!r}; known: {', '.join(OPTIMIZERS)}, or a function")
    if not extra:
        return OPTIMIZERS[optimizer], True
    if optimizer not in _STATES:
        raise NetworkError(f"{optimizer} has no form with bf16-{extra}; take sgd, adam or adamw")
    return (lambda p: CountedOptimizer(p, _STATES[optimizer], extra=extra, device=device)), False


def check_passes(accumulate: int, release_gradients: bool) -> None:
    """Raise NetworkError if gradients would have to be both accumulated and released."""
    if accumulate < 1 or (accumulate > 1 and release_gradients):
        raise NetworkError("accumulate is 1 or more; gradients that are added up cannot be released")


def finishing(
    network: nn.Module, make: MakesOptimizer, release: bool, scaler: "torch.amp.GradScaler"
) -> tuple[Callable[[], None], list[torch.optim.Optimizer]]:
    """Return what ends a step, and its optimizers: one, or one per parameter (with ``release``)."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    if not release:
        stepper = make(parameters)

        def finish() -> None:
            scaler.step(stepper)
            scaler.update()
            stepper.zero_grad()

        return finish, [stepper]
    released = _Released(parameters, make, scaler)
    return released.finish, list(released.steppers.values())


class _Released:
    """An optimizer for each parameter, which steps as soon as the parameter's gradient is complete."""

    def __init__(
        self, parameters: Iterable[nn.Parameter], make: MakesOptimizer, scaler: "torch.amp.GradScaler"
    ) -> None:
        self.scaler = scaler
        self.steppers: dict[Tensor, torch.optim.Optimizer] = {p: make([p]) for p in parameters}
        for parameter in self.steppers:
            when_complete(parameter, self.step)

    def step(self, parameter: Tensor) -> None:
        self.scaler.step(self.steppers[parameter])
        self.steppers[parameter].zero_grad()

    def finish(self) -> None:
        self.scaler.update()


class CountedOptimizer(torch.optim.Optimizer):
    """Allocates what an optimizer of another library keeps, and changes no weight.

    8-bit states (bitsandbytes) take n bytes and a float32 scale for every 256 numbers. 4-bit states (torchao)
    take half of that, with a scale for every 128. Tensors of fewer than 4,096 numbers keep float32. Kahan
    summation (torch-optimi) adds a number of the weight's type per weight. On a GPU these steps are fused
    kernels; on a CPU they temporarily need a few numbers per weight, for one parameter at a time.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        states: int,
        *,
        bits: int | None = None,
        extra: str = "",
        device: str = "cpu",
    ) -> None:
        super().__init__(parameters, {})
        self._states, self._bits, self._extra, self._device = states, bits, extra, device

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Allocate the states of parameters that have gradients, and what a step on each needs."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                if not self.state[parameter]:
                    self._allocate(parameter)
                if self._bits is not None and not parameter.is_contiguous():
                    parameter.data = parameter.data.contiguous()  # as bitsandbytes does
                if self._device == "cpu":
                    dtype = parameter.dtype if self._extra == "kahan" else torch.float32
                    count = self._states + (self._extra != "kahan") + (self._states > 1)
                    needed = [torch.empty(parameter.shape, dtype=dtype) for _ in range(count)]
                    del needed

    def _allocate(self, parameter: Tensor) -> None:
        state, n = self.state[parameter], parameter.numel()
        for number in range(self._states):
            if self._bits is None:
                state[f"state{number}"] = torch.empty_like(parameter)
            elif n < 4096:
                state[f"state{number}"] = torch.empty(n, device=parameter.device)
            else:
                block = 256 if self._bits == 8 else 128
                size = ceil(n * self._bits / 8)
                state[f"state{number}"] = torch.empty(size, dtype=torch.uint8, device=parameter.device)
                state[f"scale{number}"] = torch.empty(ceil(n / block), device=parameter.device)
        if self._extra == "kahan":
            state["kahan"] = torch.empty_like(parameter)
