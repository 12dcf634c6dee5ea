"""Run a campaign's cells as Slurm jobs, with submitit. This needs the extra ``slurm``."""

import math
import pickle
import time
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from peppp.campaign.cells import Cell
from peppp.campaign.engines import Failure, Limit, Measure, Result, attempt, no_limit
from peppp.errors import PepppError

# Seconds between checks of the jobs. submitit asks Slurm's controller less often.
_LOOK = 0.5


class Slurm:
    """an engine of Slurm jobs with one measurement each; up to ``jobs`` are submitted at a time.

    ``settings`` are texts for submitit (``partition``, ``account``, ``timeout_min``, ...). Each job requests
    ``memory`` bytes and ``gpus`` whole GPUs. Jobs and their logs are kept in ``folder``, which all nodes must
    share (default: a new folder below ``.peppp-slurm``). ``cluster="local"`` runs jobs on this machine
    without Slurm. A cell whose job Slurm ends or loses, or that exceeds its ``limit`` in seconds, is returned
    as lost.

    Raises PepppError if submitit is not installed, or it or Slurm refuses the settings.
    """

    def __init__(
        self,
        measure: Measure,
        *,
        jobs: int = 100,
        gpus: float = 0.0,
        memory: int | None = None,
        limit: Limit = no_limit,
        settings: dict[str, str] | None = None,
        folder: Path | None = None,
        cluster: str = "slurm",
    ) -> None:
        try:
            import submitit
        except ImportError as error:
            raise PepppError("the engine slurm needs submitit: pip install 'peppp[slurm]'") from error
        if gpus != int(gpus):
            raise PepppError(f"Slurm allocates whole GPUs, not {gpus}; give --gpus 0 or 1")
        self.slots = jobs
        self._measure, self._limit = measure, limit
        try:
            if folder is None:
                Path(".peppp-slurm").mkdir(exist_ok=True)
                folder = Path(mkdtemp(dir=".peppp-slurm"))
            self._executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
            parameters: dict[str, Any] = {"cpus_per_task": 1}
            if gpus:
                parameters["gpus_per_node"] = int(gpus)
            if memory is not None:
                parameters["mem_gb"] = math.ceil(memory / 2**30)
            parameters |= {_name(name, cluster): _number(value) for name, value in (settings or {}).items()}
            self._executor.update_parameters(**parameters)
        except (OSError, NameError, TypeError, ValueError, RuntimeError, AssertionError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise PepppError(f"cannot submit to Slurm: {reason}") from error
        self._lost = submitit.core.utils.UncompletedJobError
        self._jobs: dict[Any, tuple[Cell, float]] = {}

    def submit(self, cell: Cell) -> None:
        """Submit a job for a cell."""
        job = self._executor.submit(attempt, self._measure, cell)
        self._jobs[job] = (cell, math.inf)

    def results(self, timeout: float) -> list[tuple[Cell, Result]]:
        """See :class:`peppp.campaign.engines.Engine`."""
        end = time.monotonic() + timeout
        while self._jobs:
            now = time.monotonic()
            results: list[tuple[Cell, Result]] = []
            for job, (cell, until) in list(self._jobs.items()):
                if job.done():
                    results.append((cell, self._result(job)))
                elif until <= now:
                    job.cancel()
                    results.append(
                        (cell, Failure(f"it took longer than {self._limit(cell):.0f} s", lost=True))
                    )
                elif until == math.inf and job.state == "RUNNING":
                    self._jobs[job] = (cell, now + self._limit(cell))
                    continue
                else:
                    continue
                del self._jobs[job]
            if results or now >= end:
                return results
            time.sleep(min(_LOOK, end - now))
        return []

    def close(self) -> None:
        """Cancel all jobs."""
        for job in self._jobs:
            job.cancel()
        self._jobs.clear()

    def _result(self, job: Any) -> Result:
        try:
            result: Result = job.result()
        except (self._lost, OSError, EOFError, pickle.UnpicklingError) as error:
            first = (str(error).splitlines() or [type(error).__name__])[0]
            return Failure(f"its job {job.job_id} was lost: {first}", lost=True)
        return result


def _name(setting: str, cluster: str) -> str:
    """Return submitit's name of a setting: settings that are specific to a cluster get a prefix."""
    shared = {"timeout_min", "mem_gb", "nodes", "cpus_per_task", "gpus_per_node", "tasks_per_node", "name"}
    return setting if setting in shared or setting.startswith(f"{cluster}_") else f"slurm_{setting}"


def _number(text: str) -> str | int:
    return int(text) if text.isdecimal() else text
