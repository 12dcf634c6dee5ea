"""What runs the cells of a campaign: this process, or several worker processes.

Both are one generator, :func:`run`, so that a campaign knows nothing of how its cells are run.
"""

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait

from peppp.campaign.cells import Cell
from peppp.errors import BudgetError, PepppError
from peppp.records import Measurement
from peppp.textable import to_record

Measure = Callable[[Cell], Measurement]

# How often a cell is tried whose worker dies under it.
TRIES = 3

# What a worker says before anything else: that it has started and could import ``measure``.
_READY = "ready"

_ONE_THREAD = {
    f"{library}_NUM_THREADS": "1"
    for library in ("OMP", "MKL", "OPENBLAS", "NUMBA", "NUMEXPR", "VECLIB_MAXIMUM")
}


@dataclass(frozen=True, slots=True)
class Failure:
    """A cell without a measurement: ``measure`` raised, or (``lost``) its worker died each time."""

    message: str
    traceback: str = ""
    lost: bool = False


Result = Measurement | Failure
Results = Generator[tuple[Cell, Result], None, None]


def run(cells: Sequence[Cell], measure: Measure, *, workers: int = 1) -> Results:
    """Each cell with its measurement or its failure, as they come.

    With ``workers=0`` cells run in this process, one after the other; else in that many new processes of one
    thread each, for which ``measure`` must be a module-level function (or a picklable object) and a script
    needs its ``if __name__ == "__main__":``. A worker that dies is replaced and its cell tried again. Closing
    the generator ends the workers, and so does the end of this process, whatever it is.
    """
    if workers < 0:
        raise BudgetError(f"{workers} workers cannot measure; give 0 (in this process) or more")
    if workers == 0:
        return ((cell, _attempt(measure, cell)) for cell in cells)
    return _in_processes(cells, measure, workers)


def _attempt(measure: Measure, cell: Cell) -> Result:
    try:
        measurement = measure(cell)
        to_record(measurement)  # refuses what could not be stored, while its cell is known
    except Exception as error:
        message = str(error) if isinstance(error, PepppError) else f"{type(error).__name__}: {error}"
        return Failure(" ".join(message.split()), traceback.format_exc())
    return measurement


def _in_processes(cells: Sequence[Cell], measure: Measure, workers: int) -> Results:
    waiting = deque((cell, 1) for cell in cells)
    team: dict[object, _Worker] = {}
    try:
        while waiting or team:
            while waiting and len(team) < workers:
                worker = _Worker(measure)
                team[worker.connection] = worker
                worker.begin(*waiting.popleft())
            for connection in wait([worker.connection for worker in team.values()]):
                worker = team[connection]
                cell, tries = worker.cell, worker.tries
                try:
                    sent = worker.connection.recv()
                except (EOFError, OSError):
                    end = worker.bury()
                    del team[connection]
                    if tries < TRIES:
                        waiting.appendleft((cell, tries + 1))
                    else:
                        yield cell, Failure(f"its worker process died {tries} times, lastly {end}", lost=True)
                    continue
                if sent == _READY:
                    worker.ready = True
                    continue
                # The worker has its next cell before this result is looked at: neither waits for the other.
                idle = not waiting
                if not idle:
                    worker.begin(*waiting.popleft())
                yield cell, sent
                if idle:
                    worker.dismiss()
                    del team[connection]
    finally:
        for worker in team.values():
            worker.kill()


class _Worker:
    """A worker process as this process sees it, and the cell it is busy with."""

    def __init__(self, measure: Measure) -> None:
        self.ready = False
        self.connection, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        self.process = context.Process(target=_work, args=(measure, theirs), daemon=True)
        try:
            with _as_a_worker_should_find_it():
                self.process.start()
        except (AttributeError, TypeError, pickle.PicklingError) as error:
            raise PepppError(
                f"measure cannot be sent to worker processes ({error}); make it a module-level function, or "
                "take workers=0"
            ) from error
        theirs.close()

    def begin(self, cell: Cell, tries: int) -> None:
        self.cell, self.tries = cell, tries
        with suppress(OSError):  # it has died; its end of the pipe will say so
            self.connection.send(cell)

    def dismiss(self) -> None:
        """Let an idle worker go: it ends by itself when nothing more can come."""
        self.connection.close()
        self.process.join(timeout=10)
        self.kill()

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()

    def bury(self) -> str:
        """How a worker ended that has gone away; an error if none can ever start."""
        self.dismiss()
        code = self.process.exitcode or 0
        if not self.ready and code > 0:
            raise PepppError(
                "a worker process could not start (its message stands above); call from a script under "
                '`if __name__ == "__main__":`, with a measure that can be imported, or take workers=0'
            )
        return f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"


@contextmanager
def _as_a_worker_should_find_it() -> Iterator[None]:
    """One thread in each library, which must be known before it is imported, and no Ctrl-C of its own.

    A worker inherits both from its start; what a terminal's Ctrl-C ends is this process, which ends them.
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


def _work(measure: Measure, connection: Connection) -> None:
    """The life of a worker process: cells in, results out, until nothing more can come."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)
    with suppress(EOFError, ConnectionError):
        connection.send(_READY)
        while True:
            connection.send(_attempt(measure, connection.recv()))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
