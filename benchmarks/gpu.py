"""Rounding, training steps and measurements on a CUDA GPU. NOT RUN ON A GPU YET.

The last line printed is one JSON object: bandwidth of rounding over a device copy's, milliseconds of a step
of ResNet-18 (32 pixels, batch 32) replayed, eager fp32 and with QPyTorch, seconds of a measurement alone and
with several processes at once, and peak memory. QPyTorch joins where it builds:
``pip install --no-deps qtorch ninja``.

    python benchmarks/gpu.py [--json benchmarks/results/gpu.json] [--processes 3]
"""

import argparse
import json
import multiprocessing
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from peppp.formats import FP32_CONFIGURATION, Configuration, FloatFormat, paper_grid
from peppp.lowprec import device as gpu
from peppp.lowprec.conversion import low_precision
from peppp.lowprec.optimizers import low_precision_optimizer
from peppp.lowprec.rounding import quantize, quantize_eagerly, seed_key
from peppp.records import Recipe
from peppp.tasks.dataset import Dataset
from peppp.training import loop, replay
from peppp.training.measurement import footprint, provenance

CONFIGURATION = Configuration.parse("1-4-1/1-6-7")
RECIPE = Recipe(network="resnet18")
TRAIN, TEST = 2500, 500


def milliseconds(call: Callable[[], object], calls: int = 20, rounds: int = 10) -> float:
    """The median over rounds of a call's time on the device."""
    for _ in range(3):
        call()
    times = []
    for _ in range(rounds):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(calls):
            call()
        stop.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(stop) / calls)
    return float(np.median(times))


def rounding() -> dict[str, Any]:
    """Time of a copy over that of rounding, which moves the same bytes: 1 is the memory's bandwidth."""
    fmt, facts = CONFIGURATION.format_a, {}
    for megabytes in (64, 256, 1024):
        x = torch.randn(megabytes * 10**6 // 4, device="cuda")
        out = torch.empty_like(x)
        copy = milliseconds(lambda x=x, out=out: out.copy_(x))
        ratios = {"copy_gb_s": round(2 * megabytes / copy, 1)}
        for mode in ("nearest", "stochastic"):
            took = milliseconds(lambda m=mode, x=x, out=out: quantize(x, fmt, m, seed=1, out=out))
            ratios[mode] = round(copy / took, 3)
        facts[f"{megabytes}MB"] = ratios
    small = torch.randn(2, 64, 33, 31).to(memory_format=torch.channels_last)
    equal = all(
        torch.equal(
            quantize(small.cuda(), f, mode, seed=7).cpu(),
            quantize_eagerly(small, f, seed_key(7) if mode == "stochastic" else None),
        )
        for f in {c.format_a for c in paper_grid()} | {c.format_b for c in paper_grid()}
        for mode in ("nearest", "stochastic")
    )
    return facts | {"bits_equal_to_cpu": equal, "triton": gpu._triton(torch.device("cuda:0")) is not None}


def images(seed: int = 0) -> Dataset:
    """A data set of the size of a CIFAR-100 partition: noise, as times do not depend on what is seen."""
    draw = np.random.default_rng(seed)
    inputs = [draw.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8) for count in (TRAIN, TEST)]
    targets = [draw.integers(0, 5, count) for count in (TRAIN, TEST)]
    classes = tuple("abcde")
    return Dataset("noise", "noise", f"noise{seed}", classes, inputs[0], targets[0], inputs[1], targets[1])


def steps() -> dict[str, Any]:
    """Milliseconds of a step, and the peak memory of each way to make it."""
    dataset, facts = images(), {}
    torch.cuda.reset_peak_memory_stats()
    with replay.exact_arithmetic(CONFIGURATION, RECIPE):
        replayed = replay._replay(dataset, CONFIGURATION, RECIPE, "cuda")
    replayed.train(dataset, CONFIGURATION, RECIPE, 0, None)

    def step() -> None:
        replayed.position.zero_()
        replayed.train_step()

    facts["replayed_ms"] = round(milliseconds(step), 3)
    facts["replayed_peak_mb"] = round(torch.cuda.max_memory_allocated() / 1e6, 1)
    for name, tf32 in (("fp32", False), ("fp32_tf32_convolutions", True)):
        with torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=tf32):
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            facts[f"eager_{name}_ms"] = round(milliseconds(eager_step(dataset, None), 5), 3)
            peak = torch.cuda.max_memory_allocated() - before
            facts[f"eager_{name}_peak_mb"] = round(peak / 1e6, 1)
    qtorch, facts["qtorch"] = qtorch_quantize()
    if qtorch is not None:
        facts["qtorch_ms"] = round(milliseconds(eager_step(dataset, qtorch), 5), 3)
    facts["packed_peak_mb"] = packed_peak(dataset)
    for name, configuration in (("low_precision", CONFIGURATION), ("fp32", FP32_CONFIGURATION)):
        facts[f"estimated_{name}_mb"] = round(footprint(dataset, configuration, RECIPE).total / 1e6, 1)
    facts["replayed_over_eager_fp32"] = round(facts["replayed_ms"] / facts["eager_fp32_ms"], 3)
    return facts


