"""Rehearsed training steps in plain PyTorch beside real ones: bytes, and how long a rehearsal takes.

Eight small networks by ten recipes, on one thread and on two. Measured is torch's CPU allocator;
``tracker_peak`` is torch's MemTracker on fake tensors, where it runs. Times are medians of three in one run:
``rehearsal_s``, ``first_rehearsal_s`` (which also runs kernels that are not known yet), and ``step_s`` of a
real step in fp32. ``cause`` names what is missing where a peak is off by more than 3 %. The recipes in 8
bits and with Kahan summation are counted by rule and measured with bitsandbytes and torch-optimi.

    pip install 'peppp[lowbit]'
    python benchmarks/rehearsals.py [--json FILE] [--only resnet18,lstm]
"""

import argparse
import json
import time
from importlib import import_module
from itertools import product
from statistics import median

import torch
from torch import nn
from torch.nn import functional

from peppp.errors import NetworkError
from peppp.footprint.measuring import measure_training
from peppp.footprint.recipes import OPTIMIZERS
from peppp.footprint.training_memory import training_memory
from peppp.tasks.networks import build

LAST = torch.channels_last


class Transformer(nn.Module):
    """Two encoder layers over tokens."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(50, 64)
        layers = [nn.TransformerEncoderLayer(64, 4, 256, dropout=0.0, batch_first=True) for _ in range(2)]
        self.blocks, self.out = nn.Sequential(*layers), nn.Linear(64, 50)

    def forward(self, x):
        """Logits of each token."""
        return self.out(self.blocks(self.embed(x)))


class Recurrent(nn.Module):
    """Two recurrent layers over a sequence."""

    def __init__(self, kind):
        super().__init__()
        self.recurrent, self.out = kind(32, 64, 2, batch_first=True), nn.Linear(64, 10)

    def forward(self, x):
        """Logits of the last step."""
        return self.out(self.recurrent(x)[0][:, -1])


class UNet(nn.Module):
    """One step down and up again, with a skip."""

    def __init__(self):
        super().__init__()
        self.down, self.halved = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, 2, 1)
        self.up, self.norm, self.out = (
            nn.ConvTranspose2d(16, 8, 2, 2),
            nn.GroupNorm(2, 8),
            nn.Conv2d(16, 3, 1),
        )

    def forward(self, x):
        """An image of the same size."""
        wide = functional.silu(self.down(x))
        deep = self.norm(self.up(functional.silu(self.halved(wide))))
        return self.out(torch.cat([wide, deep], dim=1))


class Mobile(nn.Module):
    """Three depthwise separable blocks with SiLU."""

    def __init__(self):
        super().__init__()
        blocks = [nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.SiLU()]
        for inputs, outputs, stride in ((16, 32, 1), (32, 64, 2), (64, 64, 1)):
            blocks += [nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False)]
            blocks += [nn.BatchNorm2d(inputs), nn.SiLU()]
            blocks += [nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs)]
        self.blocks, self.head = nn.Sequential(*blocks), nn.Linear(64, 10)

    def forward(self, x):
        """Logits."""
        return self.head(self.blocks(x).mean((2, 3)))


def residual(name):
    return build(name, classes=10, channels=3).to(memory_format=LAST)


def images(count):
    return torch.zeros(count, 3, 32, 32).contiguous(memory_format=LAST)


def frozen():
    network = residual("resnet8")
    for name, parameter in network.named_parameters():
        parameter.requires_grad_("blocks.2" in name or "head" in name or "fc" in name)
    return network


NETWORKS = {
    "transformer": (Transformer, lambda: torch.zeros(8, 32, dtype=torch.int64)),
    "resnet8": (
        lambda: residual("resnet8"),
        lambda: torch.zeros(8, 3, 32, 32).contiguous(memory_format=LAST),
    ),
    "resnet18": (
        lambda: residual("resnet18"),
        lambda: torch.zeros(4, 3, 32, 32).contiguous(memory_format=LAST),
    ),
    "frozen": (frozen, lambda: torch.zeros(8, 3, 32, 32).contiguous(memory_format=LAST)),
    "unet": (UNet, lambda: torch.zeros(2, 3, 32, 32)),
    "lstm": (lambda: Recurrent(nn.LSTM), lambda: torch.zeros(4, 20, 32)),
    "gru": (lambda: Recurrent(nn.GRU), lambda: torch.zeros(4, 20, 32)),
    "mobile": (lambda: Mobile().to(memory_format=LAST), lambda: images(8)),
}

# What is estimated, and where it differs what is measured in its place.
RECIPES = {
    "fp32 sgd": ({"precision": "fp32", "optimizer": "sgd"}, {}),
    "fp32 adamw": ({"precision": "fp32", "optimizer": "adamw"}, {}),
    "fp32 adafactor": ({"precision": "fp32", "optimizer": "adafactor"}, {}),
    "fp32 sgd, gradients released": ({"optimizer": "sgd", "release_gradients": True}, {}),
    "fp32 sgd, two passes a step": ({"optimizer": "sgd", "accumulate": 2}, {}),
    "amp-bf16 sgd": ({"precision": "amp-bf16", "optimizer": "sgd"}, {}),
    "amp-fp16 sgd": ({"precision": "amp-fp16", "optimizer": "sgd"}, {}),
    "bf16 adamw": ({"precision": "bf16", "optimizer": "adamw"}, {}),
    "bf16-kahan adamw": (
        {"precision": "bf16-kahan", "optimizer": "adamw"},
        {"precision": "bf16", "optimizer": lambda p: import_module("optimi").AdamW(p, lr=1e-3)},
    ),
    "fp32-sgd8bit": (
        {"precision": "fp32-sgd8bit"},
        {
            "precision": "fp32",
            "optimizer": lambda p: import_module("bitsandbytes").optim.SGD8bit(p, lr=0.01, momentum=0.9),
        },
    ),
}
TRACKED = ("fp32 sgd", "fp32 adamw", "fp32 adafactor")
CAUSES = {
    "fp32-sgd8bit": "tables of bitsandbytes, and that it changes the layout of convolutions' weights",
}


def tracked(module, inputs, optimizer):
    """The peak by torch's MemTracker on fake tensors, in fp32; None where it does not run."""
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.distributed._tools.mem_tracker import MemTracker

    try:
        with FakeTensorMode():
            network, x = module(), inputs()
            stepper, tracker = OPTIMIZERS[optimizer](list(network.parameters())), MemTracker()
            tracker.track_external(network, stepper, x)
            with tracker:
                for _ in range(2):
                    network(x).float().mean().backward()
                    stepper.step()
                    stepper.zero_grad()
                    tracker.reset_mod_stats()  # it follows one step only
        found = tracker.get_tracker_snapshot("peak")
        return max(v["Total"] for v in found.values())
    except Exception:
        return None


