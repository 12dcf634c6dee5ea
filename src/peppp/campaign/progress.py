"""Show the progress of a campaign: a bar on a terminal, or elsewhere a line for each measurement."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from peppp.campaign.cells import Cell
from peppp.campaign.engines import Failure, Result
from peppp.campaign.summary import Summary
from peppp.records import Outcome
from peppp.tasks.dataset import Dataset, described


class Display:
    """Shows a campaign on a console; use it in a ``with`` around ``run_campaign(..., progress=display)``."""

    def __init__(self, console: Console | None = None) -> None:
        # Standard output is for the command's answer alone.
        self._console = console or Console(stderr=True)
        self._bar = RichProgress(
            TextColumn("measuring"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[trouble]}", style="red"),
            console=self._console,
            disable=not self._console.is_terminal,
            speed_estimate_period=3600,  # seconds: a measurement may take minutes
        )
        self._task = self._bar.add_task("", total=None, rate="", trouble="")

    def read(self, dataset: Dataset) -> None:
        """Show a data set that was read."""
        self._say(f"read      {described(dataset)}")

    def begin(self, summary: Summary) -> None:
        """Show how many measurements are to make."""
        self._say(f"{summary.left} to measure, {summary.already_there} of {summary.asked} already there")
        self._bar.update(self._task, total=summary.left)

    def step(self, summary: Summary, cell: Cell, result: Result) -> None:
        """Show how a cell ended: failures always in a line, other results in a line if there is no bar."""
        total = summary.asked - summary.already_there
        finished = total - summary.left
        if not self._console.is_terminal or isinstance(result, Failure):
            self._say(f"[{finished}/{total}] {describe(cell, result)}")
        failures = len(summary.failed) + len(summary.lost)
        self._bar.update(
            self._task,
            total=total,
            completed=finished,
            rate=f"{60 * finished / max(summary.seconds, 1e-9):.1f}/min",
            trouble=f"{failures} failed" if failures else "",
        )

    def _say(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def __enter__(self) -> Self:
        if not self._bar.disable:  # older versions of rich print an empty line after a disabled bar
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._bar.disable:
            self._bar.stop()


def describe(cell: Cell, result: Result) -> str:
    """Describe the result of a cell in one line."""
    what = f"{cell.task} {cell.configuration} seed {cell.seed}"
    if isinstance(result, Failure):
        return f"{what}: {'lost' if result.lost else 'failed'}: {result.message}"
    diverged = " (diverged)" if result.outcome is Outcome.DIVERGED else ""
    return f"{what}: test error {result.test_error:.3f}{diverged} in {result.seconds:.1f} s"