def packed_peak(dataset: Dataset) -> float | None:
    """Megabytes at the worst moment of packed training; None where this version has no such thing."""
    before = torch.cuda.memory_allocated()
    network = loop.fresh_network(dataset, RECIPE, 0).cuda()
    sgd = loop.make_optimizer(network.parameters(), RECIPE)
    low_precision(network, CONFIGURATION, seed=0)
    try:
        optimizer = low_precision_optimizer(sgd, network, storage="packed")
    except TypeError:
        return None
    x, y = torch.randn(32, 3, 32, 32, device="cuda"), torch.randint(5, (32,), device="cuda")
    torch.cuda.reset_peak_memory_stats()
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x.to(memory_format=torch.channels_last)), y).backward()
        optimizer.step()
    return round((torch.cuda.max_memory_allocated() - before) / 1e6, 1)


def qtorch_quantize() -> tuple[Callable[..., torch.Tensor] | None, str]:
    """QPyTorch's rounding and its version, or None and the reason."""
    try:
        from importlib.metadata import version

        from qtorch.quant import float_quantize

        float_quantize(torch.ones(4, device="cuda"), 4, 1, "nearest")
    except Exception as error:  # its compilation can fail in any way
        return None, f"not measured: {type(error).__name__}: {str(error).splitlines()[0][:200]}"
    return float_quantize, version("qtorch")


def eager_step(dataset: Dataset, qtorch: Callable[..., torch.Tensor] | None) -> Callable[[], None]:
    """A step in PyTorch as everybody writes it; with ``qtorch`` rounded after layers and in SGD."""
    network = loop.fresh_network(dataset, RECIPE, 0).cuda()
    sgd = loop.make_optimizer(network.parameters(), RECIPE)
    x, y = torch.randn(32, 3, 32, 32, device="cuda"), torch.randint(5, (32,), device="cuda")
    optimizer: Any = sgd
    if qtorch is None:
        x = x.to(memory_format=torch.channels_last)
    else:
        from qtorch.optim import OptimLP

        network = network.to(memory_format=torch.contiguous_format)  # its kernels are row-major

        def to(fmt: FloatFormat) -> Callable[[torch.Tensor], torch.Tensor]:
            bits = fmt.exponent_bits, fmt.mantissa_bits
            return lambda t: qtorch(t.contiguous(), *bits, "stochastic")

        to_a, to_b = to(CONFIGURATION.format_a), to(CONFIGURATION.format_b)

        class Round(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, t: torch.Tensor) -> torch.Tensor:
                return to_a(t)

            @staticmethod
            def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
                return to_a(g)

        for module in network.modules():
            if isinstance(module, (nn.Conv2d, nn.BatchNorm2d)):
                module.register_forward_hook(lambda m, i, o: Round.apply(o))
        optimizer = OptimLP(sgd, weight_quant=to_a, grad_quant=to_b, momentum_quant=to_b, acc_quant=to_b)

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x), y).backward()
        optimizer.step()

    return step


def measurements(count: int, seed: int, ready: Any = None) -> float:
    """Seconds of ``count`` measurements in this process, the first one (which captures) not counted.

    Processes side by side wait for each other behind it, so that all are timed while all work.
    """
    dataset, grid = images(), paper_grid()
    replay.train(dataset, grid[0], RECIPE, seed)
    if ready is not None:
        ready.wait()
    start = time.perf_counter()
    for number in range(count):
        replay.train(dataset, grid[(7 * number) % len(grid)], RECIPE, seed)
    return time.perf_counter() - start


def _measure_aside(count: int, seed: int, ready: Any, results: Any) -> None:
    torch.set_num_threads(1)
    results.put(measurements(count, seed, ready))


def together(processes: int, count: int = 5) -> float:
    """Seconds of a measurement when several processes share the GPU."""
    context = multiprocessing.get_context("spawn")
    ready, results = context.Barrier(processes), context.Queue()
    team = [
        context.Process(target=_measure_aside, args=(count, number, ready, results), daemon=True)
        for number in range(processes)
    ]
    for process in team:
        process.start()
    slowest = max(results.get(timeout=500) for _ in team)
    for process in team:
        process.join()
    return slowest / (count * processes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="also write the object to this file")
    parser.add_argument("--processes", type=int, default=3)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("no CUDA GPU that torch can use: nothing to measure here")
    facts: dict[str, Any] = {"benchmark": "gpu", **provenance("cuda"), "cuda": torch.version.cuda}
    facts["rounding"] = rounding()
    print(facts, file=sys.stderr)
    facts["resnet18_32"] = steps()
    print(facts["resnet18_32"], file=sys.stderr)
    facts["seconds_a_measurement"] = {"images": TRAIN, "alone": round(measurements(3, 0) / 3, 3)}
    facts["seconds_a_measurement"]["processes"] = arguments.processes
    facts["seconds_a_measurement"]["together"] = round(together(arguments.processes), 3)
    line = json.dumps(facts)
    if arguments.json:
        arguments.json.write_text(json.dumps(facts, indent=1) + "\n")
    print(line)


if __name__ == "__main__":
    main()
