"""A lock that keeps a second process from serving the same sessions: a conversation lives in one process."""

from __future__ import annotations

import asyncio
import logging
import math
import sqlite3
import time
import weakref
from collections.abc import Awaitable, Callable
from contextlib import suppress
from enum import Enum, auto
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from google.adk.sessions import BaseSessionService
from google.adk.sessions.sqlite_session_service import SqliteSessionService

from adk_relay.core.interfaces import StoreInUseError
from adk_relay.core.logs import failure

log = logging.getLogger("relay.agent")

_TRY_EVERY = 0.2
"""Seconds between two tries while a start waits for another process to end."""

_LOOK_EVERY = 2.0
"""Seconds between two looks whether the connection that holds the lock still works."""

_WAIT = 5.0
"""Seconds after which a database that does not answer counts as one that can't be reached."""

_SILENCE = 60
"""Seconds after which a database ends a connection that it hears nothing from. Without a limit, the lock of a
machine that has lost its power would stay for hours."""

_MARGIN = 5.0
"""Seconds that a database may take to do so."""

_STATEMENTS = {
    # A transaction that stays open, because a pooler such as PgBouncer may give the next one another
    # connection. It reads no table, so it holds up nothing.
    "postgresql": f"SELECT set_config('idle_in_transaction_session_timeout', '{_SILENCE}s', true),"
    " pg_try_advisory_xact_lock(:number)",
    "postgresql shared": f"SELECT set_config('idle_in_transaction_session_timeout', '{_SILENCE}s', true),"
    " pg_try_advisory_xact_lock_shared(:number)",
    "mysql": f"SET SESSION wait_timeout = {_SILENCE}; SELECT GET_LOCK(:name, 0)",
    "mariadb": f"SET SESSION wait_timeout = {_SILENCE}; SELECT GET_LOCK(:name, 0)",
}
"""What takes the lock, by SQLAlchemy's name of the database. The last column of the last row says whether it
was free. Other databases have no lock; some have none that is shared."""


class Place(Protocol):
    """Where a lock is."""

    name: str
    """What the log calls the store."""
    can_be_lost: bool
    """Whether the lock may end before its process does."""

    async def take(self) -> bool:
        """Takes the lock. False: another process has it, or another relay of this one."""

    async def confirm(self) -> None:
        """Raises an error if the lock is lost."""

    async def give_up(self) -> None:
        """Gives the lock up, if it is held."""

    def forget(self) -> None:
        """The event loop in which the lock was taken has ended."""


