"""How far the campaigns of a store are, as anybody may ask from another terminal."""

from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import and_, case, exists, func, not_, select

from peppp.records import Outcome
from peppp.table.store import database
from peppp.table.store.schema import CELL, cells, measurements
from peppp.table.store.store import Store


@dataclass(frozen=True, slots=True)
class TaskStatus:
    """Measurements of a task: ``done`` (``diverged`` of them without learning), given up, still to make.

    ``failed`` raised an error at each try, of ``lost`` the worker died or hung each time. ``left`` were asked
    for and nothing is known of them yet; ``running`` of them are in some driver's hands.
    """

    task: str
    done: int = 0
    diverged: int = 0
    failed: int = 0
    lost: int = 0
    left: int = 0
    running: int = 0


@dataclass(frozen=True, slots=True)
class Status:
    """The tasks of a store by name, and how many drivers are at work."""

    tasks: tuple[TaskStatus, ...]
    drivers: int

    @property
    def total(self) -> TaskStatus:
        """All tasks together."""
        counts = {name: 0 for name in asdict(TaskStatus("")) if name != "task"}
        for task in self.tasks:
            for name in counts:
                counts[name] += getattr(task, name)
        return TaskStatus("total", **counts)

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        total = asdict(self.total)
        del total["task"]
        return total | {"drivers": self.drivers, "tasks": [asdict(task) for task in self.tasks]}


@dataclass(frozen=True, slots=True)
class Given:
    """A cell that was given up, and why."""

    task: str
    configuration: str
    recipe_digest: str
    seed: int
    lost: bool
    tries: int
    message: str
    traceback: str


def status(store: Store) -> Status:
    """The status of a store. Reading it makes no run wait."""
    m = measurements.c
    done = select(m.task, m.outcome, func.count()).group_by(m.task, m.outcome)
    counts: defaultdict[str, dict[str, int]] = defaultdict(dict)
    drivers = 0
    with store.reading() as connection:
        for task, outcome, count in connection.execute(done):
            known = counts[task]
            known["done"] = known.get("done", 0) + count
            if outcome == Outcome.DIVERGED:
                known["diverged"] = count
        if store.version > 1:
            now = database.now(store.engine)
            held = and_(cells.c.driver.is_not(None), cells.c.expires >= now)
            open_cells = (
                select(
                    cells.c.task,
                    _sum(and_(cells.c.failed.is_not(None), not_(cells.c.lost), not_(held))),
                    _sum(and_(cells.c.failed.is_not(None), cells.c.lost, not_(held))),
                    _sum(cells.c.failed.is_(None) | held),
                    _sum(held),
                )
                .where(not_(_measured()))
                .group_by(cells.c.task)
            )
            for task, failed, lost, left, running in connection.execute(open_cells):
                counts[task] |= {"failed": failed, "lost": lost, "left": left, "running": running}
            of_drivers = select(func.count(cells.c.driver.distinct())).where(held)
            drivers = connection.execute(of_drivers).scalar_one()
    return Status(tuple(TaskStatus(task, **counts[task]) for task in sorted(counts)), drivers)


def failures(store: Store) -> list[Given]:
    """What was given up and is not measured since, the latest last."""
    if store.version < 2:
        return []
    c = cells.c
    columns = (c.task, c.configuration, c.recipe_digest, c.seed, c.lost, c.tries, c.message, c.traceback)
    query = select(*columns).where(c.failed.is_not(None), not_(_measured())).order_by(c.failed)
    with store.reading() as connection:
        return [Given(*row) for row in connection.execute(query)]


def forget(store: Store) -> int:
    """Forget what was asked for and neither measured nor in a driver's hands; how many cells that were."""
    now = database.now(store.engine)
    idle = cells.c.driver.is_(None) | (cells.c.expires < now)
    with store.writing() as connection:
        return int(connection.execute(cells.delete().where(idle)).rowcount)


def _sum(condition: Any) -> Any:
    return func.sum(case((condition, 1), else_=0))


def _measured() -> Any:
    """Whether a cell has been measured after all, as by a version that knows no cells."""
    same = (measurements.c[name] == cells.c[name] for name in CELL)
    return exists().where(*same, measurements.c.repeat == 0)
