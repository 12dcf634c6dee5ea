"""``peppp table``: share measurements as text tables."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from peppp.cli.options import Json, print_json
from peppp.errors import TableError
from peppp.precisions.known import is_of_formats

if TYPE_CHECKING:
    from peppp.records import Measurement
    from peppp.table.merge import Merged

_SIGNAL = 0.25
_COLUMNS_OF_THEIR_OWN = ("network", "resolution", "learning_rate", "rounding")
app = typer.Typer(help="Export, import, merge, check and show tables of measurements.", no_args_is_help=True)

_Place = Annotated[str, typer.Argument(help="Store (SQLite file or database URL) or table to read.")]
_PlaceOrOurs = Annotated[
    str | None,
    typer.Argument(
        help="Store or table to read (default: the table that ships with peppp).", show_default=False
    ),
]
_Output = Annotated[Path, typer.Argument(help="CSV file to write; compressed if its name ends in .gz.")]


@app.command()
def export(store: _Place, table: _Output, json: Json = False) -> None:
    """Write all measurements of a store as plain CSV.

    Example: peppp table export runs.db table.csv.gz
    """
    from peppp.table.csv import write_table
    from peppp.table.select import read_measurements

    measurements = read_measurements(store)
    write_table(table, measurements)
    facts = {"measurements": len(measurements), "table": str(table)}
    print_json(facts) if json else typer.echo(f"{len(measurements)} measurements in {table}")


@app.command(name="import")
def import_(
    store: Annotated[str, typer.Argument(help="Store to add to; it is created if it is missing.")],
    tables: Annotated[list[str], typer.Argument(help="Tables or stores to add.")],
    json: Json = False,
) -> None:
    """Add the measurements of tables to a store; if one table cannot be read, none are added.

    Example: peppp table import runs.db theirs.csv.gz
    """
    from peppp.table.merge import merge
    from peppp.table.select import read_measurements
    from peppp.table.store.store import Store

    read = [read_measurements(table) for table in tables]
    with Store.open(store) as kept:
        known = kept.measurements()
        merged = merge(known, *read)
        added = kept.add_all(merged.measurements[len(known) :])
        name = kept.name
    _say(merged, {"added": added, "store": name}, f"{added} measurements added to {name}", json)


@app.command()
def merge(
    output: _Output,
    tables: Annotated[list[str], typer.Argument(help="Tables or stores to merge.")],
    json: Json = False,
) -> None:
    """Merge tables: drop duplicates, and keep further runs of the same measurement as repeats.

    Example: peppp table merge all.csv.gz ours.csv.gz theirs.csv.gz
    """
    from peppp.table.csv import write_table
    from peppp.table.merge import merge as put_together
    from peppp.table.select import read_measurements

    merged = put_together(*(read_measurements(table) for table in tables))
    write_table(output, merged.measurements)
    count = len(merged.measurements)
    _say(merged, {"measurements": count, "table": str(output)}, f"{count} measurements in {output}", json)


@app.command()
def validate(table: _PlaceOrOurs = None, json: Json = False) -> None:
    """Check that every cell of a table is valid. Nothing in a table is ever executed.

    Example: peppp table validate theirs.csv.gz
    """
    from peppp.table.merge import merge
    from peppp.table.select import SHIPPED_TABLE, read_measurements

    place = table or SHIPPED_TABLE
    merged = merge(read_measurements(place))
    count = len(merged.measurements)
    _say(merged, {"measurements": count, "valid": True}, f"{place}: {count} measurements, all valid", json)


@app.command()
def show(table: _PlaceOrOurs = None, json: Json = False) -> None:
    """Show the rows of a table: the measurements and errors of each data set under each recipe.

    Example: peppp table show table.csv.gz
    """
    from peppp.arithmetic import outdated, outdated_note
    from peppp.table.select import SHIPPED_TABLE, read_current

    place = table or SHIPPED_TABLE
    measurements = read_current(place)
    rows = _summaries(measurements)
    if not rows:
        raise TableError(f"{place} holds no measurements")
    if json:
        print_json(rows)
        return
    shown = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("task", "recipe", "network", "lr", "rounding"):
        shown.add_column(title, no_wrap=True)
    for title in ("px", "measured", "diverged", "best", "median", "fp32", "chance", "signal"):
        shown.add_column(title, justify="right", no_wrap=True)
    shown.add_column("unlike most rows", no_wrap=True)
    for row in rows:
        texts = (row["task"], row["recipe"], row["network"], f"{row['learning_rate']:g}", row["rounding"])
        errors = (row["best"], row["median"], row["fp32"], row["chance"])
        shown.add_row(
            *map(escape, texts),
            *(str(row[name]) for name in ("resolution", "measured", "diverged")),
            *("" if error is None else f"{error:.3f}" for error in errors),
            ""
            if row["signal"] is None
            else f"{row['signal']:.2f}{'' if row['signal'] >= _SIGNAL else ' weak'}",
            escape(", ".join(f"{field} {value}" for field, value in row["unlike_most"].items())),
        )
    # Without a terminal, rich would cut lines at 80 characters.
    console = Console(width=None if sys.stdout.isatty() else 200)
    console.print(shown)
    if lacking := [row for row in rows if row["fp32"] is None]:
        of = lacking[0]
        console.print(
            f"{len(lacking)} rows lack fp32, so their signal is unknown; to measure it, run peppp measure "
            f"STORE --data ... --network {of['network']} --configurations fp32 (and the row's other options)",
            style="dim",
        )
    console.print(
        f"signal: (chance - fp32) / chance; below {_SIGNAL} a task says little about formats", style="dim"
    )
    if count := outdated(measurements):
        console.print(outdated_note(count, place), style="dim")


@app.command()
def matrix(
    table: _Place,
    errors: Annotated[
        Path, typer.Argument(help="CSV file to write: tasks x configurations; empty cells were not observed.")
    ],
    recipe: Annotated[
        str | None,
        typer.Option(help="Digest of the recipe whose rows to write, as table show lists it (default: all)."),
    ] = None,
    json: Json = False,
) -> None:
    """Write the error matrix of a table as a CSV file, which the option `--errors` reads.

    Example: peppp table matrix runs.db E.csv
    """
    from peppp.table.matrices import write_matrix
    from peppp.table.measured import error_matrix
    from peppp.table.select import read_current

    found = error_matrix(read_current(table), recipe_digest=recipe)
    names = [row.task for row in found.rows]
    if len(set(names)) < len(names):  # a task under several recipes, or several data sets of one name
        names = [f"{row.task} {row.recipe_digest} {row.fingerprint}" for row in found.rows]
    write_matrix(errors, found.values, names, found.configurations)
    facts = {"rows": len(names), "columns": len(found.configurations), "matrix": str(errors)}
    text = f"{len(names)} x {len(found.configurations)} errors in {errors}"
    print_json(facts) if json else typer.echo(text)


@app.command()
def schema() -> None:
    """Print the JSON Schema of the rows of a table.

    Example: peppp table schema
    """
    from peppp.table.columns import json_schema

    print_json(json_schema())


def _say(merged: "Merged", facts: dict[str, Any], text: str, json: bool) -> None:
    notes = merged.notes()
    if json:
        print_json(facts | {"same": merged.same, "repeats": merged.repeats, "notes": notes})
        return
    typer.echo(text)
    for note in notes:
        typer.echo(f"  {note}")


def _summaries(measurements: Iterable["Measurement"]) -> list[dict[str, Any]]:
    from collections import Counter, defaultdict
    from statistics import median

    from peppp.records import Outcome
    from peppp.table.differences import unlike_most

    rows: defaultdict[tuple[str, str, str], list[Measurement]] = defaultdict(list)
    for m in measurements:
        rows[m.task, m.fingerprint, m.recipe.digest].append(m)
    unlike = unlike_most(members[0].recipe for members in rows.values())
    made_by = Counter(_library(members) for members in rows.values())
    found = []
    for (task, fingerprint, digest), members in sorted(rows.items()):
        recipe, library = members[0].recipe, _library(members)
        low = [m.test_error for m in members if is_of_formats(m.configuration)]
        full = [m.test_error for m in members if m.configuration.is_fp32]
        chance = members[0].chance_error
        found.append(
            {
                "task": task,
                "fingerprint": fingerprint,
                "recipe": digest,
                "network": recipe.network,
                "resolution": recipe.resolution,
                "learning_rate": recipe.learning_rate,
                "rounding": recipe.rounding,
                "unlike_most": {
                    name: value for name, value in unlike[recipe].items() if name not in _COLUMNS_OF_THEIR_OWN
                }
                | ({} if library == made_by.most_common(1)[0][0] else {"torch": library}),
                "measured": len(members),
                "diverged": sum(m.outcome is Outcome.DIVERGED for m in members),
                "best": min(low, default=None),
                "median": median(low) if low else None,
                "fp32": median(full) if full else None,
                "chance": chance,
                "signal": (chance - median(full)) / chance if full and chance else None,
            }
        )
    return found


def _library(members: list["Measurement"]) -> str:
    """Return the versions of torch that made a row, without their build suffixes."""
    return " and ".join(sorted({m.provenance.get("torch", "unknown").partition("+")[0] for m in members}))
