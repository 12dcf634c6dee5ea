"""Choose the engine for this machine: worker processes, or this process."""

from peppp.campaign.engines import Engine, InProcess, Measure
from peppp.campaign.processes import Processes
from peppp.errors import BudgetError


def local(measure: Measure, workers: int) -> Engine:
    """Return an engine of ``workers`` processes, or of this process for 0; raise BudgetError if negative."""
    if workers < 0:
        raise BudgetError(f"{workers} workers cannot measure; give 0 (in this process) or more")
    return Processes(measure, workers) if workers else InProcess(measure)
