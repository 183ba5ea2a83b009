"""The fence: what is written into a session passes here, one event after the other, and only by its owner."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import Any
from weakref import WeakValueDictionary

from google.adk.events import Event
from google.adk.sessions import BaseSessionService, Session
from google.adk.sessions.base_session_service import GetSessionConfig, ListSessionsResponse

Check = Callable[[str], Awaitable[bool]]
"""Whether this process still owns the conversation with this session id. It may wait."""


class NotOwnerError(Exception):
    """Another process owns the conversation. Its run here ends, and nobody is told."""

    def __init__(self, session_id: str) -> None:
        super().__init__(f"another process owns the conversation {session_id!r}")


class Fence(BaseSessionService):
    """A session service that takes one write into a session after the other, if this process may do it.

    ADK's services want one writer, who knows the last event: they refuse an event of anybody else. A session
    has one at a time: its run, and between two runs the conversation's task. What comes at any other time is
    stored with `append_aside`, and the writer notices nothing of it.

    A writer that stood still may come back late, when another process has the conversation. Some services
    notice that its session is stale, and others do not. So `check` is asked before each write. One that
    stands still after that, even in the middle of its write, is kept out by `take_over` where the store can
    do that.

    Args:
        service: what it writes to. All it has besides ADK's interface is found here, too.
        check: whether this process owns a conversation; None: it owns all.
        lose: called with a conversation that may not be written any more, before NotOwnerError is raised.
        lost: conversations that have not ended here: nothing more of them is written, also if this process
            owns them again by now.
    """

    def __init__(
        self,
        service: BaseSessionService,
        check: Check | None,
        lose: Callable[[str], None],
        lost: Collection[str] = (),
    ) -> None:
        self._service = service
        self._check = check
        self._lose = lose
        self._lost = lost
        self._turns = WeakValueDictionary[str, asyncio.Lock]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._service, name)

    async def create_session(
        self,
        *,
        app_name: str,
        user_id: str,
        state: dict[str, Any] | None = None,
        session_id: str | None = None,
    ) -> Session:
        if session_id:
            await self._may_write(session_id)
        return await self._service.create_session(
            app_name=app_name, user_id=user_id, state=state, session_id=session_id
        )

    async def get_session(
        self, *, app_name: str, user_id: str, session_id: str, config: GetSessionConfig | None = None
    ) -> Session | None:
        return await self._service.get_session(
            app_name=app_name, user_id=user_id, session_id=session_id, config=config
        )

    async def list_sessions(self, *, app_name: str, user_id: str | None = None) -> ListSessionsResponse:
        return await self._service.list_sessions(app_name=app_name, user_id=user_id)

    async def delete_session(self, *, app_name: str, user_id: str, session_id: str) -> None:
        async with self._turn(session_id):
            await self._may_write(session_id)
            await self._service.delete_session(app_name=app_name, user_id=user_id, session_id=session_id)

    async def get_user_state(self, *, app_name: str, user_id: str) -> dict[str, Any]:
        return await self._service.get_user_state(app_name=app_name, user_id=user_id)

    async def append_event(self, session: Session, event: Event) -> Event:
        if event.partial:  # which is not stored
            return await self._service.append_event(session=session, event=event)
        async with self._turn(session.id):
            return await self._append(session, event)

    async def append_aside(
        self, session_id: str, read: Callable[[], Awaitable[Session | None]], event: Event
    ) -> None:
        """Stores an event without words while somebody else may be writing into the session.

        The services know by the time of a session's last event whether somebody else has written. So this
        event has the time of the one before it.

        Args:
            read: returns the session as it is stored. None: it was deleted, and nothing is stored.
        """
        async with self._turn(session_id):
            if session := await read():
                event.timestamp = session.last_update_time
                await self._append(session, event)

    async def take_over(
        self,
        session_id: str,
        read: Callable[[], Awaitable[Session | None]],
        outdate: Callable[[Session], Awaitable[bool]],
    ) -> None:
        """Keeps out those who could write into the session before this process could.

        What they were allowed to write is written when this returns, and can be read, or it never is.

        Args:
            read: returns the session as it is stored. None: there is none.
            outdate: see `Reader.outdate`.
        """
        if self._check is None:
            return
        async with self._turn(session_id):
            while session := await read():
                await self._may_write(session_id)
                if await outdate(session):
                    return

    async def flush(self) -> None:
        await self._service.flush()

    def _turn(self, session_id: str) -> asyncio.Lock:
        """Held while one event of a session is stored, and what it depends on is read."""
        return self._turns.setdefault(session_id, asyncio.Lock())

    async def _append(self, session: Session, event: Event) -> Event:
        await self._may_write(session.id)
        try:
            return await self._service.append_event(session=session, event=event)
        except ValueError:  # the services say so that somebody else has written: it may be a new owner
            await self._may_write(session.id)
            raise

    async def _may_write(self, session_id: str) -> None:
        if self._check is None:
            return
        if session_id in self._lost or not await self._check(session_id) or session_id in self._lost:
            self._lose(session_id)
            raise NotOwnerError(session_id)
