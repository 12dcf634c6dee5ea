"""What besides a step decides what a rehearsal finds: libraries, processor and threads."""

import os
import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

_LIBRARIES = ("torch-optimi", "bitsandbytes", "torchao")  # whose optimizers are rehearsed


def surroundings() -> tuple[str, ...]:
    """Return the versions, the processor and the number of threads that a rehearsal depends on."""
    return (*_versions(), os.environ.get("ONEDNN_MAX_CPU_ISA", ""), str(torch.get_num_threads()))


@cache
def _versions() -> tuple[str, ...]:
    return (
        torch.__version__,
        platform.machine(),
        torch.backends.cpu.get_cpu_capability(),
        _instructions(),
        *(f"{name} {_version(name)}" for name in _LIBRARIES),
    )


def _instructions() -> str:
    """The instructions of the processor where Linux lists them: kernels with bfloat16's allocate less."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.lower().startswith(("flags", "features"))), "")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"
