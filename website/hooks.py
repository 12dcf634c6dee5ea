"""What the documentation site makes by itself: its navigation and the list of all commands."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

_OF_ALL = ("help", "install_completion", "show_completion")


def on_config(config: Any) -> Any:
    """Leave out what mkdocs.yml lists and no page is there for."""
    config["nav"] = _there(config["nav"], Path(config["docs_dir"]))
    return config


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Append each command's help, taken from the program, to the page of commands."""
    if page.file.src_path != "commands.md":
        return markdown
    return markdown + "".join(_section(name, command) for name, command in commands())


def commands() -> Iterator[tuple[str, Any]]:
    """All commands that can be run, with their full names, as `peppp table export`."""
    import typer

    from peppp.cli import app

    yield from _below("peppp", typer.main.get_command(app))


def _below(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    children = getattr(command, "commands", {})
    if not children or (getattr(command, "invoke_without_command", False) and name != "peppp"):
        yield name, command
    for child, below in children.items():
        yield from _below(f"{name} {child}", below)


def _section(name: str, command: Any) -> str:
    about, _, example = " ".join((command.help or "").split()).partition("Example: ")
    rows = [_row(p) for p in command.params if p.name not in _OF_ALL]
    table = "".join(["| | | default |\n|---|---|---|\n", *rows]) if rows else ""
    return f"\n\n## {name}\n\n{about.strip()}\n\n```\n{example}\n```\n\n{table}"


def _row(parameter: Any) -> str:
    names = parameter.opts
    if not names[0].startswith("-"):
        names = [(parameter.metavar or parameter.name).upper().strip("[]")]
    written = ", ".join(f"`{name}`" for name in names).replace("|", "\\|")
    default = parameter.default
    shown = "" if default in (None, False) or callable(default) else f"`{default}`"
    about = (getattr(parameter, "help", "") or "").replace("|", "\\|").replace("<", "&lt;")
    return f"| {written} | {about} | {shown} |\n"


def _there(entries: list[Any], folder: Path) -> list[Any]:
    kept = []
    for entry in entries:
        ((name, target),) = entry.items()
        if isinstance(target, list):
            kept.append({name: _there(target, folder)})
        elif (folder / target).is_file():
            kept.append(entry)
    return kept
