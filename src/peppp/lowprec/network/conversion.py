"""``low_precision``: converts any module so that the values it computes are rounded.

passes.py begins and ends passes of the module; mode.py intercepts the operations in them.
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
    """Make ``module`` compute at a precision: a pair of formats, or a name such as ``amp-bf16``.

    With a pair, values are rounded to Format A and back-propagated errors to the error format. A precision
    with a name has its own formats and rounding modes, and ignores ``rounding`` and ``error_format``.

    The module is changed in place and returned. Its parameters are rounded by the optimizer
    (:func:`peppp.lowprec.optimizers.low_precision.low_precision_optimizer`), or to Format A in the first pass
    if there is none. With a pair, the module's results (logits) and its loss stay float32, and so do the
    running statistics of batch norm and other buffers. Methods other than ``forward``, and submodules that
    are called directly, are rounded in the same way.

    ``seed`` (drawn from torch's generator if None) determines all random bits. Under stochastic rounding, two
    evaluations of one batch differ, since every pass draws new bits. For repeatable evaluations, load the
    ``state_dict`` into a network that was converted with ``rounding="nearest"``.

    Raises NetworkError for a module that is converted already or contains a converted one, and for parameters
    that are not float32 or have no shape yet.

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
    uses_in_hook()  # measured now, since it runs a backward pass
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
    """Return the :class:`Parameters` of a converted module; raises NetworkError for any other module."""
    low_precision_state(module)
    found = getattr(module, _PARAMETERS)
    assert isinstance(found, Parameters)
    return found


def low_precision_state(module: nn.Module) -> "LowPrecision":
    """Return the state that :func:`low_precision` attached; raises NetworkError for any other module."""
    state = getattr(module, _ATTRIBUTE, None)
    if not isinstance(state, LowPrecision):
        raise NetworkError(f"{type(module).__name__} is not at low precision; call low_precision on it first")
    return state


def is_low_precision(module: nn.Module) -> bool:
    """Whether :func:`low_precision` has converted a module or one of its submodules."""
    return any(hasattr(part, _ATTRIBUTE) for part in module.modules())


@checked
def rounding_points(module: nn.Module, *inputs: Tensor) -> tuple[RoundingPoint, ...]:
    """Return the rounding points of a converted module, in the order of one forward pass on ``inputs``."""
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
