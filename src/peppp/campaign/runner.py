"""Run a campaign: measure the cells that a store lacks, and store each measurement as soon as it is made."""

import math
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

from peppp.arguments import checked
from peppp.campaign.cells import Cell, balanced
from peppp.campaign.engines import Engine, Failure, Result
from peppp.campaign.estimates import Estimates
from peppp.campaign.queue import LEASE, Lease, Queue
from peppp.campaign.summary import Progress, Summary
from peppp.errors import BudgetError
from peppp.lowprec.network import convolutions
from peppp.records import Measurement, Outcome
from peppp.table.store.store import Store

# The number of tries for a cell that raises or whose worker is lost, and for one that crashes its worker.
TRIES = 3
_TRIES_OF_CRASHES = 2

# Seconds between checks of the cells that other drivers hold, when no others are left.
_LOOK = 1.0


@checked
def run_campaign(
    store: Store,
    cells: Sequence[Cell],
    engine: Engine,
    *,
    progress: Progress | None = None,
    estimates: Estimates | None = None,
    max_seconds: float = math.inf,
    max_measurements: int | None = None,
    tries: int = TRIES,
    lease: float = LEASE,
) -> Summary:
    """Measure the cells that the store lacks, and close the engine; a second call measures only the rest.

    Any number of drivers may run campaigns into one store at once. Each leases the cells that it measures for
    ``lease`` seconds, and renews the leases while it lives. A failing cell is tried ``tries`` times and then
    recorded in the store, while the campaign continues; a cell that crashes its worker gets at most two
    tries. Ctrl-C ends the campaign, as do ``max_seconds`` and ``max_measurements``: finished measurements are
    kept, and running ones are dropped. No cell is started that would, judging by ``estimates``, end too late.
    """
    if not 0 < lease < 1e6 or tries < 1:
        raise BudgetError(
            f"the lease is {lease} s and there are {tries} tries; give a lease above 0 and below a million "
            "seconds, and at least one try"
        )
    asked = {cell.key: cell for cell in cells}
    found = store.present()
    present = found.keys & asked.keys()
    todo = balanced([*asked.values()], present)
    summary = Summary(asked=len(asked), already_there=len(present), outdated=found.outdated)
    with Queue(store, lease=lease) as queue:
        campaign = _Campaign(store, queue, engine, todo, summary, progress, estimates or Estimates({}))
        campaign.tries, campaign.end = tries, campaign.started + max_seconds
        campaign.most = math.inf if max_measurements is None else max_measurements
        try:
            campaign.run()
        except KeyboardInterrupt:
            campaign.summary = replace(campaign.summary, interrupted=True)
        finally:
            engine.close()
    return replace(campaign.summary, seconds=time.monotonic() - campaign.started)


class _Campaign:
    """The state of one run: cells that wait, that the engine measures, and that other drivers hold."""

    tries: int
    end: float
    most: float

    def __init__(
        self,
        store: Store,
        queue: Queue,
        engine: Engine,
        todo: list[Cell],
        summary: Summary,
        progress: Progress | None,
        estimates: Estimates,
    ) -> None:
        self.store, self.queue, self.engine, self.progress = store, queue, engine, progress
        self.estimates = estimates
        self.waiting, self.held = deque(todo), deque[Cell]()
        self.in_flight: dict[Cell, int] = {}  # the number of the current try
        self.crashes = Counter[Cell]()
        self.summary = summary
        self.started = time.monotonic()

    def run(self) -> None:
        self.queue.ask(self.waiting)
        if self.progress:
            self.progress.begin(self.summary)
        while True:
            self._fill()
            if not self.in_flight and (self.summary.stopped or not self.held):
                return
            left = self.end - time.monotonic()
            if left <= 0:
                self.summary = replace(self.summary, stopped="time")
                return
            if not self.in_flight:  # other drivers hold all cells that are left
                time.sleep(min(_LOOK, left))
                self.queue.bury()
            # Check held cells again from time to time, as their drivers may die.
            wait = min(left, _LOOK if self.held else left, 3600.0)
            for cell, result in self.engine.results(wait) if self.in_flight else []:
                self._take(cell, result)
            if not self.waiting:
                self.waiting, self.held = self.held, self.waiting

    def _fill(self) -> None:
        """Lease cells until the engine is busy."""
        while self.waiting and len(self.in_flight) < self.engine.slots:
            if self.summary.done + len(self.in_flight) >= self.most:
                if not self.in_flight:
                    self.summary = replace(self.summary, stopped="measurements")
                return
            cell = self.waiting.popleft()
            expected = self.estimates.seconds(cell)
            if expected is not None and time.monotonic() + expected > self.end:
                self.waiting.clear()
                self.held.clear()
                self.summary = replace(self.summary, stopped="time")
                return
            lease = self.queue.lease(cell)
            if lease is Lease.TAKEN:
                self.in_flight[cell] = 1
                self.engine.submit(cell)
            elif lease is Lease.HELD:
                self.held.append(cell)
                if len(self.waiting) == 0:
                    return
            elif lease is Lease.MEASURED:
                self._count(already_there=self.summary.already_there + 1)
            else:
                self._count(elsewhere=self.summary.elsewhere + 1)

    def _take(self, cell: Cell, result: Result) -> None:
        """Store a result, try the cell again, or record its failure."""
        if isinstance(result, Measurement) and result.key != cell.key:
            changed = (
                f"{cell.data} was measured as {result.key} but planned as {cell.key}; has the data changed?"
            )
            result = Failure(changed, hopeless=True)
        number = self.in_flight.pop(cell)
        if isinstance(result, Failure) and result.crash:
            self.crashes[cell] += 1
        if isinstance(result, Measurement):
            if self.store.add(result):
                diverged = self.summary.diverged + (result.outcome is Outcome.DIVERGED)
                self._count(done=self.summary.done + 1, diverged=diverged)
            else:  # another process stored it meanwhile
                self._count(already_there=self.summary.already_there + 1)
            self.estimates.learn(result)
        elif number < self.tries and not result.hopeless and self.crashes[cell] < _TRIES_OF_CRASHES:
            self._count(retried=self.summary.retried + 1)
            self.in_flight[cell] = number + 1
            self.engine.submit(cell)
            return
        else:
            if result.crash:
                result = replace(result, message=f"{result.message}, {_explained(cell)}")
            if number > 1:
                result = replace(result, message=f"{result.message} ({number} tries)")
            self.queue.fail(cell, result.message, result.traceback, tries=number, lost=result.lost)
            kind = "lost" if result.lost else "failed"
            self._count(**{kind: (*getattr(self.summary, kind), (cell, result))})
        if self.progress:
            self.progress.step(self.summary, cell, result)

    def _count(self, **changes: object) -> None:
        seconds = time.monotonic() - self.started
        self.summary = replace(self.summary, seconds=seconds, **changes)  # type: ignore[arg-type]


def _explained(cell: Cell) -> str:
    """Describe the training that crashed a worker, and what ``peppp doctor`` finds on this machine."""
    recipe = cell.recipe
    return (
        f"training {recipe.network} on {cell.task} at {cell.configuration} (learning rate "
        f"{recipe.learning_rate}, seed {cell.seed}); peppp doctor: strided 1x1 convolutions of few channels "
        f"in plain torch, by {convolutions.library()}, are {_verdict()}; peppp's trainings avoid them"
    )


@cache
def _verdict() -> str:
    return convolutions.examine()
