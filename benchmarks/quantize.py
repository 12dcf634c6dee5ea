"""Time of rounding against a plain copy of the same numbers, and against QPyTorch, in one interleaved run.

One thread, outputs allocated before (QPyTorch has no such argument). The last line printed is one JSON
object: of each ratio the median over the rounds, and its quartiles. QPyTorch joins where it can be imported:
``pip install --no-deps qtorch ninja``; it compiles itself for a minute at its first import.

    python benchmarks/quantize.py [--json benchmarks/results/quantize.json]
"""

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numba
import numpy as np
import torch

import peppp
from peppp.formats import FloatFormat
from peppp.lowprec.rounding import kernels
from peppp.lowprec.rounding.quantize import quantize

FORMAT = FloatFormat.parse("1-4-1")
# size: (rounds, calls of each quick contestant in a round)
SIZES = {"1e6": (1_000_000, 60, 10), "1e7": (10_000_000, 20, 4)}
RATIOS = {
    "nearest_over_copy": ("nearest", "copy"),
    "stochastic_over_copy": ("stochastic", "copy"),
    "qtorch_nearest_over_ours": ("qtorch_nearest", "nearest"),
    "qtorch_stochastic_over_ours": ("qtorch_stochastic", "stochastic"),
}


def processor() -> str:
    """The processor's model as the system names it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    fields = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    name = fields.get("model name", platform.machine())
    return f"{name}, family {fields.get('cpu family', '?')}, model {fields.get('model', '?')}"


def qtorch_quantize() -> tuple[Callable[..., torch.Tensor] | None, str]:
    """QPyTorch's rounding and its version, or None and the reason."""
    try:
        from qtorch.quant import float_quantize
    except Exception as error:  # a missing compiler shows itself at import, as any kind of error
        return None, f"not measured: {type(error).__name__}: {str(error).splitlines()[0]}"
    return float_quantize, version("qtorch")


def seconds(call: Callable[[], object], calls: int) -> float:
    """The best of some calls one after another, since other programs interrupt some of them."""
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def measure(count: int, rounds: int, calls: int, qtorch: Callable[..., torch.Tensor] | None) -> dict:
    x = torch.randn(count, generator=torch.Generator().manual_seed(0))
    out = torch.empty_like(x)
    contestants: dict[str, tuple[Callable[[], object], int]] = {
        "copy": (lambda: out.copy_(x), calls),
        "nearest": (lambda: quantize(x, FORMAT, "nearest", out=out), calls),
        "stochastic": (lambda: quantize(x, FORMAT, "stochastic", seed=1, out=out), calls),
    }
    if qtorch:
        bits = FORMAT.exponent_bits, FORMAT.mantissa_bits
        contestants["qtorch_nearest"] = (lambda: qtorch(x, *bits, "nearest"), 1)
        contestants["qtorch_stochastic"] = (lambda: qtorch(x, *bits, "stochastic"), 1)
    for call, _ in contestants.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, (call, repeats) in contestants.items():
            times[name].append(seconds(call, repeats))
    result: dict[str, object] = {"n": count, "rounds": rounds}
    for name, (over, under) in RATIOS.items():
        if over in times:
            ratios = np.array(times[over]) / np.array(times[under])
            low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75]).round(3).tolist()
            result |= {name: middle, f"{name}_quartiles": [low, high]}
        else:
            result |= {name: None, f"{name}_quartiles": None}
    result["milliseconds"] = {name: round(1e3 * float(np.median(of)), 4) for name, of in times.items()}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="also write the object to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    qtorch, qtorch_version = qtorch_quantize()
    result = {
        "benchmark": "quantize",
        "device": processor(),
        "threads": 1,
        "format": str(FORMAT),
        "kernels": kernels.available(),
        "versions": {
            "peppp": peppp.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "numba": numba.__version__,
            "qtorch": qtorch_version,
        },
    }
    for name, (count, rounds, calls) in SIZES.items():
        print(f"{name} numbers, {rounds} rounds", file=sys.stderr)
        result[name] = measure(count, rounds, calls, qtorch)
    text = json.dumps(result)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    print(text)


if __name__ == "__main__":
    main()
