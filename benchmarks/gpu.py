"""Rounding, packing, training steps and measurements on a CUDA GPU. NOT RUN ON A GPU YET.

One JSON object: bandwidth of rounding and packing over a device copy's; milliseconds of a step of ResNet-18
(32 pixels, batch 32) replayed, by several streams at once, eager fp32 and with QPyTorch; peak memory; seconds
of a measurement alone and by several processes at once, and of one of CIFAR-10's size. Each part is written
to the file when it is done; the same line again does the parts that are missing or failed. All of it takes a
few minutes. QPyTorch joins where it builds: ``pip install --no-deps qtorch ninja``.

    PYTHONPATH=src python benchmarks/gpu.py gpu.json [--processes 3] [--parts rounding steps]
    PYTHONPATH=src python benchmarks/gpu.py try.json --dry-run   # every part, tiny, on the CPU: no GPU needed
"""

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from peppp.formats import FP32_CONFIGURATION, Configuration, FloatFormat, paper_grid
from peppp.lowprec.gpu import device as gpu
from peppp.lowprec.gpu import device_packing
from peppp.lowprec.network.conversion import low_precision, low_precision_state
from peppp.lowprec.network.convolutions import repair
from peppp.lowprec.optimizers.low_precision import low_precision_optimizer
from peppp.lowprec.packing import codes as packing
from peppp.lowprec.packing.packed_tensor import PackedTensor, pack_into, unpack_into
from peppp.lowprec.rounding.quantize import quantize, quantize_eagerly, seed_key
from peppp.records import Recipe
from peppp.tasks.dataset import Dataset
from peppp.training import exactness, graphs, loop, replay
from peppp.training.measurement import provenance
from peppp.training.sizes import footprint

CONFIGURATION = Configuration.parse("1-4-1/1-6-7")
RECIPE = Recipe(network="resnet18")


@dataclass(frozen=True, slots=True)
class Setting:
    """Where, and how large."""

    device: str = "cuda"
    processes: int = 3
    streams: tuple[int, ...] = (1, 2, 3, 4)
    megabytes: tuple[int, ...] = (64, 256, 1024)
    recipe: Recipe = RECIPE
    partition: tuple[int, int] = (2500, 500)  # training and test images of a CIFAR-100 partition
    cifar10: tuple[int, int] = (50_000, 10_000)
    calls: int = 20
    rounds: int = 10

    @property
    def on_gpu(self) -> bool:
        """Whether it is no dry run."""
        return self.device != "cpu"


DRY = Setting(
    device="cpu",
    processes=2,
    streams=(1, 2),
    megabytes=(1,),
    recipe=Recipe(network="resnet8-w8", epochs=1, batch_size=16),
    partition=(32, 20),
    cifar10=(48, 20),
    calls=1,
    rounds=1,
)


def milliseconds(setting: Setting, call: Callable[[], object], *, captured: bool = False) -> float:
    """The median over rounds of a call's time; ``captured`` in a CUDA graph, without Python's own time."""
    if not setting.on_gpu:
        start = time.perf_counter()
        call()
        return 1000 * (time.perf_counter() - start)
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(aside)

    def together() -> None:
        for _ in range(setting.calls):
            call()

    if captured:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=aside):
            together()
        together = graph.replay
    times = []
    for _ in range(setting.rounds):
        start_event, stop_event = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start_event.record()
        together()
        stop_event.record()
        torch.cuda.synchronize()
        times.append(start_event.elapsed_time(stop_event) / setting.calls)
    return float(np.median(times))


