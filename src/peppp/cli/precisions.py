"""``peppp precisions``: the precisions that have names, and what each costs in error and memory."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from peppp.cli.options import Json, print_json
from peppp.errors import FormatError
from peppp.files import whole
from peppp.precisions.known import PRECISIONS, parse_precision
from peppp.precisions.named import NamedPrecision

if TYPE_CHECKING:
    from peppp.evaluate.against_fp32 import Difference

_NETWORK = "resnet8"


def command(
    name: Annotated[str | None, typer.Argument(help="One of them, for all that is known of it.")] = None,
    table: Annotated[
        list[Path] | None,
        typer.Option(help="Stores or tables of measurements (default: what ships)."),
    ] = None,
    page: Annotated[
        Path | None, typer.Option(help="Write a page: errors on every network, and memory on three.")
    ] = None,
    json: Json = False,
) -> None:
    """Precisions by the names that people use, and how much more each errs than fp32 where it was measured.

    Example: peppp precisions mxfp8
    """
    from peppp.cli.precisions_page import written
    from peppp.evaluate.against_fp32 import differences
    from peppp.page.report import check_place
    from peppp.table.select import SHIPPED_TABLE, read_measurements

    if page is not None:
        if name is not None:
            raise FormatError("a page has all precisions; leave the name out")
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
        told = _told(by_name.get(precision.name))
        typer.echo(f"{precision.name:<{width}}  {told:<25}  {precision.about}")
    typer.echo(
        "\n-sgd8bit or -adamw8bit after fp32, or after one without -all or -kahan: states of 8 bits.\n"
        f"Errors: {_NETWORK} of the table, mean over families of tasks, 95 % interval. fp32 and pairs of "
        "formats, as 1-4-1/1-6-7, are precisions, too."
    )


def _named(name: str) -> NamedPrecision:
    found = parse_precision(name)
    if not isinstance(found, NamedPrecision):
        raise FormatError(f"{found} is a pair of formats; `peppp formats` tells of each: peppp formats 1-4-1")
    return found


def _told(difference: "Difference | None") -> str:
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
        f"error    {_told(d)} above fp32's: {d.network}, {d.tasks} tasks of {d.families} families, "
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
