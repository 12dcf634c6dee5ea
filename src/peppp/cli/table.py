"""``peppp table``: measurements as text that can be shared."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Measurements as a text table.", no_args_is_help=True)


@app.command()
def export(
    store: Annotated[str, typer.Argument(help="Store or table to read.")],
    table: Annotated[Path, typer.Argument(help="CSV file to write; compressed if it ends in .gz.")],
) -> None:
    """Write all measurements of a store as plain CSV.

    Example: peppp table export runs.db table.csv.gz
    """
    from peppp.choice import read_measurements
    from peppp.textable import write_table

    measurements = read_measurements(store)
    write_table(table, measurements)
    typer.echo(f"{len(measurements)} measurements in {table}")
