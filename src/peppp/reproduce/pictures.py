"""Figures drawn with matplotlib, from their records and panels."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from peppp.errors import PepppError, StoreError
from peppp.reproduce.figure import Figure, Panel

MOST_LABELS = 24


def draw(figure: Figure, path: str | Path) -> None:
    """Write a picture of the figure, as PNG, SVG or PDF by its name.

    Raises PepppError without matplotlib, StoreError where the file cannot be written.
    """
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib.figure import Figure as Canvas
    except ImportError:
        raise PepppError("pictures need matplotlib; install it: pip install 'peppp[plot]'") from None
    columns = min(2, len(figure.panels))
    rows = -(-len(figure.panels) // max(columns, 1))
    canvas = Canvas(figsize=(5.2 * columns, 3.6 * rows), layout="constrained")
    canvas.suptitle(figure.title)
    axes = np.ravel(canvas.subplots(rows, columns, squeeze=False))
    for ax, panel in zip(axes, figure.panels, strict=False):
        _DRAW[panel.kind](ax, panel, panel.records(figure.records))
        ax.set_title(panel.title, fontsize=9)
        ax.set_xlabel(panel.x.replace("_", " "))
        ax.set_ylabel((panel.y or "count").replace("_", " "))
        if panel.by and panel.kind != "heatmap" and ax.get_legend_handles_labels()[1]:
            ax.legend(fontsize=7, ncols=2)
    for ax in axes[len(figure.panels) :]:
        ax.set_axis_off()
    try:
        canvas.savefig(path, dpi=130)
    except (OSError, ValueError) as error:
        raise StoreError(f"cannot write the picture {path}: {error}; name a .png, .svg or .pdf") from None


def _groups(panel: Panel, records: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        if panel.x in record:
            found.setdefault(str(record.get(panel.by, "")), []).append(record)
    return found


def _values(records: Sequence[dict[str, Any]], name: str) -> np.ndarray:
    return np.array([record.get(name, np.nan) for record in records], dtype=float)


def _scatter(ax: Any, panel: Panel, records: Sequence[dict[str, Any]]) -> None:
    for label, mine in _groups(panel, records).items():
        ax.scatter(_values(mine, panel.x), _values(mine, panel.y), s=14, label=label, alpha=0.8)


def _line(ax: Any, panel: Panel, records: Sequence[dict[str, Any]]) -> None:
    for label, mine in _groups(panel, records).items():
        mine = sorted(mine, key=lambda r: float(r[panel.x]))
        x, y = _values(mine, panel.x), _values(mine, panel.y)
        if panel.low:
            below, above = y - _values(mine, panel.low), _values(mine, panel.high) - y
            bars = np.nan_to_num(np.maximum([below, above], 0.0), posinf=0.0)
            ax.errorbar(x, y, bars, label=label, marker="o", markersize=3, capsize=2, linewidth=1)
        else:
            ax.plot(x, y, label=label, marker="o", markersize=3)


def _histogram(ax: Any, panel: Panel, records: Sequence[dict[str, Any]]) -> None:
    groups = _groups(panel, records)
    ax.hist([_values(mine, panel.x) for mine in groups.values()], bins=30, label=list(groups), stacked=True)


def _violin(ax: Any, panel: Panel, records: Sequence[dict[str, Any]]) -> None:
    labels = list(dict.fromkeys(str(r[panel.x]) for r in records if panel.x in r))
    data = [_values([r for r in records if str(r.get(panel.x)) == label], panel.y) for label in labels]
    ax.violinplot(data, showextrema=True)
    ax.set_xticks(range(1, len(labels) + 1), labels, fontsize=7)


def _bars(ax: Any, panel: Panel, records: Sequence[dict[str, Any]]) -> None:
    groups = _groups(panel, records)
    labels = list(dict.fromkeys(str(r[panel.x]) for r in records if panel.x in r))
    if len(labels) > MOST_LABELS:  # those that stand out
        highest: dict[str, float] = {}
        for r in records:
            highest[str(r[panel.x])] = max(highest.get(str(r[panel.x]), 0.0), float(r[panel.y]))
        labels = sorted(labels, key=lambda label: -highest[label])[:MOST_LABELS]
    width = 0.8 / max(len(groups), 1)
    for k, (label, mine) in enumerate(groups.items()):
        value = {str(r[panel.x]): float(r[panel.y]) for r in mine}
        heights = [value.get(name, 0.0) for name in labels]
        ax.bar(np.arange(len(labels)) + k * width, heights, width, label=label)
    ax.set_xticks(np.arange(len(labels)) + 0.4 - width / 2, labels, rotation=90, fontsize=6)


def _heatmap(ax: Any, panel: Panel, records: Sequence[dict[str, Any]]) -> None:
    xs = list(dict.fromkeys(r[panel.x] for r in records))
    ys = list(dict.fromkeys(r[panel.by] for r in records))
    grid = np.full((len(ys), len(xs)), np.nan)
    for r in records:
        grid[ys.index(r[panel.by]), xs.index(r[panel.x])] = r[panel.y]
    image = ax.imshow(grid, vmin=-1, vmax=1, cmap="RdBu_r")
    ax.figure.colorbar(image, ax=ax)


_DRAW = {
    "bars": _bars,
    "heatmap": _heatmap,
    "histogram": _histogram,
    "line": _line,
    "scatter": _scatter,
    "violin": _violin,
}
