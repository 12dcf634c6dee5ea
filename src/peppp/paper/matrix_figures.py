"""Figures of the error and memory matrices themselves: 1a, 4, 6, 14, 15, 16, 21, and ``variance``."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import scipy.stats
from numpy.typing import NDArray

from peppp import pareto
from peppp.evaluate.bootstrap import Interval, family_mean
from peppp.learn.additive import additive_model
from peppp.learn.completion import filled
from peppp.learn.threads import single_thread
from peppp.paper.figure import Figure, Panel, above, every
from peppp.paper.study import Study
from peppp.table.matrix import ErrorMatrix, Lacking

EXAMPLE = "cifar10"
FIGURE_4 = ("1-3-1/1-6-7", "1-3-4/1-7-7", "1-4-3/1-8-7", "1-5-3/1-6-7")
MB = 10**6


def example_row(known: ErrorMatrix) -> int:
    """The index of the paper's example task, CIFAR-10; 0 if the matrix does not hold it."""
    return next((i for i, name in enumerate(known.names) if name.startswith(EXAMPLE)), 0)


def figure_1a(study: Study) -> Figure:
    """Plot error against memory for one task and mark its frontier."""
    known = study.known
    i = example_row(known)
    seen = np.flatnonzero(known.observed[i])
    optimal = pareto.nondominated(known.bytes[i], known.values[i], known.observed[i])
    records = tuple(
        {
            "configuration": column,
            "memory_mb": known.bytes[i, j] / MB,
            "error": known.values[i, j],
            "point": "Pareto optimal" if optimal[j] else "dominated",
        }
        for j, column in enumerate(known.labels)
        if known.observed[i, j]
    )
    memory, errors = known.bytes[i, seen], known.values[i, seen]
    spreads = [np.ptp(errors[memory == m]) for m in np.unique(memory)]
    spread = float(max(spreads))
    distinct = int(optimal.sum())
    return Figure(
        "1a",
        f"Error against memory, {known.names[i]}",
        "at equal memory errors differ a lot, and there is a clear frontier",
        f"on {known.names[i]} errors at equal memory differ by up to {spread:.2f}; {distinct} of "
        f"{len(seen)} configurations are Pareto optimal",
        spread > 0.05 and distinct > 1,
        records,
        (Panel("scatter", "memory_mb", "error", "point"),),
    )


def figure_4(study: Study) -> Figure:
    """Show a few rows and columns of the error and memory matrices."""
    known = study.known
    columns = [known.labels.index(c) for c in FIGURE_4 if c in known.labels]
    columns = columns or list(range(min(4, len(known.labels))))
    rows = [example_row(known), *(i for i in range(len(known.names)) if i != example_row(known))][:3]
    records = tuple(
        {
            "task": known.names[i],
            "configuration": known.labels[j],
            "error": known.values[i, j],
            "memory_mb": known.bytes[i, j] / MB,
        }
        for i in rows
        for j in columns
        if known.observed[i, j]
    )
    if not records:
        raise Lacking("the table lacks the first tasks' errors at these configurations")
    errors = [float(str(r["error"])) for r in records]
    return Figure(
        "4",
        "Examples of the error and memory matrices",
        "an illustration",
        f"{len(rows)} tasks at {len(columns)} configurations: errors from {min(errors):.2f} to "
        f"{max(errors):.2f}",
        None,
        records,
        (Panel("bars", "task", "error", "configuration"),),
        claims=False,
    )


