"""``peppp doctor``: whether what is installed here computes as it should."""

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import typer

from peppp.cli.options import Device, Json, check_device, print_json

_PACKAGES = ("peppp", "torch", "numpy", "scipy", "numba", "SQLAlchemy", "pillow", "scikit-learn")


def command(
    store: Annotated[
        str | None, typer.Option(help="Also open this store and count its measurements.", show_default=False)
    ] = None,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Show versions and devices, and test the arithmetic where it runs. Exit code 1 if something is wrong.

    Example: peppp doctor --store runs.db
    """
    import torch

    from peppp.lowprec.network import convolutions
    from peppp.lowprec.rounding.selftest import self_test

    check_device(device)
    facts = {name: _version(name) for name in _PACKAGES} | {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cuda": torch.cuda.get_device_name(None if device == "cpu" else device)
        if torch.cuda.is_available()
        else "no device",
        "threads": str(torch.get_num_threads()),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "convolutions by": convolutions.library(),
    }
    if store is not None:
        from peppp.table.select import read_measurements

        facts["store"] = f"{len(read_measurements(store))} measurements in {Path(store).name}"
    runs, lack = _precisions(device)
    checks = self_test(device)
    passed = all(check.passed is not False for check in checks)
    verdict = convolutions.examine()
    if json:
        listed = [{"name": c.name, "passed": c.passed, "detail": c.detail} for c in checks]
        more = {"runs": runs, "lacking": lack}
        print_json(more | {"passed": passed, "convolutions": verdict, "facts": facts, "checks": listed})
    else:
        for name, fact in facts.items():
            typer.echo(f"{name:<28}{fact}")
        typer.echo(f"{'trains here':<28}fp32, {', '.join(runs)}, packed pairs of formats")
        for name, reason in lack.items():
            typer.echo(f"note  {name}: {reason}")
        for check in checks:
            mark = {True: "ok", False: "WRONG", None: "note"}[check.passed]
            typer.echo(f"{mark:<6}{check.name}: {check.detail}")
        avoided = (
            "" if verdict == "right" else "; our trainings avoid it, a plain float32 loop of yours does not"
        )
        typer.echo(f"note  strided 1x1 convolutions of few channels, in plain torch: {verdict}{avoided}")
    if not passed:
        raise typer.Exit(1)


def _precisions(device: str) -> tuple[list[str], dict[str, str]]:
    """The names of precisions that train here for real, and what others lack, one of each kind."""
    from peppp.precisions.known import PRECISIONS
    from peppp.training.runs_here import lacking

    reasons = {name: lacking(precision, device=device) for name, precision in PRECISIONS.items()}
    runs = [name for name, reason in reasons.items() if not reason]
    return runs, {n: r for n, r in reasons.items() if r and not PRECISIONS[n].optimizer and "-all" not in n}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
