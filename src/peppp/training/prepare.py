"""``prepare``: set up a module and its optimizer to train at a precision for real, without simulation."""

import inspect
import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from peppp.arguments import checked
from peppp.errors import NetworkError
from peppp.formats import Format
from peppp.lowprec.network.conversion import low_precision
from peppp.lowprec.optimizers.low_precision import has_stepped, low_precision_optimizer
from peppp.lowprec.optimizers.stochastic import StochasticWeights
from peppp.precisions.known import Precision, is_of_formats, parse_precision
from peppp.precisions.named import BF16, FP16, NamedPrecision
from peppp.training.blocks import compute_again
from peppp.training.planning import Recomputation
from peppp.training.runs_here import lacking

_TYPES: dict[Format, torch.dtype] = {BF16: torch.bfloat16, FP16: torch.float16}
# The options that are passed on to the optimizers of other libraries, by torch's names.
_OPTIONS = {"SGD": ("lr", "momentum", "weight_decay"), "AdamW": ("lr", "betas", "eps", "weight_decay")}
_OPTIONS["Adam"] = _OPTIONS["AdamW"]


class Prepared:
    """A training at a precision; call its ``forward``, ``backward`` and ``step`` instead of torch's.

    ``module`` and ``optimizer`` are what it trains with. The optimizer may be a different object from the one
    given to :func:`prepare`, so create schedulers with this one.
    """

    def __init__(
        self,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        cast: torch.dtype | None = None,
        autocast: torch.dtype | None = None,
        scales: bool = False,
        device: str = "cpu",
    ) -> None:
        self.module, self.optimizer = module, optimizer
        self._cast, self._autocast, self._device = cast, autocast, torch.device(device).type
        self.scaler = torch.amp.GradScaler(self._device, enabled=scales)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the module; bfloat16 and float16 results are converted to float32."""
        if self._cast is not None:
            args, kwargs = tree_map(self._narrow, (args, kwargs))
        with self._context():
            results = self.module(*args, **kwargs)
        return tree_map(_wide, results)

    def backward(self, loss: Tensor) -> None:
        """Compute the gradients of a loss, which is scaled first if the precision needs that."""
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def step(self) -> None:
        """Take an optimizer step, and clear the gradients."""
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()

    def _context(self) -> AbstractContextManager[Any]:
        if self._autocast is None:
            return nullcontext()
        return torch.autocast(self._device, dtype=self._autocast)

    def _narrow(self, x: Any) -> Any:
        return x.to(self._cast) if isinstance(x, Tensor) and x.dtype == torch.float32 else x


def _wide(x: Any) -> Any:
    return x.float() if isinstance(x, Tensor) and x.dtype in (torch.bfloat16, torch.float16) else x


@checked
def prepare(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    precision: Precision | str,
    *,
    recompute: Sequence[str] | Recomputation = (),
    seed: int = 0,
    rounding: str = "stochastic",
) -> Prepared:
    """Set up ``module`` to train at a precision for real: with torch, torch-optimi, bitsandbytes, or packed.

    ``optimizer`` is a torch optimizer of the module's parameters that has not stepped yet. ``precision`` is a
    name, ``fp32``, or a pair of formats, which is trained packed. ``recompute`` is the result of
    :func:`peppp.recompute`, or the names of the blocks to recompute. The module is changed in place. ``seed``
    is the seed of stochastic rounding; ``rounding`` is the rounding mode of a pair of formats.

    Raises NetworkError if this machine cannot run the precision (the message says what is missing), if the
    module has no parameters, or if the optimizer has stepped already or does not suit the precision.

    >>> net = nn.Linear(4, 2)
    >>> ready = prepare(net, torch.optim.SGD(net.parameters(), lr=0.1), "amp-bf16")
    >>> loss = ready.forward(torch.ones(3, 4)).square().mean()
    >>> ready.backward(loss); ready.step()
    """
    precision = parse_precision(precision)
    if next(module.parameters(), None) is None:
        raise NetworkError(f"{type(module).__name__} has no parameters to train")
    device = str(next(module.parameters()).device)
    if device == "meta":
        raise NetworkError(
            f"{type(module).__name__} is on the meta device and has no numbers; build it on the CPU or a GPU"
        )
    if lack := lacking(precision, module, device=device):
        raise NetworkError(lack)
    if isinstance(optimizer, torch.optim.LBFGS):
        raise NetworkError("LBFGS computes losses within its step; take SGD, Adam or AdamW")
    if has_stepped(optimizer):
        raise NetworkError(f"{type(optimizer).__name__} has stepped already; prepare a fresh optimizer")
    if isinstance(precision, NamedPrecision):
        _check(module, optimizer, precision)
    if isinstance(recompute, Recomputation):
        recompute.apply(module)
    else:
        compute_again(module, recompute, recompute)
    if is_of_formats(precision):
        low_precision(module, precision, rounding=rounding, seed=seed)
        return Prepared(module, low_precision_optimizer(optimizer, module, storage="packed"))
    if not isinstance(precision, NamedPrecision):
        return Prepared(module, optimizer)
    return Prepared(
        module,
        _optimizer(module, optimizer, precision, seed),
        cast=_TYPES[precision.weights] if precision.is_narrow else None,
        autocast=_TYPES[precision.values] if precision.casts else None,
        scales=precision.scales_loss,
        device=device,
    )


def _check(module: nn.Module, optimizer: torch.optim.Optimizer, precision: NamedPrecision) -> None:
    """Before anything is changed, refuse modules that cannot be trained and options that would be lost."""
    kind = type(optimizer).__name__
    if precision.is_narrow and any(p.is_complex() for p in module.parameters()):
        raise NetworkError(f"{precision} has no complex numbers; keep the module's parameters real")
    if precision.optimizer and kind.lower() != precision.optimizer:
        raise NetworkError(
            f"{precision} keeps states of {precision.optimizer}, and the optimizer is {kind}; take "
            f"torch.optim.{'SGD' if precision.optimizer == 'sgd' else 'AdamW'}"
        )
    if precision.update == "kahan" and kind not in _OPTIONS:
        raise NetworkError(f"torch-optimi has no {kind} with Kahan summation; take SGD, Adam or AdamW")
    if not precision.optimizer and precision.update != "kahan":
        return
    usual = inspect.signature(type(optimizer)).parameters
    for group in optimizer.param_groups:
        if precision.optimizer == "sgd" and not group["momentum"]:
            raise NetworkError(f"{precision} keeps momentum in 8 bits; give SGD one, as momentum=0.9")
        for name, value in group.items():
            taken = name == "params" or name in _OPTIONS[kind]
            if not taken and name in usual and value and value != usual[name].default:
                raise NetworkError(f"{precision} has no {kind} with {name}={value!r}; leave it out")


def _optimizer(
    module: nn.Module, optimizer: torch.optim.Optimizer, precision: NamedPrecision, seed: int
) -> torch.optim.Optimizer:
    """The optimizer that a precision needs, with the options of the given one."""
    if precision.is_narrow:
        module.to(torch.bfloat16)  # parameters remain the same objects
    kind = type(optimizer).__name__
    if precision.optimizer:
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it warns of kernels that are not needed
        library = import_module("bitsandbytes.optim")
        makes = {"sgd": library.SGD8bit, "adamw": library.AdamW8bit}
        optimizer = _like(optimizer, makes[precision.optimizer])
    if precision.update == "kahan":
        optimizer = _like(optimizer, getattr(import_module("optimi"), kind), kahan_sum=True)
    if precision.update == "stochastic":
        optimizer = StochasticWeights(optimizer, seed=seed, keeps_states=bool(precision.optimizer))
    return optimizer


def _like(
    optimizer: torch.optim.Optimizer, make: Callable[..., torch.optim.Optimizer], **more: Any
) -> torch.optim.Optimizer:
    """Another library's optimizer over the same parameters, with the same options."""
    names = _OPTIONS[type(optimizer).__name__]
    groups = [
        {"params": group["params"]} | {name: group[name] for name in names}
        for group in optimizer.param_groups
    ]
    first = {name: groups[0][name] for name in names}
    return make(groups, **first, **more)
