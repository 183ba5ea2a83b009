"""Where conversations are kept: the session service that an ADK URI names."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlparse

import aiosqlite
from google.adk.cli.service_registry import get_service_registry
from google.adk.events import Event
from google.adk.sessions import BaseSessionService, Session
from google.adk.sessions.base_session_service import GetSessionConfig, ListSessionsResponse
from google.adk.sessions.sqlite_session_service import SqliteSessionService


def session_service(uri: str) -> BaseSessionService:
    """The session service for an ADK URI such as `memory://` or `sqlite:///folder/file.db`.

    The folder of a sqlite file is created.

    Raises:
        ValueError: ADK knows no such service, or it is not installed here.
        OSError: the folder can't be created.
    """
    scheme = uri.partition(":")[0]
    if scheme == "sqlite" and (path := urlparse(uri).path[1:]):
        return _Sqlite(path)
    try:
        service = get_service_registry().create_session_service(uri)
    except ImportError as error:
        raise ValueError(
            f"{scheme}:// needs pip install 'google-adk[db]' and a database driver: {error}"
        ) from error
    if service is None:
        raise ValueError(f"ADK knows no session service {scheme!r}; try sqlite:///file.db")
    return service


async def owner_of(service: BaseSessionService, app_name: str, session_id: str, probably: str) -> str | None:
    """The user whose session has this id; None: there is none.

    ADK finds a session only by its user and its id. Without the user, a list of all sessions has to be read.

    Args:
        probably: the user who is checked first.
    """
    if isinstance(service, _Sqlite) and hasattr(SqliteSessionService, "_get_db_connection"):
        return await service.owner_of(app_name, session_id)
    brief = GetSessionConfig(num_recent_events=1)
    if await service.get_session(app_name=app_name, user_id=probably, session_id=session_id, config=brief):
        return probably
    stored = await service.list_sessions(app_name=app_name)
    return next((session.user_id for session in stored.sessions if session.id == session_id), None)


async def has_sessions(service: BaseSessionService, app_name: str) -> bool:
    """Whether a sqlite file has sessions under this name. Others are not asked: it may take long."""
    if isinstance(service, _Sqlite) and hasattr(SqliteSessionService, "_get_db_connection"):
        return await service.has_sessions(app_name)
    return False


_KEPT_FOR = 1.0
"""Seconds that a connection is kept open. Not longer: the file may be replaced, which must be noticed."""


class _Kept(NamedTuple):
    """A connection that waits for the next operation, and the event loop that it belongs to."""

    loop: asyncio.AbstractEventLoop
    opened: AbstractAsyncContextManager[aiosqlite.Connection]
    database: aiosqlite.Connection
    expiry: asyncio.TimerHandle


class _Sqlite(SqliteSessionService):
    """ADK's service for sqlite, one operation at a time, over a connection that is kept open for a moment.

    ADK opens a connection and a thread for each operation, and sqlite has one writer: with a hundred users at
    once, some would wait for longer than its limit of 5 s, and fail. To open one takes longer than a query.

    Invariants:
        A connection is either kept, and then a timer will close it, or one operation uses it.
    """

    def __init__(self, path: str) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path)) as database:
            # A commit then needs one sync less. The file keeps this setting.
            database.execute("PRAGMA journal_mode=WAL")
        super().__init__(path)
        self._turn = asyncio.Lock()
        self._kept: _Kept | None = None
        self._expiring: asyncio.Task[None] | None = None

    async def create_session(self, **named: Any) -> Session:
        async with self._turn:
            return await super().create_session(**named)

    async def get_session(self, **named: Any) -> Session | None:
        async with self._turn:
            return await super().get_session(**named)

    async def append_event(self, session: Session, event: Event) -> Event:
        async with self._turn:
            return await super().append_event(session, event)

    async def list_sessions(self, **named: Any) -> ListSessionsResponse:
        async with self._turn:
            return await super().list_sessions(**named)

    async def delete_session(self, **named: Any) -> None:
        async with self._turn:
            await super().delete_session(**named)

    async def get_user_state(self, **named: Any) -> dict[str, Any]:
        async with self._turn:
            return await super().get_user_state(**named)

    async def owner_of(self, app_name: str, session_id: str) -> str | None:
        """The user whose session has this id, found without reading all sessions; None: there is none."""
        async with self._turn, self._get_db_connection() as database:
            query = "SELECT user_id FROM sessions WHERE app_name = ? AND id = ?"
            rows = await database.execute_fetchall(query, (app_name, session_id))
            return next((str(row[0]) for row in rows), None)

    async def has_sessions(self, app_name: str) -> bool:
        """Whether there are sessions under this name."""
        async with self._turn, self._get_db_connection() as database:
            query = "SELECT 1 FROM sessions WHERE app_name = ? LIMIT 1"
            return bool([*await database.execute_fetchall(query, (app_name,))])

    async def close(self) -> None:
        async with self._turn:
            await self._close_connection()
        await super().close()

    # A private name of ADK, which calls it once in each operation, so within `_turn`. Without it there, this
    # method is never called, and each operation opens a connection.
    @asynccontextmanager
    async def _get_db_connection(self) -> AsyncIterator[aiosqlite.Connection]:
        loop = asyncio.get_running_loop()
        kept, self._kept = self._kept, None
        if kept and kept.loop is loop:
            kept.expiry.cancel()
            opened, database = kept.opened, kept.database
        else:  # a loop that ended has closed its connection: `opened` is an asynchronous generator
            opened = super()._get_db_connection()
            database = await opened.__aenter__()
        try:
            yield database
        except BaseException:
            await opened.__aexit__(None, None, None)
            raise
        self._kept = _Kept(loop, opened, database, loop.call_later(_KEPT_FOR, self._expire))

    def _expire(self) -> None:
        self._expiring = asyncio.create_task(self._close_connection(), name="closing sqlite's connection")

    async def _close_connection(self) -> None:
        kept, self._kept = self._kept, None
        if kept:
            kept.expiry.cancel()
            await kept.opened.__aexit__(None, None, None)
