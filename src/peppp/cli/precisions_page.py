"""Write the page of named precisions: what they are, and what each costs in error and memory."""

from collections.abc import Sequence
from pathlib import Path

import torch

from peppp.evaluate.against_fp32 import differences, of_format_b
from peppp.footprint.training_memory import training_memory
from peppp.precisions.known import MEASURED, PRECISIONS, parse_precision
from peppp.precisions.named import NamedPrecision
from peppp.records import Measurement, Recipe
from peppp.tasks.dataset import blank_images
from peppp.tasks.readers import load
from peppp.training.fitting import fitting

# The networks whose memory the page shows: name, data in words, and side of the images in pixels.
_NETWORKS = (("resnet8", "16x16 pixels", 16), ("resnet18", "32x32 pixels", 32), ("transformer", "text", None))


# Claims of papers and libraries, each with the two precisions that it compares.
_CLAIMS = (
    ("bfloat16 needs a float32 copy of the weights (arXiv 1710.03740)", "bf16", "amp-bf16"),
    ("stochastic rounding replaces that copy (arXiv 2010.06192)", "bf16-sr", "amp-bf16"),
    ("so does Kahan summation (arXiv 2010.06192)", "bf16-kahan", "amp-bf16"),
    ("stochastic rounding does as well as Kahan summation", "bf16-sr", "bf16-kahan"),
    ("states of 8 bits cost nothing (arXiv 2110.02861)", "fp32-sgd8bit", "fp32"),
    ("FP8 with a scale a tensor does as well as bfloat16 (arXiv 2209.05433)", "fp8-all", "amp-bf16"),
    ("MXFP8, E4M3 throughout, does as well as bfloat16 (arXiv 2506.08027)", "mxfp8-all", "amp-bf16"),
    ("MXFP6 does nearly as well as float32 (arXiv 2310.10537)", "mxfp6-all", "fp32"),
    ("NVFP4 does nearly as well as FP8 (arXiv 2509.25149)", "nvfp4-all", "fp8-all"),
    ("NVFP4 does better than MXFP4", "nvfp4-all", "mxfp4-all"),
)
_NETWORK = "resnet8"


def bytes_a_parameter(name: str, optimizer: str | None = None) -> float:
    """Return the bytes per parameter of weights, gradients and optimizer states between two steps.

    The optimizer is SGD with momentum, unless it is given or the precision's name contains another.
    """
    layer = torch.nn.Linear(1024, 1024, bias=False, device="meta")
    found = training_memory(layer, torch.empty(1, 1024), precision=name, optimizer=optimizer)
    return (found.weights + found.gradients + found.states) / 1024**2


def written(measurements: Sequence[Measurement], tables: Sequence[Path]) -> str:
    """Return the page, in Markdown, about the measurements of ``tables``."""
    found = differences(measurements)
    names = ", ".join(f"`{table.name}`" for table in tables)
    lines = [
        "# Precisions by name",
        "",
        "This page is written by `peppp precisions --page docs/precisions.md`, and `--table` for each table.",
        f"It was made of {names}.",
        "Errors are those of simulated trainings: float32 numbers, rounded as",
        "the precision would round them. Memory is estimated from a rehearsal of the step in plain PyTorch.",
        "",
        "## What they are",
        "",
        "| name | what it is | what runs it | bytes a parameter |",
        "|---|---|---|---|",
    ]
    for name in ("fp32", *PRECISIONS):
        known = PRECISIONS.get(name)
        if known is not None and (known.optimizer and name not in MEASURED):
            continue
        size = f"{bytes_a_parameter(name):.4g}"
        about, needs = (known.about, known.needs) if known else ("float32 throughout", "anything")
        lines.append(f"| `{name}` | {about} | {needs} | {size} |")
    lines += [
        "",
        "Bytes a parameter are those of the weight, its gradient and SGD's momentum between two steps.",
        "`-sgd8bit` and `-adamw8bit` may follow every name but those with `-all` and `bf16-kahan`.",
    ]
    named = [d for d in found if isinstance(d.precision, NamedPrecision)]
    for network in dict.fromkeys(d.network for d in named):
        lines += ["", f"## How much more they err than fp32: {network}", ""]
        lines += [
            "| precision | more error, mean over families | 95 % interval | tasks | families | runs | most |"
        ]
        lines += ["|---|---|---|---|---|---|---|"]
        for d in named:
            if d.network == network:
                m, (task, most) = d.mean, d.worst
                interval = "unknown" if d.families == 1 else f"{m.low:+.3f} to {m.high:+.3f}"
                lines.append(
                    f"| `{d.precision}` | {m.mean:+.3f} | {interval} | {d.tasks} | "
                    f"{d.families} | {d.runs} | {most:+.3f} ({task}) |"
                )
    lines += ["", *_claims(measurements), *_formats_b(measurements)]
    lines += ["## What they keep, and their peaks", ""]
    lines += _memory_table()
    return "\n".join(lines) + "\n"


