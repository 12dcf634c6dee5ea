"""Draw figures with matplotlib, from their records and panels."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np

from peppp.errors import PepppError, StoreError
from peppp.paper.figure import Figure, Panel

MOST_LABELS = 24  # names that fit along one axis
MOST_GROUPS = 10  # colours that a reader can distinguish, and names that fit in a legend
LABELS = {
    "memory_mb": "memory (MB)",
    "budget_mb": "memory budget (MB)",
    "memory_used": "memory used, as a share of all configurations",
    "error": "test error",
    "hyperdiff": "HyperDiff",
    "tau": "Kendall's tau",
    "sampled": "share of entries sampled",
    "measurements": "measurements on the new task",
    "bits": "bits of Format A",
    "resolution": "pixels per side",
    "frontiers": "tasks with it on their frontier",
    "feasible": "configurations that fit",
    "regret": "regret of the pick",
    "prediction_error": "root mean square error of predictions",
}
SHARES = ("memory_used", "sampled", "share", "share_of_squares", "share_of_values", "covered")
QUIET, LOUD = "#b8b8b8", "#c0392b"
# Styles by the kind of point; the squares and crosses are those of the paper's Figure 7.
POINTS: dict[str, dict[str, Any]] = {
    "dominated": {"color": QUIET, "s": 12, "zorder": 1},
    "beyond the cap": {"color": QUIET, "s": 12, "marker": "^", "alpha": 0.5, "zorder": 1},
    "estimated dominated": {"color": QUIET, "s": 12, "zorder": 1},
    "Pareto optimal": {"color": LOUD, "s": 24, "zorder": 3},
    "estimated Pareto optimal": {"color": LOUD, "s": 28, "marker": "x", "zorder": 3},
    "measured": {"facecolor": "none", "edgecolor": "black", "s": 36, "marker": "s", "zorder": 2},
    "chosen": {"color": "#1f4e9c", "s": 56, "marker": "s", "zorder": 4},
}
MARKERS = "osv^D<>pX*"


def draw(figure: Figure, path: str | Path) -> None:
    """Write a picture of the figure; the suffix of ``path`` chooses PNG, SVG or PDF.

    Raises PepppError if matplotlib is not installed, StoreError if the file cannot be written.
    """
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib.figure import Figure as Canvas
    except ImportError:
        raise PepppError("pictures need matplotlib; install it: pip install 'peppp[plot]'") from None
    number = len(figure.panels)
    columns = 3 if number == 3 else min(2, number)
    rows = -(-number // max(columns, 1))
    wide = (7.0, 4.4) if number == 1 else (4.6 * columns, 3.4 * rows + 0.5)
    canvas = Canvas(figsize=wide, layout="constrained", facecolor="white")
    canvas.suptitle(fill(figure.title, int(11 * wide[0])), fontsize=11)
    axes = np.ravel(canvas.subplots(rows, columns, squeeze=False))
    for ax, panel in zip(axes, figure.panels, strict=False):
        _DRAW[panel.kind](ax, panel, panel.records(figure.records))
        _dress(ax, panel)
    for ax in axes[number:]:
        ax.set_axis_off()
    _legends(canvas, list(axes[:number]), figure.panels)
    try:
        canvas.savefig(path, dpi=130)
    except (OSError, ValueError) as error:
        raise StoreError(f"cannot write the picture {path}: {error}; name a .png, .svg or .pdf") from None


def label_of(name: str) -> str:
    """The axis label for a field of the records.

    >>> label_of("memory_mb"), label_of("relative_error")
    ('memory (MB)', 'relative error')
    """
    return LABELS.get(name, name.replace("_", " "))


def _dress(ax: Any, panel: Panel) -> None:
    """Set the title, labels, tick formats and guide of an axis, and hide the top and right spines."""
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    ax.set_title(panel.title, fontsize=9)
    ax.set_xlabel(label_of(panel.x), fontsize=9)
    ax.set_ylabel(label_of(panel.by if panel.kind == "heatmap" else panel.y or "count"), fontsize=9)
    ax.tick_params(labelsize=8)
    ax.spines[["top", "right"]].set_visible(False)
    if panel.x in ("index", "rank", "measurements") and panel.kind == "line":
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axis, name in ((ax.xaxis, panel.x), (ax.yaxis, panel.y)):
        if name in SHARES and panel.kind not in ("violin", "heatmap"):
            axis.set_major_formatter(PercentFormatter(1.0))
    if panel.guide == "diagonal":
        ends = [min(*ax.get_xlim(), *ax.get_ylim()), max(*ax.get_xlim(), *ax.get_ylim())]
        ax.plot(ends, ends, color="black", linewidth=0.8, linestyle=":", zorder=0)
    elif panel.guide == "one":
        ax.axhline(1.0, color="black", linewidth=0.8, linestyle=":", zorder=3)


def _legends(canvas: Any, axes: Sequence[Any], panels: Sequence[Panel]) -> None:
    """Draw one legend for all panels, below them."""
    found: dict[tuple[str, str], Any] = {}
    for ax, panel in zip(axes, panels, strict=True):
        handles, labels = ax.get_legend_handles_labels()
        if panel.kind not in ("heatmap", "labelled") and 0 < len(labels) <= MOST_GROUPS:
            found |= {
                (panel.by, label): handle
                for label, handle in zip(labels, handles, strict=True)
                if label and not label.startswith("_")
            }
    if found:
        named = {by for by, _ in found if by in ("bits", "resolution")}
        canvas.legend(
            list(found.values()), [label for _, label in found], loc="outside lower center", fontsize=8,
            ncols=min(6, len(found)), frameon=False, title=label_of(*named) if len(named) == 1 else None,
            title_fontsize=8,
        )  # fmt: skip


def _groups(panel: Panel, records: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[Any, list[dict[str, Any]]] = {}
    for record in records:
        if panel.x in record:
            found.setdefault(record.get(panel.by, ""), []).append(record)
    if all(isinstance(key, int) for key in found):
        found = dict(sorted(found.items()))
    return {str(key): mine for key, mine in found.items()}


def _values(records: Sequence[dict[str, Any]], name: str) -> np.ndarray:
    return np.array([record.get(name, np.nan) for record in records], dtype=float)


def _text(value: Any, name: str) -> str:
    """A category's tick label."""
    if isinstance(value, float):
        return f"{value:.0%}" if name in SHARES else f"{value:g}"
    return str(value)


