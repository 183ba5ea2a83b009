"""ADK's session service for sqlite, over a connection that stays open, and a second one that reads."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing, suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from weakref import WeakSet

import aiosqlite
from google.adk.events import Event
from google.adk.sessions import Session, sqlite_session_service
from google.adk.sessions.base_session_service import GetSessionConfig, ListSessionsResponse
from google.adk.sessions.sqlite_session_service import SqliteSessionService

from adk_relay.adk.lines import said_in
from adk_relay.adk.reading import CREATED_AT, PAGE, TITLE, Brief, Key, Stored

T = TypeVar("T")

_File = tuple[int, int]
"""Identifies a file, whatever its name is now."""


class _Open(NamedTuple):
    """A connection that waits for the next operation."""

    loop: asyncio.AbstractEventLoop
    """The event loop that it belongs to."""
    file: _File | None
    opened: AbstractAsyncContextManager[aiosqlite.Connection]
    database: aiosqlite.Connection


class Sqlite(SqliteSessionService):
    """ADK's service for sqlite, one operation at a time, over a connection that stays open.

    ADK opens a connection and a thread for each operation, and sqlite has one writer: with a hundred users at
    once, some would wait for longer than its limit of 5 s, and fail. The last connection that is closed also
    copies sqlite's log into the file, which are three waits for the disk more for each event; and none can be
    opened when the process has no file descriptors left.

    Invariants:
        A connection is either kept, or one operation uses it.
    """

    def __init__(self, path: str) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        super().__init__(path)
        self.path = path
        with closing(sqlite3.connect(path)) as database:
            # A commit then needs one sync less. The file keeps this setting.
            database.execute("PRAGMA journal_mode=WAL")
            database.executescript(getattr(sqlite_session_service, "CREATE_SCHEMA_SQL", ""))
            with suppress(sqlite3.OperationalError):  # this version of ADK has other tables
                # Without it, the last events of a session are found by sorting all of them.
                database.execute(
                    "CREATE INDEX IF NOT EXISTS relay_events_by_time"
                    " ON events (app_name, user_id, session_id, timestamp)"
                )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = asyncio.Lock()
        self._kept: _Open | None = None
        self._appends = False  # the operation under way stores an event

    @property
    def _turn(self) -> asyncio.Lock:
        """Held by the operation under way. A lock belongs to an event loop, and a service may outlive one."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._lock = loop, asyncio.Lock()
        return self._lock

    async def create_session(self, **named: Any) -> Session:
        async with self._turn:
            return await super().create_session(**named)

    async def get_session(self, **named: Any) -> Session | None:
        async with self._turn:
            return await super().get_session(**named)

    async def append_event(self, session: Session, event: Event) -> Event:
        async with self._turn:
            self._appends = True
            try:
                return await super().append_event(session, event)
            finally:
                self._appends = False

    async def outdate(self, key: Key, session: Session) -> bool:
        """See `Reader.outdate`. ADK refuses an event if the session is newer than its writer knows."""
        query = (
            "UPDATE sessions SET update_time = update_time + 0.000001"
            " WHERE app_name = ? AND user_id = ? AND id = ? AND update_time <= ?"
        )
        async with self._turn, self._get_db_connection() as database:
            async with database.execute(query, (*key, session.last_update_time)) as cursor:
                is_done = cursor.rowcount > 0
            await database.commit()
        return is_done

    async def list_sessions(self, **named: Any) -> ListSessionsResponse:
        async with self._turn:
            return await super().list_sessions(**named)

    async def delete_session(self, **named: Any) -> None:
        async with self._turn:
            await super().delete_session(**named)

    async def get_user_state(self, **named: Any) -> dict[str, Any]:
        async with self._turn:
            return await super().get_user_state(**named)

    async def close(self) -> None:
        async with self._turn:
            await self._close_connection()
        await super().close()

    # A private name of ADK, which calls it once in each operation, so within `_turn`. Without it there, this
    # method is never called, and each operation opens a connection.
    @asynccontextmanager
    async def _get_db_connection(self) -> AsyncIterator[aiosqlite.Connection]:
        loop = asyncio.get_running_loop()
        file = _file(self.path)
        kept, self._kept = self._kept, None
        if kept and kept.loop is not loop:
            kept = None  # a loop that ended has closed its connection: `opened` is an asynchronous generator
        if kept and kept.file != file:  # the file was replaced
            await kept.opened.__aexit__(None, None, None)
            kept = None
        if kept:
            opened, database = kept.opened, kept.database
        else:
            self._schema_ready = False  # ADK looks whether the tables are there
            opened = super()._get_db_connection()
            database = await opened.__aenter__()
            _stop_at_exit(database)
            file = _file(self.path)
        try:
            if self._appends:
                # ADK looks whether the session is stale, and then writes: no other process writes in between.
                await database.execute("BEGIN IMMEDIATE")
            yield database
        except BaseException:
            await opened.__aexit__(None, None, None)
            raise
        self._kept = _Open(loop, file, opened, database)

    async def _close_connection(self) -> None:
        kept, self._kept = self._kept, None
        if kept and kept.loop is asyncio.get_running_loop():
            await kept.opened.__aexit__(None, None, None)