class File:
    """A lock file beside a sqlite file.

    It is a database of its own, without content, in which a transaction stays open: sqlite locks files on
    each system that Python runs on, and the system ends the lock with the process. The file stays.
    """

    can_be_lost = False

    def __init__(self, path: str, app_name: str, is_shared: bool) -> None:
        self.name = path
        # A read locks out a writer, and no other reader.
        self._statements = ("BEGIN", "SELECT * FROM sqlite_master") if is_shared else ("BEGIN EXCLUSIVE",)
        file = Path(path).resolve()
        self._path = file.with_name(f"{file.name}.{quote(app_name, safe='')}.lock")
        self._close: Callable[[], object] | None = None

    async def take(self) -> bool:
        database = sqlite3.connect(self._path, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            database.execute("PRAGMA journal_mode=OFF")  # else a journal would stay after a kill
            for statement in self._statements:
                database.execute(statement)
        except sqlite3.Error as error:
            database.close()
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:
                return False
            raise
        self._close = weakref.finalize(self, database.close)
        return True

    async def confirm(self) -> None:
        pass

    async def give_up(self) -> None:
        close, self._close = self._close, None
        if close:
            close()

    def forget(self) -> None:
        pass


class Database:
    """An advisory lock of a database, which a connection of its own holds for as long as it is open.

    SQLAlchemy is imported by its name, because it is not installed unless such a service is used.
    """

    can_be_lost = True

    def __init__(self, engine: Any, app_name: str, statements: str) -> None:
        self.name = f"the database {engine.url.database} at {engine.url.host or 'localhost'}"
        self._engine = engine
        self._text: Any = import_module("sqlalchemy").text
        *self._before, self._statement = statements.split("; ")
        # In PostgreSQL a lock belongs to a database, in MySQL to the server.
        digest = sha256(f"relay/{engine.url.database}/{app_name}".encode()).digest()
        self._key: dict[str, Any] = (
            {"number": int.from_bytes(digest[:8], signed=True)}
            if ":number" in self._statement
            else {"name": f"relay-{digest[:16].hex()}"}
        )
        self._connection: Any = None

    async def take(self) -> bool:
        await self.give_up()
        self._connection = connection = await self._engine.connect()
        await connection.run_sync(lambda pooled: pooled.detach())  # the pool makes another one in its place
        for statement in self._before:
            await connection.execute(self._text(statement))
        row = (await connection.execute(self._text(self._statement), self._key)).one()
        if row[-1]:
            return True
        await self.give_up()
        return False

    async def confirm(self) -> None:
        await self._connection.execute(self._text("SELECT 1"))

    async def give_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection:
            with suppress(Exception):
                async with asyncio.timeout(_WAIT):
                    await connection.close()

    def forget(self) -> None:
        self._connection = None  # it can't be closed any more, and the database ends it after some time


def place_of(service: BaseSessionService, app_name: str, is_shared: bool) -> Place | None:
    """Where the lock for the sessions of an app name is; None: in memory, or the store has no such lock."""
    path = ""
    engine: Any = getattr(service, "db_engine", None)
    if engine is not None:
        statements = _STATEMENTS.get(f"{engine.dialect.name} shared" if is_shared else engine.dialect.name)
        if statements:
            return Database(engine, app_name, statements)
        path = engine.url.database if engine.dialect.name == "sqlite" else ""
    elif isinstance(service, SqliteSessionService):
        path = service._db_path
    return File(path, app_name, is_shared) if path and path != ":memory:" else None


def lock_of(
    service: BaseSessionService,
    app_name: str,
    wait: float | None,
    end_all: Callable[[], Awaitable[None]],
    *,
    is_shared: bool = False,
) -> StoreLock:
    """The lock for the sessions of an app name; `wait` is None: other processes may serve them, too.

    Processes on a bus share the lock: it keeps out those that have none.
    """
    place = None if wait is None else place_of(service, app_name, is_shared)
    return StoreLock(place, wait or 0, end_all)


class State(Enum):
    """Of a lock."""

    FREE = auto()
    HELD = auto()
    LOST = auto()
    """The database can't be reached, or takes the lost connection for one that still holds the lock. Nobody
    else can store anything, and conversations go on."""
    ANOTHERS = auto()
    """While it was lost, another process has taken it."""


class StoreLock:
    """The lock of a session store, for the sessions of one app name.

    Conversations are opened only while it is held or lost. If it can be lost, or could not be tried, a task
    watches it until it is given up.

    Invariants:
        Without a place, it is always free.
        While it is free, nothing watches it.

    Args:
        place: where it is; None: there is no lock, and nobody is refused.
        wait: seconds that a start waits for another process to end.
        end_all: ends all conversations; called when another process has the lock.
    """

    def __init__(self, place: Place | None, wait: float, end_all: Callable[[], Awaitable[None]]) -> None:
        self._place = place
        self._wait = wait
        self._end_all = end_all
        self._state = State.FREE
        self._turn = asyncio.Lock()
        self._watching: asyncio.Task[None] | None = None
        self._heard_at = -math.inf  # when the database last heard of the connection that holds the lock

    async def take(self, *, patiently: bool = False) -> None:
        """Takes the lock, if it is not held already.

        Args:
            patiently: if another process has it, wait for its end.

        Raises:
            StoreInUseError: another process has it.
        """
        if self._place is None or self._state is State.HELD:
            return
        async with self._turn:
            ends_at = time.monotonic() + (self._wait if patiently else 0)
            is_told = False
            while self._state is State.FREE and not await self._try(self._place):
                if time.monotonic() >= ends_at:
                    raise StoreInUseError(self._refusal(self._place))
                if not is_told:
                    is_told = True
                    what = "another process has the sessions in %s: waiting for its end, %g s at most"
                    log.info(what, self._place.name, self._wait)
                await asyncio.sleep(_TRY_EVERY)
            if (self._place.can_be_lost or self._state is State.LOST) and not self._watching:
                self._watching = asyncio.create_task(self._watch(self._place), name="lock of the store")
            if self._state is State.ANOTHERS:
                raise StoreInUseError(self._refusal(self._place))

    async def is_ours(self) -> bool:
        """Whether no other process has the lock. If it is not held yet, it is taken."""
        try:
            await self.take()
        except StoreInUseError:
            return False
        return True

    async def give_up(self) -> None:
        """Gives the lock up, if it is held: another process may take it."""
        watching, self._watching = self._watching, None
        if watching:
            watching.cancel()
            await asyncio.wait({watching})
        self._state = State.FREE
        if self._place:
            await self._place.give_up()

    def change_loop(self) -> None:
        """Another event loop is used from now on: the tasks and connections of the former one are lost."""
        self._turn = asyncio.Lock()
        self._watching = None
        if self._place and self._place.can_be_lost and self._state is not State.FREE:
            self._state = State.LOST
            self._place.forget()

    async def _try(self, place: Place) -> bool:
        """Tries to take the lock. False: another process has it."""
        try:
            async with asyncio.timeout(_WAIT):
                is_free = await place.take()
        except Exception as error:
            self._lost(place, error)
            return True
        if is_free:
            self._state = State.HELD
            self._heard_at = time.monotonic()
        return is_free

    async def _watch(self, place: Place) -> None:
        """Notices that the lock is lost, and takes it again."""
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            try:
                async with asyncio.timeout(_WAIT):
                    if self._state is State.HELD:
                        await place.confirm()
                        self._heard_at = time.monotonic()
                        continue
                    is_free = await place.take()
            except Exception as error:
                if self._state is State.HELD:
                    self._lost(place, error)
                continue
            if is_free:
                log.info("%s is locked again", place.name)
                self._state = State.HELD
                self._heard_at = time.monotonic()
            elif self._state is State.LOST and time.monotonic() > self._heard_at + _SILENCE + _MARGIN:
                self._state = State.ANOTHERS
                log.error("%s; all conversations are ended here", self._refusal(place))
                await self._end_all()

    def _lost(self, place: Place, error: Exception) -> None:
        self._state = State.LOST
        log.warning("%s can't be locked, which is tried again: %s", place.name, failure(error))

    def check(self) -> None:
        assert self._place or self._state is State.FREE
        assert not self._watching or self._state is not State.FREE

    @staticmethod
    def _refusal(place: Place) -> str:
        return (
            f"another process has the sessions in {place.name}, and a conversation lives in one process:"
            " stop it, or set another RELAY_SESSIONS (RELAY_BUS: processes share conversations;"
            " RELAY_SHARED_STORE=true: a proxy brings all of a user to one process)"
        )
