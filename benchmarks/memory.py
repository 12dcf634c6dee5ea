"""Memory of a training step, estimated and measured; the speed of packing; the price of packed storage.

Measured are the bytes of torch's own allocator (its trace on the CPU), on one thread, batch 32,
channels_last, SGD with momentum 0.9 and weight decay 5e-4, after a step to warm up. fp32 is plain torch.
Step times are
medians of steps that alternate between packed and simulated. The last line printed is one JSON object.

    python benchmarks/memory.py [--json benchmarks/results/memory.json] [--only resnet18_32]
"""

import argparse
import gc
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rehearsals
import torch
from torch import Tensor, nn

from peppp.footprint.counting import count_elements
from peppp.footprint.measuring import MeasuredMemory, measure_step
from peppp.footprint.rehearsal import rehearse
from peppp.formats import FP32_CONFIGURATION, PAPER_FORMATS_A, PAPER_FORMATS_B, Configuration
from peppp.lowprec.network.conversion import low_precision
from peppp.lowprec.optimizers.low_precision import low_precision_optimizer
from peppp.lowprec.packing.packed_tensor import PackedTensor, pack_into, unpack_into
from peppp.lowprec.rounding.quantize import quantize
from peppp.tasks import networks
from peppp.training.measurement import provenance

CONFIGURATION = Configuration.parse("1-4-1/1-6-7")
BATCH = 32


class VGG16(nn.Module):
    """Thirteen convolutions with batch norm and five poolings, one linear layer: VGG-16 of small images."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for outputs, depth in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
            for _ in range(depth):
                layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
                inputs = outputs
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(512, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images to logits."""
        return self.head(self.features(x).flatten(1))


