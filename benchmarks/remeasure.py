"""Measure rows of the shipped table again, and count how many come out equal, curves and all.

The sample is of rows that the version of the arithmetic could have moved: stochastic rounding, a Format B of
6 or 7 exponent bits. FOLDER holds the npz files of ``benchmarks/table.py``.

    python benchmarks/remeasure.py FOLDER [--rows 40] [--seed 0]
"""

import argparse
import json
import random
from pathlib import Path

from table import text

from peppp.campaign.worker import load_data, measure_cell
from peppp.campaign.worker import source as source_of
from peppp.records import Measurement
from peppp.table.select import SHIPPED_TABLE, read_measurements
from peppp.tasks.readers import load

RESULTS = Path(__file__).parent / "results" / "remeasured.json"


def could_move(m: Measurement) -> bool:
    """Whether a change of how subnormals of Format B are rounded stochastically could have moved a row."""
    return m.recipe.rounding == "stochastic" and str(m.configuration).split("/")[1].startswith(
        ("1-6-", "1-7-")
    )


def again(m: Measurement, folder: Path) -> Measurement:
    """The same training, by this version."""
    source = text(folder, m.task)
    data = load(source)
    if data.fingerprint != m.fingerprint:
        raise SystemExit(f"{m.task}: other data than the table's")
    cell = source_of(source, data).cell(m.configuration, m.recipe, m.seed)
    return measure_cell(cell, load_data(cell))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    known = [m for m in read_measurements(SHIPPED_TABLE) if could_move(m)]
    sample = random.Random(arguments.seed).sample(known, min(arguments.rows, len(known)))
    equal, different = 0, []
    for m in sample:
        now = again(m, arguments.folder)
        same = (now.test_error, now.train_error, now.curve) == (m.test_error, m.train_error, m.curve)
        equal += same
        line = f"{m.task} {m.configuration} {m.recipe.network} seed {m.seed}: {m.test_error} {now.test_error}"
        if not same:
            different.append(line)
        print("equal" if same else "DIFFERENT", line, flush=True)
    found = {"rows": len(sample), "of": len(known), "equal": equal, "different": different}
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    print(f"{equal} of {len(sample)} rows came out equal")


if __name__ == "__main__":
    main()
