"""Who measures what: several drivers share one store, and each cell is with one of them at a time.

A driver *leases* a cell before it measures it. The lease ends with the measurement, or when the driver gives
the cell up, or some time after the driver has last shown a sign of life.
"""

import os
import platform
import threading
import uuid
from collections.abc import Sequence
from contextlib import suppress
from enum import Enum, auto
from pathlib import Path
from types import TracebackType
from typing import Self

from sqlalchemy import Connection, and_, delete, exists, not_, or_, select, update

from peppp.arithmetic import older_recipes
from peppp.campaign.cells import Cell
from peppp.errors import StoreError
from peppp.table.store import database
from peppp.table.store.schema import CELL, cells, measurements
from peppp.table.store.store import Store

# Seconds after which a driver that shows no sign of life has lost its leases.
LEASE = 120.0


class Lease(Enum):
    """What became of a wish to measure a cell."""

    TAKEN = auto()
    MEASURED = auto()
    HELD = auto()
    FAILED = auto()


class Queue:
    """A driver's side of the cells that a store's campaigns ask for; use it in a ``with``.

    Within it a thread renews the leases. At its end they are given back.
    """

    def __init__(self, store: Store, *, lease: float = LEASE) -> None:
        self._store = store
        self._seconds = lease
        self._now = database.now(store.engine)
        self._insert = database.insert_new(store.engine, cells)
        self._driver = f"{_here()}:{os.getpid()}:{uuid.uuid4().hex[:12]}"
        self._stopped = threading.Event()
        self._renewing = threading.Thread(target=self._renew_often, daemon=True)

    def __enter__(self) -> Self:
        with self._store.reading() as connection:
            self._since = float(connection.execute(select(self._now)).scalar_one())
        self.bury()
        self._renewing.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._renewing.join()
        with suppress(StoreError):  # where it cannot be reached now, the leases end by themselves
            self.release()

    def ask(self, wanted: Sequence[Cell]) -> None:
        """Note cells as asked for, so that ``peppp status`` knows what is left; measured ones are not."""
        if not wanted:
            return
        rows = [{**_key_of(cell), "task": cell.task} for cell in wanted]
        # What an older arithmetic version asked for and never measured is asked for anew, under today's.
        older = {old.digest for recipe in {cell.recipe for cell in wanted} for old in older_recipes(recipe)}
        with self._store.writing() as connection:
            connection.execute(delete(cells).where(cells.c.recipe_digest.in_(older)))
            connection.execute(self._insert, rows)

    def lease(self, cell: Cell) -> Lease:
        """Try to have a cell for this driver alone."""
        key = _key_of(cell)
        this = and_(*(cells.c[name] == value for name, value in key.items()))
        measured = exists().where(
            *(measurements.c[name] == value for name, value in key.items()), measurements.c.repeat == 0
        )
        free = or_(cells.c.driver.is_(None), cells.c.driver == self._driver, cells.c.expires < self._now)
        # A failure is tried again by later campaigns, not by those beside which it happened.
        hopeful = or_(cells.c.failed.is_(None), cells.c.failed < self._since)
        take = update(cells).values(driver=self._driver, expires=self._now + self._seconds)
        with self._store.writing() as connection:
            if connection.execute(select(measured)).scalar():
                return Lease.MEASURED
            connection.execute(self._insert, {**key, "task": cell.task})
            if connection.execute(take.where(this, free, hopeful, not_(measured))).rowcount:
                return Lease.TAKEN
            failed = connection.execute(select(cells.c.failed).where(this)).scalar()
        return Lease.HELD if failed is None or failed < self._since else Lease.FAILED

    def fail(self, cell: Cell, message: str, traceback: str, *, tries: int, lost: bool) -> None:
        """Give a cell up, and keep why; ``lost`` if its worker died or hung rather than raised an error."""
        key = _key_of(cell)
        mine = and_(*(cells.c[name] == value for name, value in key.items()), cells.c.driver == self._driver)
        values: dict[str, object] = {"tries": tries, "lost": lost}
        values |= {"message": _storable(message[:2000]), "traceback": _storable(traceback[-10_000:])}
        with self._store.writing() as connection:
            connection.execute(
                update(cells).where(mine).values(driver=None, expires=None, failed=self._now, **values)
            )

    def renew(self) -> int:
        """A sign of life: this driver's leases last anew; how many there are."""
        with self._store.writing() as connection:
            renewed = connection.execute(
                update(cells).where(cells.c.driver == self._driver).values(expires=self._now + self._seconds)
            )
            return int(renewed.rowcount)

    def release(self) -> None:
        """Give back all leases."""
        with self._store.writing() as connection:
            connection.execute(
                update(cells).where(cells.c.driver == self._driver).values(driver=None, expires=None)
            )

    def bury(self) -> None:
        """End the leases of drivers that have died on this machine: there is no need to wait for those."""
        with self._store.reading() as connection:
            dead = dead_here(connection)
        if dead:
            with self._store.writing() as connection:
                connection.execute(
                    update(cells).where(cells.c.driver.in_(dead)).values(driver=None, expires=None)
                )

    def _renew_often(self) -> None:
        while not self._stopped.wait(self._seconds / 4):
            with suppress(StoreError):  # the next time may do
                self.renew()


def dead_here(connection: Connection) -> list[str]:
    """The drivers with leases whose process has ended on this machine."""
    here = cells.c.driver.startswith(f"{_here()}:", autoescape=True)
    drivers = connection.execute(select(cells.c.driver).where(here).distinct()).scalars().all()
    return [driver for driver in drivers if not _lives(int(driver.split(":")[-2]))]


def _key_of(cell: Cell) -> dict[str, str | int]:
    return dict(zip(CELL, cell.key, strict=False))


def _here() -> str:
    """Where process numbers mean the same: this machine since it was started, and this container of it."""
    boot, space = "", ""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        space = os.readlink("/proc/self/ns/pid")
    return f"{platform.node()[:100]} {boot} {space}".replace(":", " ").strip()


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def _storable(text: str) -> str:
    """Text that any database takes: exceptions may hold what is no character."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")
