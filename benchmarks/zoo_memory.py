"""Estimate the memory of training steps of networks that others wrote, and measure it.

The networks of benchmarks/zoo.py take steps of SGD with momentum in float32 on one thread of the CPU; the
loss is the sum of the mean squares of what a network returns. ``peppp.training_memory`` estimates what is
kept at the end of the forward pass and the peak, ``measure_training`` traces torch's allocator. ``cause``
says why a peak is off by more than 3 %, and why a network is not estimated or not measured.

    pip install 'peppp[zoo]'
    python benchmarks/zoo_memory.py [--only timm/resnet] [--json benchmarks/results/zoo_memory.json]

Each network runs in a process of its own, which a limit of time and one of memory end. Lines are kept in
``--lines`` as they come, and what is there is not run again. ``--json`` writes the sums and all lines.
"""

import json
from typing import Any

import torch
from zoo_judge import Failure, attempt, built, inputs, mean_squares
from zoo_networks import cases
from zoo_running import RESULTS as FOLDER
from zoo_running import apart, parser, run, versions

from peppp import training_memory
from peppp.footprint.measuring import measure_training

RESULTS = FOLDER / "zoo_memory.json"
NEAR = {"kept": 0.01, "peak": 0.03}
# name, or how it begins: why its peak is off by more than 3 %
CAUSES = {
    "transformers/mamba": "torch adds up gradients in place, and fake tensors out of place",
    "transformers/wav2vec2": "a layer that is dropped at random in a measured step is counted",
    "transformers/hubert": "a layer that is dropped at random in a measured step is counted",
}
NAMES = ("kept_estimated", "kept_measured", "peak_estimated", "peak_measured")


def main() -> None:
    arguments = parser(__doc__, "zoo_memory").parse_args()
    packages = {name: case.package for name, case in cases().items()}
    found = run(
        packages, lambda name: line_of(name, arguments.seconds, arguments.gigabytes), shown, arguments
    )
    done = [line | {"cause": cause(line)} for line in found]
    if arguments.json:
        capability = torch.backends.cpu.get_cpu_capability()
        whole = {
            "versions": versions(packages),
            "capability": capability,
            "near": NEAR,
            "sums": sums(done),
            "lines": done,
        }
        arguments.json.write_text(json.dumps(whole, indent=1) + "\n")
    print(json.dumps(sums(done)))


def line_of(name: str, seconds: int, gigabytes: int) -> dict[str, Any]:
    """Bytes of one network, in a process of its own, whose end is a line, too."""
    try:
        return apart(lambda: both(name), seconds, gigabytes)
    except (ChildProcessError, TimeoutError) as error:
        return dict.fromkeys(NAMES) | {"cause": f"not run: {error}"}


def both(name: str) -> dict[str, Any]:
    """Bytes that are estimated and measured."""
    case = cases()[name]
    line: dict[str, Any] = dict.fromkeys(NAMES)
    causes = []
    for how, function, failed in (
        ("estimated", training_memory, "refused"),
        ("measured", measure_training, "not measured"),
    ):
        found = attempt(
            lambda function=function: function(
                built(case), inputs(case, 0), optimizer="sgd", loss=mean_squares
            )
        )
        if isinstance(found, Failure):
            causes.append(f"{failed if found.ours else 'failed'}: {found.line}")
        else:
            line |= {f"kept_{how}": found.kept, f"peak_{how}": found.peak}
    return line | {"cause": "; ".join(causes)}


def off(line: dict[str, Any], what: str) -> float | None:
    """How much is estimated too high, as a share; None where one of the two is not known."""
    estimated, measured = (line[f"{what}_{how}"] for how in ("estimated", "measured"))
    return None if estimated is None or measured is None else estimated / measured - 1


def cause(line: dict[str, Any]) -> str:
    """Why a peak is off by more than 3 %, or is not known; empty where it is near."""
    share = off(line, "peak")
    if share is None:
        return str(line["cause"])
    if abs(share) <= NEAR["peak"]:
        return ""
    return next((text for name, text in CAUSES.items() if line["name"].startswith(name)), "not known")


def shown(line: dict[str, Any]) -> str:
    """What is said of one network."""
    kept, peak = off(line, "kept"), off(line, "peak")
    numbers = "" if kept is None or peak is None else f" kept {kept:+.4f} peak {peak:+.4f}"
    said = cause(line)
    return f"{line['name']}:{numbers}{f' ({said[:300]})' if said else ''}"


def sums(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """How many networks were run, and how many estimates are near; the reason of each that was refused."""
    kept, peak = ([x for x in (off(line, what) for line in lines) if x is not None] for what in NEAR)
    return {
        "networks": len(lines),
        "compared": len(peak),
        "kept_within_1_percent": sum(abs(x) <= NEAR["kept"] for x in kept),
        "peak_within_3_percent": sum(abs(x) <= NEAR["peak"] for x in peak),
        "peak_overestimated": sum(x > NEAR["peak"] for x in peak),
        "peak_underestimated": sum(x < -NEAR["peak"] for x in peak),
        "refused": {x["name"]: x["cause"] for x in lines if x["cause"].startswith("refused")},
        "not_run": {
            x["name"]: x["cause"]
            for x in lines
            if x["cause"].startswith(("not ", "failed")) and off(x, "peak") is None
        },
    }


if __name__ == "__main__":
    main()