def rounding(setting: Setting) -> dict[str, Any]:
    """Bytes moved a second over a copy's: 1 is the memory's bandwidth. Called by Python, too."""
    fmt, facts = CONFIGURATION.format_a, {}
    for megabytes in setting.megabytes:
        x = torch.randn(megabytes * 10**6 // 4, device=setting.device)
        out = torch.empty_like(x)
        copy = milliseconds(setting, lambda x=x, out=out: out.copy_(x), captured=True)
        ratios = {"copy_gb_s": round(2 * megabytes / copy, 1)}
        for mode in ("nearest", "stochastic"):

            def call(m: str = mode, x: torch.Tensor = x, out: torch.Tensor = out) -> None:
                quantize(x, fmt, m, seed=1, out=out)

            ratios[mode] = round(copy / milliseconds(setting, call, captured=True), 3)
            ratios[f"{mode}_called"] = round(copy / milliseconds(setting, call), 3)
        quantize(x, fmt, out=x)
        packed = PackedTensor.pack(x, fmt)
        moved = (1 + fmt.bits / 32) / 2
        for name, call in packers(x, packed.words, fmt).items():
            took = milliseconds(setting, call, captured=name.endswith("pack"))
            ratios[name] = round(copy * moved / took, 3)
        facts[f"{megabytes}MB"] = ratios
    small = torch.randn(2, 64, 33, 31).to(memory_format=torch.channels_last)
    facts["bits_equal_to_cpu"] = all(
        torch.equal(
            quantize(small.to(setting.device), f, mode, seed=7).cpu(),
            quantize_eagerly(small, f, seed_key(7) if mode == "stochastic" else None),
        )
        for f in {c.format_a for c in paper_grid()} | {c.format_b for c in paper_grid()}
        for mode in ("nearest", "stochastic")
    )
    facts["triton"] = gpu._triton(x.device) is not None
    return facts


def packers(x: torch.Tensor, words: torch.Tensor, fmt: FloatFormat) -> dict[str, Callable[[], object]]:
    """Packing and unpacking: the kernels alone, or where these are missing the operations that wait."""
    triton = device_packing.packer(x.device)
    if triton is None:
        return {
            "pack_without_triton": lambda: pack_into(x, words, fmt),
            "unpack_without_triton": lambda: unpack_into(words, x, fmt),
        }
    args = fmt.bits, device_packing.code_words(packing.plain_constants(fmt), x.device), packing.WIDTH
    return {
        "pack": lambda: triton.pack(x, words, *args),
        "unpack": lambda: triton.unpack(words, x, *args),
    }


def images(counts: tuple[int, int], classes: int = 5) -> Dataset:
    """A data set of the size of another one: noise, as times do not depend on what is seen."""
    draw = np.random.default_rng(0)
    inputs = [draw.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8) for count in counts]
    targets = [np.arange(count) % classes for count in counts]
    names, fingerprint = tuple(map(str, range(classes))), f"noise{counts[0]}"
    return Dataset("noise", "noise", fingerprint, names, inputs[0], targets[0], inputs[1], targets[1])


def steps(setting: Setting) -> dict[str, Any]:
    """Milliseconds of a step, and the peak memory of each way to make it."""
    dataset, facts = images(setting.partition), {}
    with exactness.exact_arithmetic(CONFIGURATION, setting.recipe):
        replayed, facts["replayed_peak_mb"] = peak(setting, lambda: captured(setting, dataset))
    facts["replayed_ms"] = round(milliseconds(setting, lambda: step_of(replayed)), 3)
    for name, tf32 in (("fp32", False), ("fp32_tf32_convolutions", True)):
        with torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=tf32):
            took, facts[f"eager_{name}_peak_mb"] = peak(
                setting, lambda: milliseconds(setting, eager_step(setting, dataset, None))
            )
            facts[f"eager_{name}_ms"] = round(took, 3)
    _, facts["packed_peak_mb"] = peak(setting, lambda: packed_steps(setting, dataset))
    for name, configuration in (("low_precision", CONFIGURATION), ("fp32", FP32_CONFIGURATION)):
        total = footprint(dataset, configuration, setting.recipe).total
        facts[f"estimated_{name}_mb"] = round(total / 1e6, 1)
    facts["replayed_over_eager_fp32"] = round(facts["replayed_ms"] / facts["eager_fp32_ms"], 3)
    return facts


def captured(setting: Setting, dataset: Dataset) -> graphs.Replay:
    """A network of its own, captured; call it within ``exact_arithmetic``."""
    padded = graphs.with_whole_test_batches(dataset)
    made = graphs.Replay(padded, setting.recipe, setting.device, rare=False)
    made.train(dataset, CONFIGURATION, setting.recipe, 0, None)
    return made


def step_of(replayed: graphs.Replay) -> None:
    """The first step of an epoch again."""
    replayed.position.zero_()
    replayed.train_step()


