"""``peppp status``: show how far a store's campaigns are."""

import time
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from peppp.cli.options import Json, print_json

if TYPE_CHECKING:
    from peppp.campaign.status import Status

_COLUMNS = ("done", "diverged", "failed", "lost", "left", "running")


def command(
    store: Annotated[str, typer.Argument(help="Store to look at: an SQLite file or a database URL.")],
    watch: Annotated[bool, typer.Option("--watch", help="Update the display until Ctrl-C.")] = False,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two updates of --watch.")] = 2.0,
    failures: Annotated[
        bool, typer.Option("--failures", help="Show failed and lost cells, with the end of each traceback.")
    ] = False,
    forget: Annotated[
        bool, typer.Option("--forget", help="Forget cells that are not measured and that no run holds.")
    ] = False,
    json: Json = False,
) -> None:
    """Show how many cells of each task are done, diverged, failed, lost and left, while campaigns run.

    Example: peppp status runs.db --watch
    """
    from dataclasses import asdict

    from peppp.campaign import status as of
    from peppp.table.store.store import Store

    with Store.open(store, create=forget) as kept:
        if forget:
            count = of.forget(kept)
            print_json({"forgotten": count}) if json else typer.echo(f"{count} cells forgotten")
        elif failures:
            given = of.failures(kept)
            if json:
                print_json([asdict(one) for one in given])
                return
            for one in given:
                kind = "lost" if one.lost else "failed"
                typer.echo(
                    f"{one.task} {one.configuration} seed {one.seed}: {kind} after {one.tries} "
                    f"{'try' if one.tries == 1 else 'tries'}: {one.message}"
                )
                typer.echo("".join(f"    {line}\n" for line in one.traceback.splitlines()[-4:]), nl=False)
        elif json:
            print_json(of.status(kept).to_dict())
        elif watch:
            first, started = of.status(kept), time.monotonic()
            with Live(_shown(first), console=Console(), auto_refresh=False) as live:
                while True:
                    time.sleep(every)
                    now = of.status(kept)
                    made = now.total.done - first.total.done
                    live.update(_shown(now, made / (time.monotonic() - started)), refresh=True)
        else:
            Console().print(_shown(of.status(kept)))


def _shown(status: "Status", rate: float | None = None) -> Group:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("task", no_wrap=True)
    for name in _COLUMNS:
        table.add_column(name, justify="right")
    for task in status.tasks:
        name = f"{task.task} ({task.recipe})" if task.recipe else task.task
        table.add_row(escape(name), *(str(getattr(task, name) or "") for name in _COLUMNS))
    total = status.total
    if len(status.tasks) != 1:
        table.add_row("total", *(str(getattr(total, name)) for name in _COLUMNS), style="bold")
    line = f"{status.drivers} driver{'' if status.drivers == 1 else 's'} at work"
    if rate:
        left = f", {_time(total.left / rate)} left" if total.left else ""
        line += f"; {60 * rate:.1f} measurements a minute{left}"
    return Group(table, line)


def _time(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"about {minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"about {minutes} min"
