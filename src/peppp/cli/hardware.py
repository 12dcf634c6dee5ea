"""``peppp hardware``: find the configurations that hardware should offer."""

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
            help=f"How far each task's error may exceed its best, such as 0.05 (default: {_EPSILON})."
        ),
    ] = None,
    most: Annotated[
        int | None,
        typer.Option(min=1, help="Largest number of configurations, such as 3; minimise the error instead."),
    ] = None,
    json: Json = False,
) -> None:
    """Count the tasks with each configuration on their frontier, and find the fewest that serve all tasks.

    Example: peppp hardware runs.db --epsilon 0.02
    """
    from peppp.evaluate.hardware import hardware_view

    if epsilon is not None and most is not None:
        raise TableError(
            "--most limits the number of configurations, --epsilon the error that they add; give one of them"
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
    typer.echo("configurations on the frontiers of most tasks (Appendix D)")
    for j in order[:10]:
        typer.echo(f"  {known.labels[j]:<16} {view.frontiers[j]:>3} of {len(known.names)}")
    count = "1 configuration keeps" if len(view.chosen) == 1 else f"{len(view.chosen)} configurations keep"
    asked = f"at most {most} allowed" if most is not None else f"up to {allowed:g} allowed"
    typer.echo(
        f"{count} every task within {view.within.max():.3f} of its best error ({asked}): "
        + ", ".join(known.labels[j] for j in view.chosen)
    )
