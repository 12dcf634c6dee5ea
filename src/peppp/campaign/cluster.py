"""Run a campaign's cells on many machines with Ray. This needs the extra ``ray``."""

import math
import os
import socket
import time
from collections.abc import Callable
from typing import Any

from peppp.campaign.cells import Cell
from peppp.campaign.engines import Failure, Limit, Measure, Result, attempt, no_limit
from peppp.errors import PepppError

_ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS", "NUMBA")}


class Ray:
    """An engine of Ray tasks, one core each, on an existing cluster or one started on this machine.

    ``address`` is the cluster's, such as ``10.0.0.1:6379`` or ``auto``; without it, a cluster is started here
    and ended by :meth:`close`. ``gpus`` is the number of GPUs for each measurement, which may be a fraction,
    and ``memory`` the bytes that Ray reserves for it. With ``load``, a cell's data is loaded in this process,
    shipped to each node once, and given to ``measure`` as its second argument. Machines may join and leave
    the cluster: a cell whose machine is gone, or that exceeds its ``limit`` in seconds, is returned as lost.

    Raises PepppError if Ray is not installed or there is no cluster at ``address``.
    """

    def __init__(
        self,
        measure: Callable[..., Any],
        *,
        address: str | None = None,
        load: Callable[[Cell], object] | None = None,
        limit: Limit = no_limit,
        gpus: float = 0.0,
        memory: int | None = None,
    ) -> None:
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        try:
            import ray
        except ImportError as error:
            raise PepppError("the engine ray needs Ray: pip install 'peppp[ray]'") from error
        self._ray = ray
        try:
            _knock(address)
            self._context = ray.init(
                address=address,
                log_to_driver=False,
                logging_level="ERROR",
                include_dashboard=None if address else False,
                runtime_env={"env_vars": _ONE_THREAD},
            )
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise PepppError(f"no Ray cluster at {address or 'this machine'}: {reason}") from error
        # The campaign itself retries and counts the tries, so Ray must not retry.
        options: dict[str, Any] = {"num_cpus": 1, "num_gpus": gpus, "max_retries": 0}
        if memory is not None:
            options["memory"] = memory
        self._task = ray.remote(**options)(_attempt)
        self._measure = ray.put(measure)
        self._load, self._limit, self._gpus = load, limit, gpus
        self._data: dict[tuple[str, int], Any] = {}
        self._running: dict[Any, tuple[Cell, float]] = {}
        self._started: dict[Any, float] = {}

    @property
    def slots(self) -> int:
        """The number of cells that the cluster has room for now, and two more so that no node waits."""
        there: dict[str, float] = self._ray.cluster_resources()
        room = there.get("CPU", 0.0)
        if self._gpus:
            room = min(room, there.get("GPU", 0.0) / self._gpus)
        return max(1, math.floor(room)) + 2

    def submit(self, cell: Cell) -> None:
        """Hand a cell to Ray."""
        data = [] if self._load is None else [self._shipped(cell)]
        reference = self._task.remote(self._measure, cell, *data)
        self._running[reference] = (cell, self._limit(cell))

    def results(self, timeout: float) -> list[tuple[Cell, Result]]:
        """See :class:`peppp.campaign.engines.Engine`."""
        if not self._running:
            return []
        end = time.monotonic() + timeout
        while True:
            step = max(0.0, min(end - time.monotonic(), 1.0 if self._limited() else 3600.0))
            ended, _ = self._ray.wait(list(self._running), num_returns=1, timeout=step)
            if ended:  # collect all others that have ended, without waiting
                ended, _ = self._ray.wait(list(self._running), num_returns=len(self._running), timeout=0)
            results = [(self._running.pop(reference)[0], self._result(reference)) for reference in ended]
            results += self._hung()
            if results or time.monotonic() >= end:
                return results

    def close(self) -> None:
        """Cancel running cells, and end the cluster if it was started here."""
        for reference in self._running:
            self._ray.cancel(reference, force=True)
        self._running.clear()
        self._data.clear()
        self._ray.shutdown()

    def _shipped(self, cell: Cell) -> Any:
        """Return a reference to a cell's data, which each node fetches once and its workers share."""
        assert self._load is not None
        key = (cell.data, cell.recipe.resolution)
        if key not in self._data:
            self._data[key] = self._ray.put(self._load(cell))
        return self._data[key]

    def _result(self, reference: Any) -> Result:
        errors = self._ray.exceptions
        try:
            result: Result = self._ray.get(reference)
        except errors.RayTaskError as error:  # raised outside of measure, by Ray's part of the task
            return Failure(" ".join(str(error).split())[-500:], str(error))
        except errors.RayError as error:
            first = (str(error).splitlines() or [type(error).__name__])[0]
            return Failure(f"its worker or machine was lost ({type(error).__name__}: {first})", lost=True)
        return result

    def _limited(self) -> bool:
        return any(math.isfinite(limit) for _, limit in self._running.values())

    def _hung(self) -> list[tuple[Cell, Result]]:
        """Cancel tasks that exceed their limit; waiting for a free core does not count."""
        if not self._limited():
            return []
        now = time.monotonic()
        hung: list[tuple[Cell, Result]] = []
        # Ray does not say which tasks run; it starts them in order, so take the first ones to be running.
        for reference in list(self._running)[: self.slots - 2]:
            cell, limit = self._running[reference]
            if now - self._started.setdefault(reference, now) > limit:
                self._ray.cancel(reference, force=True)
                del self._running[reference]
                hung.append((cell, Failure(f"it took longer than {limit:.0f} s", lost=True)))
        self._started = {r: t for r, t in self._started.items() if r in self._running}
        return hung


def _knock(address: str | None) -> None:
    """Try to connect to the address first, because Ray searches many minutes for a missing cluster."""
    host, _, port = (address or "").rpartition(":")
    if host and port.isdecimal() and "/" not in host:
        socket.create_connection((host, int(port)), timeout=10).close()


def _attempt(measure: Measure, cell: Cell, *data: object) -> Result:
    """Measure a cell with one thread; this runs in a worker of Ray."""
    import sys

    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)
    return attempt(measure, cell, *data)
