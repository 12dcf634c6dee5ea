"""Find out which precisions run for real on this machine, and what the others need."""

import time
from functools import lru_cache
from importlib.util import find_spec

import torch
from torch import nn
from torch.nn import functional

from peppp.errors import FormatError
from peppp.precisions.known import PRECISIONS, Precision, parse_precision
from peppp.precisions.named import BF16, NamedPrecision
from peppp.records import Recipe

_EXTRA = "pip install 'peppp[lowbit]'"
_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def lacking(precision: Precision | str, module: nn.Module | None = None, *, device: str = "cpu") -> str:
    """The reason why a precision cannot run for real on a device (for a module, if given); "" if it can.

    Pairs of formats run packed, so they and fp32 run everywhere.

    >>> lacking("amp-bf16"), lacking("mxfp4")
    ('', 'no library trains in mxfp4 here; amp-bf16 is the nearest that runs')
    """
    precision = parse_precision(precision)
    if not isinstance(precision, NamedPrecision):
        return ""
    if precision.products is not None:
        return _of_products(precision)
    if precision.update == "kahan" and not find_spec("optimi"):
        return f"{precision} needs torch-optimi: {_EXTRA}"
    if precision.optimizer and not find_spec("bitsandbytes"):
        return f"{precision} needs bitsandbytes: {_EXTRA}"
    kind = "bf16" if precision.values == BF16 else "fp16"
    if precision.rounds_values and module is not None and device == "cpu":
        for name in sorted({type(m).__name__ for m in module.modules() if isinstance(m, nn.RNNBase)}):
            if not _recurrent_runs(name, kind, precision.casts):
                return f"torch has no {name} in {kind} on this processor; fp32 and packed pairs run"
    return ""


def wants_another_optimizer(precision: NamedPrecision, recipe: Recipe) -> str:
    """The reason why a recipe's optimizer does not suit a precision with 8-bit states; "" if it does."""
    wanted = precision.optimizer
    if wanted not in ("", recipe.optimizer):
        return f"{precision} keeps states of {wanted}; give --optimizer {wanted}, or a precision without them"
    if wanted == "sgd" and not dict(recipe.optimizer_options).get("momentum"):
        return f"{precision} keeps momentum in 8 bits; give SGD one, as --optimizer sgd,momentum=0.9"
    return ""


def runnable(module: nn.Module | None = None, *, device: str = "cpu") -> tuple[NamedPrecision, ...]:
    """The precisions by name that run for real on a device (with a module, if given)."""
    return tuple(p for p in PRECISIONS.values() if not lacking(p, module, device=device))


def is_slow(precision: Precision | str, *, device: str = "cpu") -> bool:
    """Whether a device takes at least three times as long in a precision's type as in float32.

    This is measured on a small convolution. CPUs without instructions for a type are that slow in it: most of
    them in float16, and many in bfloat16.
    """
    precision = parse_precision(precision)
    if not isinstance(precision, NamedPrecision) or not precision.rounds_values:
        return False
    kind = "bf16" if precision.values == BF16 else "fp16"
    return _convolution_seconds(kind, device) >= 3 * _convolution_seconds("fp32", device)


def slowness(precision: Precision | str, *, device: str = "cpu") -> str:
    """A line that says that a precision :func:`is_slow` on a device; "" if it is not."""
    precision = parse_precision(precision)
    if not is_slow(precision, device=device):
        return ""
    kind = "bfloat16" if precision.sides[0] == BF16 else "float16"
    return (
        f"{precision} computes in {kind}, and a convolution in it takes at least three times as long as in "
        "float32 on this device (measured)"
    )


def _of_products(precision: NamedPrecision) -> str:
    nearest = "amp-bf16 is the nearest that runs"
    base = precision.name.partition("-")[0]
    if precision.products is not None and precision.products.convolutions:
        return f"no library computes convolutions in {base}; {nearest}"
    if base == "fp8":
        return f"fp8 wants a GPU, and peppp only simulates it so far; {nearest}"
    return f"no library trains in {base} here; {nearest}"


@lru_cache(maxsize=8)
def _convolution_seconds(kind: str, device: str) -> float:
    """The time of a small convolution and its gradients: the shortest of three, after one to warm up.

    On a CPU this is the time that one thread computes, so that other programs do not matter.
    """
    clock = time.thread_time if device == "cpu" else time.perf_counter
    x, weight = (
        torch.rand(shape, device=device, dtype=_TYPES.get(kind, torch.float32), requires_grad=True)
        for shape in ((8, 16, 32, 32), (16, 16, 3, 3))
    )
    times, threads = [], torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for _ in range(4):
            begun = clock()
            functional.conv2d(x, weight, padding=1).sum().backward()  # type: ignore[no-untyped-call]
            torch.ones((), device=device).item()  # wait for the device
            times.append(clock() - begun)
    finally:
        torch.set_num_threads(threads)
    return min(times[1:])


@lru_cache(maxsize=16)
def _recurrent_runs(name: str, kind: str, casts: bool) -> bool:
    """Whether torch can train a recurrent layer in 16 bits on this CPU, found by trying a small one."""
    dtype = _TYPES[kind]
    layer = getattr(nn, name)(4, 4)
    x = torch.zeros(2, 3, 4)
    try:
        if casts:
            with torch.autocast("cpu", dtype):
                layer(x)[0].float().sum().backward()
        else:
            layer.to(dtype)(x.to(dtype))[0].float().sum().backward()
    except (RuntimeError, NotImplementedError):
        return False
    return True


def check_device(device: str) -> str:
    """The device, if torch has it here and can compute on it; else FormatError."""
    try:
        torch.empty(0, device=device).tolist()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        # Torch lists twenty kinds of devices for a name that it does not know.
        reason = str(error).partition("Expected one of")[0].strip().partition("\n")[0]
        why = f" ({reason})" if reason else ""
        raise FormatError(f"no device {device!r} here{why}; give cpu, or cuda where torch has it") from None
    return device
