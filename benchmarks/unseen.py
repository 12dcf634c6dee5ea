"""How well formats are predicted that a table lacks. Nothing is trained.

Each Format A in turn is taken out of the table, together with the family of the task that is predicted. The
predictions at its nine configurations are judged by noise-free errors (``peppp.evaluate.unseen``).

    python benchmarks/unseen.py [--json FILE]
"""

import argparse
import json

from peppp.evaluate.unseen import left_out_formats
from peppp.table.matrix import error_matrix
from peppp.table.select import SHIPPED_TABLE, read_current
from peppp.table.slices import known_part, largest_slice


def markdown(result) -> str:
    """The table of docs/picking.md: means over families with 95 % intervals."""
    lines = [
        "| trainings | coverage of 90 % intervals | width | of the table's own | root mean square miss "
        "| that of the nearest format |",
        "|---|---|---|---|---|---|",
    ]
    for r in result["summary"]:
        covered, ratio = (
            f"{r[name]:.2f} [{r[f'{name}_low']:.2f}, {r[f'{name}_high']:.2f}]"
            for name in ("covered", "ratio")
        )
        lines.append(
            f"| {r['measurements']} | {covered} | {r['width']:.2f} | {r['seen_width']:.2f} | {r['miss']:.3f} "
            f"| {r['nearest']:.3f} (ratio {ratio}) |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", default="")
    arguments = parser.parse_args()
    known = known_part(error_matrix(largest_slice(read_current(SHIPPED_TABLE))))
    found = left_out_formats(known, counts=(0, 3))
    by_format = {r["format_a"]: round(r["covered"], 3) for r in found.summary(by_format=True)[-11:]}
    result = {
        "summary": [
            {name: round(v, 4) if isinstance(v, float) else v for name, v in r.items()}
            for r in found.summary()
        ],
        "covered_after_3": by_format,
    }
    print(markdown(result))
    print("coverage after 3 trainings, by format:", by_format)
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(result, file, indent=1)
            file.write("\n")


if __name__ == "__main__":
    main()
