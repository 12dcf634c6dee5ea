"""``peppp report``: write an HTML page about a store or a table."""

from pathlib import Path
from typing import Annotated

import typer

from peppp.cli.options import Json, print_json


def command(
    place: Annotated[str, typer.Argument(help="Store or table of measurements.", metavar="STORE|TABLE")],
    html: Annotated[Path, typer.Option(help="HTML file to write.")] = Path("report.html"),
    budget: Annotated[
        str | None,
        typer.Option(
            help="Memory budget that the page opens with, such as 100MB (default: the median footprint)."
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(help="Name of a single task to show, with all its configurations.", show_default=False),
    ] = None,
    json: Json = False,
) -> None:
    """Write a page about all tasks: errors measured and estimated, singular values, frontiers and picks.

    The page is a single file that opens from disk and loads nothing from the network. Nothing is trained, and
    the store is only read.

    Example: peppp report runs.db --budget 100MB --html report.html
    """
    from peppp.page.overview import overview, task_page
    from peppp.page.report import write_report
    from peppp.table.select import read_current

    measurements = read_current(place)
    page = overview(measurements, budget=budget)
    observed = sum(one["observed"].count("1") for one in page["tasks"])
    entries = len(page["tasks"]) * len(page["configurations"])
    write_report(html, page if task is None else task_page(page, measurements, task))
    if json:
        picks = [
            {
                "task": one["name"],
                "recipe": one["recipe"],
                "pick": None if one["pick"] is None else page["configurations"][one["pick"]],
                "error": None if one["pick"] is None else one["errors"][one["pick"]],
                "source": None
                if one["pick"] is None
                else "measured"
                if one["observed"][one["pick"]] == "1"
                else "estimated",
                "total": None if one["pick"] is None else one["totals"][one["pick"]],
            }
            for one in page["tasks"]
            if task in (None, one["name"])
        ]
        print_json({"page": str(html), "budget": page["budget"], "tasks": picks})
        return
    others = "" if observed == entries else ", the others are estimated"
    typer.echo(f"{html}: {page['title']}, {observed} of {entries} errors measured{others}")
    if page["left_out"]:
        typer.echo(page["left_out"], err=True)