class Block(nn.Module):
    """Attention and a two-layer perceptron, each after a layer norm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, length, width] to the same."""
        batch, length, width = x.shape
        qkv = self.qkv(self.norm1(x)).view(batch, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        y = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + self.out(y)
        return x + self.down(nn.functional.gelu(self.up(self.norm2(x))))


class Transformer(nn.Module):
    """Patches of 4 x 4 pixels, six blocks of width 192: a small vision transformer."""

    def __init__(self, classes: int = 10, side: int = 32) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 192, 4, 4)
        self.place = nn.Parameter(torch.zeros(1, (side // 4) ** 2, 192))
        self.blocks = nn.Sequential(*(Block(192, 6) for _ in range(6)))
        self.norm, self.head = nn.LayerNorm(192), nn.Linear(192, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images to logits."""
        x = self.embed(x).flatten(2).transpose(1, 2) + self.place
        return self.head(self.norm(self.blocks(x)).mean(1))


# name: (network, side, steps timed)
CASES: dict[str, tuple[Callable[[], nn.Module], int, int]] = {
    "resnet18_32": (lambda: networks.build("resnet18", classes=10), 32, 6),
    "resnet18_64": (lambda: networks.build("resnet18", classes=10), 64, 3),
    "resnet34_32": (lambda: networks.build("resnet34", classes=10), 32, 3),
    "vgg16_32": (VGG16, 32, 6),
    "transformer": (Transformer, 32, 10),
}


def training(kind: str, network: Callable[[], nn.Module], side: int) -> Callable[[], Any]:
    """What measure_step builds: a forward pass and the end of a step."""

    def build() -> tuple[Callable[[], Tensor], Callable[[], None]]:
        torch.manual_seed(0)
        net = network().to(memory_format=torch.channels_last)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.001, momentum=0.9, weight_decay=5e-4)
        if kind != "fp32":
            low_precision(net, CONFIGURATION, seed=0)
            released = {"gradients": "in_backward"} if kind == "packed" else {}  # as peppp train does
            optimizer = low_precision_optimizer(optimizer, net, storage=kind, **released)
        x = torch.randn(BATCH, 3, side, side).to(memory_format=torch.channels_last)
        y = torch.randint(10, (BATCH,))

        def finish() -> None:
            optimizer.step()
            optimizer.zero_grad()

        return lambda: nn.functional.cross_entropy(net(x), y), finish

    return build


def estimated(kind: str, network: Callable[[], nn.Module], side: int) -> dict[str, float]:
    net = network().to("meta", memory_format=torch.channels_last)
    rehearsal = rehearse(net, (3, side, side), BATCH, storage=kind)
    configuration = FP32_CONFIGURATION if kind == "fp32" else CONFIGURATION
    kept, peak = rehearsal.kept.bytes(configuration), rehearsal.peak(configuration)
    return {"kept": kept / 1e6, "peak": peak / 1e6}


def step_ratio(network: Callable[[], nn.Module], side: int, steps: int) -> float:
    """Time of a packed step over that of a simulated one: medians of alternating steps."""
    runs = {kind: training(kind, network, side)() for kind in ("simulated", "packed")}
    times: dict[str, list[float]] = {kind: [] for kind in runs}
    for number in range(steps + 1):
        for kind, (forward, finish) in runs.items():
            start = time.perf_counter()
            forward().backward()
            finish()
            if number:
                times[kind].append(time.perf_counter() - start)
    return float(np.median(times["packed"]) / np.median(times["simulated"]))


def memory_of(name: str) -> dict[str, Any]:
    network, side, steps = CASES[name]
    measured: dict[str, MeasuredMemory] = {}
    guesses: dict[str, dict[str, float]] = {}
    for kind in ("fp32", "simulated", "packed"):
        measured[kind] = measure_step(training(kind, network, side))
        gc.collect()
        guesses[kind] = estimated(kind, network, side)
    counted = count_elements(network().to("meta"), (3, side, side), BATCH).footprint(CONFIGURATION)
    peak = {kind: round(m.peak / 1e6, 2) for kind, m in measured.items()}
    return {
        "estimate_mb": {
            "kept": {kind: round(g["kept"], 2) for kind, g in guesses.items()},
            "peak": {kind: round(g["peak"], 2) for kind, g in guesses.items()},
            "counted_total": round(counted.total / 1e6, 2),
        },
        "kept_mb": {kind: round(m.kept / 1e6, 2) for kind, m in measured.items()},
        "peak_mb": peak,
        "fp32_over_packed_peak": round(peak["fp32"] / peak["packed"], 3),
        "packed_over_simulated_step": round(step_ratio(network, side, steps), 3),
    }


def packing_speed() -> dict[str, dict[str, float]]:
    """Time of packing and unpacking 2 million numbers over that of a copy, the best of 40."""
    times: dict[str, dict[str, float]] = {}
    for fmt in (*PAPER_FORMATS_A, *PAPER_FORMATS_B):
        x = quantize(torch.randn(1 << 21), fmt)
        y = torch.empty_like(x)
        words = PackedTensor.pack(x, fmt).words
        actions: dict[str, Callable[[], object]] = {
            "copy": lambda x=x, y=y: y.copy_(x),
            "pack": lambda x=x, w=words, f=fmt: pack_into(x, w, f),
            "unpack": lambda w=words, y=y, f=fmt: unpack_into(w, y, f),
        }
        best = dict.fromkeys(actions, float("inf"))
        for _ in range(40):
            for name, action in actions.items():
                start = time.perf_counter()
                action()
                best[name] = min(best[name], time.perf_counter() - start)
        times[str(fmt)] = {name: round(best[name] / best["copy"], 2) for name in ("pack", "unpack")}
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", choices=CASES)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    facts: dict[str, Any] = {}
    for case in CASES:
        if arguments.only in (None, case):
            facts[case] = memory_of(case)
            print(case, json.dumps(facts[case]), flush=True)
    facts["packing_over_copy"] = packing_speed()
    if arguments.only is None:
        facts["rehearsals"] = list(rehearsals.rows())
        torch.set_num_threads(1)
    facts |= dict(provenance("cpu")) | {"threads": 1, "batch": BATCH, "configuration": str(CONFIGURATION)}
    line = json.dumps(facts)
    if arguments.json:
        arguments.json.write_text(line + "\n")
    print(line)


if __name__ == "__main__":
    main()
