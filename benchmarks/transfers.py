"""Cross-validate learning from another network, rate or resolution on the shipped table, and ship the result.

A pick for a recipe that the table lacks says how well such picks do on the table's own tasks
(``peppp.advise.caution``). For the default picks from the shipped table, this script works that out and
writes it next to the table, so that no user has to wait for it. Run it again when the table changes. It
takes minutes.

    python benchmarks/transfers.py
"""

import json
from dataclasses import replace

from peppp.advise.caution import ADMITTED, SHIPPED, Asked, cross_validated, key_of
from peppp.advise.learned import learned_from
from peppp.learn.methods import DEFAULT_METHOD
from peppp.records import Recipe
from peppp.tasks.dataset import blank_images

FIELDS = ("network", "learning_rate", "resolution")
CHOICES = ("runnable", "paper")
MEASUREMENTS = (6, 7)  # trainings from scratch, and from weights


def cases():
    """Each matrix, field and pick that ships."""
    for choices in CHOICES:
        recipe = replace(Recipe(), network="resnet8")
        learned = learned_from(None, blank_images(10, 32, 100), recipe, choices, (), DEFAULT_METHOD)
        matrix = learned.all_rows()
        for field in FIELDS:
            for measurements in MEASUREMENTS:
                for admitted in (*ADMITTED, None):
                    asked = Asked(DEFAULT_METHOD, measurements, 3, admitted)
                    yield choices, learned.everything, matrix, field, asked


def main():
    found = {}
    for choices, digested, matrix, field, asked in cases():
        result = cross_validated(matrix, field, asked)
        found[key_of(digested, field, asked)] = result
        print(f"{choices}, another {field}: {asked}: {result}", flush=True)
    lines = (f"{json.dumps(key)}: {json.dumps(result)}" for key, result in found.items())
    SHIPPED.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
