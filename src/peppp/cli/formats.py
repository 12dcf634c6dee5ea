"""``peppp formats``: show the numbers that a format can represent."""

from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from peppp.cli.options import Json, print_json
from peppp.formats import (
    PAPER_FORMATS_A,
    PAPER_FORMATS_B,
    BlockFormat,
    DynamicFormat,
    FixedFormat,
    FloatFormat,
    Format,
    IntegerFormat,
    ScaledFormat,
    TwoLevelFormat,
    element_of,
    parse_format,
)


def command(
    name: Annotated[
        str | None,
        typer.Argument(
            help="A format, such as 1-4-3, 1-4-3@ocp, int8, mx-1-2-1/32 or nvfp4 (default: the paper's).",
            show_default=False,
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Show the limits of the paper's formats, or the limits and numbers of one format.

    Example: peppp formats 1-4-3@ocp
    """
    chosen = [parse_format(name)] if name else [*PAPER_FORMATS_A, *PAPER_FORMATS_B]
    rows = [_describe(fmt) for fmt in chosen]
    if json:
        print_json(rows if name is None else rows[0])
        return
    console = Console()
    element = element_of(chosen[0])
    if isinstance(chosen[0], (BlockFormat, TwoLevelFormat, ScaledFormat)):
        console.print(f"{chosen[0]}: {_scales(chosen[0])}; each element has the format", highlight=False)
        rows = [_describe(element)]
    if not isinstance(element, FloatFormat):
        console.print(_sentence(element), highlight=False)
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("format", "bits", "largest", "least normal", "least", "epsilon", "overflow", "ties"):
        table.add_column(title, justify="left" if title == "format" else "right")
    for row in rows:
        keys = ("max", "min_normal", "min_subnormal", "epsilon")
        table.add_row(
            row["format"], str(row["bits"]), *(f"{row[k]:.6g}" for k in keys), row["overflow"], row["ties"]
        )
    console.print(table)
    if name and element.bits <= 10:
        positive = [f"{value:.6g}" for value in element.values() if value >= 0]
        console.print(f"\nall numbers from zero up ({len(positive)}):", " ".join(positive), highlight=False)


def _sentence(fmt: FixedFormat | IntegerFormat | DynamicFormat) -> str:
    if isinstance(fmt, DynamicFormat):
        return f"{fmt}: 256 codes over seven decades, times one fp32 scale for each block of {fmt.block}"
    if isinstance(fmt, FixedFormat):
        return f"{fmt}: {fmt.bits} bits, from {fmt.min:.6g} to {fmt.max:.6g} in steps of {fmt.step:.6g}"
    return (
        f"{fmt}: integers from -{fmt.largest} to {fmt.largest}, times one scale per tensor, "
        "which is its largest magnitude / " + str(fmt.largest)
    )


def _scales(fmt: BlockFormat | TwoLevelFormat | ScaledFormat) -> str:
    if isinstance(fmt, BlockFormat):
        return f"blocks of {fmt.block} share a power of two of 8 bits"
    if isinstance(fmt, TwoLevelFormat):
        return f"blocks of {fmt.block} share a scale in {fmt.block_scale}, and the tensor one in fp32"
    return f"one fp32 scale per tensor, which is its largest magnitude / {fmt.element.max:.6g}"


def _describe(fmt: Format) -> dict[str, Any]:
    if isinstance(fmt, (BlockFormat, TwoLevelFormat)):
        shared: dict[str, Any] = {"format": str(fmt), "bits": float(fmt.bits), "block": fmt.block}
        if isinstance(fmt, BlockFormat) and fmt.scale != "floor":
            shared["scale"] = fmt.scale
        return shared | {"element": _describe(fmt.element)}
    if isinstance(fmt, ScaledFormat):
        return {"format": str(fmt), "bits": fmt.bits, "element": _describe(fmt.element)}
    if isinstance(fmt, DynamicFormat):
        return {"format": str(fmt), "bits": float(fmt.bits), "block": fmt.block, "numbers": fmt.numbers}
    if isinstance(fmt, FixedFormat):
        limits = {"min": fmt.min, "max": fmt.max, "step": fmt.step}
        return {"format": str(fmt), "bits": fmt.bits} | limits
    if isinstance(fmt, IntegerFormat):
        return {"format": str(fmt), "bits": fmt.bits, "largest": fmt.largest}
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
