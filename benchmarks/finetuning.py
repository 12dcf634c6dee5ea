"""Fine-tuning: forty images of a task, from scratch and from weights trained here on another set.

The weights are those of fp32 trainings of ResNet-8 on ``FROM``. Each new task has 40 training images; errors
are means over three seeds. Scratch and fine-tuned trainings have the same recipe.

    python benchmarks/finetuning.py FOLDER_OF_NPZ_FILES
"""

import argparse
import json
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory

from peppp.precisions.known import parse_precision
from peppp.records import Recipe
from peppp.tasks.readers import load
from peppp.training.kept_training import train_in_folder
from peppp.training.measurement import measure
from peppp.training.pretrained import named_with_digest
from peppp.training.sizes import with_resolution

FROM = "cifar10"
TASKS = ("cifar100_vehicles_1", "flowers17", "eth80", "sign_digits", "monkeys10")
PRECISIONS = ("fp32", "amp-bf16", "bf16", "1-4-4/1-6-7")
WAYS = {
    "scratch": (False, ()),
    "from weights": (True, ()),
    "from weights, frozen": (True, ("conv", "norm", "blocks.0")),
}
SEEDS = range(3)


def markdown(found: dict) -> str:
    """The table of docs/howto/finetuning.md."""
    ways = list(WAYS)
    lines = [f"| task | precision | {' | '.join(ways)} |", "|---" * (len(ways) + 2) + "|"]
    for row in found["rows"]:
        cells = " | ".join(f"{row[way]:.3f}" for way in ways)
        lines.append(f"| {row['task']} | `{row['precision']}` | {cells} |")
    for precision, means in found["means"].items():
        lines.append(f"| mean | `{precision}` | {' | '.join(f'{means[way]:.3f}' for way in ways)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    rows = []
    with TemporaryDirectory() as place:
        first = load(f"npz:{folder / FROM}.npz?train=5000&test=2000&resolution=16")
        recipe = with_resolution(Recipe(epochs=20, learning_rate=0.02, augmentation="flip-crop"), first)
        begun = train_in_folder(first, parse_precision("fp32"), recipe, 0, Path(place) / "run")
        print(f"weights from {FROM}: error {begun.test_error:.3f}", flush=True)
        weights = named_with_digest(begun.weights)
        for task in TASKS:
            data = load(f"npz:{folder / task}.npz?train=40&test=2000&resolution=16")
            for precision in PRECISIONS:
                row = {"task": task, "precision": precision, "chance": data.chance_error}
                for way, (loads, frozen) in WAYS.items():
                    how = Recipe(
                        epochs=30, learning_rate=0.01, batch_size=8,
                        pretrained=weights if loads else "", freeze=frozen,
                    )  # fmt: skip
                    found = [measure(data, parse_precision(precision), how, seed) for seed in SEEDS]
                    row[way] = fmean(m.test_error for m in found)
                rows.append(row)
                print(json.dumps(row), flush=True)
    means = {p: {way: fmean(r[way] for r in rows if r["precision"] == p) for way in WAYS} for p in PRECISIONS}
    print(
        json.dumps(
            {"from": FROM, "error_there": begun.test_error, "seeds": len(SEEDS), "means": means, "rows": rows}
        )
    )


if __name__ == "__main__":
    main()
