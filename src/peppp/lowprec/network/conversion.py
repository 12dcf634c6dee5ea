"""``low_precision``: any module, its values rounded where arithmetic makes new ones.

passes.py says how a pass of the module begins; mode.py sees the operations in it.
"""

from typing import TypeVar

import torch
from torch import Tensor, nn

from peppp.arguments import checked
from peppp.errors import NetworkError, PepppError
from peppp.lowprec.network.parameters import Parameters
from peppp.lowprec.network.passes import install
from peppp.lowprec.network.state import LowPrecision, RoundingPoint
from peppp.lowprec.rounding.functions import uses_in_hook
from peppp.lowprec.rounding.roundings import Roundings
from peppp.lowprec.rounding.streams import Clock
from peppp.precisions.known import Precision, parse_precision
from peppp.precisions.named import NamedPrecision
from peppp.records import RoundingModes

Module = TypeVar("Module", bound=nn.Module)
_ATTRIBUTE, _PARAMETERS = "_peppp_low_precision", "_peppp_parameters"


@checked
def low_precision(
    module: Module,
    precision: Precision | str,
    *,
    rounding: RoundingModes | str = "stochastic",
    error_format: str = "A",
    seed: int | None = None,
) -> Module:
    """Make ``module`` compute at a precision: a pair of formats, or one by name as ``amp-bf16``.

    Of a pair, values are rounded to Format A and errors to the error format. A precision by name has its own
    formats and rounding modes; ``rounding`` and ``error_format`` say nothing to it.

    The module is changed in place and handed back. Its parameters are rounded by the optimizer
    (:func:`peppp.lowprec.optimizers.low_precision.low_precision_optimizer`), or to Format A at the first pass
    when there is none. Results of the module itself (logits) and its loss stay float32, and so do the running
    statistics of batch norm and other buffers. Other methods than ``forward``, and modules within that are
    called by themselves, are rounded as the module is.

    ``seed`` (drawn from torch's generator when None) decides all random bits. Under stochastic rounding two
    evaluations of one batch differ, as every pass draws its own bits. For an evaluation that repeats, load
    the ``state_dict`` into a network that was converted with ``rounding="nearest"``.

    Raises NetworkError for a module that is, or holds, a converted one, and for parameters that are not
    float32.

    >>> net = low_precision(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), "1-4-1/1-6-7", seed=0)
    >>> [str(point) for point in rounding_points(net, torch.ones(1, 4))]
    ['input: input', '0: linear']
    """
    for name, submodule in module.named_modules():
        if hasattr(submodule, _ATTRIBUTE):
            raise NetworkError(
                f"{name or type(module).__name__} is at low precision already; convert a fresh network"
            )
    if seed is None:
        seed = int(torch.randint(1 << 62, (), dtype=torch.int64))
    uses_in_hook()  # asked now, as it takes a backward pass
    precision = parse_precision(precision)
    if isinstance(precision, NamedPrecision):
        roundings, computes = Roundings.of_name(precision), precision.rounds_values
    else:
        roundings, computes = Roundings.of(precision, rounding, error_format), True
    state = LowPrecision(roundings, Clock(seed), optimizer=getattr(precision, "optimizer", ""))
    parameters = Parameters(module)
    object.__setattr__(module, _ATTRIBUTE, state)
    object.__setattr__(module, _PARAMETERS, parameters)
    if computes:
        install(module, state, parameters)
    return module


def parameters_of(module: nn.Module) -> Parameters:
    """What is known of a converted module's parameters."""
    low_precision_state(module)
    found = getattr(module, _PARAMETERS)
    assert isinstance(found, Parameters)
    return found


def low_precision_state(module: nn.Module) -> "LowPrecision":
    """What :func:`low_precision` attached to a module; NetworkError where it did not."""
    state = getattr(module, _ATTRIBUTE, None)
    if not isinstance(state, LowPrecision):
        raise NetworkError(f"{type(module).__name__} is not at low precision; call low_precision on it first")
    return state


def is_low_precision(module: nn.Module) -> bool:
    """Whether :func:`low_precision` has converted a module or a part of it."""
    return any(hasattr(part, _ATTRIBUTE) for part in module.modules())


@checked
def rounding_points(module: nn.Module, *inputs: Tensor) -> tuple[RoundingPoint, ...]:
    """The rounding points of a converted module, in order, as one forward pass on ``inputs`` meets them."""
    state = low_precision_state(module)
    clock = state.clock
    state.clock = Clock(clock.seed)
    state.recorded = []
    names = {submodule: name for name, submodule in module.named_modules()}
    handles = [
        submodule.register_forward_pre_hook(lambda m, _: state.leaves.append(names[m]), prepend=True)
        for submodule in names
    ]
    handles += [
        submodule.register_forward_hook(lambda *_: state.leaves.pop() and None) for submodule in names
    ]
    try:
        with torch.no_grad():
            module(*inputs)
    except PepppError:
        raise
    except Exception as error:  # whatever a user's module raises
        raise NetworkError(
            f"{type(module).__name__} cannot run on these inputs: {type(error).__name__}: {error}"
        ) from error
    else:
        return tuple(where for where, point in state.recorded if point.used)
    finally:
        for handle in handles:
            handle.remove()
        state.clock, state.recorded, state.leaves = clock, None, []