def peak(setting: Setting, call: Callable[[], Any]) -> tuple[Any, float | None]:
    """What a call gives, and the megabytes it had at the worst moment beyond what was there before."""
    if not setting.on_gpu:
        return call(), None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    given = call()
    return given, round((torch.cuda.max_memory_allocated() - before) / 1e6, 1)


def packed_steps(setting: Setting, dataset: Dataset) -> None:
    """Some steps of packed training."""
    network = loop.fresh_network(dataset, setting.recipe, 0).to(setting.device)
    sgd = loop.make_optimizer(network.parameters(), setting.recipe)
    low_precision(network, CONFIGURATION, seed=0)
    repair()
    low_precision_state(network).repaired = True
    optimizer = low_precision_optimizer(sgd, network, storage="packed", gradients="in_backward")
    x, y = batch(setting)
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x), y).backward()
        optimizer.step()


def batch(setting: Setting) -> tuple[torch.Tensor, torch.Tensor]:
    """Any images and labels."""
    size = setting.recipe.batch_size
    x = torch.randn(size, 3, 32, 32, device=setting.device).to(memory_format=torch.channels_last)
    return x, torch.randint(5, (size,), device=setting.device)


def streams(setting: Setting) -> dict[str, Any]:
    """Milliseconds of a step when several networks of one process step on streams of their own.

    For the time alone: what they compute may be wrong, as libraries share their workspace.
    """
    dataset, facts = images(setting.partition), {}
    with exactness.exact_arithmetic(CONFIGURATION, setting.recipe):
        team = [captured(setting, dataset) for _ in range(max(setting.streams))]
    for count in setting.streams:
        lanes = [torch.cuda.Stream() if setting.on_gpu else None for _ in range(count)]

        def together(lanes: list[Any] = lanes) -> None:
            for replayed, lane in zip(team, lanes, strict=False):
                with nullcontext() if lane is None else torch.cuda.stream(lane):
                    step_of(replayed)

        times = []
        for _ in range(setting.rounds + 1):
            synchronize(setting)
            start = time.perf_counter()
            for _ in range(setting.calls):
                together()
            synchronize(setting)
            times.append(1000 * (time.perf_counter() - start) / (setting.calls * count))
        facts[f"{count}_ms"] = round(float(np.median(times[1:])), 3)
    return facts


def synchronize(setting: Setting) -> None:
    """Wait for the device."""
    if setting.on_gpu:
        torch.cuda.synchronize()


def alone(setting: Setting) -> dict[str, Any]:
    """Seconds of a measurement in this process, once captured; and of capturing."""
    start = time.perf_counter()
    took = measurements(setting, 3, 0)
    return {"seconds": round(took / 3, 3), "first_seconds": round(time.perf_counter() - start - took, 3)}


def measurements(setting: Setting, count: int, seed: int, ready: Any = None) -> float:
    """Seconds of ``count`` measurements in this process, the first one (which captures) not counted.

    Processes side by side wait for each other behind it, so that all are timed while all work.
    """
    dataset, grid = images(setting.partition), paper_grid()
    replay.train(dataset, grid[0], setting.recipe, seed, device=setting.device)
    if ready is not None:
        ready.wait(timeout=240)
    start = time.perf_counter()
    for number in range(count):
        configuration = grid[(7 * number) % len(grid)]
        replay.train(dataset, configuration, setting.recipe, seed, device=setting.device)
    return time.perf_counter() - start


def _measure_aside(setting: Setting, count: int, seed: int, ready: Any, results: Any) -> None:
    torch.set_num_threads(1)
    results.put(measurements(setting, count, seed, ready))


def together(setting: Setting, count: int = 5) -> dict[str, Any]:
    """Seconds of a measurement when several processes share the GPU: by turns, unless MPS serves them."""
    context = multiprocessing.get_context("spawn")
    ready, results = context.Barrier(setting.processes), context.Queue()
    team = [
        context.Process(target=_measure_aside, args=(setting, count, number, ready, results), daemon=True)
        for number in range(setting.processes)
    ]
    for process in team:
        process.start()
    try:
        slowest = max(results.get(timeout=300) for _ in team)
    finally:
        for process in team:
            process.join(timeout=10)
            process.terminate()
    mps = "CUDA_MPS_PIPE_DIRECTORY" in os.environ or Path("/tmp/nvidia-mps").exists()
    seconds = round(slowest / (count * setting.processes), 3)
    return {"processes": setting.processes, "seconds": seconds, "mps": mps}


