"""Time of a training step at low precision over the same step in float32, and over QPyTorch's, in one run.

One thread, batch 32, channels_last, all rounding points on, contestants interleaved round by round. The last
line printed is one JSON object: of each ratio the median over the rounds, and its quartiles. Precisions by
name are compared with the plain pair under stochastic rounding, too (``over_stochastic``). QPyTorch joins
where it can be imported: ``pip install --no-deps qtorch ninja``; it compiles itself for a minute at its first
import.

    python benchmarks/step.py [--json benchmarks/results/step.json] [--only resnet8_16] [--against DIR]

``--against`` names another checkout of the project, say a worktree of an earlier commit. Its steps run in a
child process, in turns with those of this one, and each tree's ratios are to its own float32 step of the same
round.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from peppp.formats import Configuration
from peppp.lowprec.network.conversion import low_precision
from peppp.lowprec.optimizers.low_precision import low_precision_optimizer
from peppp.tasks import networks
from peppp.training.measurement import provenance

CONFIGURATION = Configuration.parse("1-4-1/1-6-7")
# name: (network, side, rounds, steps of a contestant in a round)
CASES = {
    "resnet8_16": ("resnet8", 16, 40, 5),
    "resnet8_32": ("resnet8", 32, 30, 3),
    "resnet18_32": ("resnet18", 32, 8, 1),
}


def contestants(name: str, side: int) -> dict[str, Callable[[], None]]:
    """One step of each way to train the same network."""
    x = torch.randn(32, 3, side, side).to(memory_format=torch.channels_last)
    y = torch.randint(10, (32,))
    steps = {mode: our_step(name, mode, x, y) for mode in (*MODES, *NAMED)}
    qtorch = qtorch_library()
    if qtorch is not None:
        steps |= {
            f"qtorch_{mode}": qtorch_step(qtorch, name, mode, x, y) for mode in ("nearest", "stochastic")
        }
    return steps


def our_step(name: str, mode: str, x: torch.Tensor, y: torch.Tensor) -> Callable[[], None]:
    network = fresh(name)
    optimizer = sgd(network)
    if mode in NAMED:
        low_precision(network, mode, seed=0)
        optimizer = low_precision_optimizer(optimizer, network)
    elif mode != "fp32":
        low_precision(network, CONFIGURATION, rounding=mode, seed=0)
        optimizer = low_precision_optimizer(optimizer, network)
    return stepper(network, optimizer, x, y)


def qtorch_library() -> Any:
    """QPyTorch's rounding and optimizer, if they are installed."""
    try:
        from qtorch.optim import OptimLP
        from qtorch.quant import Quantizer, float_quantize, quantizer
    except (ImportError, RuntimeError, OSError):
        return None
    del Quantizer, quantizer
    return OptimLP, float_quantize


def qtorch_step(library: Any, name: str, mode: str, x: torch.Tensor, y: torch.Tensor) -> Callable[[], None]:
    """The same rounding points through QPyTorch: its float_quantize in forward and backward, its OptimLP."""
    optim_lp, float_quantize = library
    a, b = CONFIGURATION.format_a, CONFIGURATION.format_b

    class Round(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, t: torch.Tensor) -> torch.Tensor:
            return float_quantize(t.contiguous(), a.exponent_bits, a.mantissa_bits, mode)

        @staticmethod
        def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
            return float_quantize(g.contiguous(), a.exponent_bits, a.mantissa_bits, mode)

    network = fresh(name).to(memory_format=torch.contiguous_format)  # its kernels are row-major
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.BatchNorm2d)):
            module.register_forward_hook(lambda m, i, o: Round.apply(o))
    to_b = lambda t: float_quantize(t.contiguous(), b.exponent_bits, b.mantissa_bits, mode)  # noqa: E731
    to_a = lambda t: float_quantize(t.contiguous(), a.exponent_bits, a.mantissa_bits, mode)  # noqa: E731
    optimizer = optim_lp(
        sgd(network), weight_quant=to_a, grad_quant=to_b, momentum_quant=to_b, acc_quant=to_b
    )
    return stepper(network, optimizer, x.contiguous(), y)


def fresh(name: str) -> nn.Module:
    torch.manual_seed(0)
    return networks.build(name, classes=10).to(memory_format=torch.channels_last)


def sgd(network: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(network.parameters(), lr=0.001, momentum=0.9, weight_decay=5e-4)


def stepper(network: nn.Module, optimizer: Any, x: torch.Tensor, y: torch.Tensor) -> Callable[[], None]:
    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x), y).backward()
        optimizer.step()

    return step


