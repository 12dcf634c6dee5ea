"""The command line, with a module for each command. Torch is imported only when a command needs it."""

import os
import sys
from types import ModuleType
from typing import Any, NoReturn

import typer

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
    precisions,
    predict,
    report,
    reproduce,
    status,
    table,
    train,
)
from peppp.cli.help import everyday
from peppp.errors import PepppError, Stopped
from peppp.version import __version__

app = typer.Typer(
    name="peppp",
    help="Pick the low-precision number format that trains a network best within a memory budget.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
# Commands by what people do, in the order of the help; of those with many options, the ones of everyday use.
_COMMANDS: dict[str, tuple[ModuleType, ...]] = {
    "Fit: does a training fit, and run it": (memory, train, predict, networks),
    "Pick: at which precision": (demo, pick, precisions, formats),
    "Measure: tables of errors": (measure, status, doctor),
    "Learn: what a table says": (evaluate, hardware, reproduce),
    "Publish: share and show": (report,),
}
_EVERYDAY = {
    pick: (
        *("data", "budget", "network", "resolution", "epochs", "learning_rate", "choices", "measurements"),
        *("fp32_error", "store", "train", "out", "html", "dry_run"),
    ),
    measure: (
        *("store", "data", "configurations", "sample", "seed", "network", "resolution", "epochs"),
        *("learning_rate", "max_time", "workers", "dry_run"),
    ),
    train: (
        *("data", "precision", "network", "out", "resolution", "epochs", "learning_rate", "budget"),
        *("pretrained", "freeze", "seed", "device"),
    ),
    memory: (
        "network",
        "input",
        "batch",
        "classes",
        "precision",
        "configurations",
        "optimizer",
        "budget",
        "measure",
    ),
    evaluate: ("table", "errors", "memory", "setting", "method", "measurements", "seeds", "against"),
}
for _panel, _modules in _COMMANDS.items():
    for _module in _modules:
        _names = _EVERYDAY.get(_module)
        app.command(
            name=_module.__name__.rpartition(".")[2],
            cls=None if _names is None else everyday(*_names),
            rich_help_panel=_panel,
        )(_module.command)
app.add_typer(datasets.app, name="datasets", rich_help_panel="Measure: tables of errors")
app.add_typer(table.app, name="table", rich_help_panel="Publish: share and show")

_STOPPED = 130  # typer returns this for Ctrl-C
_CLOSED = 141  # the code of SIGPIPE, which stays ignored because it would also end a driver whose worker died
_USAGE_ERROR: Any = typer.BadParameter.__base__  # a wrong or missing option; typer does not export its class


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
    """Run the command line.

    Exit codes: 0 done, 1 it ran and something failed, 2 the input was wrong, 130 Ctrl-C, 141 the reader of
    its output closed the pipe, such as ``| head -1``.
    """
    try:
        code = app(prog_name="peppp", standalone_mode=False)
        sys.stdout.flush()
        if code == _STOPPED:
            _say("stopped; run the same line again to go on")
        sys.exit(code)
    except PepppError as error:
        _say(str(error))
        sys.exit(_STOPPED if isinstance(error, Stopped) else 2)
    except _USAGE_ERROR as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()
        else:
            command = "peppp" if error.ctx is None else error.ctx.command_path
            _say(f"{error.format_message().rstrip('.')}; see {command} --help")
        sys.exit(2)
    except BrokenPipeError:
        _end_quietly()
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # typer exits with 1 on a closed pipe
            _end_quietly()
        raise


def _end_quietly() -> NoReturn:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python's final flush must not fail
    sys.exit(_CLOSED)


def _say(text: str) -> None:
    typer.echo(f"peppp: {' '.join(text.split())}", err=True)
