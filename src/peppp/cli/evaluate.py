"""``peppp evaluate``: score the methods on a table of measurements."""

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from peppp.cli.help import HelpAll
from peppp.cli.options import Json, print_json, refuse_unused
from peppp.errors import PepppError, TableError

if TYPE_CHECKING:
    from peppp.records import Measurement
    from peppp.table.matrix import ErrorMatrix

Where = Annotated[
    list[str] | None,
    typer.Option(
        help="Conditions on the recipe, such as rounding=nearest,network=resnet8 (default: the most common)."
    ),
]
TableArgument = Annotated[
    str | None,
    typer.Argument(help="Store or table of measurements (default: the one that ships).", show_default=False),
]
Errors = Annotated[
    list[Path] | None,
    typer.Option(help="CSV file of your own error matrix, instead of a table; repeat it for several seeds."),
]
Memory = Annotated[
    Path | None,
    typer.Option(help="CSV file of the memory in bytes for --errors, unless that file holds it."),
]

SHOWN = ("hyperdiff", "convergence", "relative_error", "regret", "memory_used")


def command(
    context: typer.Context,
    table: TableArgument = None,
    errors: Errors = None,
    memory: Memory = None,
    setting: Annotated[
        str,
        typer.Option(help="Settings I to VI of the paper's Table 1, such as I,IV. Even ones cap memory."),
    ] = "I",
    method: Annotated[
        str,
        typer.Option(
            help="Methods to score: ed-mf, qr-mf, random-mf, bo-mf, bo-full, bo-mf-zero-mean, "
            "bo-full-zero-mean, additive, zero, high-memory; ours are gaussian and two-best. ed-mf-rank-2 "
            "uses another rank."
        ),
    ] = "gaussian,two-best,ed-mf,qr-mf,random-mf,bo-mf,bo-full,zero",
    measurements: Annotated[
        str, typer.Option(help="Numbers of measurements on the new task, such as 1,3,6.")
    ] = "1,2,3,5,8",
    rank: Annotated[int, typer.Option(min=1, help="Rank of the factorisation.")] = 3,
    shrinkage: Annotated[
        float | None,
        typer.Option(
            min=0, help="Shrinkage lambda of SoftImpute (default: a tenth of the errors' root mean square)."
        ),
    ] = None,
    share: Annotated[
        float, typer.Option(help="Share of the table that Settings III to VI observe, such as 0.2.")
    ] = 0.2,
    cap: Annotated[
        str | None,
        typer.Option(
            help="Memory cap of Settings II, IV and VI, such as 275MB (default: the table's median memory)."
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Number of repetitions with new random choices.")] = 1,
    leave: Annotated[
        str, typer.Option(help="What is held out at a time: family, or row, as in the paper.")
    ] = "family",
    judge: Annotated[
        str,
        typer.Option(
            help="Errors by which picks are judged: noise-free (means over the task's runs that the method "
            "did not observe), same (the observed runs), or seed (the table's other seeds). Default: "
            "noise-free if the table has repeated runs, else same.",
            show_default=False,
        ),
    ] = "",
    noise: Annotated[
        float | None,
        typer.Option(
            help="Standard deviation of the error over seeds for gaussian, such as 0.01 (default: learned)."
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(help="Show ratios and differences to this method, such as ed-mf, instead of means."),
    ] = None,
    where: Where = None,
    rows: Annotated[
        Path | None, typer.Option(help="CSV file for the result of each row, such as rows.csv.")
    ] = None,
    json: Json = False,
    help_all: HelpAll = False,
) -> None:
    """Score methods by leave-one-out: each task in turn is new, is measured a few times and is predicted.

    Measurements are looked up in the table, so nothing is trained. Intervals are 95 % bootstrap intervals
    over families.

    Example: peppp evaluate runs.db --setting I,IV --method ed-mf,zero --measurements 1,3,6 --seeds 20
    """
    from peppp.evaluate.comparison import compare
    from peppp.evaluate.evaluation import evaluate
    from peppp.evaluate.judges import judge as judge_of
    from peppp.evaluate.judges import repeated
    from peppp.files import check_place, writing
    from peppp.learn.methods import Method
    from peppp.table.slices import one_run
    from peppp.units import parse_bytes

    if rows is not None:
        check_place(rows)
    if leave not in ("family", "row"):
        raise TableError(f"--leave must be family or row, not {leave!r}")
    names = {Method.parse(one).design for one in _names(method)}
    if names <= {"gaussian", "two-best"}:
        for option in ("rank", "shrinkage"):
            refuse_unused(context, option, f"belongs to methods that factorise the table, not to {method}")
    if "gaussian" not in names:
        refuse_unused(context, "noise", f"belongs to gaussian, not to {method}")
    if not {"III", "IV", "V", "VI"} & set(_names(setting)):
        refuse_unused(context, "share", f"belongs to Settings III to VI, not to {setting}")
    if not {"II", "IV", "VI"} & set(_names(setting)):
        refuse_unused(context, "cap", f"belongs to Settings II, IV and VI, not to {setting}")
    known, seeds_of, synthetic = known_from(table, errors, memory, where or [])
    single = one_run(seeds_of, known)
    judge = judge or ("noise-free" if repeated(known) else "same")
    found = evaluate(
        known,
        settings=_names(setting),
        methods=_names(method),
        counts=_counts(measurements),
        seeds=range(seeds),
        rank=rank,
        shrinkage=shrinkage,
        share=share,
        cap=None if cap is None else float(parse_bytes(cap)),
        leave="row" if leave == "row" else "family",
        runs=None if judge == "same" else single.values,
        judge=judge_of(known, judge, seeds_of[1:], seen=single),
        noise=noise,
    )
    if rows is not None:
        with writing(rows) as file:
            file.write(as_csv(found.rows()))
    about = {
        "rows": len(known.names),
        "configurations": len(known.columns),
        "families": len(set(known.families)),
        "measured_share": known.share,
        "cap": found.cap,
        "rank": rank,
        "seeds": seeds,
        "leave": leave,
        "judge": judge,
        "judged_share": found.judged_share,
        "synthetic": synthetic,
    }
    if against is not None:
        compared = compare(found, against)
        if json:
            print_json(about | {"against": against, "comparison": [plain(record) for record in compared]})
        else:
            _print_comparison(compared, about, against)
        return
    if json:
        print_json(about | {"results": [plain(record) for record in found.summary()]})
        return
    _print(found.summary(SHOWN), about)


def known_from(
    table: str | None, errors: list[Path] | None, memory: Path | None, where: list[str]
) -> "tuple[ErrorMatrix, list[ErrorMatrix], bool]":
    """Return the part of a table or of matrices to evaluate, a matrix for each seed, and if it is synthetic.

    Raises TableError for options that exclude each other.
    """
    from peppp.table.matrix import averaged
    from peppp.table.measured import error_matrix
    from peppp.table.slices import by_seed, known_part

    if table is not None and (errors or memory is not None):
        raise TableError("give a table, or --errors E.csv together with --memory M.csv")
    if errors or memory is not None:
        if where:
            raise TableError("--where selects measurements of a table, but --errors has none; leave it out")
        seeds = _own_matrices(errors or [], memory)
        return known_part(averaged(seeds)), seeds, False
    measurements = sliced(table, where)
    synthetic = any("synthetic" in m.provenance for m in measurements)
    return known_part(error_matrix(measurements)), by_seed(measurements), synthetic


def _own_matrices(errors: list[Path], memory: Path | None) -> "list[ErrorMatrix]":
    """Read the matrix of each seed, with its memory."""
    from dataclasses import replace

    from peppp.table.matrices import read_memory, read_seeds
    from peppp.table.matrix import averaged, placed

    if not errors:
        raise TableError("give a table, or --errors E.csv together with --memory M.csv")
    seeds = read_seeds(*errors)
    if memory is not None:
        everything = averaged(seeds)
        sizes = read_memory(memory, everything)
        return [replace(one, memory=placed(sizes, everything, one.keys, one.columns)) for one in seeds]
    if any(one.memory is None for one in seeds):
        raise TableError("give a table, or --errors E.csv together with --memory M.csv")
    return seeds


def sliced(table: str | None, where: list[str]) -> "list[Measurement]":
    """Return the measurements to evaluate of a table, by default the one that ships."""
    from peppp.table.select import SHIPPED_TABLE, read_current
    from peppp.table.slices import largest_slice, parse_where

    return largest_slice(read_current(table or SHIPPED_TABLE), parse_where(where))


def as_csv(records: list[dict[str, Any]]) -> str:
    """Format records as CSV, below a header of all their fields."""
    names = list(dict.fromkeys(name for record in records for name in record))
    file = io.StringIO()
    writer = csv.DictWriter(file, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return file.getvalue()


def plain(record: dict[str, Any]) -> dict[str, Any]:
    """Replace NaN and infinity by None, which JSON writes as null."""
    return {
        name: None if isinstance(value, float) and value - value != 0 else value
        for name, value in record.items()
    }


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def _counts(text: str) -> tuple[int, ...]:
    try:
        return tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        raise PepppError(f"--measurements must be whole numbers, such as 1,2,3, not {text!r}") from None


def _about(about: dict[str, Any]) -> str:
    """Describe what was evaluated."""
    from peppp.units import format_bytes

    share = about["measured_share"]
    known = "" if share == 1 else f", {share:.0%} of their errors known"
    return (
        f"{about['rows']} tasks of {about['families']} families at {about['configurations']} configurations"
        f"{known}{', SYNTHETIC' if about['synthetic'] else ''}; one {about['leave']} held out at a time; "
        f"cap of Settings II, IV and VI: {format_bytes(about['cap'])}; seeds: {about['seeds']}"
        + f"; judged by {about['judge']} errors"
        + ("" if about["judged_share"] == 1 else f", {about['judged_share']:.0%} of the picks can be judged")
    )


def _print_comparison(records: list[dict[str, Any]], about: dict[str, Any], against: str) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console.print(_about(about))
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("setting", "method", "l", "metric"):
        table.add_column(title, no_wrap=True)
    for title in ("ratio", "difference"):
        table.add_column(title, justify="right", no_wrap=True)
    for r in records:
        table.add_row(
            r["setting"], r["method"], str(r["measurements"]), r["metric"],
            f"{r['ratio']:.2f} [{r['ratio_low']:.2f}, {r['ratio_high']:.2f}]",
            f"{r['difference']:+.3f} [{r['difference_low']:+.3f}, {r['difference_high']:+.3f}]",
        )  # fmt: skip
    console.print(table)
    console.print(
        f"compared to {against}; ratios below 1 and differences below 0 are better; 95 % intervals over "
        "families",
        style="dim",
        markup=False,
    )


def _print(records: list[dict[str, Any]], about: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console.print(_about(about))
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("setting", "method", "l"):
        table.add_column(title, no_wrap=True)
    for title in SHOWN:
        table.add_column(title.replace("_", " ").replace(" used", ""), justify="right", no_wrap=True)
    for record in records:
        cells = [
            f"{record[name]:.3f}±{(record[f'{name}_high'] - record[f'{name}_low']) / 2:.3f}"
            for name in SHOWN[:-1]
        ]
        table.add_row(
            record["setting"], record["method"], str(record["measurements"]), *cells,
            f"{record['memory_used']:.1%}",
        )  # fmt: skip
    console.print(table)
    console.print(
        "Hyperdiff and convergence are at the estimated errors. Less is better in all columns.\n"
        "Regret: the pick's error minus the best error that fits. ±: half of the 95 % interval.",
        style="dim",
    )
