"""The report of a campaign: turns measurements of several tasks into plain data for one page."""

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
from peppp.table.differences import unlike_most
from peppp.table.labels import pairs
from peppp.table.matrix import ErrorMatrix
from peppp.table.measured import error_matrix, footprints_at
from peppp.units import format_bytes, parse_bytes

_LEAST_OF_A_TASK, _LEAST_OF_A_CONFIGURATION = 6, 3


@checked
def overview(measurements: Iterable[Measurement], *, budget: int | str | None = None) -> dict[str, Any]:
    """Make the data of a page about all tasks: error matrix, singular values, frontiers and picks.

    :func:`peppp.page.report.render` turns the result into HTML. A task is a data set under one recipe. Errors
    that were not measured are estimated by :func:`peppp.learn.completion.complete` (section 3.1) relative to
    chance, and clipped to [0, 1]. The memory of each configuration is computed from the measurements'
    footprints. ``budget`` (bytes, or text such as ``"2MB"``) applies to all tasks; the default is the median
    of all footprints. Errors are fractions, sizes bytes.

    Raises TableError if nothing was measured at low precision, BudgetError if the budget is below every
    footprint.

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
    unlike = unlike_most(recipes[row.recipe_digest] for row in matrix.rows)
    for m in measurements:
        of_row[m.fingerprint, digests[m.recipe]].append(m)
    tasks = []
    for i, row in enumerate(matrix.rows):
        own = of_row[row.fingerprint, row.recipe_digest]
        known = {m.configuration: m.footprint for m in own}
        totals = [size.total for size in footprints_at(known, formats)]
        reference = [m.test_error for m in own if m.configuration.is_fp32]
        tasks.append(
            {
                "name": row.task,
                "recipe": _summary(recipes[row.recipe_digest], unlike[recipes[row.recipe_digest]]),
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
    """Keep the rows and columns with enough measurements for completion; also say what was left out.

    Completion shrinks the estimates of rarely observed rows and columns towards zero error, so they would be
    picked. If less than half of the matrix would be left, all of it is kept.
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
        return matrix, "few measurements: the estimates are too low, and the picks based on them unreliable"
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
    """Make the data of a page about one task of an :func:`overview`, with the same budget.

    Raises TableError if there is no such task, or if the overview has it under several recipes.
    """
    found = [task for task in page["tasks"] if task["name"] == name]
    if len(found) != 1:
        names = ", ".join(sorted({task["name"] for task in page["tasks"]})[:12])
        problem = "no task" if not found else f"{len(found)} recipes of the task"
        raise TableError(f"{problem} {name!r}; there are {names}; name a task that has a single recipe")
    task = found[0]
    own = [m for m in measurements if m.task == name]
    sizes = {m.configuration: m.footprint for m in own}
    rows = []
    configurations = [Configuration.parse(text) for text in page["configurations"]]
    at_each = footprints_at(sizes, configurations)
    for j, (configuration, size) in enumerate(zip(configurations, at_each, strict=True)):
        seen = task["observed"][j] == "1"
        rows.append(
            {
                "configuration": str(configuration),
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


def _summary(recipe: Recipe, unlike: dict[str, Any]) -> str:
    """What a recipe says in any case, and where else it differs from the commonest one of the page."""
    usual = f"{recipe.network}, {recipe.resolution} px, {recipe.epochs} epochs, {recipe.rounding}"
    others = (
        f"{name} {value}"
        for name, value in unlike.items()
        if name not in ("network", "resolution", "epochs", "rounding")
    )
    return ", ".join((usual, *others))