def _scatter(ax: Any, panel: Panel, records: Sequence[dict[str, Any]]) -> None:
    groups = _groups(panel, records)
    for label, mine in groups.items():
        style = POINTS.get(label, {"s": 14 if len(groups) < MOST_GROUPS else 6, "alpha": 0.7})
        ax.scatter(_values(mine, panel.x), _values(mine, panel.y), label=label, **style)


def _steps(ax: Any, panel: Panel, records: Sequence[dict[str, Any]]) -> None:
    """Draw frontiers as step curves: the least error within each memory."""
    for label, mine in _groups(panel, records).items():
        mine = sorted(mine, key=lambda r: float(r[panel.x]))
        ax.step(
            _values(mine, panel.x), _values(mine, panel.y), where="post", label=label, marker="o",
            markersize=4, linewidth=1,
        )  # fmt: skip


def _line(ax: Any, panel: Panel, records: Sequence[dict[str, Any]]) -> None:
    for (label, mine), marker in zip(_groups(panel, records).items(), MARKERS * 9, strict=False):
        mine = sorted(mine, key=lambda r: float(r[panel.x]))
        x, y = _values(mine, panel.x), _values(mine, panel.y)
        if len(x) > 1 and np.ptp(x) == 0:  # a method that uses no memory, since it measures nothing
            ax.axhline(y[0], color="black", linestyle="--", linewidth=1, label=label)
            continue
        bars = None
        if panel.low:
            below, above = y - _values(mine, panel.low), _values(mine, panel.high) - y
            bars = np.nan_to_num(np.maximum([below, above], 0.0), posinf=0.0)
        ax.errorbar(x, y, bars, label=label, marker=marker, markersize=4, capsize=2, linewidth=1, alpha=0.85)


def _labelled(ax: Any, panel: Panel, records: Sequence[dict[str, Any]]) -> None:
    """Draw lines from zero up, named at their right ends; emphasise the first and shade its interval."""
    groups = _groups(panel, records)
    places = sorted({float(r[panel.x]) for r in records})
    ends = []
    for k, (label, mine) in enumerate(groups.items()):
        mine = sorted(mine, key=lambda r: float(r[panel.x]))
        x, y = _values(mine, panel.x), _values(mine, panel.y)
        colour = LOUD if k == 0 else f"C{(k - 1) % 10}" if k != 4 else "C9"  # C3 looks too much like LOUD
        ax.plot(x, y, color=colour, marker="o", markersize=4, linewidth=2.6 if k == 0 else 1.2, zorder=20 - k)
        if k == 0 and panel.low:
            ax.fill_between(x, _values(mine, panel.low), _values(mine, panel.high), color=colour, alpha=0.12)
        ends.append((float(y[-1]), label, colour, k == 0))
    ax.set_ylim(bottom=0.0)
    ax.set_xticks(places, [f"{x:g}" for x in places])
    top = ax.get_ylim()[1]
    ends.sort(key=lambda end: end[0])
    right = places[-1] + 0.04 * (places[-1] - places[0])
    heights = apart([end[0] for end in ends], 0.05 * top)
    for (value, label, colour, loud), height in zip(ends, heights, strict=True):
        ax.plot([places[-1], right], [value, height], color=colour, linewidth=0.6, clip_on=False)
        weight = "bold" if loud else "normal"
        ax.text(
            right,
            height,
            f" {label}",
            color=colour,
            fontsize=9,
            va="center",
            fontweight=weight,
            clip_on=False,
        )


