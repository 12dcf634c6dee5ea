"""Compute all figures and write the page that compares the paper's claims with what a table shows."""

from collections.abc import Sequence

from peppp.paper.figure import Figure
from peppp.paper.figures import FIGURES
from peppp.paper.study import Study
from peppp.table.matrix import Lacking


def draw_all(
    study: Study, names: Sequence[str], *, strict: bool = False
) -> tuple[list[Figure], dict[str, str]]:
    """Compute the named figures; return them, and for each that cannot be computed the reason, by its name.

    A figure cannot be computed if the table lacks its rows or a package that it needs is not installed. With
    ``strict`` the PepppError is raised instead.
    """
    from peppp.errors import PepppError

    figures: list[Figure] = []
    lacking: dict[str, str] = {}
    for name in names:
        study.say(f"figure {name}")
        try:
            figures.append(FIGURES[name](study))
        except PepppError as error:
            if strict:
                raise
            lacking[name] = str(error)
    study.say("")
    return figures, lacking


def write_page(study: Study, figures: Sequence[Figure], lacking: dict[str, str], table: str) -> str:
    """Write the page as Markdown: each claim, what the table shows, whether it holds, and its command."""
    options = "" if study.masks == 100 else f" --masks {study.masks}"
    options += "" if study.seeds == 1 else f" --seeds {study.seeds}"
    options += "" if study.leave == "family" else f" --leave {study.leave}"
    lines = [
        "# The paper's claims on our table",
        "",
        "`make results` generates this page. Each row has a command below, which writes its numbers with",
        "`--csv` and its picture with `--plot`. docs/paper_to_code.md explains how we read each figure.",
        "",
    ]
    if study.synthetic:
        lines += ["**The table is SYNTHETIC: its errors are invented, and nothing below is evidence.**", ""]
    lines += [_about(study), ""]
    holding = [f.name for f in figures if f.holds]
    failing = [f.name for f in figures if f.holds is False]
    open_ = [f.name for f in figures if f.holds is None and f.claims]
    shows = [f.name for f in figures if not f.claims]
    lines += [
        f"- Hold here: {', '.join(holding) or 'none'}",
        f"- **Do not hold here**: {', '.join(failing) or 'none'}",
        f"- Not shown here: {', '.join(open_) or 'none'}",
        f"- Nothing to decide: {', '.join(shows) or 'none'}",
        f"- The table lacks the rows: {', '.join(lacking) or 'none'}",
        "",
        "| | the paper's claim | on this table | |",
        "|---|---|---|---|",
    ]
    for figure in figures:
        cells = (f"{figure.name}: {figure.title}", figure.claim, figure.finding, figure.verdict)
        lines.append("| " + " | ".join(_cell(text) for text in cells) + " |")
    for figure in figures:
        if figure.name == "settings":
            lines += _settings(figure)
    lines += ["", "## Commands", "", "```"]
    lines += [f"peppp reproduce {f.name} {table}".rstrip() + options for f in figures]
    lines += ["```", ""]
    if lacking:
        lines += ["## What the table lacks", ""]
        lines += [f"- {name}: {_cell(why)}" for name, why in lacking.items()]
        lines.append("")
    lines += [
        "## How to read it",
        "",
        "- The errors come from the table, on one seed; nothing was trained for this page.",
        "- A family of related data sets is held out together unless `--leave row` is given. Means weight",
        "  families equally, and intervals are 95 % bootstrap intervals over families.",
        "- HyperDiff and convergence are computed at estimated errors, as in the paper's figures. At true",
        "  errors (`hyperdiff_true`) HyperDiff hardly depends on the measurements, so Figures 11, 18 and 24",
        "  and the settings also show `zero`, which measures nothing.",
        "- Regret is computed from noise-free errors: means of the task's runs that the pick did not use,",
        "  because the error for which a configuration was picked is lucky. `designs` separates the effects",
        "  of what is measured and of how the rest is predicted; docs/methods.md says what a design is good",
        "  for.",
        "- We say that a claim about methods or tasks holds, or does not hold, only if a 95 % interval",
        "  over families excludes the opposite; otherwise it is not shown. The code of each figure says what",
        "  is compared.",
        "",
    ]
    return "\n".join(lines)


def _settings(figure: Figure) -> list[str]:
    """Tables of each method's scores in each setting, with 6 measurements and the first kind of hold-out."""
    leave = figure.records[0]["leave"]
    shown = [r for r in figure.records if r["measurements"] == 6 and r["leave"] == leave]
    settings = list(dict.fromkeys(r["setting"] for r in shown))
    lines = []
    for metric, title in (("hyperdiff", "HyperDiff"), ("regret", "Regret of the pick")):
        lines += [
            "",
            f"## {title} in Settings I to VI",
            "",
            f"Each {leave} is held out in turn, with six measurements; mean and 95 % interval.",
            "",
            "| | " + " | ".join(settings) + " |",
            "|---" * (len(settings) + 1) + "|",
        ]
        for method in dict.fromkeys(r["method"] for r in shown):
            cells = [
                f"{r[metric]:.3f} [{r[f'{metric}_low']:.3f}, {r[f'{metric}_high']:.3f}]"
                for r in shown
                if r["method"] == method
            ]
            lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return lines


def _about(study: Study) -> str:
    try:
        known = study.known
    except Lacking as error:
        return f"So far {error}."
    measurements = f" from {len(study.measurements)} measurements" if study.measurements else ""
    text = (
        f"The table{measurements}: {len(known.names)} tasks of {len(set(known.families))} families at "
        f"{len(known.labels)} configurations, "
        + (
            "all known"
            if known.share == 1
            else f"{known.share:.0%} of the entries known, because the campaign still runs: tasks are judged "
            "on their known configurations, and the rest is completed"
        )
    )
    recipe = known.rows[0].recipe
    if recipe is not None:
        text += (
            f"; {recipe.network}, learning rate {recipe.learning_rate:g}, {recipe.epochs} epochs or "
            f"{recipe.min_steps} steps, batch {recipe.batch_size}, {recipe.rounding} rounding"
        )
    return text + f". {study.masks} masks, {study.seeds} seed{'s' if study.seeds > 1 else ''}."


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