def kendall(errors: NDArray[np.float64], observed: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Kendall's tau [n, n] between all pairs of rows of ``errors`` [n, d], on columns observed in both.

    NaN where fewer than three columns are shared, or where either row is constant on them.
    """
    tau = np.eye(len(errors))
    for i, j in combinations(range(len(errors)), 2):
        both = observed[i] & observed[j]
        x, y = errors[i, both], errors[j, both]
        known = len(x) > 2 and np.ptp(x) > 0 and np.ptp(y) > 0
        tau[i, j] = tau[j, i] = scipy.stats.kendalltau(x, y).statistic if known else np.nan
    return tau


def figure_6a(study: Study) -> Figure:
    """Compare Kendall's tau between tasks within families and across families."""
    known = study.known
    tau = kendall(known.values, known.observed)
    families = np.array(known.families)
    same = families[:, None] == families
    off = ~np.eye(len(tau), dtype=bool)
    within, across = tau[same & off], tau[~same]
    within, across = within[np.isfinite(within)], across[np.isfinite(across)]
    inside = f"{within.mean():.2f}" if len(within) else "not known (each family has one task)"
    negative = float((across < 0).mean()) if len(across) else 0.0
    records = tuple(
        {"task": known.names[i], "other": known.names[j], "tau": tau[i, j], "same_family": bool(same[i, j])}
        for i in range(len(tau))
        for j in range(len(tau))
    )
    outside = f"{across.mean():.2f}" if len(across) else "not known (one family)"
    return Figure(
        "6a",
        "Kendall's tau between tasks",
        "similar data sets are more correlated; some pairs are negative",
        f"mean tau {inside} within families, {outside} across; {negative:.0%} of pairs across are negative",
        every([above(_closer(tau, same, off, known.families), 0.0), negative > 0]),
        records,
        (Panel("heatmap", "task", "tau", "other"),),
    )


def _closer(
    tau: NDArray[np.float64], same: NDArray[np.bool_], off: NDArray[np.bool_], families: Sequence[str]
) -> Interval:
    """Each task's mean tau within its family minus its mean tau with other families, averaged by family."""
    inside, outside = np.where(same & off, tau, np.nan), np.where(same, np.nan, tau)
    both = (np.isfinite(inside).any(axis=1)) & (np.isfinite(outside).any(axis=1))
    gaps = np.full(len(tau), np.nan)
    gaps[both] = np.nanmean(inside[both], axis=1) - np.nanmean(outside[both], axis=1)
    return family_mean(gaps, families)


@single_thread()
def decay(known: ErrorMatrix, name: str, title: str) -> Figure:
    """Plot the singular values, and report the explained variance by both definitions (squares or values)."""
    S = np.linalg.svd(filled(known), compute_uv=False)
    by_square, plain = np.cumsum(S**2) / (S**2).sum(), np.cumsum(S) / S.sum()
    records = tuple(
        {
            "index": k + 1,
            "singular_value": float(S[k]),
            "share_of_squares": float(by_square[k]),
            "share_of_values": float(plain[k]),
        }
        for k in range(len(S))
    )
    five = min(5, len(S)) - 1
    return Figure(
        name,
        title,
        "singular values decay fast, though the matrix is not exactly of low rank; rank 5 holds 78 % "
        "(a share of singular values)",
        f"the second singular value is {S[1] / S[0]:.0%} of the first, the tenth "
        f"{S[min(9, len(S) - 1)] / S[0]:.1%}; rank {five + 1} holds {by_square[five]:.1%} of the sum of "
        f"squares and {plain[five]:.0%} of the sum",
        bool(S[1] < 0.25 * S[0] and S[min(9, len(S) - 1)] < 0.05 * S[0]),
        records,
        (Panel("line", "index", "singular_value"),),
    )


def figure_6b(study: Study) -> Figure:
    """Show how the error matrix's singular values decay."""
    return decay(study.known, "6b", "Singular values of the error matrix")


def figure_21(study: Study) -> Figure:
    """Show how the singular values decay when each row is a task at one of several learning rates."""
    return decay(study.rates(), "21", "Singular values of the matrix with several learning rates")


@single_thread()
def figure_14(study: Study) -> Figure:
    """Plot the explained variance of ranks 1 to 30."""
    S = np.linalg.svd(filled(study.known), compute_uv=False)
    by_square, plain = np.cumsum(S**2) / (S**2).sum(), np.cumsum(S) / S.sum()
    records = tuple(
        {"rank": k + 1, "share_of_squares": float(by_square[k]), "share_of_values": float(plain[k])}
        for k in range(min(30, len(S)))
    )
    return Figure(
        "14",
        "Explained variance by rank",
        "the first singular value explains 99.0 %, the first two above 99.5 % of the sum of squares",
        f"one explains {by_square[0]:.1%}, two {by_square[1]:.1%} of the sum of squares "
        f"({plain[0]:.0%} and {plain[1]:.0%} of the sum)",
        bool(by_square[0] >= 0.985 and by_square[1] >= 0.99),
        records,
        (Panel("line", "rank", "share_of_squares"), Panel("line", "rank", "share_of_values")),
    )


def figure_15(study: Study) -> Figure:
    """Draw histograms of error and memory."""
    known = study.known
    errors, bytes_of = known.values[known.observed], known.bytes[known.observed]
    error, memory = float(np.median(errors)), float(np.median(bytes_of))
    records = tuple(
        {"error": float(e), "memory_mb": float(m) / MB} for e, m in zip(errors, bytes_of, strict=True)
    )
    return Figure(
        "15",
        "Distribution of errors and memory",
        "median error 0.78, median memory 816 MB",
        f"median error {error:.2f}, median memory {memory / MB:.3g} MB (another network, other tasks)",
        bool(abs(error - 0.78) < 0.05 and abs(memory / MB - 816) < 40),
        records,
        (Panel("histogram", "error", ""), Panel("histogram", "memory_mb", "")),
    )


def figure_16(study: Study) -> Figure:
    """Count for each task the configurations that fit the memory cap."""
    known = study.known
    fits = (known.bytes <= study.median).sum(axis=1)
    sides = [row.recipe.resolution if row.recipe else 0 for row in known.rows]
    records = tuple(
        {"task": name, "resolution": side, "feasible": int(n)}
        for name, side, n in zip(known.names, sides, fits, strict=True)
    )
    by_side = {side: fits[[s == side for s in sides]] for side in sorted(set(sides))}
    shown = ", ".join(f"{side} pixels: {n.min()} to {n.max()}" for side, n in by_side.items())
    means = [n.mean() for n in by_side.values()]
    return Figure(
        "16",
        f"Configurations of {len(known.labels)} within the cap of {study.median / MB:.3g} MB",
        "all 99 fit on the small pictures, far fewer on the large ones",
        f"configurations that fit, by resolution: {shown}",
        bool(means[0] == len(known.labels) and means[-1] < means[0]) if len(means) > 1 else None,
        records,
        (Panel("histogram", "feasible", "", "resolution"),),
        {"cap": study.median},
    )


def variance(study: Study) -> Figure:
    """Split the errors' variance into shares of the task, Format A, Format B and the rest."""
    known = study.known
    E = filled(known)
    formats = [c.format_a for c in known.configurations], [c.format_b for c in known.configurations]
    shares = additive_model(E, *formats).shares
    means = E.mean(axis=0)
    spread = {"A": _explained(means, formats[0]), "B": _explained(means, formats[1])}
    records = tuple({"term": name, "share": share} for name, share in shares.items())
    return Figure(
        "variance",
        "Where errors come from: Format A, Format B",
        "(implied by 99 = 11 x 9 configurations) both formats are worth choosing",
        f"Format A explains {spread['A']:.0%} of the variance of the column means, Format B "
        f"{spread['B']:.1%}; of the tasks' deviations from these means, the task's level explains "
        f"{shares['task']:.0%}, Format A {shares['A']:.0%}, Format B {shares['B']:.1%}, the rest (noise too) "
        f"{shares['rest']:.0%}",
        spread["B"] > 0.05,
        records,
        (Panel("bars", "term", "share"),),
    )


def _explained(values: NDArray[np.float64], labels: Sequence[object]) -> float:
    """The share of the variance of ``values`` that is explained by the mean of each label."""
    texts = np.array([str(label) for label in labels])
    fitted = np.array([values[texts == text].mean() for text in texts])
    return float(fitted.var() / values.var()) if values.var() > 0 else 0.0
