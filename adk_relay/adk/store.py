"""Where conversations are kept: the session service that an ADK URI names."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from google.adk.cli.service_registry import get_service_registry
from google.adk.events import Event
from google.adk.sessions import BaseSessionService, Session
from google.adk.sessions.base_session_service import GetSessionConfig, ListSessionsResponse
from google.adk.sessions.sqlite_session_service import SqliteSessionService


def session_service(uri: str) -> BaseSessionService:
    """The session service for an ADK URI such as `memory://` or `sqlite:///folder/file.db`.

    The folder of a sqlite file is made.

    Raises:
        ValueError: ADK knows no such service, or it is not installed here.
        OSError: the folder can't be made.
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
        raise ValueError(f"{scheme!r} is no session service that ADK knows; try sqlite:///file.db")
    return service


async def owner_of(service: BaseSessionService, app_name: str, session_id: str, probably: str) -> str | None:
    """The user whose session has this id; None: there is none.

    ADK finds a session only by its user and its id. Without the user, a list of all sessions has to be read.

    Args:
        probably: the user who is asked for first.
    """
    if isinstance(service, _Sqlite):
        return await service.owner_of(app_name, session_id)
    least = GetSessionConfig(num_recent_events=1)
    if await service.get_session(app_name=app_name, user_id=probably, session_id=session_id, config=least):
        return probably
    everybodys = await service.list_sessions(app_name=app_name)
    return next((session.user_id for session in everybodys.sessions if session.id == session_id), None)


class _Sqlite(SqliteSessionService):
    """ADK's service for sqlite, one operation at a time.

    ADK opens a connection and a thread for each operation, and sqlite has one writer: with a hundred users at
    once, some would wait for longer than its limit of 5 s, and fail.
    """

    def __init__(self, path: str) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path)) as database:
            database.execute(
                "PRAGMA journal_mode=WAL"
            )  # a commit then needs one sync less; the file remembers it
        super().__init__(path)
        self._turn = asyncio.Lock()

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

    async def owner_of(self, app_name: str, session_id: str) -> str | None:
        """The user whose session has this id, found without reading all sessions; None: there is none."""
        async with self._turn, self._get_db_connection() as database:
            query = "SELECT user_id FROM sessions WHERE app_name = ? AND id = ?"
            rows = await database.execute_fetchall(query, (app_name, session_id))
            return next((str(row[0]) for row in rows), None)
