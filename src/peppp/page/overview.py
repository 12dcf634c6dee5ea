"""The report of a campaign: measurements of several tasks in, plain data for one page out."""

from collections import defaultdict
from collections.abc import Iterable
from statistics import fmean, median_low
from typing import Any

import numpy as np

from peppp import pareto
from peppp.arguments import checked
from peppp.errors import BudgetError, TableError
from peppp.formats import Configuration
from peppp.learn.completion import complete
from peppp.page.bits import page_format
from peppp.records import Measurement, Recipe
from peppp.table.labels import pairs
from peppp.table.matrix import ErrorMatrix, error_matrix, footprint_at
from peppp.units import format_bytes, parse_bytes

_LEAST_OF_A_TASK, _LEAST_OF_A_CONFIGURATION = 6, 3


@checked
def overview(measurements: Iterable[Measurement], *, budget: int | str | None = None) -> dict[str, Any]:
    """What :func:`peppp.page.report.render` draws of all tasks: matrix, singular values, frontiers, picks.

    A task is a data set under one recipe. Its errors are as measured where they were and else those of
    :func:`peppp.learn.completion.complete` (section 3.1), relative to chance and clipped to [0, 1]; its
    memory is what the measurements' footprints say, carried over to the other formats. ``budget`` (default:
    the middle of all footprints) is one for all tasks. Errors are fractions, sizes bytes.

    Raises TableError where nothing was measured at low precision, BudgetError where nothing fits.

    >>> from peppp import Footprint, Outcome
    >>> def measured(configuration, error):
    ...     return Measurement("digits", "d1", "digits", Configuration.parse(configuration), Recipe(), 0,
    ...         0.9, error, error, (), Footprint(5, 5, 14, {"momentum": 14}), Outcome.FINISHED, 1.0)
    >>> page = overview([measured("1-3-1/1-6-7", 0.5), measured("1-4-1/1-6-7", 0.25)])
    >>> page["tasks"][0]["errors"], page["tasks"][0]["observed"], page["budget"]
    ([0.5, 0.25], '11', 38)
    """
    measurements = list(measurements)
    matrix, left_out = _well_observed(error_matrix(measurements))
    formats = pairs(matrix.columns)
    completion = complete(matrix, relative_to_chance=True)
    estimate = np.clip(completion.estimate * matrix.chance[:, None], 0.0, 1.0)
    errors = pareto.settled(np.where(matrix.observed, matrix.values, estimate))

    of_row: defaultdict[tuple[str, str], list[Measurement]] = defaultdict(list)
    digests = {recipe: recipe.digest for recipe in {m.recipe for m in measurements}}
    recipes = {digest: recipe for recipe, digest in digests.items()}
    for m in measurements:
        of_row[m.fingerprint, digests[m.recipe]].append(m)
    tasks = []
    for i, row in enumerate(matrix.rows):
        own = of_row[row.fingerprint, row.recipe_digest]
        known = {m.configuration: m.footprint for m in own}
        totals = [footprint_at(known, pair).total for pair in formats]
        reference = [m.test_error for m in own if m.configuration.is_fp32]
        tasks.append(
            {
                "name": row.task,
                "recipe": _summary(recipes[row.recipe_digest]),
                "chance": row.chance_error,
                "fp32": fmean(reference) if reference else None,
                "errors": errors[i].tolist(),
                "observed": "".join("01"[seen] for seen in matrix.observed[i].astype(int)),
                "totals": totals,
                "frontier": pareto.frontier(totals, errors[i]).tolist(),
            }
        )
    sizes = [total for task in tasks for total in task["totals"]]
    limit = median_low(sizes) if budget is None else parse_bytes(budget)
    if limit < min(sizes):
        raise BudgetError(
            f"a budget of {format_bytes(limit)} is below every footprint; the smallest that works is "
            f"{min(sizes)}B ({format_bytes(min(sizes))})"
        )
    for task in tasks:
        task["pick"] = pareto.best(task["totals"], task["errors"], np.array(task["totals"]) <= limit)
    many = "s" if len(tasks) > 1 else ""
    return {
        "title": f"{len(tasks)} task{many}, {len(matrix.columns)} configurations",
        "left_out": left_out,
        "budget": limit,
        "configurations": [str(column) for column in matrix.columns],
        "formats_a": [str(pair.format_a) for pair in formats],
        "tasks": tasks,
        "singular_values": [float(value) for value in completion.singular_values],
    }


def _well_observed(matrix: ErrorMatrix) -> tuple[ErrorMatrix, str]:
    """The rows and columns that completion can say something of, and in words what was left out.

    Completion draws what it knows little of towards zero error, so that the least observed would be picked.
    Where less than half of the matrix would be left, all of it stays.
    """
    rows = np.ones(len(matrix.rows), dtype=bool)
    columns = np.ones(len(matrix.columns), dtype=bool)
    while True:
        fewer_rows = rows & (matrix.observed[:, columns].sum(axis=1) >= _LEAST_OF_A_TASK)
        fewer_columns = columns & (matrix.observed[rows].sum(axis=0) >= _LEAST_OF_A_CONFIGURATION)
        if (fewer_rows == rows).all() and (fewer_columns == columns).all():
            break
        rows, columns = fewer_rows, fewer_columns
    if rows.all() and columns.all():
        return matrix, ""
    if 2 * rows.sum() * columns.sum() < matrix.values.size:
        return matrix, "few measurements: the estimates are too low, and the picks rest on them"
    kept_matrix = matrix.take(rows, columns)
    parts = [
        f"{(~kept).sum()} {what} with fewer than {least} measurements"
        for kept, what, least in (
            (rows, "tasks", _LEAST_OF_A_TASK),
            (columns, "configurations", _LEAST_OF_A_CONFIGURATION),
        )
        if not kept.all()
    ]
    return kept_matrix, f"left out: {' and '.join(parts)}"


def task_page(page: dict[str, Any], measurements: Iterable[Measurement], name: str) -> dict[str, Any]:
    """The page of one task of an :func:`overview`, as a pick's; its budget is the overview's.

    Raises TableError where there is no such task, or several under different recipes.
    """
    found = [task for task in page["tasks"] if task["name"] == name]
    if len(found) != 1:
        names = ", ".join(sorted({task["name"] for task in page["tasks"]})[:12])
        problem = "no task" if not found else f"{len(found)} recipes of the task"
        raise TableError(f"{problem} {name!r}; there are {names}; name one that is there with one recipe")
    task = found[0]
    own = [m for m in measurements if m.task == name]
    sizes = {m.configuration: m.footprint for m in own}
    rows = []
    for j, text in enumerate(page["configurations"]):
        configuration = Configuration.parse(text)
        size = footprint_at(sizes, configuration)
        seen = task["observed"][j] == "1"
        rows.append(
            {
                "configuration": text,
                "format_a": page_format(configuration.format_a),
                "format_b": page_format(configuration.format_b),
                "estimated": task["errors"][j],
                "measured": task["errors"][j] if seen else None,
                "interval": None,
                "memory": {
                    part: getattr(size, part) for part in ("weights", "activations", "optimizer", "raw")
                },
                "total": size.total,
            }
        )
    return {
        "title": f"{name} within {format_bytes(page['budget'])}",
        "task": name,
        "network": own[0].recipe.network,
        "budget": page["budget"],
        "rank": int(np.sum(np.array(page["singular_values"]) > 1e-9)),
        "rows": rows,
        "frontier": task["frontier"],
        "pick": task["pick"],
    }


def _summary(recipe: Recipe) -> str:
    return f"{recipe.network}, {recipe.resolution} px, {recipe.epochs} epochs, {recipe.rounding}"
