"""Not in the paper: merge the columns that differ only in Format B, and evaluate methods on what is left."""

from dataclasses import replace
from typing import Any

import numpy as np

from peppp.evaluate.evaluation import evaluate
from peppp.paper.figure import Figure, Panel
from peppp.paper.newtasks import PAPER
from peppp.paper.study import Study
from peppp.table.matrix import ErrorMatrix


def pooled(study: Study) -> Figure:
    """Evaluate methods after merging the columns that differ only in Format B."""
    known = study.known
    small = merged(known).require()
    records: list[dict[str, Any]] = []
    shown = []
    for title, table in ((f"{len(known.labels)} columns", known), (f"{len(small.labels)} pooled", small)):
        found = evaluate(
            table, settings=("I", "II"), methods=("ed-mf", "random-mf", "zero"), counts=(3,),
            seeds=range(study.seeds), **PAPER, cap=study.cap, leave=study.held_out(table),
        )  # fmt: skip
        records += [{"columns": title} | r for r in found.summary(("hyperdiff", "relative_error", "regret"))]
        values = {m: found.interval("hyperdiff", "I", m, 3).mean for m in found.methods}
        shown.append(f"{title}: " + ", ".join(f"{m} {v:.3f}" for m, v in values.items()))
    return Figure(
        "pooled",
        "Columns that differ only in Format B merged into one",
        "not examined in the paper: whether choosing Format B is part of the advantage",
        f"HyperDiff in Setting I with 3 measurements, {'; '.join(shown)}",
        None,
        tuple(records),
        (Panel("bars", "method", "hyperdiff", "columns", where=(("setting", "I"),)),),
        {"seeds": study.seeds},
        claims=False,
    )


def merged(known: ErrorMatrix) -> ErrorMatrix:
    """Merge columns that differ only in Format B: their mean error, at the memory of the smallest of them."""
    of = np.unique([str(c.format_a) for c in known.configurations], return_inverse=True)[1]
    # A merged column keeps the name and the memory of its column of least memory.
    groups = [np.flatnonzero(of == number) for number in dict.fromkeys(of.tolist())]
    kept = [int(min(group, key=lambda j: (known.bytes[:, j].sum(), j))) for group in groups]
    counts = np.column_stack([known.observed[:, group].sum(axis=1) for group in groups])
    sums = np.column_stack([np.nansum(known.values[:, group], axis=1) for group in groups])
    means = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    return replace(known.take(np.arange(len(known.rows)), kept), values=means)
