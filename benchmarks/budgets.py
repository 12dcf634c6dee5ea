"""Steps that keep within a budget: planned beside measured peaks, and what recomputation costs in time.

Three networks in plain float32 and in packed storage, each without recomputation and within six budgets from
the lowest peak that a plan has up to the peak without one. Measured are torch's CPU allocator and, on one
thread, medians of steps that alternate with steps in float32 without recomputation. The predicted ratio of
times is that of counted operations, in packed storage times the measured ratio without recomputation.

    python benchmarks/budgets.py [--json benchmarks/results/budgets.json] [--plot docs/budgets.svg]
        [--only unet]
"""

import argparse
import json
import time
from functools import partial
from statistics import median

import torch
from torch import nn

from peppp.footprint.fakes import classification_loss
from peppp.footprint.measuring import measure_step
from peppp.lowprec.network.conversion import low_precision
from peppp.lowprec.optimizers.low_precision import low_precision_optimizer
from peppp.tasks import networks
from peppp.training.planning import Planning

PAIR = "1-4-1/1-6-7"
SHARES = (0.85, 0.7, 0.5, 0.3, 0.1, 0.0)
COLOURS = {"fp32": "#b3431b", "packed": "#2a5c9c"}


class Encoder(nn.Module):
    """Encoder layers over sequences of numbers, six of width 192 if nothing else is said."""

    def __init__(self, inputs=48, width=192, blocks=6, dropout=0.0):
        super().__init__()
        self.enter = nn.Linear(inputs, width)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=dropout, batch_first=True)
            for _ in range(blocks)
        )
        self.head = nn.Linear(width, 10)

    def forward(self, x):
        """Logits."""
        x = self.enter(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(1))


class UNet(nn.Module):
    """Two steps down and up again, each of two convolutions, with skips."""

    def __init__(self):
        super().__init__()

        def block(inputs, outputs, stride=1):
            return nn.Sequential(
                nn.Conv2d(inputs, outputs, 3, stride, 1), nn.GroupNorm(4, outputs), nn.SiLU(),
                nn.Conv2d(outputs, outputs, 3, 1, 1), nn.GroupNorm(4, outputs), nn.SiLU(),
            )  # fmt: skip

        self.down, self.deeper, self.deepest = block(3, 24), block(24, 48, 2), block(48, 96, 2)
        self.up, self.joined = nn.ConvTranspose2d(96, 48, 2, 2), block(96, 48)
        self.upper, self.last = nn.ConvTranspose2d(48, 24, 2, 2), block(48, 24)
        self.out = nn.Conv2d(24, 10, 1)

    def forward(self, x):
        """Logits of each pixel."""
        wide = self.down(x)
        deep = self.deeper(wide)
        up = self.joined(torch.cat([self.up(self.deepest(deep)), deep], 1))
        return self.out(self.last(torch.cat([self.upper(up), wide], 1)))


def images(count, side):
    return torch.randn(count, 3, side, side).contiguous(memory_format=torch.channels_last)


NETWORKS = {
    "resnet18, 64 pixels, batch 32": (
        lambda: networks.build("resnet18", classes=10).to(memory_format=torch.channels_last),
        lambda: images(32, 64),
    ),
    "transformer of six blocks, batch 32": (Encoder, lambda: torch.randn(32, 64, 48)),
    "unet, 64 pixels, batch 8": (UNet, lambda: images(8, 64)),
}


def training(network, inputs, storage, plan=None):
    """A forward pass and what ends a step, as measure_step takes them."""
    torch.manual_seed(0)
    net, x = network().train(), inputs()
    if plan is not None:
        plan.apply(net)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.001, momentum=0.9, weight_decay=5e-4)
    if storage == "packed":
        low_precision(net, PAIR, seed=0)
        optimizer = low_precision_optimizer(optimizer, net, storage="packed", gradients="in_backward")

    def finish():
        optimizer.step()
        optimizer.zero_grad()

    return lambda: classification_loss(net(x)), finish