def seconds(work, repeats=3):
    taken = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return median(taken)


def real_step(network, inputs):
    """A function that runs one real step in fp32, warmed up."""
    module, x = network().train(), inputs()
    stepper = OPTIMIZERS["sgd"](p for p in module.parameters() if p.requires_grad)

    def step():
        module(x).float().mean().backward()
        stepper.step()
        stepper.zero_grad()

    step()
    return step


def rows(only=()):
    """A row for each network, recipe and number of threads."""
    for name, (network, inputs) in NETWORKS.items():
        if only and name not in only:
            continue
        for recipe, threads in product(RECIPES, (1, 2)):
            torch.set_num_threads(threads)
            yield {"network": name, "recipe": recipe, "threads": threads} | row_of(network, inputs, recipe)


def row_of(network, inputs, recipe):
    """Bytes and seconds of one recipe."""
    how, other = RECIPES[recipe]
    started = time.perf_counter()
    try:
        real = measure_training(network(), inputs(), **(how | other))
        started = time.perf_counter()
        found = training_memory(network(), inputs(), **how)
    except NetworkError as error:
        return {"cause": f"does not run on this processor: {str(error)[:110]}"}
    first = time.perf_counter() - started
    off = abs(found.peak / real.peak - 1)
    return {
        "kept_estimated": found.kept,
        "kept_measured": real.kept,
        "peak_estimated": found.peak,
        "peak_measured": real.peak,
        "tracker_peak": tracked(network, inputs, how["optimizer"]) if recipe in TRACKED else None,
        "first_rehearsal_s": round(first, 3),
        "rehearsal_s": round(seconds(lambda: training_memory(network(), inputs(), **how)), 3),
        "step_s": round(seconds(real_step(network, inputs)), 4)
        if recipe == "fp32 sgd" and torch.get_num_threads() == 1
        else None,
        "cause": CAUSES.get(recipe, "not known") if off > 0.03 else "",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", default="")
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    found = []
    for row in rows(tuple(filter(None, arguments.only.split(",")))):
        found.append(row)
        if "kept_measured" in row:
            kept, peak = (row[f"{k}_estimated"] / row[f"{k}_measured"] - 1 for k in ("kept", "peak"))
            tracker = row["tracker_peak"]
            said = f"kept {kept:+.4f} peak {peak:+.4f}"
            said += f" tracker {tracker / row['peak_measured'] - 1:+.4f}" if tracker else ""
            said += f" rehearsal/step {row['rehearsal_s'] / row['step_s']:.1f}" if row["step_s"] else ""
        else:
            said = row["cause"]
        print(f"{row['network']:12} {row['recipe']:15} {said}", flush=True)
    there = [r for r in found if "kept_measured" in r]
    off = {k: [abs(r[f"{k}_estimated"] / r[f"{k}_measured"] - 1) for r in there] for k in ("kept", "peak")}
    summary = {
        "rows": len(found),
        "kept_within_1_percent": sum(x < 0.01 for x in off["kept"]),
        "peak_within_3_percent": sum(x < 0.03 for x in off["peak"]),
        "torch": torch.__version__,
        "capability": torch.backends.cpu.get_cpu_capability(),
    }
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(summary | {"rehearsals": found}, file, indent=1)
            file.write("\n")
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
