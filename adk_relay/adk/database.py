"""ADK's session service for SQL databases, read in pages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from datetime import timedelta
from importlib import import_module
from typing import Any

from google.adk.sessions import BaseSessionService, Session
from google.adk.sessions.base_session_service import GetSessionConfig

from adk_relay.adk.lines import said_in
from adk_relay.adk.reading import CREATED_AT, PAGE, TITLE, AnyReader, Brief, Key, Stored

_AT_ONCE = 2
"""How many reads there are at a time: those who only read leave connections to the conversations."""


class DatabaseReader(AnyReader):
    """Reads the tables of ADK's `DatabaseSessionService`, with its engine.

    SQLAlchemy is imported by its name, because it is not installed unless such a service is used.

    Raises:
        ImportError: this version of ADK has other tables.
    """

    finds_owners = True

    def __init__(self, service: BaseSessionService, engine: Any) -> None:
        super().__init__(service)
        self._engine = engine
        self._sql: Any = import_module("sqlalchemy")
        self._orm: Any = import_module("sqlalchemy.ext.asyncio")
        tables: Any = import_module("google.adk.sessions.schemas.v1")
        self._events, self._sessions = tables.StorageEvent, tables.StorageSession
        self._reads = asyncio.Semaphore(_AT_ONCE)

    async def owner(self, app_name: str, session_id: str, probably: str) -> str | None:
        await self.session(Key(app_name, probably, session_id), 0)  # makes the tables, if there are none
        sessions = self._sessions
        query = self._sql.select(sessions.user_id).where(
            sessions.app_name == app_name, sessions.id == session_id
        )
        return next((str(user_id) for user_id in await self._read(query)), None)

    async def newest(self, app_name: str, user_id: str, limit: int) -> list[Brief]:
        await self.session(Key(app_name, user_id, ""), 0)
        sessions = self._sessions
        query = (
            self._sql.select(sessions)
            .where(sessions.app_name == app_name, sessions.user_id == user_id)
            .order_by(sessions.update_time.desc())
            .limit(limit)
        )
        return [
            Brief(each.id, float(each.state.get(CREATED_AT) or used), used, str(each.state.get(TITLE) or ""))
            for each in await self._read(query)
            for used in [each.get_update_timestamp()]
        ]

    async def session(self, key: Key, limit: int) -> Session | None:
        if limit and not await self._has_events_in_json():
            return await super().session(key, limit)
        config = GetSessionConfig(num_recent_events=0)
        session = await self._service.get_session(**key._asdict(), config=config)
        if session and limit:
            events = self._events
            order = events.timestamp.desc(), events.id.desc()
            found = await self._read(self._of(key).order_by(*order).limit(limit))
            session.events = await asyncio.to_thread(lambda: [each.to_event() for each in found[::-1]])
        return session

    async def following(self, key: Key, position: Any) -> AsyncGenerator[list[Stored], None]:
        if not await self._has_events_in_json():
            async for page in super().following(key, position):
                yield page
            return
        events, sql = self._events, self._sql
        query = self._of(key).order_by(events.timestamp, events.id).limit(PAGE)
        while True:
            after = query
            if position:
                when, event_id = position
                is_tied = sql.and_(events.timestamp == when, events.id > event_id)
                after = query.where(sql.or_(events.timestamp > when, is_tied))
            page = [
                Stored((each.timestamp, each.id), float(data.get("timestamp") or 0), said_in(data))
                for each in await self._read(after)
                for data in [each.event_data or {}]
            ]
            yield page
            if len(page) < PAGE:
                return
            position = page[-1].position

    async def outdate(self, key: Key, session: Session) -> bool:
        if not await self._has_events_in_json():
            return await super().outdate(key, session)
        sessions, sql = self._sessions, self._sql
        is_it = sql.and_(
            sessions.app_name == key.app_name,
            sessions.user_id == key.user_id,
            sessions.id == key.session_id,
        )
        # ADK refuses an event if this time is not the one that its writer knows. It locks the row, too.
        query = sql.select(sessions).where(is_it).with_for_update()
        async with self._orm.AsyncSession(self._engine) as database, database.begin():
            stored = (await database.execute(query)).scalar_one_or_none()
            if stored is None or stored.get_update_timestamp() > session.last_update_time:
                return False
            stored.update_time += timedelta(microseconds=1)
        return True

    def change_loop(self) -> None:
        self._reads = asyncio.Semaphore(_AT_ONCE)
        # The connections in the pool can neither be used nor closed in another event loop.
        self._engine.sync_engine.dispose(close=False)

    def _of(self, key: Key) -> Any:
        events = self._events
        return self._sql.select(events).where(
            events.app_name == key.app_name,
            events.user_id == key.user_id,
            events.session_id == key.session_id,
        )

    async def _has_events_in_json(self) -> bool:
        """Whether the tables are those of the present ADK; a database of an old one keeps its own."""
        if self._is_new is None:
            async with self._engine.connect() as connection:
                self._is_new = await connection.run_sync(self._looks_new)
        return self._is_new

    _is_new: bool | None = None

    def _looks_new(self, connection: Any) -> bool:
        inspector = self._sql.inspect(connection)
        if not inspector.has_table("events"):
            return True  # ADK will make the tables
        return any(column["name"] == "event_data" for column in inspector.get_columns("events"))

    async def _read(self, query: Any) -> list[Any]:
        async with self._reads, self._orm.AsyncSession(self._engine) as session:
            return [*(await session.execute(query)).scalars().all()]