def step_ratio(one, other, rounds=3):
    """Seconds of a step of ``one`` over those of ``other``: medians of alternating steps."""
    seconds = {0: [], 1: []}
    for number in range(rounds + 1):
        for which, (forward, finish) in enumerate((one, other)):
            started = time.perf_counter()
            forward().backward()
            finish()
            if number:  # the first warms up
                seconds[which].append(time.perf_counter() - started)
    return median(seconds[0]) / median(seconds[1])


def rows(only=""):
    """A row for each network, storage and budget; the first of a storage has none."""
    torch.set_num_threads(1)
    for name, (network, inputs) in NETWORKS.items():
        if not name.startswith(only):
            continue
        for storage in ("fp32", "packed"):
            how = {} if storage == "fp32" else {"precision": PAIR, "storage": storage}
            plans = Planning(network(), inputs(), loss=classification_loss, **how)
            without = plans.without()
            lowest = plans.lowest()
            base = 1.0
            budgets = [None, *(int(lowest + share * (without.peak - lowest)) for share in SHARES)]
            for budget in budgets:
                plan = without if budget is None else plans.within(budget)
                built = partial(training, network, inputs, storage, plan)
                peak = measure_step(built).peak
                ratio = step_ratio(built(), training(network, inputs, "fp32"))
                if budget is None:
                    base = ratio if storage == "packed" else 1.0
                yield {
                    "network": name,
                    "storage": storage,
                    "budget": budget,
                    "plan": list(plan.blocks),
                    "peak_predicted": plan.peak,
                    "peak_measured": peak,
                    "step_over_fp32_predicted": round(
                        (base if storage == "packed" else 1) * (1 + plan.extra), 3
                    ),
                    "step_over_fp32_measured": round(ratio, 3),
                }


def plot(found, path):
    """Peak against the time of a step: float32, packed, and both recomputed."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    names = list(dict.fromkeys(row["network"] for row in found))
    figure, axes = plt.subplots(
        1, len(names), figsize=(4 * len(names), 3.4), layout="constrained", squeeze=False
    )
    for name, axis in zip(names, axes[0], strict=True):
        for storage in COLOURS:
            own = [row for row in found if (row["network"], row["storage"]) == (name, storage)]
            own.sort(key=lambda row: row["peak_measured"])
            x = [row["peak_measured"] / 1e6 for row in own]
            y = [row["step_over_fp32_measured"] for row in own]
            open_label = "without recomputation" if storage == "fp32" else None
            label = "float32" if storage == "fp32" else f"packed {PAIR}"
            axis.plot(x, y, "o-", color=COLOURS[storage], label=label, markersize=4)
            whole = next(row for row in own if row["budget"] is None)
            axis.plot(
                whole["peak_measured"] / 1e6, whole["step_over_fp32_measured"], "o", color=COLOURS[storage],
                markersize=9, markerfacecolor="none", label=open_label,
            )  # fmt: skip
        axis.set(title=name, xlabel="measured peak of a step (MB)", ylim=(0, None))
        axis.set_xlim(left=0)
    axes[0][0].set_ylabel("time of a step, float32 = 1")
    axes[0][0].legend(frameon=False, fontsize="small")
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", default="")
    parser.add_argument("--plot", default="")
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    found = []
    for row in rows(arguments.only):
        found.append(row)
        budget = "-" if row["budget"] is None else f"{row['budget'] / 1e6:.2f}"
        print(
            f"{row['network']:36} {row['storage']:7} {budget:>8} MB: peak {row['peak_predicted'] / 1e6:.3f} "
            f"({row['peak_measured'] / 1e6:.3f} measured), time {row['step_over_fp32_predicted']:.2f} "
            f"({row['step_over_fp32_measured']:.2f} measured) {' '.join(row['plan'])}",
            flush=True,
        )
    within = [row for row in found if row["budget"] is not None]
    summary = {
        "broken": sum(row["peak_measured"] > row["budget"] for row in within),
        "worst_percent": round(
            max(100 * abs(row["peak_predicted"] / row["peak_measured"] - 1) for row in found), 3
        ),
        "torch": torch.__version__,
        "capability": torch.backends.cpu.get_cpu_capability(),
    }
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(summary | {"budgets": found}, file, indent=1)
            file.write("\n")
    if arguments.plot:
        plot(found, arguments.plot)
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
