"""``peppp doctor``: check that the installation computes correctly on this machine."""

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import typer

from peppp.cli.options import Device, Json, check_device, print_json

_PACKAGES = ("peppp", "torch", "numpy", "scipy", "numba", "SQLAlchemy", "pillow", "scikit-learn")


def command(
    store: Annotated[
        str | None,
        typer.Option(help="Also open this store, such as runs.db, and count its rows.", show_default=False),
    ] = None,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Show versions and devices, and test the arithmetic on a device. The exit code is 1 if a test fails.

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
    runs, slow, lack = _precisions(device)
    checks = self_test(device)
    passed = all(check.passed is not False for check in checks)
    verdict = convolutions.examine()
    if json:
        listed = [{"name": c.name, "passed": c.passed, "detail": c.detail} for c in checks]
        more = {"runs": runs, "slow": slow, "lacking": lack}
        print_json(more | {"passed": passed, "convolutions": verdict, "facts": facts, "checks": listed})
    else:
        for name, fact in facts.items():
            typer.echo(f"{name:<28}{fact}")
        typer.echo(f"{'trains here':<28}fp32, {', '.join(runs)}, packed pairs of formats")
        if slow:
            typer.echo(f"{'of these slow here':<28}{', '.join(slow)}")
        for name, reason in lack.items():
            typer.echo(f"note  {name}: {reason}")
        for check in checks:
            mark = {True: "ok", False: "WRONG", None: "note"}[check.passed]
            typer.echo(f"{mark:<6}{check.name}: {check.detail}")
        avoided = (
            "" if verdict == "right" else "; peppp's trainings avoid it, but your own float32 loop does not"
        )
        typer.echo(f"note  strided 1x1 convolutions of few channels, in plain torch: {verdict}{avoided}")
    if not passed:
        raise typer.Exit(1)


def _precisions(device: str) -> tuple[list[str], list[str], dict[str, str]]:
    """Return the named precisions that train for real on this device, the slow ones, and what others lack."""
    from peppp.precisions.known import PRECISIONS
    from peppp.training.runs_here import is_slow, lacking

    reasons = {name: lacking(precision, device=device) for name, precision in PRECISIONS.items()}
    runs = [name for name, reason in reasons.items() if not reason]
    slow = [name for name in runs if is_slow(name, device=device)]
    return (
        runs,
        slow,
        {n: r for n, r in reasons.items() if r and not PRECISIONS[n].optimizer and "-all" not in n},
    )


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
