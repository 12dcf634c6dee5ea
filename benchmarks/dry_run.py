"""How long a dry run of a pick takes: a folder of 2,000 photographs, beside importing torch and numba.

All are whole processes, one after the other in each round. The first dry run has an empty cache, so it
decodes the images and rehearses the steps; the second one finds both kept. The last line is a JSON object:
ratios to the import, the median of the rounds and their range.

    python benchmarks/dry_run.py [--json FILE] [--rounds 3]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

LINE = "pick photos --network resnet8 --budget 14MB --dry-run"
WAYS = {"paper": [*LINE.split(), "--from", "paper"], "default": LINE.split()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    ratios: dict[str, list[float]] = {f"{way}, {time}": [] for way in WAYS for time in ("first", "second")}
    with tempfile.TemporaryDirectory() as folder:
        photographs(Path(folder) / "photos")
        for _ in range(arguments.rounds):
            base = seconds(["-c", "import torch, numba"], folder, folder)
            for way, line in WAYS.items():
                with tempfile.TemporaryDirectory() as cache:
                    for turn in ("first", "second"):
                        taken = seconds(["-m", "peppp", *line], folder, cache)
                        ratios[f"{way}, {turn}"].append(taken / base)
            print(
                f"import {base:.2f} s",
                {name: round(found[-1], 2) for name, found in ratios.items()},
                flush=True,
            )
    summary = {
        name: {
            "median": round(statistics.median(found), 2),
            "least": round(min(found), 2),
            "most": round(max(found), 2),
        }
        for name, found in ratios.items()
    }
    machine = {"rounds": arguments.rounds, "torch": torch.__version__, "cores": os.cpu_count()}
    text = json.dumps(machine | {"ratios": summary})
    if arguments.json:
        arguments.json.write_text(text + "\n")
    print(text)


def photographs(folder: Path) -> None:
    """Write four classes of 500 noisy JPEG files of 160 by 120 pixels."""
    rng = np.random.default_rng(0)
    for label in range(4):
        (folder / f"class{label}").mkdir(parents=True)
        for number in range(500):
            colours = rng.random((6, 8, 3)) * 80 + label * 40 + rng.normal(0, 8, (6, 8, 3))
            image = Image.fromarray(np.clip(colours, 0, 255).astype(np.uint8)).resize((160, 120))
            image.save(folder / f"class{label}" / f"{number:03}.jpg", quality=88)


def seconds(arguments: list[str], folder: str, cache: str) -> float:
    """Run Python with some arguments in a folder, and return the seconds that it took."""
    environment = os.environ | {"PEPPP_CACHE": cache}
    begun = time.perf_counter()
    subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, check=True, capture_output=True)
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
