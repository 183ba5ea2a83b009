"""The ADK session of a conversation: the part that is stored."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import NamedTuple

from google.adk.errors.already_exists_error import AlreadyExistsError
from google.adk.events import Event
from google.adk.sessions import BaseSessionService, Session
from google.genai import types

from adk_relay.adk.waiting import ends_in_answer, skip, waiting_in
from adk_relay.core.messages import Line, ToolStart, UserText
from adk_relay.core.requests import Stats

APP_NAME = "relay"
"""The name under which ADK keeps all sessions of relay."""

_GOES_ON = "relay_goes_on"
"""Marks an event, in its metadata: a lost connection has cut this answer, and the next event is its rest."""

_CREATED_AT = "relay_created_at"
"""The key of the time when a session was made, in its state; ADK itself keeps only that of the last event."""


_AT_HAND_FOR = 1.0
"""Seconds after which a session that was read is read again before it is used."""


class _AtHand(NamedTuple):
    """What the session service has just said: the session, or that there is none."""

    session: Session | None
    expiry: asyncio.TimerHandle


class StoredSession:
    """The session of one conversation. All methods that wait raise what the session service raises.

    A start needs the session three times: for the history, to make it if there is none, and for ADK's run.
    Reading a long one takes milliseconds, so what was read last is at hand for a moment, for the first user.

    Invariants:
        A session that was found or made is kept until it is deleted.
    """

    def __init__(self, service: BaseSessionService, stats: Stats, user_id: str, session_id: str) -> None:
        self._service = service
        self._stats = stats
        self.user_id = user_id
        self.session_id = session_id
        self.is_kept = False
        """Whether there is a session."""
        self.waiting: list[ToolStart] = []
        """The tool calls that waited for a user when the session was read."""
        self.created_at = self.last_activity = time.time()
        self._at_hand: _AtHand | None = None

    async def load(self) -> list[Line]:
        """Reads the messages of the session; without a session, there are none."""
        session = await get_session(self._service, self.user_id, self.session_id)
        self._keep_at_hand(session)
        if session is None:
            return []
        self.is_kept = True
        self.waiting = waiting_in(session.events)
        self.created_at = created_at(session)
        self.last_activity = session.last_update_time
        return lines_of(session)

    async def find(self) -> Session:
        """The session with all its events; it is made if there is none."""
        if at_hand := self._take_at_hand():
            session = at_hand.session
        else:
            session = await get_session(self._service, self.user_id, self.session_id)
        if session is None:
            try:
                session = await create_session(self._service, self.user_id, self.session_id)
            except AlreadyExistsError:  # another process has made it, since it was not there
                session = await get_session(self._service, self.user_id, self.session_id)
                if session is None:
                    raise
            else:
                self._stats.created += 1
            self.created_at = created_at(session)
        self.is_kept = True
        return session

    async def create(self) -> None:
        """Makes the session."""
        session = await create_session(self._service, self.user_id, self.session_id)
        self._keep_at_hand(session)
        self.created_at = created_at(session)
        self.is_kept = True

    async def delete(self) -> None:
        """Deletes the session. The conversation begins anew, with none."""
        self._take_at_hand()
        await self._service.delete_session(
            app_name=APP_NAME, user_id=self.user_id, session_id=self.session_id
        )
        self.is_kept = False
        self.created_at = self.last_activity = time.time()

    def _keep_at_hand(self, session: Session | None) -> None:
        self._take_at_hand()
        expiry = asyncio.get_running_loop().call_later(_AT_HAND_FOR, self._take_at_hand)
        self._at_hand = _AtHand(session, expiry)

    def _take_at_hand(self) -> _AtHand | None:
        at_hand, self._at_hand = self._at_hand, None
        if at_hand:
            at_hand.expiry.cancel()
        return at_hand

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
        await self.append(session, Event(author=author, content=content, custom_metadata=marks))

    async def skip_answer(self) -> None:
        """If the session ends with a user's answer to what ADK has asked, ADK leaves it aside from now on."""
        session = await self.find()
        if ends_in_answer(session.events):
            await self.append(session, skip())

    async def append(self, session: Session, event: Event) -> None:
        """Stores an event."""
        await self._service.append_event(session, event)


def default_id(user_id: str) -> str:
    """The id of a live user's default conversation."""
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
    """The messages of a session, in the order in which the listeners got them."""
    lines: list[Line] = []
    goes_on = False
    cut = 0  # the number of lines at the last interruption: those are in order
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
                # ADK stores a text at once, but the answer that the text interrupts only when it ends.
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
