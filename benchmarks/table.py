"""Measure the table that ships: its campaigns in order, each a line of ``peppp measure``, resumably.

Each campaign has a store of its own, STORES/CAMPAIGN.db, and the same line again continues where the last one
stopped. ``--only a1`` runs one campaign. ``--dry-run`` says how much of each is left and how long it takes.
``--resume`` first imports what ``measurements/CAMPAIGN.csv.gz`` already holds. ``--export`` measures nothing:
it writes every store to that file, also while another process measures.

    python benchmarks/table.py STORES FOLDER_OF_NPZ_FILES [--only a1,a2] [--dry-run] [--workers 1]
"""

import argparse
import subprocess
import sys
from pathlib import Path

from peppp.precisions.known import MEASURED

# Pixels a side: 8 for simple pictures, 24 for a few, so that memory differs between rows.
SIDES = {8: "mnist notmnist spoken_digits_mel hand_drawn_shapes dig_mnist math_symbols omniglot_alphabets "
            "omniglot_characters",
         24: "eth80 clothing_small fruits360_3body"}  # fmt: skip
FAMILIES = {"cifar": "cifar", "omniglot": "omniglot", "tinyimagenet": "tinyimagenet"}  # by start of the name

# Tasks on which this small network learns something in float32, of as many families as possible.
FIRST = [
    *("mnist", "notmnist", "spoken_digits_mel", "hand_drawn_shapes", "cifar10", "cifar100_vehicles_1"),
    *("sign_digits", "solar_cells_elpv", "math_symbols", "eth80", "euro_coins", "coffee_leaf"),
]
SECOND = [
    *("dig_mnist", "omniglot_alphabets", "fruits360_3body", "bridge_cracks", "magnetic_tiles", "monkeys10"),
    *("tinyimagenet_food", "flowers17", "dtd10", "cifar100_fruit_and_vegetables", "cifar100_trees"),
    "cifar100_large_natural_outdoor_scenes",
]
FORMATS_A = "1-3-1,1-3-2,1-3-3,1-3-4,1-4-1,1-4-2,1-4-3,1-4-4,1-5-1,1-5-2,1-5-3"
OLDER_A = ",".join(f"{text}@qpytorch-0.2" for text in FORMATS_A.split(","))
THIRD = f"{FORMATS_A} x 1-6-7,1-7-9,1-8-11"
SEEDS = ["--seed", "0,1,2"]
TWO_SEEDS = ["--seed", "0,1"]
# With convolutions, as most networks here are of those; on the transformer today's recipes as they are.
NAMED = ",".join(MEASURED)
NAMED_LINEAR = NAMED.replace("-all", "")
# Trained until fp32 stops improving (twice as many epochs are no better), at the rate of 0.1, 0.03, 0.01 and
# 0.003 at which fp32 errs least.
END = ["--epochs", "100", "--augmentation", "flip-crop", "--min-steps", "0"]
DEEP = ["--network", "resnet18-w16", "--min-steps", "780"]  # at 32 pixels a side, as the paper trains
# Of Debian: bible-kjv-text (bible -f Gen1:1-Gen50:26 > genesis.txt) and miscfiles (us-constitution.gz).
TEXTS = ["grammar", "genesis", "constitution"]
KEPT = Path(__file__).parents[1] / "measurements"


