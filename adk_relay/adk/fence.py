"""The fence: a process that does not own a conversation any more writes nothing into its session."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import Any

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
    """A session service that asks before each write whether this process may do it.

    A writer that stood still may come back late, when another process has the conversation. Some services
    notice that its session is stale, and others do not.

    Args:
        service: what it writes to. All it has besides ADK's interface is found here, too.
        check: asked before each write.
        lose: called with a conversation that may not be written any more, before NotOwnerError is raised.
        lost: conversations that have not ended here: nothing more of them is written, also if this process
            owns them again by now.
    """

    def __init__(
        self,
        service: BaseSessionService,
        check: Check,
        lose: Callable[[str], None],
        lost: Collection[str] = (),
    ) -> None:
        self._service = service
        self._check = check
        self._lose = lose
        self._lost = lost

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
        await self._may_write(session_id)
        await self._service.delete_session(app_name=app_name, user_id=user_id, session_id=session_id)

    async def get_user_state(self, *, app_name: str, user_id: str) -> dict[str, Any]:
        return await self._service.get_user_state(app_name=app_name, user_id=user_id)

    async def append_event(self, session: Session, event: Event) -> Event:
        if not event.partial:  # which is not stored
            await self._may_write(session.id)
        return await self._service.append_event(session=session, event=event)

    async def flush(self) -> None:
        await self._service.flush()

    async def _may_write(self, session_id: str) -> None:
        if session_id in self._lost or not await self._check(session_id) or session_id in self._lost:
            self._lose(session_id)
            raise NotOwnerError(session_id)
