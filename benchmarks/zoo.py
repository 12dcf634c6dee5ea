"""Judge networks and training loops that others wrote.

Networks of torchvision, timm, transformers, diffusers, torch-geometric, pytorchcv, vit-pytorch and
x-transformers are built small, with random weights; nothing is downloaded. Each is converted to 1-4-1/1-6-7
and judged by the oracle of the tests (nearest and stochastic), trained two steps in simulated and in packed
storage, and once more with the package's own switch for activation recomputation. Weights and buffers must
be equal bit for bit. Loops that others wrote follow: Trainer, accelerate, Lightning.

    pip install 'peppp[zoo]'
    python benchmarks/zoo.py [--only timm/resnet] [--dry-run] [--json benchmarks/results/zoo.json]

Each network runs in a process of its own, which a limit of time and one of memory end. Lines are kept in
``--lines`` as they come, and what is there is not run again. ``--json`` writes the sums and all lines. The
table that docs/numbers.md shows is printed at the end.
"""

import json
from collections import Counter
from typing import Any

from zoo_judge import CONFIGURATION, judged
from zoo_loops import LOOPS, looped
from zoo_networks import cases
from zoo_running import RESULTS as FOLDER
from zoo_running import apart, parser, run, versions

RESULTS = FOLDER / "zoo.json"
VERDICTS = ("right", "reported by name", "refused in one line", "wrong", "not judged")


def main() -> None:
    arguments = parser(__doc__, "zoo").parse_args()
    packages = {name: case.package for name, case in cases().items()} | {
        f"loops/{name}": loop.package for name, loop in LOOPS.items()
    }
    done = run(packages, lambda name: line_of(name, arguments.seconds, arguments.gigabytes), shown, arguments)
    if arguments.json:
        whole = {
            "configuration": CONFIGURATION,
            "versions": versions(packages),
            "sums": sums(done),
            "lines": done,
        }
        arguments.json.write_text(json.dumps(whole, indent=1) + "\n")
    print("\n" + "\n".join(summary(done)))


def line_of(name: str, seconds: int, gigabytes: int) -> dict[str, Any]:
    """Judge one network or loop in a process of its own, whose end is a line, too."""
    group, _, rest = name.partition("/")
    try:
        return apart(
            lambda: looped(LOOPS[rest]) if group == "loops" else judged(cases()[name]), seconds, gigabytes
        )
    except ChildProcessError as error:
        return {"verdict": "wrong", "wrong": [str(error)]}
    except TimeoutError as error:
        return {"verdict": "not judged", "why": str(error)}


def shown(line: dict[str, Any]) -> str:
    """What is said of one network."""
    again = line.get("recomputation")
    text = f"{line['name']}: {line['verdict']}{_details(line)}"
    return text if again is None else f"{text} | recomputed: {again['verdict']}{_details(again)}"


def _details(line: dict[str, Any]) -> str:
    given = line.get("wrong") or line.get("reported") or [line.get("line") or line.get("why")]
    text = "; ".join(part for part in given if part)
    return f" ({text[:300]})" if text else ""


def sums(lines: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, int]]]:
    """By package: how many networks have each verdict, without recomputation and with it."""
    found: dict[str, dict[str, Counter[str]]] = {}
    for line in lines:
        of = found.setdefault(
            line["name"].partition("/")[0], {"networks": Counter(), "recomputed": Counter()}
        )
        of["networks"][line["verdict"]] += 1
        again = line.get("recomputation")
        if again is not None:
            of["recomputed"][again["verdict"]] += 1
    return {package: {key: dict(value) for key, value in of.items()} for package, of in found.items()}


def summary(lines: list[dict[str, Any]]) -> list[str]:
    """The table of docs/numbers.md."""
    rows = ["| package | " + " | ".join(VERDICTS) + " | recomputed: equal | wrong |", "|---" * 8 + "|"]
    total: dict[str, Counter[str]] = {"networks": Counter(), "recomputed": Counter()}
    for package, of in sums([line for line in lines if not line["name"].startswith("loops/")]).items():
        rows.append(_row(package, of["networks"], of["recomputed"]))
        for key in total:
            total[key].update(of[key])
    return [*rows, _row("all", total["networks"], total["recomputed"])]


def _row(name: str, networks: dict[str, int], recomputed: dict[str, int]) -> str:
    numbers = [networks.get(verdict, 0) for verdict in VERDICTS]
    numbers += [recomputed.get("right", 0), recomputed.get("wrong", 0)]
    return f"| {name} | " + " | ".join(map(str, numbers)) + " |"


if __name__ == "__main__":
    main()
