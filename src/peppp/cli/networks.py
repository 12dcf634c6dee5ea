"""``peppp networks``: list the networks that can be trained by name."""

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from peppp.cli.options import Json, print_json


def command(
    classes: Annotated[
        int, typer.Option(min=1, help="Number of outputs: classes, or 1 for regression.")
    ] = 10,
    channels: Annotated[
        int, typer.Option(min=1, help="Number of colours (images), features (numbers) or characters (text).")
    ] = 3,
    json: Json = False,
) -> None:
    """List networks by name, with the data that they take and their number of parameters.

    Example: peppp networks --classes 10
    """
    from peppp.tasks.networks import NETWORKS, build

    rows = []
    for name, network in NETWORKS.items():
        module = build(name, classes=classes, channels=channels, device="meta")
        parameters = sum(parameter.numel() for parameter in module.parameters())
        rows.append(
            {
                "name": name,
                "takes": network.takes,
                "parameters": parameters,
                "width": network.width,
                "about": network.about,
            }
        )
    if json:
        print_json(rows)
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("name", "takes", "parameters", "what"):
        table.add_column(title, justify="right" if title == "parameters" else "left")
    for row in rows:
        table.add_row(
            f"{row['name']}, {row['name']}-wN", str(row["takes"]), f"{row['parameters']:,}", str(row["about"])
        )
    Console().print(table)
    typer.echo(
        "\nAdd -w32 to a name for another width; name your own network as package.module:factory "
        "(docs/data.md)"
    )
