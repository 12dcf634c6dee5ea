"""``peppp reproduce``: draw the paper's figures from a table of measurements."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from peppp.cli.evaluate import Errors, Memory, TableArgument, Where, as_csv, known_from, plain
from peppp.cli.options import Json, print_json
from peppp.errors import TableError
from peppp.files import check_place
from peppp.units import format_bytes


def command(
    name: Annotated[
        str,
        typer.Argument(
            help="Figure of the paper (1a 1b 4 5 6a 6b 7 9-26 D), or settings, pooled, variance, rounding, "
            "designs, head-to-head, better-picks, or all."
        ),
    ],
    table: TableArgument = None,
    errors: Errors = None,
    memory: Memory = None,
    where: Where = None,
    masks: Annotated[int, typer.Option(min=1, help="Number of random samples of the error matrix.")] = 100,
    seeds: Annotated[int, typer.Option(min=1, help="Number of repetitions of an evaluation.")] = 1,
    cap: Annotated[
        str | None,
        typer.Option(help="Memory cap, such as the paper's 816MB (default: the table's median memory)."),
    ] = None,
    choice_cap: Annotated[
        str | None,
        typer.Option(
            help="Memory cap of Figure 7, such as the paper's 275MB (default: the example's median memory)."
        ),
    ] = None,
    leave: Annotated[
        str, typer.Option(help="What is held out at a time: family, or row, as in the paper.")
    ] = "family",
    csv: Annotated[
        Path | None, typer.Option(help="CSV file for the numbers, such as fig11.csv; for all, a folder.")
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(help="Picture to write (.png, .svg or .pdf), such as fig11.svg; for all, a folder."),
    ] = None,
    page: Annotated[
        Path | None, typer.Option(help="Markdown file for the claims and verdicts; only with all.")
    ] = None,
    json: Json = False,
) -> None:
    """Draw a figure of the paper from a table, and compare the paper's claim with the table.

    These names are ours: settings (all methods in Settings I to VI), pooled (without Format B), variance,
    rounding (stochastic and nearest), designs (what is measured against how it is predicted), head-to-head
    (needs the optuna extra) and better-picks (our methods and intervals, in minutes). Nothing is trained.

    Example: peppp reproduce 11 table.csv.gz --seeds 5 --csv fig11.csv --plot fig11.svg
    """
    from peppp.paper.figures import FIGURES, canonical
    from peppp.paper.results_page import draw_all, write_page
    from peppp.units import parse_bytes

    if leave not in ("family", "row"):
        raise TableError(f"--leave must be family or row, not {leave!r}")
    wanted = list(FIGURES) if name == "all" else [canonical(name)]
    if page is not None and name != "all":
        raise TableError("--page is for all figures: peppp reproduce all TABLE --page results.md")
    for path in (csv, plot, page):
        if path is not None:
            check_place(path)
    study = _study(
        table, errors, memory, where or [],
        masks=masks, seeds=seeds, leave=leave,
        cap=None if cap is None else float(parse_bytes(cap)),
        choice_cap=None if choice_cap is None else float(parse_bytes(choice_cap)),
        progress=_show if sys.stderr.isatty() else None,
    )  # fmt: skip
    figures, lacking = draw_all(study, wanted, strict=name != "all")
    for figure in figures:
        several = len(wanted) > 1
        if csv is not None:
            _write_text(_place(csv, figure.name, ".csv", several), as_csv(list(figure.records)))
        if plot is not None:
            from peppp.paper.pictures import draw

            if figure.panels:
                draw(figure, _place(plot, figure.name, ".svg", several))
    if page is not None:
        _write_text(
            page,
            write_page(
                study, figures, lacking, table or " ".join(f"--errors {path}" for path in errors or [])
            ),
        )
    if json:
        answers = [f.to_dict() | {"records": [plain(r) for r in f.records]} for f in figures]
        lacks: dict[str, Any] = {"lacking": lacking, "synthetic": study.synthetic}
        print_json(lacks | ({"figures": answers} if name == "all" else answers[0]))
        return
    for figure in figures:
        synthetic = " (SYNTHETIC table: no evidence)" if study.synthetic else ""
        typer.echo(f"{figure.name}  {figure.title}{synthetic}")
        typer.echo(f"  paper   {figure.claim}")
        typer.echo(f"  here    {figure.finding}")
        typer.echo(f"  so      {figure.verdict}")
        if figure.settings:
            typer.echo("  with    " + ", ".join(_setting(*one) for one in figure.settings.items()))
    for missing, why in lacking.items():
        typer.echo(f"{missing}  {why}")


def _setting(name: str, value: Any) -> str:
    return f"{name} {format_bytes(value) if name == 'cap' else value}"


def _study(
    table: str | None, errors: list[Path] | None, memory: Path | None, where: list[str], **how: Any
) -> Any:
    from peppp.paper.study import Study
    from peppp.table.slices import parse_where

    if errors or memory is not None:
        return Study(matrices=known_from(table, errors, memory, where)[0], **how)
    from peppp.table.select import SHIPPED_TABLE, read_current

    return Study(read_current(table or SHIPPED_TABLE), where=parse_where(where), **how)


def _place(path: Path, name: str, suffix: str, several: bool) -> Path:
    if not several:
        return path
    path.mkdir(exist_ok=True)
    return path / f"{name}{suffix}"


def _write_text(path: Path, text: str) -> None:
    from peppp.files import writing

    with writing(path) as file:
        file.write(text)


def _show(text: str) -> None:
    typer.echo(f"\r\x1b[K{text}", nl=False, err=True)
