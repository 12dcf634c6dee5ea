"""``peppp memory --recompute`` and ``--micro-batch``: make a training fit a budget."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from peppp.cli.options import print_json
from peppp.cli.plain_memory import Inputs, built
from peppp.errors import BudgetError, FormatError
from peppp.formats import FP32_CONFIGURATION, Configuration
from peppp.units import format_bytes

if TYPE_CHECKING:
    from peppp.training.fitting import Fit


def parse_micro_batch(text: str | None) -> int | str | None:
    """Parse a number of inputs, ``auto``, or None; raise FormatError for any other text.

    >>> parse_micro_batch("8"), parse_micro_batch("auto"), parse_micro_batch(None)
    (8, 'auto', None)
    """
    if text is None or text == "auto":
        return text
    if not text.isdecimal() or int(text) < 1:
        raise FormatError(
            f"not a micro-batch: {text!r}; give auto, or a number that divides the batch, such as 8"
        )
    return int(text)


def check(budget: int | None, recompute: bool, micro_batch: int | str | None) -> None:
    """Raise BudgetError if an option needs a budget and there is none."""
    if budget is None and (recompute or micro_batch == "auto"):
        asked = "--recompute" if recompute else "--micro-batch auto"
        raise BudgetError(f"{asked} fits a step into a budget; give one, such as --budget 400MB")


def run(
    network: str,
    classes: int,
    inputs: Inputs,
    batch: int,
    options: dict[str, Any],
    chosen: list[Configuration] | None,
    *,
    budget: int | None,
    recompute: bool,
    micro_batch: int | str | None,
    json: bool,
    frozen: Sequence[str] = (),
) -> None:
    """Print how each configuration in ``chosen`` fits, or for None the training in plain PyTorch."""
    from peppp.footprint.fakes import classification_loss
    from peppp.training.fitting import Fitting

    module = built(network, classes, inputs, frozen=frozen)

    def fitting(**how: Any) -> Fitting:
        return Fitting(module, lambda n: inputs.batch(n, "meta"), batch, loss=classification_loss, **how)

    how: dict[str, Any] = {"recompute": recompute, "micro_batch": micro_batch}
    if chosen is None:
        found = fitting(**options).within(budget, **how)
        about = {"network": network, "batch": batch, **_named(options), "source": "estimated"}
        if json:
            print_json(about | {"budget": budget} | found.to_dict())
        else:
            Console().print(
                f"{network}, batch {batch}, {options['precision']}: {found}; estimated", soft_wrap=True
            )
        return
    low = fitting(precision="1-4-1/1-6-7", **options)
    plain = fitting(precision="fp32", optimizer=options["optimizer"])
    rows: list[tuple[Configuration, Fit | BudgetError]] = []
    for c in chosen:
        try:
            if c == FP32_CONFIGURATION:
                rows.append((c, plain.within(budget, **how)))
            else:
                rows.append((c, low.within(budget, c, **how)))
        except BudgetError as error:
            rows.append((c, error))
    if json:
        print_json([{"configuration": str(c), "budget": budget} | _plain(found) for c, found in rows])
        return
    _print(rows, f"{network}, batch {batch}; {options['storage']} storage; estimated", budget)


def _named(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if isinstance(value, str | None)}


def _plain(found: "Fit | BudgetError") -> dict[str, Any]:
    if isinstance(found, BudgetError):
        return {"fits": False, "needed": found.needed}
    return {"fits": True} | found.to_dict()


def _print(rows: "list[tuple[Configuration, Fit | BudgetError]]", title: str, budget: int | None) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("A/B", no_wrap=True)
    table.add_column("peak", justify="right", no_wrap=True)
    table.add_column("micro-batch", justify="right")
    table.add_column("more operations", justify="right")
    table.add_column("recomputed")
    for c, found in rows:
        if isinstance(found, BudgetError):
            table.add_row(str(c), "-", "", "", f"does not fit; needs {format_bytes(found.needed or 0)}")
            continue
        blocks = found.recomputation.blocks
        share = f"{100 * found.recomputation.extra:.0f} %" if blocks else ""
        table.add_row(str(c), format_bytes(found.peak), str(found.micro_batch or ""), share, " ".join(blocks))
    console = Console()
    console.print(title + ("" if budget is None else f"; within {format_bytes(budget)}"))
    console.print(table)
    cautions = {f.caution for _, f in rows if not isinstance(f, BudgetError) and f.caution}
    for caution in sorted(cautions):
        console.print(f"Micro-batches are {caution}.", style="dim")
