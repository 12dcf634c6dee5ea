"""Cross-validate learning from another network, rate or resolution on the shipped table, and ship the result.

A pick for a recipe that the table lacks says how well such picks do on the table's own tasks
(``peppp.advise.caution``). For the default picks from the shipped table, this script works that out and
writes it next to the table, so that no user has to wait for it. Run it again when the table changes. It
takes minutes. ``--check`` compares instead of writing.

    python benchmarks/transfers.py [--check]
"""

import argparse
import json
import sys
from dataclasses import replace

import numpy as np

from peppp.advise.caution import SHIPPED, Asked, cross_validated, key_of
from peppp.advise.learned import learned_from
from peppp.learn.methods import DEFAULT_METHOD
from peppp.records import Recipe
from peppp.tasks.dataset import blank_images

FIELDS = ("network", "learning_rate", "resolution")
CHOICES = ("runnable", "paper")
MEASUREMENTS = (6, 7)  # trainings from scratch, and from weights
ADMITTED = (1, 3, 10, 30, None)


def cases():
    """Each matrix, field and pick that ships."""
    for choices in CHOICES:
        recipe = replace(Recipe(), network="resnet8")
        learned = learned_from(None, blank_images(10, 32, 100), recipe, choices, (), DEFAULT_METHOD)
        matrix = learned.all_rows()
        for field in FIELDS:
            for measurements in MEASUREMENTS:
                for admitted in ADMITTED:
                    yield (
                        choices,
                        learned.everything,
                        matrix,
                        field,
                        Asked(DEFAULT_METHOD, measurements, 3, admitted),
                    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    found, before = {}, json.loads(SHIPPED.read_text())
    for choices, digested, matrix, field, asked in cases():
        result = cross_validated(matrix, field, asked)
        found[key_of(digested, field, asked)] = result
        print(f"{choices}, another {field}: {asked}: {result}", flush=True)
    if check:
        same = found.keys() == before.keys() and all(
            np.allclose(np.array(result, float), np.array(before[key], float), atol=1e-6, equal_nan=True)
            for key, result in found.items()
        )
        sys.exit(None if same else "transfers.json is not what the table gives; run benchmarks/transfers.py")
    lines = (f"{json.dumps(key)}: {json.dumps(result)}" for key, result in found.items())
    SHIPPED.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
