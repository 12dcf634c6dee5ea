"""``peppp demo``: the whole path on data that is already there."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from peppp.cli.options import Json, Workers, print_json, worker_count
from peppp.errors import StoreError
from peppp.units import format_bytes

# Meta-training sees digits 0 to 4 in several company; the new task is the digits 5 to 9.
_TASKS = ("01234", "0123", "0124", "0134", "0234", "1234", "024")
_NEW_TASK = "digits:56789"
_SHARE = 0.2
_MEASUREMENTS = 6


def command(
    folder: Annotated[Path, typer.Argument(help="Where to put the store and the page.")] = Path("peppp-demo"),
    workers: Workers = None,
    json: Json = False,
) -> None:
    """Measure some tasks, complete their errors, pick a precision for a new task, train it as proof.

    On real images that need no download (scikit-learn's handwritten digits); about 3 minutes on 2 cores.

    Example: peppp demo
    """
    from statistics import median

    from peppp.campaign.cells import plan
    from peppp.campaign.progress import Display
    from peppp.campaign.worker import source
    from peppp.choice import footprints, measure_cells, pick
    from peppp.formats import FP32_CONFIGURATION, paper_grid
    from peppp.page.report import write_report
    from peppp.records import Recipe
    from peppp.tables import error_matrix
    from peppp.tasks.readers import load

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"cannot make the folder {folder}: {error.strerror}; name another") from None
    console = Console(stderr=json)
    count = worker_count(workers, "cpu")
    store = folder / "measurements.db"
    grid = paper_grid()
    new = load(_NEW_TASK)
    recipe = Recipe(min_steps=200, resolution=new.resolution)

    texts = [f"digits:{classes}" for classes in _TASKS]
    sources = [source(text, load(text)) for text in texts]
    cells = plan(sources, grid, [recipe], share=_SHARE)
    console.print(
        f"[bold]1. Meta-training[/]: {len(cells)} of {len(sources)} tasks x {len(grid)} configurations, "
        f"{recipe.network} on handwritten digits, each trained and tested"
    )
    with Display(console) as display:
        known = measure_cells(cells, store=store, workers=count, progress=display)
    table = error_matrix(known)

    sizes = sorted(f.total for f in footprints(new, recipe, grid).values())
    cap, budget = int(median(sizes)), sizes[int(0.8 * len(sizes))]
    console.print(
        f"[bold]2. Meta-test[/]: a task of other digits (5 to 9); {_MEASUREMENTS} measurements of at most "
        f"{format_bytes(cap)}, a budget of {format_bytes(budget)}"
    )
    with Display(console) as display:
        chosen = pick(
            _NEW_TASK,
            budget=budget,
            cap=cap,
            table=table,
            recipe=recipe,
            measurements=_MEASUREMENTS,
            store=store,
            workers=count,
            progress=display,
        )

    console.print("[bold]3. Proof[/]: the choice, and fp32, trained with a seed of their own")
    proof_cells = [
        source(_NEW_TASK, new).cell(configuration, recipe, seed=1)
        for configuration in (chosen.configuration, FP32_CONFIGURATION)
    ]
    with Display(console) as display:
        proofs = {
            m.configuration: m
            for m in measure_cells(proof_cells, store=store, workers=count, progress=display)
        }
    proof, reference = proofs[chosen.configuration], proofs[FP32_CONFIGURATION]
    page = folder / "report.html"
    facts = {
        "configuration": str(chosen.configuration),
        "estimated": chosen.predicted_error,
        "measured": proof.test_error,
        "fp32_error": reference.test_error,
    }
    write_report(page, chosen.page_data() | {"proof": facts})
    if json:
        print_json(chosen.to_dict() | {"proof": facts, "page": str(page)})
        return
    saved = 1 - chosen.footprint.total / reference.footprint.total
    console.print()
    console.print(str(chosen), highlight=False)
    console.print(
        f"proof     trained at {chosen.configuration}: error {proof.test_error:.3f} measured, "
        f"{chosen.predicted_error:.3f} predicted; fp32: {reference.test_error:.3f} measured, "
        f"{saved:.0%} less memory than its {format_bytes(reference.footprint.total)} (computed)\n"
        f"page      {page}",
        highlight=False,
        soft_wrap=True,
    )
