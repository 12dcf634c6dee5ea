"""Run a campaign's cells in worker processes, which are replaced when they crash, hang or lose their GPU."""

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait

from peppp.campaign.cells import Cell
from peppp.campaign.engines import Failure, Limit, Measure, Result, attempt, no_limit
from peppp.errors import BudgetError, PepppError
from peppp.units import format_bytes

# The first message of a worker, after it has started and imported ``measure``.
_READY = "ready"

# The beginning of GPU errors after which the GPU may be unusable for the whole process.
_BROKEN = "AcceleratorError"

# The signals of crashes. SIGKILL and SIGTERM are not crashes, as they come from outside.
_CRASHES = ("SIGSEGV", "SIGABRT", "SIGBUS", "SIGILL", "SIGFPE")

_ONE_THREAD = {
    f"{library}_NUM_THREADS": "1"
    for library in ("OMP", "MKL", "OPENBLAS", "NUMBA", "NUMEXPR", "VECLIB_MAXIMUM")
}


class Processes:
    """An engine of ``workers`` spawned processes with one thread each.

    ``measure`` must be picklable, such as a module-level function, and a script needs an ``if __name__ ==
    "__main__":``. A worker that dies, or that exceeds the ``limit`` of its cell in seconds, is replaced, and
    its cell is returned as lost. ``memory`` is the limit of each worker in bytes, including the interpreter
    and its libraries; a measurement that needs more fails. Workers end when this process ends, for whatever
    reason.

    Raises BudgetError for a ``memory`` limit on a system without fork.
    """

    def __init__(
        self, measure: Measure, workers: int, *, limit: Limit = no_limit, memory: int | None = None
    ) -> None:
        if memory is not None and not hasattr(os, "fork"):
            raise BudgetError("a worker's memory can be limited on Linux only; leave the limit out")
        self.slots = workers
        self._measure, self._limit, self._memory = measure, limit, memory
        self._waiting: deque[Cell] = deque()
        self._team: list[_Worker] = []

    def submit(self, cell: Cell) -> None:
        """Give a cell to an idle worker, starting one if there is room, or else queue it."""
        self._waiting.append(cell)
        self._distribute()

    def results(self, timeout: float) -> list[tuple[Cell, Result]]:
        """See :class:`peppp.campaign.engines.Engine`."""
        results: list[tuple[Cell, Result]] = []
        end = time.monotonic() + timeout
        while not results and any(worker.cell for worker in self._team):
            now = time.monotonic()
            patience = min([end, *(worker.until for worker in self._team)]) - now
            ready = wait([worker.connection for worker in self._team], max(0, min(patience, 3600)))
            for worker in [w for w in self._team if w.connection in ready]:
                results += self._hear(worker)
            for worker in [w for w in self._team if w.until <= time.monotonic()]:
                results += self._drop(worker, f"it took longer than {worker.allowed:.0f} s")
            self._distribute()
            if time.monotonic() >= end:
                break
        return results

    def close(self) -> None:
        """Kill all workers and drop queued cells."""
        self._waiting.clear()
        for worker in self._team:
            worker.kill()
        self._team.clear()

    def _distribute(self) -> None:
        while self._waiting:
            worker = next((worker for worker in self._team if worker.cell is None), None)
            if worker is None and len(self._team) < self.slots:
                worker = _Worker(self._measure, self._memory)
                self._team.append(worker)
            if worker is None:
                return
            cell = self._waiting.popleft()
            worker.begin(cell, self._limit(cell))

    def _hear(self, worker: "_Worker") -> list[tuple[Cell, Result]]:
        try:
            sent = worker.connection.recv()
        except (EOFError, OSError):
            how = worker.end()
            crash = how.removeprefix("by ")
            return self._drop(worker, f"its worker process died, {how}", crash if crash in _CRASHES else "")
        if sent == _READY:
            worker.is_ready()
            return []
        if isinstance(sent, Failure) and sent.message.startswith(_BROKEN):
            worker.kill()
            self._team.remove(worker)
        return worker.finish(sent)

    def _drop(self, worker: "_Worker", why: str, crash: str = "") -> list[tuple[Cell, Result]]:
        """Kill and remove a worker, and return its cell as lost."""
        worker.kill()
        self._team.remove(worker)
        return worker.finish(Failure(why, lost=True, crash=crash))


class _Worker:
    """The parent's side of a worker process, and the cell that it measures."""

    def __init__(self, measure: Measure, memory: int | None) -> None:
        self.ready = False
        self.cell: Cell | None = None
        self.until, self.allowed = float("inf"), float("inf")
        self.connection, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        self.process = context.Process(target=_work, args=(measure, theirs, memory), daemon=True)
        try:
            with _as_a_worker_should_find_it():
                self.process.start()
        except (AttributeError, TypeError, pickle.PicklingError) as error:
            raise PepppError(
                f"measure cannot be sent to worker processes ({error}); make it a module-level function, or "
                "use workers=0"
            ) from error
        theirs.close()

    def begin(self, cell: Cell, allowed: float) -> None:
        self.cell = cell
        self.allowed = allowed
        if self.ready:  # the time to import libraries does not count
            self.until = time.monotonic() + allowed
        with suppress(OSError):  # a dead worker is noticed when its connection is read
            self.connection.send(cell)

    def is_ready(self) -> None:
        self.ready = True
        if self.cell:
            self.until = time.monotonic() + self.allowed

    def finish(self, result: Result) -> list[tuple[Cell, Result]]:
        cell, self.cell, self.until = self.cell, None, float("inf")
        return [(cell, result)] if cell else []

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()

    def end(self) -> str:
        """Return how a worker ended; raise PepppError if it failed to start, as then no worker can."""
        self.process.join(timeout=10)
        code = self.process.exitcode or 0
        if not self.ready and code > 0:
            raise PepppError(
                "a worker process could not start (see its message above); call from a script under "
                '`if __name__ == "__main__":`, with a measure that can be imported, or use workers=0'
            )
        return f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"


@contextmanager
def _as_a_worker_should_find_it() -> Iterator[None]:
    """While a worker starts, limit libraries to one thread and ignore Ctrl-C, as the worker inherits both.

    Libraries read their number of threads when they are imported. Ctrl-C in a terminal must interrupt only
    this process, which then ends its workers.
    """
    environment = os.environ.copy()
    in_main_thread = threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN) if in_main_thread else None
    os.environ.update(_ONE_THREAD)
    try:
        yield
    finally:
        for name in _ONE_THREAD:
            del os.environ[name]
        os.environ.update({name: environment[name] for name in _ONE_THREAD if name in environment})
        if in_main_thread:
            signal.signal(signal.SIGINT, handler or signal.SIG_DFL)


def _work(measure: Measure, connection: Connection, memory: int | None) -> None:
    """Run a worker process: receive cells and send results until the connection closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)
    if memory is not None:
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    with suppress(EOFError, ConnectionError):
        connection.send(_READY)
        while True:
            result = attempt(measure, connection.recv())
            connection.send(_explained(result, memory))


def _explained(result: Result, memory: int | None) -> Result:
    """Replace a library's message about a failed allocation by one about the worker's memory limit."""
    if memory is None or not isinstance(result, Failure):
        return result
    if not any(sign in result.message for sign in ("MemoryError", "allocate memory", "bad_alloc")):
        return result
    message = f"it needs more than the {format_bytes(memory)} of memory that a worker may have"
    return Failure(message, result.traceback, hopeless=True)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
