"""``peppp demo``: go all the way from picking to training, on data that needs no download."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from peppp.cli.options import Json, Workers, print_json, worker_count
from peppp.errors import StoreError
from peppp.units import format_bytes

# The training part is no larger than those of the table's tasks; a large test part gives precise errors.
_DATA = "digits?train=1200&test=597"
_MIN_STEPS = 500  # like the rows of the table
_MEASUREMENTS = 6


def command(
    folder: Annotated[
        Path, typer.Argument(help="Folder for the store, the trained weights and the page.")
    ] = Path("peppp-demo"),
    workers: Workers = None,
    json: Json = False,
) -> None:
    """Pick a precision for a task that the table does not contain, and train at it as proof.

    The task is scikit-learn's handwritten digits, which need no download. This takes less than a minute on 2
    cores.

    Example: peppp demo
    """
    from shutil import rmtree
    from statistics import median

    from peppp.advise.session import pick
    from peppp.advise.trials import measure_cells, training_of
    from peppp.campaign.progress import Display
    from peppp.campaign.worker import source
    from peppp.cli.train import storage_of
    from peppp.formats import FP32_CONFIGURATION, paper_grid
    from peppp.page.report import write_report
    from peppp.precisions.known import is_of_formats
    from peppp.records import Recipe
    from peppp.table.select import open_table
    from peppp.tasks.readers import load
    from peppp.training.fitting import fitting
    from peppp.training.kept_training import train_in_folder
    from peppp.training.sizes import with_resolution

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"cannot create the folder {folder}: {error.strerror}; name another folder"
        ) from None
    console = Console(stderr=json)
    count = worker_count(workers, "cpu")
    store = folder / "measurements.db"
    grid = paper_grid()
    new = load(_DATA)
    recipe = with_resolution(Recipe(min_steps=_MIN_STEPS), new)

    known = open_table(None, recipe, without=(new.fingerprint,))
    tasks = len({row.fingerprint for row in known.rows})
    console.print(
        f"[bold]1. Meta-training[/] is done: the table that ships has {int(known.observed.sum()):,} errors "
        f"of {tasks} data sets ({len(known.rows)} rows, by network and recipe) at "
        f"{len(known.configurations)} configurations, each trained and tested; the others are estimated"
    )

    packed, plain = fitting(new, recipe, "packed"), fitting(new, recipe, "fp32").within(None).peak
    sizes = sorted(packed.within(None, c).peak for c in grid)
    cap, budget = int(median(sizes)), sizes[int(0.8 * len(sizes))]
    console.print(
        f"[bold]2. Meta-test[/]: handwritten digits, a task that the table does not contain; "
        f"at most {_MEASUREMENTS} measurements of at most {format_bytes(cap)} each, "
        f"a budget of {format_bytes(budget)} (for a step's peak; fp32 takes {format_bytes(plain)})"
    )
    with Display(console) as display:
        chosen = pick(
            _DATA,
            budget=budget,
            cap=cap,
            recipe=recipe,
            measurements=_MEASUREMENTS,
            store=store,
            workers=count,
            progress=display,
        )

    console.print("[bold]3. Proof[/]: the pick trained for real within the budget, and fp32 to compare with")
    picked, recipe = training_of(chosen.configuration, recipe)
    storage = storage_of(picked)
    kind = storage if is_of_formats(picked) else chosen.precision
    fit = fitting(new, recipe, kind).within(budget, picked if is_of_formats(picked) else None)
    trained = folder / "trained"
    if trained.exists():
        rmtree(trained)
    proof = train_in_folder(new, picked, recipe, 1, trained, storage=storage, fit=fit)
    with Display(console) as display:
        (reference,) = measure_cells(
            [source(_DATA, new).cell(FP32_CONFIGURATION, recipe, seed=1)],
            store=store,
            workers=count,
            progress=display,
        )
    page = folder / "report.html"
    facts = {
        "configuration": str(chosen.configuration),
        "estimated": chosen.predicted_error,
        "measured": proof.test_error,
        "fp32_error": reference.test_error,
        "peak_measured": proof.peak,
    }
    write_report(page, chosen.page_data() | {"proof": facts})
    if json:
        print_json(chosen.to_dict() | {"proof": facts, "page": str(page)})
        return
    console.print()
    console.print(str(chosen), highlight=False, soft_wrap=True)
    console.print(
        f"proof     trained at {chosen.precision}: error {proof.test_error:.3f} measured, "
        f"{chosen.predicted_error:.3f} predicted{_interval(chosen.run_interval)}; "
        f"peak {format_bytes(proof.peak)} measured, of {format_bytes(budget)}; "
        f"fp32: error {reference.test_error:.3f} measured, peak {format_bytes(plain)} estimated\n"
        f"weights   {proof.weights}\n"
        f"page      {page}",
        highlight=False,
        soft_wrap=True,
    )


def _interval(run: tuple[float, float] | None) -> str:
    return "" if run is None else " (90 % of trainings: {:.3f} to {:.3f})".format(*run)
