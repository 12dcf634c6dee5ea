"""How zoo.py and zoo_memory.py run: each network in a process of its own, and its line kept in a file."""

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from zoo_case import installed, load

RESULTS = Path(__file__).parent / "results"
SECONDS, GIGABYTES = 300, 12
Line = dict[str, Any]


def parser(description: str | None, name: str) -> argparse.ArgumentParser:
    """The arguments of a benchmark whose results are ``name``.json."""
    lines = Path(tempfile.gettempdir()) / f"peppp-{name.replace('_', '-')}.jsonl"
    found = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    found.add_argument("--only", action="append", help="names that begin so; may be given several times")
    found.add_argument("--dry-run", action="store_true", help="list the names, and run nothing")
    found.add_argument(
        "--lines", type=Path, default=lines, help=f"default {lines.name} among temporary files"
    )
    found.add_argument("--json", type=Path, help=f"say benchmarks/results/{name}.json")
    found.add_argument("--seconds", type=int, default=SECONDS, help="the time that a network has")
    found.add_argument("--gigabytes", type=int, default=GIGABYTES, help="the memory that a network has")
    return found


def run(
    packages: dict[str, str],
    line_of: Callable[[str], Line],
    shown: Callable[[Line], str],
    arguments: argparse.Namespace,
) -> list[Line]:
    """The lines of the wanted among ``packages`` (name: package); those that are in the file are not run."""
    # Packages that look for files of the internet must find none.
    os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    missing = [package for package in sorted(set(packages.values())) if installed(package) is None]
    wanted = [name for name in packages if name.startswith(tuple(arguments.only or ("",)))]
    if missing:
        skipped = sum(packages[name] in missing for name in wanted)
        print(f"{skipped} lines are left out: pip install {' '.join(missing)}", file=sys.stderr)
    wanted = [name for name in wanted if packages[name] not in missing]
    if arguments.dry_run:
        print("\n".join(wanted))
        sys.exit()
    lines = _kept(arguments.lines)
    for package in sorted({packages[name] for name in wanted}):
        load(package)  # before the processes fork, so that each need not import it
    for name in wanted:
        if name not in lines:
            lines[name] = {"name": name, **line_of(name)}
            with arguments.lines.open("a") as file:
                file.write(json.dumps(lines[name]) + "\n")
        print(shown(lines[name]), flush=True)
    return [lines[name] for name in wanted]


def versions(packages: dict[str, str]) -> dict[str, str | None]:
    """The versions of torch and of the packages."""
    torch_version = torch.__version__.partition("+")[0]
    return {"torch": torch_version, **{name: installed(name) for name in sorted(set(packages.values()))}}


def _kept(path: Path) -> dict[str, Line]:
    """Lines of an earlier run; one that was cut off is left out."""
    found = {}
    for text in path.read_text().splitlines() if path.exists() else ():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        found[line["name"]] = line
    return found


def apart(work: Callable[[], Line], seconds: int, gigabytes: int) -> Line:
    """What ``work`` returns in a process of its own.

    Raises TimeoutError where it takes longer, and ChildProcessError where the process ends before.
    """
    context: Any = multiprocessing.get_context("fork")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(work, gigabytes, sending))
    process.start()
    sending.close()
    try:
        if not receiving.poll(seconds):
            process.kill()
            raise TimeoutError(f"it took more than {seconds} s")
        result: Line = receiving.recv()
    except EOFError:
        process.join()
        end = f"signal {-process.exitcode}" if process.exitcode < 0 else f"status {process.exitcode}"
        raise ChildProcessError(f"the process ended with {end}") from None
    finally:
        process.join()
    return result


def _child(work: Callable[[], Line], gigabytes: int, sending: Any) -> None:
    import resource  # which only POSIX has, as it has fork

    resource.setrlimit(resource.RLIMIT_AS, (gigabytes << 30, gigabytes << 30))
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    torch.set_num_threads(1)
    sending.send(work())
