"""Report how far the campaigns of a store are; any process may ask while they run."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import and_, case, exists, func, not_, select

from peppp.campaign.queue import dead_here
from peppp.records import Outcome
from peppp.table.differences import in_words
from peppp.table.store import database
from peppp.table.store.schema import CELL, cells, measurements
from peppp.table.store.store import Store


@dataclass(frozen=True, slots=True)
class TaskStatus:
    """The numbers of a task's measurements under one recipe: ``done``, given up, and still to make.

    ``diverged`` of the measurements that are done diverged. Cells that were given up ``failed`` with an
    error, or were ``lost`` because the worker died or hung. ``left`` cells have no result yet; a driver holds
    ``running`` of them. ``recipe`` says what distinguishes the recipe from others of the same task, and is ""
    if the task has only one.
    """

    task: str
    done: int = 0
    diverged: int = 0
    failed: int = 0
    lost: int = 0
    left: int = 0
    running: int = 0
    recipe: str = ""


@dataclass(frozen=True, slots=True)
class Status:
    """The tasks of a store, sorted by name, and the number of drivers at work."""

    tasks: tuple[TaskStatus, ...]
    drivers: int

    @property
    def total(self) -> TaskStatus:
        """The sums over all tasks."""
        counts: dict[str, Any] = {
            name: 0 for name in asdict(TaskStatus("")) if name not in ("task", "recipe")
        }
        for task in self.tasks:
            for name in counts:
                counts[name] += getattr(task, name)
        return TaskStatus("total", **counts)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        total = asdict(self.total)
        del total["task"], total["recipe"]
        return total | {"drivers": self.drivers, "tasks": [asdict(task) for task in self.tasks]}


@dataclass(frozen=True, slots=True)
class Given:
    """A cell that was given up, and the reason."""

    task: str
    configuration: str
    recipe_digest: str
    seed: int
    lost: bool
    tries: int
    message: str
    traceback: str


def status(store: Store) -> Status:
    """Return the status of a store. Reading it does not block running campaigns."""
    m = measurements.c
    row = m.task, m.recipe_digest
    # Rows are wide: all are counted in the index that begins so, and only those that diverged are looked up.
    indexed = m.fingerprint, m.recipe_digest, m.task
    done = select(*row, func.count()).group_by(*indexed)
    counts: defaultdict[tuple[str, str], dict[str, Any]] = defaultdict(dict)
    drivers = 0
    with store.reading() as connection:
        for task, digest, count in connection.execute(done):
            counts[task, digest]["done"] = counts[task, digest].get("done", 0) + count
        diverged = select(*row, func.count()).where(
            m.task.in_({task for task, _ in counts}), m.outcome == Outcome.DIVERGED
        )
        for task, digest, count in connection.execute(diverged.group_by(*row)):
            counts[task, digest]["diverged"] = count
        if store.version > 1:
            now = database.now(store.engine)
            held = and_(
                cells.c.driver.is_not(None),
                cells.c.expires >= now,
                cells.c.driver.not_in(dead_here(connection)),
            )
            open_cells = (
                select(
                    cells.c.task,
                    cells.c.recipe_digest,
                    _sum(and_(cells.c.failed.is_not(None), not_(cells.c.lost), not_(held))),
                    _sum(and_(cells.c.failed.is_not(None), cells.c.lost, not_(held))),
                    _sum(cells.c.failed.is_(None) | held),
                    _sum(held),
                )
                .where(not_(_measured()))
                .group_by(cells.c.task, cells.c.recipe_digest)
            )
            for task, digest, failed, lost, left, running in connection.execute(open_cells):
                counts[task, digest] |= {"failed": failed, "lost": lost, "left": left, "running": running}
            of_drivers = select(func.count(cells.c.driver.distinct())).where(held)
            drivers = connection.execute(of_drivers).scalar_one()
    recipes = _recipes(store, counts)
    found = (TaskStatus(task, recipe=recipes[task, digest], **n) for (task, digest), n in counts.items())
    return Status(tuple(sorted(found, key=lambda one: (one.task, one.recipe))), drivers)


def _recipes(store: Store, rows: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """Describe what distinguishes the recipes of each task; an unmeasured recipe has only a digest."""
    known = store.recipes()
    digests: defaultdict[str, list[str]] = defaultdict(list)
    for task, digest in rows:
        digests[task].append(digest)
    found = {}
    for task, own in digests.items():
        words = in_words(known[digest] for digest in own if digest in known)
        for digest in own:
            unknown = f"recipe {digest[:8]}" if len(own) > 1 else ""
            found[task, digest] = (words[known[digest]] if digest in known else "") or unknown
    return found


def failures(store: Store) -> list[Given]:
    """Return the cells that were given up and not measured since, the latest last."""
    if store.version < 2:
        return []
    c = cells.c
    columns = (c.task, c.configuration, c.recipe_digest, c.seed, c.lost, c.tries, c.message, c.traceback)
    query = select(*columns).where(c.failed.is_not(None), not_(_measured())).order_by(c.failed)
    with store.reading() as connection:
        return [Given(*row) for row in connection.execute(query)]


def forget(store: Store) -> int:
    """Delete recorded cells that no driver holds; return their number. Measurements are not deleted."""
    now = database.now(store.engine)
    idle = cells.c.driver.is_(None) | (cells.c.expires < now)
    with store.writing() as connection:
        return int(connection.execute(cells.delete().where(idle)).rowcount)


def _sum(condition: Any) -> Any:
    return func.sum(case((condition, 1), else_=0))


def _measured() -> Any:
    """Return SQL for whether a cell is measured after all, for example by a version without cells."""
    same = (measurements.c[name] == cells.c[name] for name in CELL)
    return exists().where(*same, measurements.c.repeat == 0)