def _claims(measurements: Sequence[Measurement]) -> list[str]:
    """Return a table of claims and the differences that were measured here."""
    lines = [
        "## What papers claim, and what these trainings say",
        "",
        f"Differences of {_NETWORK}, at equal task and recipe. "
        "An interval that includes 0 shows no difference.",
        "The papers trained larger networks for longer, most of them language models, so these trainings can",
        "contradict a claim only for small networks. `nvfp4-all` here is the format alone: the recipe of its",
        "paper also has Hadamard transforms, blocks in two dimensions, and some layers in bfloat16.",
        "",
        "| claim | first minus second | difference | 95 % interval | tasks |",
        "|---|---|---|---|---|",
    ]
    for claim, first, second in _CLAIMS:
        compared = differences(measurements, parse_precision(second))
        wanted = parse_precision(first)
        for d in compared:
            if d.precision == wanted and d.network == _NETWORK:
                m = d.mean
                lines.append(
                    f"| {claim} | `{first}` - `{second}` | {m.mean:+.3f} | {m.low:+.3f} to {m.high:+.3f} | "
                    f"{d.tasks} |"
                )
    return [*lines, ""]


def _formats_b(measurements: Sequence[Measurement]) -> list[str]:
    """Return a table of the costliest and the cheapest Format B of each rounding mode."""
    lines = [
        "## Where Format B matters",
        "",
        "How much higher the error is with a Format B of fewer bits than with 1-8-11, at equal task and",
        f"Format A, of {_NETWORK}. The costliest and the cheapest format of each rounding mode are listed.",
        "",
        "| rounding | Format B | more error | 95 % interval | cells |",
        "|---|---|---|---|---|",
    ]
    found = of_format_b(measurements, _NETWORK)
    for rounding in dict.fromkeys(one.rounding for one in found):
        own = [one for one in found if one.rounding == rounding]
        for one in dict.fromkeys((own[0], own[-1])):
            m = one.mean
            interval = f"{m.low:+.3f} to {m.high:+.3f}"
            lines.append(f"| {rounding} | {one.format_b} | {m.mean:+.3f} | {interval} | {one.cells} |")
    return [*lines, ""]


def _memory_table() -> list[str]:
    """Return a table of kept and peak megabytes of a step, with a batch of 32, on three networks."""
    names = ("fp32", *(name for name in MEASURED if "-all" not in name), "mxfp8")
    rows: dict[str, list[str]] = {name: [] for name in names}
    for network, _, side in _NETWORKS:
        data = load("grammar") if side is None else blank_images(10, side, 32)
        for name in names:
            fit = fitting(data, Recipe(network=network), name).within(None)
            rows[name].append(f"{fit.kept / 1e6:.2f} / {fit.peak / 1e6:.2f}")
    titles = " | ".join(f"{network}, {words}" for network, words, _ in _NETWORKS)
    return [
        f"| precision | {titles} |",
        "|---" * (len(_NETWORKS) + 1) + "|",
        *(f"| `{name}` | {' | '.join(cells)} |" for name, cells in rows.items()),
        "",
        "Megabytes kept at the end of the forward pass / at a step's highest moment, estimated for batches",
        f"of 32 on a CPU with {torch.backends.cpu.get_cpu_capability()}. What kernels of bfloat16 take in",
        "addition differs from processor to processor.",
        "Recipes in FP8 and MX keep what autocast keeps: they buy speed, not memory.",
    ]