def ratios(steps: dict[str, Callable[[], None]], rounds: int, count: int) -> dict[str, dict[str, float]]:
    """Each contestant's time over fp32's of the same round: median and quartiles."""
    for step in steps.values():
        for _ in range(3):
            step()
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            slow = name.startswith("qtorch")
            start = time.perf_counter()
            for _ in range(1 if slow else count):
                step()
            times[name].append((time.perf_counter() - start) / (1 if slow else count))
    fp32 = np.array(times.pop("fp32"))
    print({"fp32_ms": round(1000 * float(np.median(fp32)), 2)})
    spread = {}
    for name, values in times.items():
        low, median, high = np.quantile(values / fp32, [0.25, 0.5, 0.75]).round(3).tolist()
        spread[name] = {"quartile_1": low, "median": median, "quartile_3": high}
    return spread


class OtherTree:
    """The steps of another checkout, run by a child process that is told which, one line a call."""

    def __init__(self, folder: Path, case: str) -> None:
        environment = os.environ | {"PYTHONPATH": str(folder / "src")}
        command = [sys.executable, __file__, "--serve", case]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def step(self, mode: str) -> Callable[[], None]:
        """A step of the other checkout in a mode, as a call without arguments."""

        def run() -> None:
            assert self.process.stdin is not None
            assert self.process.stdout is not None
            self.process.stdin.write(mode + "\n")
            self.process.stdin.flush()
            if not self.process.stdout.readline():
                raise RuntimeError("the other checkout's steps failed")

        return run


def serve(case: str) -> None:
    """Run a step for each line that names one."""
    name, side, _, _ = CASES[case]
    x = torch.randn(32, 3, side, side).to(memory_format=torch.channels_last)
    y = torch.randint(10, (32,))
    steps = {mode: our_step(name, mode, x, y) for mode in MODES}
    for line in sys.stdin:
        steps[line.strip()]()
        print("done", flush=True)


def compare(case: str, folder: Path) -> dict[str, Any]:
    """Both trees' ratios to their own float32 step, and this one's over the other's, in one interleaved
    run.
    """
    name, side, rounds, count = CASES[case]
    x = torch.randn(32, 3, side, side).to(memory_format=torch.channels_last)
    y = torch.randint(10, (32,))
    other = OtherTree(folder, case)
    steps = {("here", mode): our_step(name, mode, x, y) for mode in MODES}
    steps |= {("there", mode): other.step(mode) for mode in MODES}
    for step in steps.values():
        for _ in range(3):
            step()
    times: dict[tuple[str, str], list[float]] = {key: [] for key in steps}
    for turn in range(rounds):
        for key in list(steps)[:: 1 if turn % 2 else -1]:
            start = time.perf_counter()
            for _ in range(count):
                steps[key]()
            times[key].append(time.perf_counter() - start)
    other.process.stdin.close()  # type: ignore[union-attr]
    other.process.wait()
    found: dict[str, Any] = {}
    for mode in MODES[1:]:
        ratio = {
            tree: np.array(times[tree, mode]) / np.array(times[tree, "fp32"]) for tree in ("here", "there")
        }
        for key, values in (*ratio.items(), ("here / there", ratio["here"] / ratio["there"])):
            low, median, high = np.quantile(values, [0.25, 0.5, 0.75]).round(3).tolist()
            found[f"{mode}, {key}"] = {"quartile_1": low, "median": median, "quartile_3": high}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", choices=CASES)
    parser.add_argument("--against", type=Path, help="another checkout of the project")
    parser.add_argument("--serve", choices=CASES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.serve:
        serve(arguments.serve)
        return
    facts: dict[str, Any] = dict(provenance("cpu")) | {
        "threads": 1,
        "batch": 32,
        "configuration": str(CONFIGURATION),
    }
    for optional in ("numba", "qtorch"):
        try:
            facts[optional] = version(optional)
        except ImportError:
            facts[optional] = None
    facts["machine"] = platform.machine()
    for case, (name, side, rounds, count) in CASES.items():
        if arguments.only not in (None, case):
            continue
        if arguments.against:
            facts[case] = compare(case, arguments.against)
            print(case, {key: value["median"] for key, value in facts[case].items()}, flush=True)
        else:
            spread = ratios(contestants(name, side), rounds, count)
            medians = {key: spread[key]["median"] if key in spread else None for key in KEYS}
            blocks = {name: round(spread[name]["median"] / medians["stochastic"], 3) for name in NAMED}
            facts[case] = medians | {"rounds": rounds, "over_stochastic": blocks, "spread": spread}
            print(case, medians)
    line = json.dumps(facts)
    if arguments.json:
        arguments.json.write_text(line + "\n")
    print(line)


MODES = ("fp32", "nearest", "stochastic")
# Simulated steps of precisions by name; those in -all round every layer's three products by blocks.
NAMED = ("amp-bf16", "fp8-all", "mxfp8-all", "mxfp4-all", "nvfp4-all", "int8-all")
KEYS = ("nearest", "stochastic", "qtorch_nearest", "qtorch_stochastic")

if __name__ == "__main__":
    main()
