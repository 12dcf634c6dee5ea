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

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from zoo_case import installed, load
from zoo_judge import CONFIGURATION, judged
from zoo_loops import LOOPS, looped
from zoo_networks import cases

RESULTS = Path(__file__).parent / "results" / "zoo.json"
LINES = Path(tempfile.gettempdir()) / "peppp-zoo.jsonl"
SECONDS, GIGABYTES = 300, 12
VERDICTS = ("right", "reported by name", "refused in one line", "wrong", "not judged")


def main() -> None:
    arguments = _arguments()
    found = {name: case.package for name, case in cases().items()} | {
        f"loops/{name}": loop.package for name, loop in LOOPS.items()
    }
    missing = [package for package in sorted(set(found.values())) if installed(package) is None]
    wanted = [name for name in found if name.startswith(tuple(arguments.only or ("",)))]
    if missing:
        skipped = sum(found[name] in missing for name in wanted)
        print(f"{skipped} lines are left out: pip install {' '.join(missing)}", file=sys.stderr)
    wanted = [name for name in wanted if found[name] not in missing]
    if arguments.dry_run:
        print("\n".join(wanted))
        return
    lines = _kept(arguments.lines)
    for package in sorted({found[name] for name in wanted} - {*missing}):
        load(package)  # before the processes fork, so that each need not import it
    for name in wanted:
        if name not in lines:
            lines[name] = {"name": name, **apart(name, arguments.seconds, arguments.gigabytes)}
            with arguments.lines.open("a") as file:
                file.write(json.dumps(lines[name]) + "\n")
        print(one_line(lines[name]), flush=True)
    done = [lines[name] for name in wanted]
    if arguments.json:
        versions = {package: installed(package) for package in sorted(set(found.values()))}
        whole = {
            "configuration": CONFIGURATION,
            "versions": {"torch": torch.__version__.partition("+")[0], **versions},
            "sums": sums(done),
            "lines": done,
        }
        arguments.json.write_text(json.dumps(whole, indent=1) + "\n")
    print("\n" + "\n".join(summary(done)))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", action="append", help="names that begin so; may be given several times")
    parser.add_argument("--dry-run", action="store_true", help="list the names, and run nothing")
    parser.add_argument(
        "--lines", type=Path, default=LINES, help=f"default {LINES.name} among temporary files"
    )
    parser.add_argument("--json", type=Path, help=f"say {RESULTS.relative_to(RESULTS.parents[2])}")
    parser.add_argument("--seconds", type=int, default=SECONDS, help="the time that a network has")
    parser.add_argument("--gigabytes", type=int, default=GIGABYTES, help="the memory that a network has")
    return parser.parse_args()


def _kept(path: Path) -> dict[str, dict[str, Any]]:
    """Lines of an earlier run; one that was cut off is left out."""
    found = {}
    for text in path.read_text().splitlines() if path.exists() else ():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        found[line["name"]] = line
    return found


def apart(name: str, seconds: int, gigabytes: int) -> dict[str, Any]:
    """Judge one network or loop in a process of its own, whose end is a line, too."""
    context: Any = multiprocessing.get_context("fork")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(name, gigabytes, sending))
    process.start()
    sending.close()
    try:
        result: dict[str, Any] | None = receiving.recv() if receiving.poll(seconds) else None
    except EOFError:
        process.join()
        end = f"signal {-process.exitcode}" if process.exitcode < 0 else f"status {process.exitcode}"
        return {"verdict": "wrong", "wrong": [f"the process ended with {end}"]}
    if result is None:
        process.kill()
        result = {"verdict": "not judged", "why": f"it took more than {seconds} s"}
    process.join()
    return result


def _child(name: str, gigabytes: int, sending: Any) -> None:
    import resource  # which only POSIX has, as it has fork

    resource.setrlimit(resource.RLIMIT_AS, (gigabytes << 30, gigabytes << 30))
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    torch.set_num_threads(1)
    group, _, rest = name.partition("/")
    sending.send(looped(LOOPS[rest]) if group == "loops" else judged(cases()[name]))


def one_line(line: dict[str, Any]) -> str:
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
    # Packages that look for files of the internet must find none.
    os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    main()
