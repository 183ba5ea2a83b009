"""The ADK session of a conversation: what of it is kept."""

from __future__ import annotations

import time
from collections.abc import Iterator

from google.adk.events import Event
from google.adk.sessions import BaseSessionService, Session
from google.genai import types

from adk_relay.core.messages import Line, UserText
from adk_relay.core.requests import Stats

APP_NAME = "relay"
"""The name under which ADK keeps all sessions of relay."""

_GOES_ON = "relay_goes_on"
"""Marks an event, in its metadata, whose answer was cut by a lost connection: the next one is its rest."""

_CREATED_AT = "relay_created_at"
"""Where a session's state has the time it was made at; ADK keeps only that of the last event."""


class StoredSession:
    """The session of one conversation. All methods that wait raise what the session service raises.

    Invariants:
        A session that was found or made is kept until it is deleted.
    """

    def __init__(self, service: BaseSessionService, stats: Stats, user_id: str, session_id: str) -> None:
        self._service = service
        self._stats = stats
        self.user_id = user_id
        self.session_id = session_id
        self.is_kept = False
        """There is a session."""
        self.created_at = self.last_activity = time.time()

    async def load(self) -> list[Line]:
        """Reads what the session holds; nothing, if there is none yet."""
        session = await get_session(self._service, self.user_id, self.session_id)
        if session is None:
            return []
        self.is_kept = True
        self.created_at = created_at(session)
        self.last_activity = session.last_update_time
        return lines_of(session)

    async def find(self) -> Session:
        """The session with all its events; it is made if there is none."""
        session = await get_session(self._service, self.user_id, self.session_id)
        if session is None:
            session = await self.create()
            self._stats.created += 1
        self.is_kept = True
        return session

    async def create(self) -> Session:
        """Makes the session."""
        session = await create_session(self._service, self.user_id, self.session_id)
        self.created_at = created_at(session)
        self.is_kept = True
        return session

    async def delete(self) -> None:
        """Deletes the session. The conversation begins anew, with none."""
        await self._service.delete_session(
            app_name=APP_NAME, user_id=self.user_id, session_id=self.session_id
        )
        self.is_kept = False
        self.created_at = self.last_activity = time.time()

    async def append_text(self, session: Session, text: str) -> None:
        """Stores a user's text that no model was given."""
        await self._append(session, "user", types.Content(role="user", parts=[types.Part(text=text)]))

    async def append_cut_answer(self, session: Session, author: str, text: str, *, goes_on: bool) -> None:
        """Stores what an agent had said of an answer when its connection was lost.

        Args:
            goes_on: another run says the rest.
        """
        content = types.Content(role="model", parts=[types.Part(text=text)])
        await self._append(session, author, content, {_GOES_ON: True} if goes_on else None)

    async def _append(
        self, session: Session, author: str, content: types.Content, marks: dict[str, bool] | None = None
    ) -> None:
        event = Event(author=author, content=content, custom_metadata=marks)
        await self._service.append_event(session, event)


def default_id(user_id: str) -> str:
    """The id of the conversation that a live user has without having asked for another."""
    return f"live-{user_id}"


async def get_session(service: BaseSessionService, user_id: str, session_id: str) -> Session | None:
    """A stored session, with all its events; None: there is none."""
    return await service.get_session(app_name=APP_NAME, user_id=user_id, session_id=session_id)


async def create_session(service: BaseSessionService, user_id: str, session_id: str) -> Session:
    """Makes an ADK session that remembers when it was made."""
    return await service.create_session(
        app_name=APP_NAME, user_id=user_id, session_id=session_id, state={_CREATED_AT: time.time()}
    )


def created_at(session: Session) -> float:
    """When a session was made, as `time.time()`."""
    stored = session.state.get(_CREATED_AT)
    return float(stored) if isinstance(stored, int | float) else session.last_update_time


def holds(session: Session, text: UserText, since: float) -> bool:
    """Whether a session holds a user's text that was stored at `since` (`time.time()`) or later."""
    for event in session.events:
        parts = event.content.parts if event.content else None
        if event.author == "user" and event.timestamp >= since and parts and parts[0].text == text.text:
            return True
    return False


def lines_of(session: Session) -> list[Line]:
    """The messages of a session, in the order in which they were told."""
    lines: list[Line] = []
    goes_on = False
    cut = 0  # the number of lines when something was interrupted last: those are in order
    for event in session.events:
        if event.partial:
            continue
        for line in _lines_of(event):
            if goes_on and line.role == "agent":
                line = Line("agent", lines.pop().text + line.text)
            lines.append(line)
            goes_on = _GOES_ON in (event.custom_metadata or ())
        if event.interrupted:
            if cut < len(lines) - 1 and [line.role for line in lines[-3:]] == ["user", "user", "agent"]:
                # ADK stores a text at once, and the answer that it cuts at its end.
                lines[-2:] = [lines[-1], lines[-2]]
            cut = len(lines)
    return lines


def _lines_of(event: Event) -> Iterator[Line]:
    if event.content:
        text = "".join(part.text or "" for part in event.content.parts or () if not part.thought)
        if text:
            yield Line("user" if event.author == "user" else "agent", text)
    if (heard := event.input_transcription) and heard.text:
        yield Line("user", heard.text)
    if (spoken := event.output_transcription) and spoken.text:
        yield Line("agent", spoken.text)
