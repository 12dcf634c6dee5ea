"""Which configurations are worth their memory: Figure 1b and the list of Appendix D."""

from collections import Counter
from contextlib import suppress

import numpy as np

from peppp.evaluate import hardware
from peppp.evaluate.bootstrap import family_mean
from peppp.formats import Configuration
from peppp.paper.figure import Figure, Panel, above, every
from peppp.paper.matrix_figures import MB
from peppp.paper.scale import paper_scale
from peppp.paper.study import Study
from peppp.pareto import nondominated
from peppp.table.matrix import ErrorMatrix, Lacking

# From the paper's Appendix D: on how many of the 87 tasks' frontiers each configuration lies.
APPENDIX_D = {
    "1-4-1/1-6-7": 60,
    "1-4-1/1-7-7": 33,
    "1-3-1/1-7-7": 30,
    "1-4-2/1-6-7": 24,
    "1-5-2/1-6-7": 21,
}


def figure_1b(study: Study) -> Figure:
    """Count on how many tasks each activation width gives the least error, at each memory budget."""
    known = study.known
    widths = np.array([c.format_a.bits for c in known.configurations])
    budgets = np.quantile(known.bytes, [0.2, 0.4, 0.6, 0.8, 1.0])
    records, winners = [], []
    for budget in budgets:
        best: Counter[int] = Counter()
        for m, e, seen in zip(known.bytes, known.values, known.observed, strict=True):
            fits = seen & (m <= budget)
            if fits.any():
                best[int(widths[np.lexsort((m, np.where(fits, e, np.inf)))[0]])] += 1
        total = best.total()
        winners.append((budget, *best.most_common(1)[0], total))
        records += [
            {"budget_mb": float(f"{budget / MB:.3g}"), "bits": bits, "tasks": n, "share": n / total}
            for bits, n in sorted(best.items())
        ]
    largest = max(count / total for _, _, count, total in winners)
    shown = "; ".join(
        f"{budget / MB:.3g} MB: {bits} bits on {n} of {total}" for budget, bits, n, total in winners
    )
    return Figure(
        "1b",
        "Bits of activations of the best configuration by budget",
        "no activation width wins at every budget or on every data set",
        f"the width that wins most often, by budget: {shown}",
        len({bits for _, bits, _, _ in winners}) > 1 or largest < 1,
        tuple(records),
        (Panel("stacked", "budget_mb", "share", "bits"),),
    )


def frontier_counts(known: ErrorMatrix) -> Counter[str]:
    """On how many tasks each configuration is Pareto optimal, by its name; zero counts are left out."""
    counts = hardware.frontier_counts(known)
    return Counter({name: int(n) for name, n in zip(known.labels, counts, strict=True) if n})


def appendix_d(study: Study) -> Figure:
    """Find the configurations on the most frontiers, under both memory counts and on a second seed."""
    known = study.known
    tables = {"measured seed, saved memory": known}
    for number, other in enumerate(study.other_seeds()[:1]):
        if len(other.labels) > len(known.labels) // 2:
            tables[f"seed {number + 2}, saved memory ({len(other.names)} tasks)"] = other
    with suppress(Lacking):
        tables["measured seed, paper_scale memory"] = paper_scale(known)
    records, shown, holds = [], [], []
    for title, table in tables.items():
        counts = frontier_counts(table)
        top = counts.most_common(5)
        records += [
            {
                "table": title,
                "configuration": column,
                "frontiers": counts[column],
                "share": counts[column] / len(table.names),
                "paper": APPENDIX_D.get(column, 0),
            }
            for column in table.labels
        ]
        shown.append(f"{title}: " + ", ".join(f"{column} {n}" for column, n in top))
        holds.append(_leading(table, next(iter(APPENDIX_D))))
    formats = Counter[str]()
    for column, n in frontier_counts(known).items():
        formats[str(Configuration.parse(column).format_a)] += n
    return Figure(
        "D",
        f"Configurations on the most frontiers, of {len(known.names)}",
        "on most: " + ", ".join(f"{column} {n}" for column, n in APPENDIX_D.items()) + " of 87",
        "; ".join(shown) + "; by Format A: " + ", ".join(f"{a} {n}" for a, n in formats.most_common(4)),
        every(holds),
        tuple(records),
        (Panel("bars", "configuration", "frontiers", "table"),),
    )


def _leading(table: ErrorMatrix, column: str) -> bool | None:
    """Whether a configuration lies on more frontiers than any other, judged by the interval over families."""
    on = np.array(
        [nondominated(m, e, k) for m, e, k in zip(table.bytes, table.values, table.observed, strict=True)],
        dtype=np.float64,
    )
    if column not in table.labels:
        return None
    place = table.labels.index(column)
    rest = np.delete(np.arange(len(table.labels)), place)
    rival = rest[on[:, rest].sum(axis=0).argmax()]
    return above(family_mean(on[:, place] - on[:, rival], table.families), 0.0)
