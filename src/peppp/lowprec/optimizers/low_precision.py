"""``low_precision_optimizer``: a torch optimizer with gradient, states and accumulator in few bits."""

import torch
from torch import nn

from peppp.arguments import checked
from peppp.errors import NetworkError
from peppp.lowprec.network.conversion import low_precision_state, parameters_of
from peppp.lowprec.network.state import LowPrecision
from peppp.lowprec.optimizers.packed import PackedOptimizer
from peppp.lowprec.optimizers.packed_sgd import PackedSGD
from peppp.lowprec.optimizers.simulated import KahanOptimizer, LowPrecisionOptimizer, LowPrecisionSGD


@checked
def low_precision_optimizer(
    optimizer: torch.optim.Optimizer,
    module: nn.Module,
    *,
    accumulator: bool = True,
    storage: str = "simulated",
    gradients: str = "fp32",
    weights: str = "recomputed",
) -> LowPrecisionOptimizer:
    """Wrap a torch optimizer so that gradient, states and accumulator are in Format B of ``module``.

    ``module`` comes from :func:`peppp.lowprec.network.conversion.low_precision`. ``optimizer`` is a fresh one
    over its parameters: SGD (momentum, weight decay), or any other that keeps its states for each parameter,
    such as Adam and AdamW. Parameters are rounded at once: accumulator = qB(w), w = qA(accumulator). Without
    an accumulator, updates are added to the Format A weights themselves. A precision with a name determines
    all of this itself.

    ``storage`` "simulated" keeps rounded values in float32. "packed" keeps weights, what is saved for the
    backward pass, states and accumulator in as many bits as their formats have, with the same numbers bit for
    bit. Only "packed" uses ``gradients`` ("fp32", "packed", "in_backward") and ``weights`` ("recomputed",
    "packed"): see :class:`peppp.lowprec.optimizers.packed.PackedOptimizer`.

    Several optimizers may step on different parameters of one module. If weights are loaded or written later,
    the accumulators follow them. Parameters of no optimizer are rounded to Format A in the next pass.

    Raises NetworkError for parameters of another module, an optimizer that has stepped already, SGD with
    nesterov, dampening or maximize, an optimizer without a state for each parameter (LBFGS, SparseAdam),
    layers with sparse gradients, an unknown or mixed storage, and an optimizer or storage that does not fit
    the precision.
    """
    state = low_precision_state(module)
    own = set(module.parameters())
    groups = optimizer.param_groups
    if any(parameter not in own for group in groups for parameter in group["params"]):
        raise NetworkError(
            f"{type(optimizer).__name__} holds a parameter that is not one of {type(module).__name__}'s; "
            "give it the parameters of the converted module"
        )
    if has_stepped(optimizer):
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
    for name, submodule in module.named_modules():
        if getattr(submodule, "sparse", False) is True and isinstance(
            submodule, (nn.Embedding, nn.EmbeddingBag)
        ):
            raise NetworkError(
                f"{name} has sparse gradients, which have no low-precision form; set sparse=False"
            )
    for other in parameters_of(module).owners():
        if (other.storage_name == "packed") != (storage == "packed") and not others_too(optimizer, other):
            raise NetworkError(
                f"another optimizer of {type(module).__name__} has storage={other.storage_name!r}; take the "
                "same storage for all optimizers of a network"
            )
    _check_named(optimizer, state, storage)
    if storage == "packed":
        kind = PackedSGD if isinstance(optimizer, torch.optim.SGD) else PackedOptimizer
        return kind(optimizer, module, accumulator=accumulator, gradients=gradients, weights=weights)
    if storage != "simulated":
        raise NetworkError(f"unknown storage {storage!r}; known: simulated, packed")
    if state.packed is not None:
        state.packed.release()
    if state.roundings.carries:
        return KahanOptimizer(optimizer, module, accumulator=True)
    accumulator = accumulator and not state.roundings.is_named  # precisions with a name have none
    if isinstance(optimizer, torch.optim.SGD):
        return LowPrecisionSGD(optimizer, module, accumulator=accumulator)
    return LowPrecisionOptimizer(optimizer, module, accumulator=accumulator)


def _check_named(optimizer: torch.optim.Optimizer, state: LowPrecision, storage: str) -> None:
    """Raise NetworkError for packed storage, or an optimizer that does not fit the precision."""
    if storage == "packed" and state.roundings.is_named:
        raise NetworkError(
            "packed storage holds pairs of formats, such as 1-4-1/1-6-7; take one, or storage='simulated'"
        )
    kind = type(optimizer).__name__.lower()
    if state.optimizer and kind != state.optimizer:
        raise NetworkError(
            f"the precision keeps states of {state.optimizer} in 8 bits, and the optimizer is {kind}; take "
            f"{state.optimizer}, or a precision that ends in -{kind}8bit or in neither"
        )


def has_stepped(optimizer: torch.optim.Optimizer) -> bool:
    """Whether an optimizer has done a step; Adagrad makes its states before the first one."""
    return any(float(state.get("step", 1)) > 0 for state in optimizer.state.values() if state)


def others_too(optimizer: torch.optim.Optimizer, other: torch.optim.Optimizer) -> bool:
    """Whether an optimizer has all the parameters of another, and so replaces it."""
    mine = {parameter for group in optimizer.param_groups for parameter in group["params"]}
    return all(parameter in mine for group in other.param_groups for parameter in group["params"])
