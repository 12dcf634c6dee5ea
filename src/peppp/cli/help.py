"""Help in two lengths: ``--help`` shows the options of everyday use, ``--help-all`` all of them."""

from typing import Annotated, Any

import typer
from typer.core import TyperCommand


def _show_all(context: typer.Context, wanted: bool) -> None:
    if wanted:
        context.meta["all options"] = True
        typer.echo(context.get_help(), color=context.color)
        raise typer.Exit


HelpAll = Annotated[
    bool,
    typer.Option("--help-all", is_eager=True, callback=_show_all, help="Show all options, and exit."),
]


class _Everyday(TyperCommand):
    """A command whose ``--help`` lists only some of its options; :func:`everyday` names them."""

    everyday: tuple[str, ...] = ()

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help without the options that are not of everyday use."""
        others: list[Any] = [p for p in self.params if p.name not in self.everyday]
        for parameter in others:
            parameter.hidden = "all options" not in ctx.meta
        try:
            super().format_help(ctx, formatter)
        finally:
            for parameter in others:
                parameter.hidden = False


def everyday(*names: str) -> type[TyperCommand]:
    """The class of a command that shows the parameters of these names in ``--help``."""
    return type("Everyday", (_Everyday,), {"everyday": (*names, "json", "help_all")})
