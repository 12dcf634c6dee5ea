"""From one network to others: Figures 25 and 26 (Appendix E.5)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peppp.evaluate.bootstrap import family_ratio
from peppp.evaluate.leave_one_out import Leave, leave_one_out, new_task
from peppp.evaluate.scores import scores
from peppp.learn.methods import PAPER_METHODS
from peppp.learn.strategy import strategy
from peppp.learn.task import outcomes
from peppp.paper.figure import Figure, Panel, below, every, leads, no_worse
from peppp.paper.newtasks import PAPER, RANK
from peppp.paper.study import Study
from peppp.table.matrix import ErrorMatrix, Lacking

COUNTS = (3, 4, 5, 6, 8, 10)  # as in the paper, never fewer than the rank


def figure_25(study: Study) -> Figure:
    """Learn from the rows of the commonest network, then predict the rows of every other network."""
    tables = study.networks()
    source_name, source = next(iter(tables.items()))
    source.require()
    leave = _leave(study, source)
    records: list[dict[str, Any]] = []
    for name, table in list(tables.items())[1:]:
        both, network = _stacked({source_name: source, name: table})
        teaches = (network[:, None] == name) & (network == source_name)
        records += _transferred(both, network, teaches, leave, source_name, study.seeds, PAPER_METHODS)
    return _transfer_figure(
        "25",
        f"From {source_name} to other networks, Setting I",
        "ED-MF is among the best on the other networks too, with no significant difference between them",
        records,
        "network",
        leave,
    )


def figure_26(study: Study) -> Figure:
    """Compare learning from rows of the same network (Case i) with learning from all networks (Case ii).

    Both cases use the tasks that were measured with every network; a network with fewer than three of these,
    such as one for texts among networks for images, is left out. Raises Lacking if fewer than two networks,
    three tasks or three configurations are left.
    """
    tables = study.networks()
    common = set(next(iter(tables.values())).tasks)
    kept = {}
    for name, table in tables.items():
        if len(common & set(table.tasks)) >= 3:
            common &= set(table.tasks)
            kept[name] = table
    if len(kept) < 2:
        raise Lacking("the table lacks three tasks that were measured with two networks")
    cut = {name: t.take([t.tasks.index(task) for task in sorted(common)]) for name, t in kept.items()}
    everything, network = _stacked(cut)
    if len(common) < 3 or len(everything.columns) < 3:
        raise Lacking(
            f"the table lacks tasks measured with every network: there are {len(common)}, 3 are needed"
        )
    leave = _leave(study, next(iter(cut.values())))
    same = network[:, None] == network
    records: list[dict[str, Any]] = []
    for case, teaches in (("i: same network", same), ("ii: all networks", np.ones_like(same))):
        records += _transferred(everything, network, teaches, leave, case, study.seeds, ("ed-mf",))
    return _transfer_figure(
        "26",
        "Learning from the same network (i) or from all (ii)",
        "Case ii, all networks, is better than Case i",
        records,
        "source",
        leave,
    )


def _leave(study: Study, table: ErrorMatrix) -> Leave:
    """Leave out families if the study does and two or more rows are outside the largest family, else rows."""
    largest = max(table.families.count(family) for family in table.families)
    return "family" if study.leave == "family" and len(table.families) - largest >= 2 else "row"


def _stacked(tables: Mapping[str, ErrorMatrix]) -> tuple[ErrorMatrix, NDArray[np.str_]]:
    """Stack the rows of all networks at their common columns; also return each row's network [n]."""
    first = next(iter(tables.values()))
    columns = [c for c in first.columns if all(c in t.columns for t in tables.values())]
    parts = [t.take(np.arange(len(t.rows)), [t.columns.index(c) for c in columns]) for t in tables.values()]
    together = ErrorMatrix(
        np.concatenate([part.values for part in parts]),
        tuple(row for part in parts for row in part.rows),
        tuple(columns),
        np.concatenate([part.bytes for part in parts]),
    )
    return together, np.repeat(list(tables), [len(part.rows) for part in parts])


