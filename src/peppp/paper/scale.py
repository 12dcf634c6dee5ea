"""Memory counted at the paper's scale, and Figure 5: memory by part, at full and at low precision."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np

from peppp.formats import FP32_CONFIGURATION, Configuration
from peppp.paper.figure import Figure, Panel
from peppp.paper.study import Study
from peppp.records import Footprint
from peppp.table.matrix import ErrorMatrix, Lacking

COUNTS = ("saved", "paper_scale")


@cache
def counted(
    network: str, classes: int, resolution: int, batch: int, preset: str
) -> Callable[[Configuration], Footprint]:
    """A function from configurations to footprints, counted by a preset of :mod:`peppp.footprint.estimate`.

    The training uses batches of ``batch`` RGB images of ``resolution`` pixels per side.
    """
    from peppp.footprint.estimate import preset_bytes
    from peppp.tasks import networks

    return preset_bytes(
        lambda: networks.build(network, classes=classes, channels=3, device="meta"),
        (3, resolution, resolution),
        batch,
        preset,
    )


def paper_scale(known: ErrorMatrix) -> ErrorMatrix:
    """The table with its memory counted by the preset ``paper_scale``.

    The preset was fitted to the paper's 816 MB and is not proven to be the paper's count. It counts the
    outputs of convolutions, norms and ReLUs four times, and the gradient and the momentum. Raises Lacking if
    rows have no recipe.
    """
    memory = np.empty(known.values.shape)
    for i, (recipe, chance) in enumerate(zip((row.recipe for row in known.rows), known.chance, strict=True)):
        if recipe is None:
            raise Lacking("the table lacks recipes, which say how much memory the paper would count")
        classes = max(2, round(1 / (1 - chance))) if chance < 1 else 10
        bytes_at = counted(recipe.network, classes, recipe.resolution or 32, recipe.batch_size, "paper_scale")
        memory[i] = [bytes_at(c).total for c in known.configurations]
    return replace(known, memory=memory)


def figure_5(study: Study) -> Figure:
    """Plot the memory of ResNet-18 on CIFAR-10 by part, in fp32 and at a low precision, by both counts."""
    records: list[dict[str, object]] = []
    share = {}
    for count in COUNTS:
        bytes_at = counted("resnet18", 10, 32, 32, count)
        for title, c in (
            ("full precision", FP32_CONFIGURATION),
            ("low precision", Configuration.parse("1-4-1/1-6-7")),
        ):
            found = bytes_at(c)
            parts = {
                "weights": found.weights, "activations": found.activations, "optimizer": found.optimizer
            }  # fmt: skip
            records += [
                {"precision": title, "count": count, "part": part, "memory_mb": size / 10**6}
                for part, size in parts.items()
            ]
            if c.is_fp32:
                share[count] = found.activations / sum(parts.values())
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
            for count in COUNTS
        ),
    )
