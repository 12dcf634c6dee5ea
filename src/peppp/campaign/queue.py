"""Share the cells of one store among several drivers, so that only one at a time measures each cell.

A driver is a process that runs a campaign. It *leases* a cell before measuring it. The lease ends with the
measurement, when the driver gives up the cell, or when the driver has not renewed it for some time.
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

# Seconds after which the leases of a driver end unless it renews them.
LEASE = 120.0


class Lease(Enum):
    """The result of trying to lease a cell: TAKEN, or why not."""

    TAKEN = auto()
    MEASURED = auto()
    HELD = auto()
    FAILED = auto()


class Queue:
    """One driver's access to the cells of a store; use it in a ``with``.

    A thread renews the leases meanwhile, and they are released at the end. ``lease`` is their length in
    seconds.
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
        with suppress(StoreError):  # if the store cannot be reached now, the leases expire by themselves
            self.release()

    def ask(self, wanted: Sequence[Cell]) -> None:
        """Record cells that are to be measured, so that ``peppp status`` knows how many are left."""
        if not wanted:
            return
        rows = [{**_key_of(cell), "task": cell.task} for cell in wanted]
        # The same cells, recorded by an older arithmetic version and never measured, are replaced.
        older = {old.digest for recipe in {cell.recipe for cell in wanted} for old in older_recipes(recipe)}
        with self._store.writing() as connection:
            connection.execute(delete(cells).where(cells.c.recipe_digest.in_(older)))
            connection.execute(self._insert, rows)

    def lease(self, cell: Cell) -> Lease:
        """Try to lease a cell to this driver."""
        key = _key_of(cell)
        this = and_(*(cells.c[name] == value for name, value in key.items()))
        measured = exists().where(
            *(measurements.c[name] == value for name, value in key.items()), measurements.c.repeat == 0
        )
        free = or_(cells.c.driver.is_(None), cells.c.driver == self._driver, cells.c.expires < self._now)
        # Later campaigns try a failed cell again; campaigns that ran when it failed do not.
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
        """Give up a cell and record why; ``lost`` says that its worker died or hung, rather than raised."""
        key = _key_of(cell)
        mine = and_(*(cells.c[name] == value for name, value in key.items()), cells.c.driver == self._driver)
        values: dict[str, object] = {"tries": tries, "lost": lost}
        values |= {"message": _storable(message[:2000]), "traceback": _storable(traceback[-10_000:])}
        with self._store.writing() as connection:
            connection.execute(
                update(cells).where(mine).values(driver=None, expires=None, failed=self._now, **values)
            )

    def renew(self) -> int:
        """Extend all leases of this driver; return their number."""
        with self._store.writing() as connection:
            renewed = connection.execute(
                update(cells).where(cells.c.driver == self._driver).values(expires=self._now + self._seconds)
            )
            return int(renewed.rowcount)

    def release(self) -> None:
        """Release all leases of this driver."""
        with self._store.writing() as connection:
            connection.execute(
                update(cells).where(cells.c.driver == self._driver).values(driver=None, expires=None)
            )

    def bury(self) -> None:
        """End the leases of drivers that have died on this machine, without waiting until they expire."""
        with self._store.reading() as connection:
            dead = dead_here(connection)
        if dead:
            with self._store.writing() as connection:
                connection.execute(
                    update(cells).where(cells.c.driver.in_(dead)).values(driver=None, expires=None)
                )

    def _renew_often(self) -> None:
        while not self._stopped.wait(self._seconds / 4):
            with suppress(StoreError):  # the next attempt may succeed
                self.renew()


def dead_here(connection: Connection) -> list[str]:
    """Return the drivers that hold leases although their process on this machine has ended."""
    here = cells.c.driver.startswith(f"{_here()}:", autoescape=True)
    drivers = connection.execute(select(cells.c.driver).where(here).distinct()).scalars().all()
    return [driver for driver in drivers if not _lives(int(driver.split(":")[-2]))]


def _key_of(cell: Cell) -> dict[str, str | int]:
    return dict(zip(CELL, cell.key, strict=False))


def _here() -> str:
    """Identify the scope of process numbers: this machine since its boot, and this container."""
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
    except PermissionError:  # it exists, and belongs to another user
        return True
    return True


def _storable(text: str) -> str:
    """Replace what databases refuse: exceptions may contain NUL and lone surrogates."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")