def cifar10(setting: Setting) -> dict[str, Any]:
    """Seconds of a measurement of CIFAR-10's size, once captured."""
    dataset, recipe = images(setting.cifar10, 10), setting.recipe
    replay.train(dataset, CONFIGURATION, replace(recipe, epochs=1), 0, device=setting.device)
    start = time.perf_counter()
    replay.train(dataset, CONFIGURATION, recipe, 0, device=setting.device)
    return {"seconds": round(time.perf_counter() - start, 2)}


def qtorch(setting: Setting) -> dict[str, Any]:
    """A step rounded by QPyTorch's CUDA kernels after layers and in SGD; or why there is none."""
    if not setting.on_gpu:
        return {"not_measured": "a dry run builds no CUDA kernels"}
    try:
        from importlib.metadata import version

        from qtorch.quant import float_quantize

        float_quantize(torch.ones(4, device=setting.device), 4, 1, "nearest")
    except Exception as error:  # its compilation can fail in any way
        return {"not_measured": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"}
    took = milliseconds(setting, eager_step(setting, images(setting.partition), float_quantize))
    return {"ms": round(took, 3), "version": version("qtorch")}


def eager_step(
    setting: Setting, dataset: Dataset, rounded: Callable[..., torch.Tensor] | None
) -> Callable[[], None]:
    """A step in PyTorch as everybody writes it; with QPyTorch ``rounded`` after layers and in SGD."""
    network = loop.fresh_network(dataset, setting.recipe, 0).to(setting.device)
    optimizer: Any = loop.make_optimizer(network.parameters(), setting.recipe)
    x, y = batch(setting)
    if rounded is not None:
        from qtorch.optim import OptimLP

        x = x.contiguous()
        network = network.to(memory_format=torch.contiguous_format)  # its kernels are row-major

        def to(fmt: FloatFormat) -> Callable[[torch.Tensor], torch.Tensor]:
            bits = fmt.exponent_bits, fmt.mantissa_bits
            return lambda t: rounded(t.contiguous(), *bits, "stochastic")

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
        optimizer = OptimLP(
            optimizer, weight_quant=to_a, grad_quant=to_b, momentum_quant=to_b, acc_quant=to_b
        )

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x), y).backward()
        optimizer.step()

    return step


PARTS = {part.__name__: part for part in (rounding, steps, alone, together, streams, cifar10, qtorch)}


def run(setting: Setting, parts: list[str], file: Path) -> bool:
    """Do what of the ``parts`` the file does not hold yet; whether all are there now."""
    here = {"benchmark": "gpu", **provenance(setting.device), "cuda": torch.version.cuda}
    facts: dict[str, Any] = json.loads(file.read_text()) if file.exists() else dict(here)
    if any(facts.get(name) != value for name, value in here.items()):
        sys.exit(f"{file} was made elsewhere or by other versions; give another file")
    for name in parts:
        if "failed" in facts.get(name, {"failed": ""}):
            try:
                facts[name] = PARTS[name](setting)
            except Exception as error:  # the other parts are worth having
                facts[name] = {"failed": f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"}
            replay._replays.clear()
            print(name, facts[name], file=sys.stderr, flush=True)
            file.write_text(json.dumps(facts, indent=1) + "\n")
    print(json.dumps(facts))
    return not any("failed" in facts[name] for name in parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("json", type=Path, help="where the object is kept, part by part")
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--dry-run", action="store_true", help="tiny, on the CPU; its numbers mean nothing")
    arguments = parser.parse_args()
    if not arguments.dry_run and not torch.cuda.is_available():
        sys.exit("no CUDA GPU that torch can use: nothing to measure here; --dry-run tries the script out")
    setting = DRY if arguments.dry_run else replace(Setting(), processes=arguments.processes)
    if not run(setting, arguments.parts, arguments.json):
        sys.exit("a part failed; the same line again tries it again")


if __name__ == "__main__":
    main()
