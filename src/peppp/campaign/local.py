"""The engine of this machine: worker processes, or this one."""

from peppp.campaign.engines import Engine, InProcess, Measure
from peppp.campaign.processes import Processes
from peppp.errors import BudgetError


def local(measure: Measure, workers: int) -> Engine:
    """``workers`` processes, or with 0 this one. BudgetError for fewer."""
    if workers < 0:
        raise BudgetError(f"{workers} workers cannot measure; give 0 (in this process) or more")
    return Processes(measure, workers) if workers else InProcess(measure)