def campaigns(names: list[str]) -> dict[str, tuple[list[str], list[str]]]:
    """Each campaign's tasks and its further arguments."""
    others = [name for name in names if name not in (*FIRST, *SECOND)]
    five, two = FIRST[:5], ["mnist", "cifar100_vehicles_1"]
    return {
        "fp32": (names, ["--configurations", "fp32"]),
        "a1": (FIRST, []),
        "a2": (SECOND, []),
        "b-fp32": (FIRST, ["--configurations", "fp32", "--rounding", "nearest"]),
        "b": (FIRST, ["--rounding", "nearest"]),
        "c": (others, ["--sample", "0.2"]),
        "d-noise": (
            FIRST[:10],
            ["--configurations", "1-3-2,1-4-1,1-4-3,1-5-2 x 1-7-9", "--seed", "1,2,3"],
        ),
        "d-seed": (["mnist", "notmnist", "cifar100_vehicles_1", "sign_digits"], ["--seed", "1"]),
        "e-rate": (five, ["--configurations", THIRD, "--learning-rate", "0.01,0.0001"]),
        "e-epochs": (two, ["--configurations", THIRD, "--epochs", "50"]),
        "e-network": (five, ["--configurations", THIRD, "--network", "resnet8-w8,vgg11-w8"]),
        "e-accumulator": (two, ["--configurations", f"{FORMATS_A} x 1-7-9", "--no-accumulator"]),
        "e-value-set": (two, ["--configurations", f"{OLDER_A} x 1-7-9@qpytorch-0.2"]),
        "fp32-seeds": (names, ["--configurations", "fp32", "--seed", "1,2"]),
        "fp32-rate": (five, ["--configurations", "fp32", "--learning-rate", "0.01,0.0001", *SEEDS]),
        "fp32-network": (five, ["--configurations", "fp32", "--network", "vgg11-w8", *SEEDS]),
        "fp32-epochs": (two, ["--configurations", "fp32", "--epochs", "50", *SEEDS]),
        "fp32-accumulator": (two, ["--configurations", "fp32", "--no-accumulator", *SEEDS]),
        "fp32-nearest": (FIRST, ["--configurations", "fp32", "--rounding", "nearest", "--seed", "1,2"]),
        "b-seeds": (FIRST, ["--configurations", THIRD, "--rounding", "nearest", "--seed", "1,2"]),
        "e-network-w8": (five, ["--configurations", THIRD, "--network", "resnet8-w8"]),
        "fp32-network-w8": (five, ["--configurations", "fp32", "--network", "resnet8-w8", *SEEDS]),
        "fp32-deep": (five, ["--configurations", "fp32", *DEEP]),
        "deep": (five, ["--configurations", f"{FORMATS_A} x 1-7-9", *DEEP]),
        "end-1": (["cifar10"], ["--configurations", f"fp32+{THIRD}", *END, "--learning-rate", "0.1"]),
        "end-2": (
            ["hand_drawn_shapes", "eth80"],
            ["--configurations", f"fp32+{THIRD}", *END, "--learning-rate", "0.03"],
        ),
        "resnet18": (
            ["cifar10"],
            [
                *("--configurations", "fp32+1-3-4,1-4-1,1-4-4,1-5-2 x 1-7-9", "--network", "resnet18"),
                *("--min-steps", "780", "--seed", "0,1"),
            ],
        ),
        "fp32-text": (TEXTS, ["--configurations", "fp32", "--network", "transformer", *SEEDS]),
        "text": (TEXTS, ["--configurations", THIRD, "--network", "transformer"]),
        "named": ([*FIRST, *SECOND], ["--configurations", NAMED, *TWO_SEEDS]),
        "named-text": (
            TEXTS,
            ["--configurations", NAMED_LINEAR, "--network", "transformer", *TWO_SEEDS],
        ),
        "named-deep": (five, ["--configurations", NAMED, *DEEP]),
        "deep-b": (five, ["--configurations", f"{FORMATS_A} x 1-6-7,1-8-11", *DEEP]),
    }


def text(folder: Path, name: str, side: int | None = None) -> str:
    """A data set's text: where it is, how it is cut, its side and its family."""
    if name in TEXTS:
        return name if name == "grammar" else f"text:{folder / name}.txt"
    side = side or next((side for side, members in SIDES.items() if name in members.split()), 16)
    family = next((family for start, family in FAMILIES.items() if name.startswith(start)), name)
    return f"npz:{folder / name}.npz?train=1600&test=2000&resolution={side}&group={family}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stores", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default="")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--export", action="store_true")
    parser.add_argument("--workers", default="1")
    arguments = parser.parse_args()
    names = sorted(path.stem for path in arguments.folder.glob("*.npz"))
    only = [name for name in arguments.only.split(",") if name]
    arguments.stores.mkdir(parents=True, exist_ok=True)
    for campaign, (tasks, further) in campaigns(names).items():
        if only and campaign not in only:
            continue
        store, kept = str(arguments.stores / f"{campaign}.db"), KEPT / f"{campaign}.csv.gz"
        if arguments.export:
            if Path(store).exists():
                peppp("table", "export", store, str(kept))
            continue
        print(f"campaign {campaign}: {len(tasks)} tasks", flush=True)
        if arguments.resume and kept.exists():
            peppp("table", "import", store, str(kept))
        side = 32 if "deep" in campaign or campaign == "resnet18" else None
        line = ["--min-steps", "500", "--workers", arguments.workers, *further]
        line += ["--data", ",".join(text(arguments.folder, task, side) for task in tasks)]
        line += ["--dry-run"] if arguments.dry_run else []
        peppp("measure", store, *line)


def peppp(*arguments: str) -> None:
    """Run one command line. Exit code 1 says that some measurements failed, and the others are kept."""
    if subprocess.run([sys.executable, "-m", "peppp", *arguments]).returncode not in (0, 1):
        sys.exit(2)


if __name__ == "__main__":
    main()