def _transferred(
    table: ErrorMatrix,
    network: NDArray[np.str_],
    teaches: NDArray[np.bool_],
    leave: Leave,
    source: str,
    seeds: int,
    methods: Sequence[str],
) -> list[dict[str, Any]]:
    """Score the methods on each row i, learning from the rows j where ``teaches`` [n, n] is true.

    Rows of the same task never teach each other; rows without any teacher are skipped.
    """
    tasks = np.array(table.tasks)
    teaches = teaches & (tasks[:, None] != tasks)
    records = []
    for i, learned in leave_one_out(table, leave=leave, teaches=teaches, **PAPER):
        task = new_task(table, i, relative_to_chance=False)
        if task is None:
            continue
        for method in methods:
            for seed in range(seeds):
                played = outcomes(
                    lambda count, m=method, s=seed, c=learned, t=task: strategy(m, c, t, count, seed=[s, 0]),  # type: ignore[misc]
                    table.values[i].item,
                    COUNTS,
                )
                estimates = [found.errors(measured) for found, measured in played]
                scored = scores(task.memory, table.values[i], estimates, task.feasible)
                records += [
                    {
                        "network": str(network[i]),
                        "source": source,
                        "task": table.rows[i].task,
                        "family": table.families[i],
                        "method": method,
                        "measurements": count,
                        "convergence": float(scored["convergence"][k]),
                        "hyperdiff": float(scored["hyperdiff"][k]),
                    }
                    for k, count in enumerate(COUNTS)
                ]
    return records


def _transfer_figure(
    name: str, title: str, claim: str, rows: list[dict[str, Any]], by: str, leave: Leave
) -> Figure:
    groups = list(dict.fromkeys((r[by], r["method"], r["measurements"]) for r in rows))
    records, means = [], {}
    for group, method, count in groups:
        values = [r for r in rows if (r[by], r["method"], r["measurements"]) == (group, method, count)]
        record: dict[str, Any] = {by: group, "method": method, "measurements": count, "rows": len(values)}
        for metric in ("convergence", "hyperdiff"):
            x = np.array([r[metric] for r in values])
            mean, se = float(x.mean()), float(x.std(ddof=1) / np.sqrt(len(x))) if len(x) > 1 else 0.0
            record |= {metric: mean, f"{metric}_low": mean - se, f"{metric}_high": mean + se}
        records.append(record)
        means[group, method, count] = (record["convergence"], record["hyperdiff"])
    names = list(dict.fromkeys(g for g, _, _ in groups))
    if by == "source":
        i, ii = (np.array([means[g, "ed-mf", c] for c in COUNTS]) for g in names)
        better = float((ii < i).mean())
        finding = (
            f"Case ii is better in {better:.0%} of the comparisons; mean HyperDiff {i[:, 1].mean():.4f} in "
            f"Case i, {ii[:, 1].mean():.4f} in Case ii"
        )
        cases = [_means(rows, by, name, "ed-mf") for name in names]
        holds = every(
            below(family_ratio(cases[1][m], cases[0][m], cases[0]["family"]), 1.0)
            for m in ("convergence", "hyperdiff")
        )
    else:
        wins = [
            leads(means[g, "ed-mf", c][k], [means[g, m, c][k] for m in PAPER_METHODS])
            for g in names
            for c in COUNTS
            for k in (0, 1)
        ]
        finding = (
            f"ED-MF is best or within 10 % of the best in {sum(wins)} of {len(wins)} comparisons; mean "
            "HyperDiff with 3: " + ", ".join(f"{g} {means[g, 'ed-mf', 3][1]:.3f}" for g in names)
        )
        holds = every(
            no_worse(
                _means(rows, by, name, "ed-mf")[m],
                [_means(rows, by, name, method)[m] for method in PAPER_METHODS[1:]],
                _means(rows, by, name, "ed-mf")["family"],
            )
            for name in names
            for m in ("convergence", "hyperdiff")
        )
    shown: list[tuple[str, tuple[tuple[str, Any], ...]]] = [("", ())]
    if by == "network":
        shown = [(str(g), ((by, g),)) for g in names]
    return Figure(
        name,
        title,
        claim,
        finding,
        holds,
        tuple(records),
        tuple(
            Panel(
                "line",
                "measurements",
                metric,
                "method" if by == "network" else "source",
                f"{metric}_low",
                f"{metric}_high",
                label,
                where,
            )
            for label, where in shown
            for metric in ("convergence", "hyperdiff")
        ),
        {"rank": RANK, "counts": list(COUNTS), "leave": leave},
    )


def _means(rows: list[dict[str, Any]], by: str, group: str, method: str) -> dict[str, list[Any]]:
    """For each task and network, the mean scores over seeds and numbers of measurements, and the family."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        if (row[by], row["method"]) == (group, method):
            found.setdefault((row["task"], row["network"]), []).append(row)
    means: dict[str, list[Any]] = {"family": [mine[0]["family"] for mine in found.values()]}
    for metric in ("convergence", "hyperdiff"):
        means[metric] = [float(np.mean([row[metric] for row in mine])) for mine in found.values()]
    return means
