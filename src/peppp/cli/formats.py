"""``peppp formats``: what a format can represent."""

from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from peppp.cli.options import Json, print_json
from peppp.formats import PAPER_FORMATS_A, PAPER_FORMATS_B, FloatFormat


def command(
    name: Annotated[
        str | None, typer.Argument(help="A format, as 1-4-3 or 1-4-3@ocp.", show_default=False)
    ] = None,
    json: Json = False,
) -> None:
    """Limits of the paper's formats, or of one with all its numbers.

    Example: peppp formats 1-4-3@ocp
    """
    chosen = [FloatFormat.parse(name)] if name else [*PAPER_FORMATS_A, *PAPER_FORMATS_B]
    rows = [_describe(fmt) for fmt in chosen]
    if json:
        print_json(rows if name is None else rows[0])
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("format", "bits", "largest", "least normal", "least", "epsilon", "overflow", "ties"):
        table.add_column(title, justify="left" if title == "format" else "right")
    for row in rows:
        keys = ("max", "min_normal", "min_subnormal", "epsilon")
        table.add_row(
            row["format"], str(row["bits"]), *(f"{row[k]:.6g}" for k in keys), row["overflow"], row["ties"]
        )
    Console().print(table)
    if name and chosen[0].bits <= 10:
        positive = [f"{value:.6g}" for value in chosen[0].values() if value >= 0]
        Console().print(
            f"\nall numbers not below zero ({len(positive)}):", " ".join(positive), highlight=False
        )


def _describe(fmt: FloatFormat) -> dict[str, Any]:
    return {
        "format": str(fmt),
        "bits": fmt.bits,
        "exponent_bits": fmt.exponent_bits,
        "mantissa_bits": fmt.mantissa_bits,
        "max": fmt.max,
        "min_normal": fmt.min_normal,
        "min_subnormal": fmt.min_subnormal,
        "epsilon": fmt.epsilon,
        "overflow": fmt.overflow,
        "ties": fmt.ties,
    }
