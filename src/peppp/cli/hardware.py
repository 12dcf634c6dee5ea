"""``peppp hardware``: which configurations hardware would have to offer."""

from typing import Annotated

import typer

from peppp.cli.evaluate import Errors, Memory, TableArgument, Where, known_from
from peppp.cli.options import Json, print_json
from peppp.errors import TableError

_EPSILON = 0.02


def command(
    table: TableArgument = None,
    errors: Errors = None,
    memory: Memory = None,
    where: Where = None,
    epsilon: Annotated[
        float | None,
        typer.Option(
            help=f"How much more each task may err than at its best configuration (default: {_EPSILON})."
        ),
    ] = None,
    most: Annotated[
        int | None, typer.Option(min=1, help="At most so many configurations, and the least error so.")
    ] = None,
    json: Json = False,
) -> None:
    """Count on how many tasks' frontiers each configuration lies; find the fewest that serve all tasks.

    Example: peppp hardware runs.db --epsilon 0.02
    """
    from peppp.evaluate.hardware import hardware_view

    if epsilon is not None and most is not None:
        raise TableError(
            "--most finds the least error that so many allow, --epsilon the fewest; give one of them"
        )
    allowed = _EPSILON if epsilon is None else epsilon
    known, _, _ = known_from(table, errors, memory, where or [])
    view = hardware_view(known, epsilon=allowed, most=most)
    order = sorted(range(len(known.labels)), key=lambda j: (-view.frontiers[j], j))
    if json:
        print_json(
            {
                "tasks": len(known.names),
                "measured_share": known.share,
                "epsilon": allowed if most is None else None,
                "frontiers": {known.labels[j]: int(view.frontiers[j]) for j in order},
                "set": [known.labels[j] for j in view.chosen],
                "excess": dict(zip(known.names, view.within.tolist(), strict=True)),
            }
        )
        return
    estimated = "" if known.observed.all() else f", {1 - known.share:.0%} of the errors estimated"
    typer.echo(f"{len(known.names)} tasks, {len(known.labels)} configurations{estimated}")
    typer.echo("on the frontiers of most tasks (Appendix D)")
    for j in order[:10]:
        typer.echo(f"  {known.labels[j]:<16} {view.frontiers[j]:>3} of {len(known.names)}")
    count = "1 configuration keeps" if len(view.chosen) == 1 else f"{len(view.chosen)} configurations keep"
    asked = f"at most {most} may" if most is not None else f"each may err {allowed:g} more"
    typer.echo(
        f"{count} every task within {view.within.max():.3f} of its best error ({asked}): "
        + ", ".join(known.labels[j] for j in view.chosen)
    )
