"""The figures, tables and comparisons that can be reproduced, by name."""

from collections.abc import Callable

from peppp.errors import TableError
from peppp.paper import better_picks, designs, frontiers, head_to_head, newtasks, pooled, scale
from peppp.paper import matrix_figures as matrix
from peppp.paper import network_figures as transfer
from peppp.paper import sampling_figures as sampling
from peppp.paper import training_figures as training
from peppp.paper.figure import Figure
from peppp.paper.study import Study

FIGURES: dict[str, Callable[[Study], Figure]] = {
    "1a": matrix.figure_1a,
    "1b": frontiers.figure_1b,
    "4": matrix.figure_4,
    "5": scale.figure_5,
    "6a": matrix.figure_6a,
    "6b": matrix.figure_6b,
    "7": newtasks.figure_7,
    "9": sampling.figure_9,
    "10": sampling.figure_10,
    "11": newtasks.figure_11,
    "12": newtasks.figure_12,
    "13": training.figure_13,
    "14": matrix.figure_14,
    "15": matrix.figure_15,
    "16": matrix.figure_16,
    "17": sampling.figure_17,
    "18": newtasks.figure_18,
    "19": training.figure_19,
    "20": training.figure_20,
    "21": matrix.figure_21,
    "22": sampling.figure_22,
    "23": sampling.figure_23,
    "24": newtasks.figure_24,
    "25": transfer.figure_25,
    "26": transfer.figure_26,
    "D": frontiers.appendix_d,
    "settings": newtasks.settings_table,
    "pooled": pooled.pooled,
    "variance": matrix.variance,
    "rounding": training.rounding,
    "designs": designs.designs,
    "head-to-head": head_to_head.head_to_head,
    "better-picks": better_picks.better_picks,
}
# Figures and tables of the paper that need no measurements, and where the documentation covers them.
ELSEWHERE = {
    "2": "the workflow: docs/methods.md",
    "3": "the drawing of a format: docs/methods.md, `peppp formats 1-3-4`",
    "8": "the two metrics: docs/methods.md",
    "table1": "the settings: docs/methods.md",
    "table2": "the data sets: docs/paper_to_code.md",
    "table3": "Format A: docs/paper_to_code.md, `peppp formats`",
    "table4": "Format B: docs/paper_to_code.md, `peppp formats`",
    "table5": "data sets and learning rates: docs/paper_to_code.md",
}


def canonical(name: str) -> str:
    """The key in :data:`FIGURES` for a name such as ``figure 11``, ``fig11`` or ``11``.

    Raises TableError for an unknown name, and for a figure that needs no table (see :data:`ELSEWHERE`).

    >>> canonical("Fig. 1A"), canonical("fig11"), canonical("appendix D"), canonical("head-to-head")
    ('1a', '11', 'D', 'head-to-head')
    """
    text = name.strip().lower()
    for prefix in ("appendix", "figure", "fig.", "fig"):
        text = text.removeprefix(prefix).strip()
    text = "D" if text == "d" else text
    if text in ELSEWHERE:
        raise TableError(f"{name} needs no table; see {ELSEWHERE[text]}")
    if text not in FIGURES:
        raise TableError(f"unknown figure {name!r}; choose one of {', '.join(FIGURES)}, or all")
    return text


def reproduce(name: str, study: Study) -> Figure:
    """Compute the figure of that name from the study.

    Raises TableError for an unknown name, Lacking if the table does not have the rows that the figure needs.
    """
    return FIGURES[canonical(name)](study)