def apart(heights: Sequence[float], gap: float) -> list[float]:
    """Move ascending heights up, as little as possible, so that neighbours are at least ``gap`` apart.

    >>> apart([0.0, 0.5, 3.0], 1.0)
    [0.0, 1.0, 3.0]
    """
    found: list[float] = []
    for height in heights:
        found.append(max(height, found[-1] + gap) if found else height)
    return found


def _histogram(ax: Any, panel: Panel, records: Sequence[dict[str, Any]]) -> None:
    groups = _groups(panel, records)
    labels = list(groups) if panel.by else None
    ax.hist([_values(mine, panel.x) for mine in groups.values()], bins=30, label=labels, stacked=True)


def _violin(ax: Any, panel: Panel, records: Sequence[dict[str, Any]]) -> None:
    """Draw a violin of the records at each x; records that have a ``low`` become red error bars instead."""
    values = list(dict.fromkeys(r[panel.x] for r in records if panel.x in r))
    alike = [[r for r in records if r.get(panel.x) == value and panel.low not in r] for value in values]
    ax.violinplot([_values(mine, panel.y) for mine in alike], showextrema=True, widths=0.8)
    ax.set_xticks(range(1, len(values) + 1), [_text(value, panel.x) for value in values])
    bars = [r for r in records if panel.low and panel.low in r]
    if bars:
        x = np.array([values.index(r[panel.x]) + 1 for r in bars])
        y, low, high = (_values(bars, name) for name in (panel.y, panel.low, panel.high))
        ax.errorbar(
            x, y, [y - low, high - y], color=LOUD, fmt="o", markersize=3, capsize=3, label=bars[0]["kind"]
        )


def _bars(ax: Any, panel: Panel, records: Sequence[dict[str, Any]]) -> None:
    groups = _groups(panel, records)
    names = list(dict.fromkeys(r[panel.x] for r in records if panel.x in r))
    if len(names) > MOST_LABELS:  # keep the highest bars
        highest: dict[Any, float] = {}
        for r in records:
            highest[r[panel.x]] = max(highest.get(r[panel.x], 0.0), float(r[panel.y]))
        names = sorted(names, key=lambda name: -highest[name])[:MOST_LABELS]
    stacked = panel.kind == "stacked"
    width = 0.8 if stacked else 0.8 / max(len(groups), 1)
    floor = np.zeros(len(names))
    for k, (label, mine) in enumerate(groups.items()):
        of = {r[panel.x]: r for r in mine}
        heights = np.array([float(of[name][panel.y]) if name in of else 0.0 for name in names])
        bars = None
        if panel.low:
            ends = [[of.get(name, {}).get(end, np.nan) for name in names] for end in (panel.low, panel.high)]
            bars = np.nan_to_num(np.maximum([heights - ends[0], ends[1] - heights], 0.0), posinf=0.0)
        x = np.arange(len(names)) + (0.4 if stacked else (k + 0.5) * width)
        ax.bar(
            x, heights, width, bottom=floor if stacked else None, label=label if panel.by else None,
            yerr=bars, error_kw={"linewidth": 0.7},
        )  # fmt: skip
        floor += heights
    texts = [_text(name, panel.x) for name in names]
    crowded = sum(map(len, texts)) > 50
    ax.set_xticks(np.arange(len(names)) + 0.4, texts, rotation=90 if crowded else 0)


def _heatmap(ax: Any, panel: Panel, records: Sequence[dict[str, Any]]) -> None:
    xs = list(dict.fromkeys(r[panel.x] for r in records))
    ys = list(dict.fromkeys(r[panel.by] for r in records))
    grid = np.full((len(ys), len(xs)), np.nan)
    for r in records:
        grid[ys.index(r[panel.by]), xs.index(r[panel.x])] = r[panel.y]
    image = ax.imshow(grid, vmin=-1, vmax=1, cmap="RdBu_r")
    if len(xs) <= MOST_LABELS:
        ax.set_xticks(range(len(xs)), xs, rotation=90)
        ax.set_yticks(range(len(ys)), ys)
    ax.figure.colorbar(image, ax=ax, label=label_of(panel.y))


_DRAW = {
    "bars": _bars,
    "heatmap": _heatmap,
    "histogram": _histogram,
    "labelled": _labelled,
    "line": _line,
    "scatter": _scatter,
    "stacked": _bars,
    "steps": _steps,
    "violin": _violin,
}