_connections: WeakSet[aiosqlite.Connection] = WeakSet()


def _stop_at_exit(connection: aiosqlite.Connection) -> None:
    """Ends the connection's thread with the process, if nobody closes the connection before.

    daphne, for example, tells an application of no end. Python waits for the thread before it calls what is
    registered with atexit, so the process would never end.
    """
    _connections.add(connection)
    _watch_exit()


@cache
def _watch_exit() -> None:
    def wait() -> None:
        threading.main_thread().join()
        for connection in [*_connections]:
            with suppress(AttributeError):  # aiosqlite before 0.22
                connection.stop()

    threading.Thread(target=wait, name="sqlite exit", daemon=True).start()


class SqliteReader:
    """Reads a sqlite file on a thread and a connection of its own: it waits for no writer, and none for it.

    There is one thread, so that many who read at once leave the processor to the conversations.
    """

    finds_owners = True

    def __init__(self, service: Sqlite, path: str) -> None:
        self._service = service
        self._path = path
        self._thread: ThreadPoolExecutor | None = None  # none after close(), until something is read
        self._database: sqlite3.Connection | None = None
        self._file: _File | None = None

    async def owner(self, app_name: str, session_id: str, probably: str) -> str | None:
        query = "SELECT user_id FROM sessions WHERE app_name = ? AND id = ?"
        rows = await self._rows(query, (app_name, session_id))
        return str(rows[0][0]) if rows else None

    async def has_sessions(self, app_name: str) -> bool:
        """Whether there are sessions under this name."""
        return bool(await self._rows("SELECT 1 FROM sessions WHERE app_name = ? LIMIT 1", (app_name,)))

    async def newest(self, app_name: str, user_id: str, limit: int) -> list[Brief]:
        query = (
            "SELECT id, json_extract(state, ?), update_time, json_extract(state, ?) FROM sessions"
            " WHERE app_name = ? AND user_id = ? ORDER BY update_time DESC LIMIT ?"
        )
        rows = await self._rows(query, (f"$.{CREATED_AT}", f"$.{TITLE}", app_name, user_id, limit))
        return [Brief(name, float(created or used), used, title or "") for name, created, used, title in rows]

    async def session(self, key: Key, limit: int) -> Session | None:
        session = await self._service.get_session(
            **key._asdict(), config=GetSessionConfig(num_recent_events=0)
        )
        if session:
            query = (
                "SELECT event_data FROM events WHERE app_name = ? AND user_id = ? AND session_id = ?"
                " ORDER BY timestamp DESC, rowid DESC LIMIT ?"
            )
            session.events = await self._read(
                lambda: [
                    Event.model_validate_json(data) for (data,) in self._execute(query, (*key, limit))[::-1]
                ]
            )
        return session

    async def following(self, key: Key, position: Any) -> AsyncGenerator[list[Stored], None]:
        query = (
            "SELECT timestamp, rowid, event_data FROM events"
            " WHERE app_name = ? AND user_id = ? AND session_id = ? AND (timestamp, rowid) > (?, ?)"
            " ORDER BY timestamp, rowid LIMIT ?"
        )
        position = position or (float("-inf"), 0)
        while True:
            page = await self._read(
                lambda after: [
                    Stored((timestamp, rowid), timestamp, said_in(json.loads(data)))
                    for timestamp, rowid, data in self._execute(query, (*key, *after, PAGE))
                ],
                position,
            )
            yield page
            if len(page) < PAGE:
                return
            position = page[-1].position

    async def outdate(self, key: Key, session: Session) -> bool:
        return await self._service.outdate(key, session)

    def change_loop(self) -> None:
        """The thread belongs to none."""

    async def close(self) -> None:
        if self._thread:
            await self._read(self._close)
            self._thread.shutdown()
            self._thread = None

    async def _rows(self, query: str, values: tuple[Any, ...]) -> list[Any]:
        return await self._read(lambda: self._execute(query, values))

    async def _read(self, function: Callable[..., T], *values: Any) -> T:
        self._thread = self._thread or ThreadPoolExecutor(1, "sqlite reader")
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *values)

    # ---- on the thread ----

    def _execute(self, query: str, values: tuple[Any, ...]) -> list[Any]:
        file = _file(self._path)
        if self._file != file:  # it was replaced
            self._close()
        if not file:
            return []
        if not self._database:
            self._database = sqlite3.connect(self._path, check_same_thread=False)
            self._file = file
        return self._database.execute(query, values).fetchall()

    def _close(self) -> None:
        if self._database:
            self._database.close()
            self._database = None


def _file(path: str) -> _File | None:
    try:
        found = Path(path).stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
