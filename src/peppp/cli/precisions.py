"""``peppp precisions``: list the named precisions, and what each costs in error and memory."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from peppp.cli.options import Json, print_json
from peppp.errors import FormatError
from peppp.files import check_place, whole
from peppp.precisions.known import PRECISIONS, parse_precision
from peppp.precisions.named import NamedPrecision

if TYPE_CHECKING:
    from peppp.evaluate.against_fp32 import Difference

_NETWORK = "resnet8"


def command(
    name: Annotated[
        str | None, typer.Argument(help="A precision, such as mxfp8, to show in detail (default: list all).")
    ] = None,
    table: Annotated[
        list[Path] | None,
        typer.Option(
            help="Store or table of measurements, such as runs.db; may be repeated (default: the shipped)."
        ),
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option(
            help="Markdown file for a page of errors on every network, and of memory on three networks."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """List the precisions that have names, with their measured errors above fp32's.

    Example: peppp precisions mxfp8
    """
    from peppp.cli.precisions_page import written
    from peppp.evaluate.against_fp32 import differences
    from peppp.table.select import SHIPPED_TABLE, read_measurements

    if page is not None:
        if name is not None:
            raise FormatError("--page describes all precisions; leave the name out")
        check_place(page)
    chosen = list(PRECISIONS.values()) if name is None else [_named(name)]
    places = table or [SHIPPED_TABLE]
    measurements = [m for place in places for m in read_measurements(place)]
    measured = differences(measurements)
    found = [d for d in measured if d.precision in chosen]
    if page is not None:
        with whole(page) as unfinished:
            unfinished.write_text(written(measurements, places), encoding="utf-8")
        typer.echo(f"page      {page}", err=json)
        return
    by_name = {str(d.precision): d for d in found if d.network == _NETWORK}
    if json:
        print_json([_plain(precision, found) for precision in chosen])
        return
    if name is not None:
        typer.echo(_sentences(chosen[0], found))
        return
    plain = [precision for precision in chosen if not precision.optimizer]
    width = max(len(precision.name) for precision in plain)
    typer.echo(f"{'name':<{width}}  error above fp32's         what it is")
    for precision in plain:
        shown = _shown(by_name.get(precision.name))
        typer.echo(f"{precision.name:<{width}}  {shown:<25}  {precision.about}")
    typer.echo(
        "\nAdd -sgd8bit or -adamw8bit to fp32, or to a name without -all or -kahan, for 8-bit states.\n"
        f"Errors are means over families of tasks, with 95 % intervals, for {_NETWORK} in the table.\n"
        "fp32 and pairs of formats, such as 1-4-1/1-6-7, are precisions, too."
    )


def _named(name: str) -> NamedPrecision:
    found = parse_precision(name)
    if not isinstance(found, NamedPrecision):
        raise FormatError(
            f"{found} is a pair of formats, not a name; `peppp formats` shows each: peppp formats 1-4-1"
        )
    return found


def _shown(difference: "Difference | None") -> str:
    if difference is None:
        return "not measured"
    mean = difference.mean
    if difference.families == 1:
        return f"{mean.mean:+.3f} (one family)"
    return f"{mean.mean:+.3f} ({mean.low:+.3f} to {mean.high:+.3f})"


def _sentences(precision: NamedPrecision, found: "list[Difference]") -> str:
    from peppp.cli.precisions_page import bytes_a_parameter

    lines = [f"{precision.name}: {precision.about}", f"needs    {precision.needs}"]
    if precision.products is not None:
        p = precision.products
        lines.append(f"products {p.values}, errors {p.errors} ({p.error_rounding})")
    size = bytes_a_parameter(precision.name)
    lines.append(f"bytes    {size:.4g} a parameter, with {precision.optimizer or 'sgd'}")
    lines += [
        f"error    {_shown(d)} above fp32's: {d.network}, {d.tasks} tasks of {d.families} families, "
        f"{d.runs} runs"
        for d in found
    ]
    return "\n".join(lines if found else [*lines, "error    not measured"])


def _plain(precision: NamedPrecision, found: "list[Difference]") -> dict[str, Any]:
    own = [
        {
            "network": d.network,
            "more_than_fp32": d.mean.mean,
            "interval": [d.mean.low, d.mean.high],
            "tasks": d.tasks,
            "families": d.families,
            "runs": d.runs,
        }
        for d in found
        if d.precision == precision
    ]
    return {"name": precision.name, "about": precision.about, "needs": precision.needs, "errors": own}
