"""ADK's session service in memory, read without copies."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from google.adk.sessions import InMemorySessionService, Session

from adk_relay.adk.lines import said_by
from adk_relay.adk.reading import PAGE, AnyReader, Brief, Key, Stored, brief


class MemoryReader(AnyReader):
    """Reads an `InMemorySessionService`, which copies whatever it returns, and for a list all."""

    finds_owners = True

    def __init__(self, service: InMemorySessionService) -> None:
        super().__init__(service)
        self._memory = service

    async def owner(self, app_name: str, session_id: str, probably: str) -> str | None:
        users = self._memory.sessions.get(app_name, {})
        if session_id in users.get(probably, {}):
            return probably
        return next((user for user, sessions in users.items() if session_id in sessions), None)

    async def newest(self, app_name: str, user_id: str, limit: int) -> list[Brief]:
        stored = self._sessions(app_name, user_id).values()
        latest = sorted(stored, key=lambda session: session.last_update_time, reverse=True)[:limit]
        return [brief(each) for each in latest]

    async def session(self, key: Key, limit: int) -> Session | None:
        session = await super().session(key, 0)  # a copy of its state
        if session and limit:
            session.events = self._sessions(key.app_name, key.user_id)[key.session_id].events[-limit:]
        return session

    async def following(self, key: Key, position: Any) -> AsyncGenerator[list[Stored], None]:
        start = 0 if position is None else position + 1
        while True:
            session = self._sessions(key.app_name, key.user_id).get(key.session_id)
            events = session.events[start : start + PAGE] if session else []
            yield [
                Stored(start + index, event.timestamp, said_by(event)) for index, event in enumerate(events)
            ]
            if len(events) < PAGE:
                return
            start += PAGE

    def _sessions(self, app_name: str, user_id: str) -> dict[str, Session]:
        return self._memory.sessions.get(app_name, {}).get(user_id, {})
