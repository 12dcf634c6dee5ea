"""``peppp datasets``: list the paper's data sets, show one, or download one."""

from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import DownloadColumn, Progress, TransferSpeedColumn
from rich.table import Table

from peppp.cli.options import DataRoot, Json, print_json, use_data_root

_WIDTH = 190  # characters that the list needs; narrower terminals wrap its lines

app = typer.Typer()


@app.callback(invoke_without_command=True)
def command(context: typer.Context, data_root: DataRoot = None, json: Json = False) -> None:
    """List the paper's 87 data sets, with their sources, terms of use, and whether this machine has them.

    Example: peppp datasets --data-root ~/data
    """
    use_data_root(data_root)
    if context.invoked_subcommand is not None:
        return
    from peppp.tasks.catalog import entries
    from peppp.tasks.sources import data_root as root

    rows = [_describe(entry) for entry in entries()]
    if json:
        print_json(rows)
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("name", "pixels", "classes", "points", "from", "terms", "here"):
        table.add_column(title, justify="right" if title in ("pixels", "classes", "points") else "left")
    for row in rows:
        here = "yes" if row["path"] else "no"
        facts = (row["resolution"], row["classes"] or "?", row["points"])
        table.add_row(row["name"], *map(str, facts), row["source"], row["terms"], here)
    Console(width=max(Console().width, _WIDTH)).print(table)
    typer.echo(
        f"\nsearched in {root()}; these need no download: digits, wine, breast_cancer, diabetes, grammar"
    )


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A name that `peppp datasets` lists.")],
    data_root: DataRoot = None,
    json: Json = False,
) -> None:
    """Show how a data set is defined, with its classes, and where it is on this machine.

    Example: peppp datasets show imagenet-bag
    """
    from peppp.tasks.catalog import find, imagenet_classes

    use_data_root(data_root)
    entry = find(name)
    facts = _describe(entry)
    if json:
        print_json(facts)
        return
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"[bold]{entry.name}[/] (number {entry.index} of the paper's Table 2)")
    for key in ("source", "terms", "resolution", "points", "definition", "path"):
        console.print(f"{key:<11}{facts[key] if facts[key] is not None else 'not on this machine'}")
    for one in imagenet_classes(entry):
        console.print(f"  {one.wordnet_id}  {one.train_images + one.val_images:>5}  {one.name}")


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="cifar10, or any set cut from CIFAR-100.")],
    data_root: DataRoot = None,
    json: Json = False,
) -> None:
    """Download the official archive of a data set into the data root; the same line again resumes it.

    Example: peppp datasets fetch cifar10 --data-root ~/data
    """
    from peppp.tasks.fetching import archive_of
    from peppp.tasks.fetching import fetch as download
    from peppp.tasks.sources import data_root as root

    use_data_root(data_root)
    archive = archive_of(name)
    console = Console(stderr=True)
    columns = (*Progress.get_default_columns(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(archive.file, total=archive.size)
        path = download(archive, root(), progress=lambda done, _: bar.update(task, completed=done))
    facts = {"name": name, "path": str(path), "bytes": archive.size, "sha256": archive.sha256}
    print_json(facts) if json else typer.echo(f"{path}: {archive.size} bytes, sha256 as published")


def _describe(entry: Any) -> dict[str, Any]:
    from peppp.tasks.catalog import imagenet_classes
    from peppp.tasks.sources import place

    found = place(entry)
    return {
        "index": entry.index,
        "name": entry.slug,
        "paper_name": entry.name,
        "source": entry.source,
        "terms": entry.terms,
        "resolution": entry.resolution,
        "classes": entry.classes,
        "points": entry.points,
        "definition": entry.definition,
        "class_names": [c.name for c in imagenet_classes(entry)] or list(entry.class_names),
        "path": None if found is None else str(found),
    }
