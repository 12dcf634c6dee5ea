"""Memory at the paper's scale, and Figure 5: what a training keeps, at full and at low precision."""

from dataclasses import replace
from functools import cache

import numpy as np

from peppp.formats import FP32_CONFIGURATION, Configuration
from peppp.replay.known import KnownTable, Lacking
from peppp.reproduce.figure import Figure, Panel
from peppp.reproduce.study import Study

# Fitted, not proven: with these the median over the paper's tasks and configurations is its 816 MB (in MiB).
ACTIVATION_COPIES, OPTIMIZER_COPIES = 4, 2


@cache
def output_counts(network: str, classes: int, channels: int, resolution: int, batch: int) -> tuple[int, int]:
    """Numbers of weights, and of outputs of convolutions, norms and ReLUs for one batch."""
    import torch
    from torch.nn import functional
    from torch.overrides import TorchFunctionMode

    from peppp.tasks import networks

    counted = (torch.conv2d, functional.conv2d, functional.batch_norm, functional.relu, torch.relu)

    class Counter(TorchFunctionMode):
        outputs = 0

        def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            output = func(*args, **(kwargs or {}))
            if func in counted:
                self.outputs += output.numel()
            return output

    module = networks.build(network, classes=classes, channels=channels, device="meta").train()
    with Counter() as counter:
        module(torch.empty(batch, channels, resolution, resolution, device="meta"))
    return sum(p.numel() for p in module.parameters()), counter.outputs


def paper_scale(known: KnownTable) -> KnownTable:
    """The table with memory as in the preset ``paper_scale``: convolution, norm and ReLU outputs x 4.

    Gradient and momentum are in Format B. It is a count fitted to the paper's 816 MB, not proven to be its
    own.
    """
    memory = np.empty_like(known.memory)
    for i, (recipe, chance) in enumerate(zip(known.recipes, known.chance, strict=True)):
        if recipe is None:
            raise Lacking("the table lacks recipes, which say how much memory the paper would count")
        classes = max(2, round(1 / (1 - chance))) if chance < 1 else 10
        weights, outputs = output_counts(
            recipe.network, classes, 3, recipe.resolution or 32, recipe.batch_size
        )
        for j, c in enumerate(known.configurations):
            in_a = float(c.format_a.bits) * (weights + ACTIVATION_COPIES * outputs)
            memory[i, j] = (in_a + float(c.format_b.bits) * OPTIMIZER_COPIES * weights) / 8
    return replace(known, memory=memory)


def figure_5(study: Study) -> Figure:
    """Memory of ResNet-18 on CIFAR-10 by its parts, in fp32 and at one low precision, by both counts."""
    from peppp.footprint.counting import count_elements
    from peppp.tasks import networks

    batch, shape = 32, (3, 32, 32)
    module = networks.build("resnet18", classes=10, channels=3, device="meta")
    counts = count_elements(module, shape, batch)
    weights, outputs = output_counts("resnet18", 10, 3, 32, batch)
    records: list[dict[str, object]] = []
    for title, c in (
        ("full precision", FP32_CONFIGURATION),
        ("low precision", Configuration.parse("1-4-1/1-6-7")),
    ):
        found = counts.footprint(c)
        saved = {"weights": found.weights, "activations": found.activations, "optimizer": found.optimizer}
        a, b = float(c.format_a.bits) / 8, float(c.format_b.bits) / 8
        paper = {
            "weights": a * weights,
            "activations": a * ACTIVATION_COPIES * outputs,
            "optimizer": b * OPTIMIZER_COPIES * weights,
        }
        for count, parts in (("saved", saved), ("paper_scale", paper)):
            records += [
                {"precision": title, "count": count, "part": part, "memory_mb": float(size) / 10**6}
                for part, size in parts.items()
            ]
    share = {
        count: _of(records, count, "activations") / sum(_of(records, count, p) for p in saved)
        for count in ("saved", "paper_scale")
    }
    return Figure(
        "5",
        "Memory by part: ResNet-18, CIFAR-10, batch 32 (computed)",
        "activations dominate; low precision shrinks them most",
        f"activations are {share['saved']:.0%} of the memory in fp32 by the `saved` count and "
        f"{share['paper_scale']:.0%} at the paper's scale",
        share["saved"] > 0.5,
        tuple(records),
        tuple(
            Panel("bars", "precision", "memory_mb", "part", title=count, where=(("count", count),))
            for count in ("saved", "paper_scale")
        ),
    )


def _of(records: list[dict[str, object]], count: str, part: str) -> float:
    return next(
        float(str(r["memory_mb"]))
        for r in records
        if (r["count"], r["part"], r["precision"]) == (count, part, "full precision")
    )
