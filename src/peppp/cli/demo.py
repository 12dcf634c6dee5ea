"""``peppp demo``: the whole path on data that is already there."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from peppp.cli.options import Json, Workers, print_json, worker_count
from peppp.errors import StoreError
from peppp.units import format_bytes

# Five digits a task; few images to train, so that errors differ, and many to test, so that they are known.
_TASKS = ("01234", "02468", "13579", "01569", "23478", "04679")
_NEW_TASK = "56789"
_PARTS = "?train=320&test=600"
_SHARE = 0.25
_MEASUREMENTS = 6
_RANK = 2


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

    from peppp.campaign.cells import plan, rows_of
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
    texts = [f"digits:{classes}{_PARTS}" for classes in _TASKS]
    new_text = f"digits:{_NEW_TASK}{_PARTS}"
    new = load(new_text)
    recipe = Recipe(min_steps=120, resolution=new.resolution)

    sources = [source(text, load(text)) for text in texts]
    cells = plan(rows_of(sources, [recipe]), grid, share=_SHARE)
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
        f"[bold]2. Meta-test[/]: the digits {_NEW_TASK}, a task it has not seen; "
        f"{_MEASUREMENTS} measurements of at most {format_bytes(cap)} each, "
        f"a budget of {format_bytes(budget)}"
    )
    with Display(console) as display:
        chosen = pick(
            new_text,
            budget=budget,
            cap=cap,
            table=table,
            recipe=recipe,
            measurements=_MEASUREMENTS,
            rank=_RANK,
            store=store,
            workers=count,
            progress=display,
        )

    console.print("[bold]3. Proof[/]: the choice, and fp32, trained with a seed of their own")
    proof_cells = [
        source(new_text, new).cell(configuration, recipe, seed=1)
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
