"""The command line: one short function a command. Torch is imported when a command needs it, not before."""

import sys

import typer

from peppp import __version__
from peppp.cli import (
    datasets,
    demo,
    doctor,
    evaluate,
    formats,
    hardware,
    measure,
    memory,
    networks,
    pick,
    reproduce,
    status,
    table,
)
from peppp.errors import PepppError

app = typer.Typer(
    name="peppp",
    help="Pick the low-precision number format that trains a network best within a memory budget.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _module in (
    demo,
    pick,
    measure,
    memory,
    formats,
    doctor,
    networks,
    evaluate,
    hardware,
    reproduce,
    status,
):
    app.command()(_module.command)
    app.registered_commands[-1].name = _module.__name__.rpartition(".")[2]
app.add_typer(table.app, name="table")
app.add_typer(datasets.app, name="datasets")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"peppp {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Show the version and stop."
    ),
) -> None:
    pass


def main() -> None:
    """Run the command line. Exit codes: 0 done, 1 it ran and failed, 2 the input was wrong, 130 Ctrl-C."""
    try:
        app()
    except PepppError as error:
        typer.echo(f"peppp: {' '.join(str(error).split())}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        typer.echo("peppp: stopped; run the same line again to go on", err=True)
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(1)
