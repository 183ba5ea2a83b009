"""The ADK session of a conversation: the part that is stored."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, NamedTuple

from google.adk.errors.already_exists_error import AlreadyExistsError
from google.adk.events import Event, EventActions
from google.adk.sessions import BaseSessionService, Session
from google.genai import types

from adk_relay.adk.archive import Archive
from adk_relay.adk.calls import keep, waiting_in, with_waiting
from adk_relay.adk.fence import Fence
from adk_relay.adk.lines import Lines, said_by, with_unanswered
from adk_relay.adk.marks import marks_of
from adk_relay.adk.reading import CREATED_AT, TITLE, Key, Reader, created_at, title_in
from adk_relay.adk.rewound import rewound
from adk_relay.adk.state import SetState, delta_of, shown
from adk_relay.adk.waiting import ends_in_answer, skip
from adk_relay.core.at_once import limited
from adk_relay.core.history import History
from adk_relay.core.messages import Line, ToolStart, UserText
from adk_relay.core.stats import Stats
from adk_relay.core.visitor import GUEST

OLD_APP_NAME = "relay"
"""The name under which ADK kept all sessions of relay before 0.3, whatever agent they were of."""

_RECENT = 300
"""How many of a session's last events are in memory. More would hold up the event loop when ADK goes through
them, at each connection to the model."""

_FOR_MODEL = 256 * 1024
"""Characters of text that the model is given at most: what the context of the larger models takes."""

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
        One at a time writes into it: its run, which has it from `find`, or between two runs the task of the
        conversation, with `append` and `write`. Only titles, and what was not heard, are stored at any time:
        see `Fence.append_aside`.
    """

    def __init__(
        self,
        service: Fence,
        reader: Reader,
        stats: Stats,
        app_name: str,
        user_id: str,
        session_id: str,
    ) -> None:
        self._service = service
        self._reader = reader
        self._stats = stats
        self._app_name = app_name
        self.user_id = user_id
        self.session_id = session_id
        self.is_kept = False
        """Whether there is a session."""
        self.waiting: list[ToolStart] = []
        """The tool calls that waited for a user when the session was read."""
        self.created_at = self.last_activity = time.time()
        self.title = ""
        """What the users have named the conversation; "": they have not."""
        self.unheard: list[Event] = []
        """They say how much of an answer was heard, and are not stored yet: see `adk.marks.Unheard`."""
        self._finding = asyncio.Lock()
        self._at_hand: _AtHand | None = None
        self.set_state = SetState()
        self.loaded_state: dict[str, Any] = {}
        """The session's state when it was read."""
        self.archive = self._new_archive()
        self._count: Callable[[], Coroutine[Any, Any, None]] | None = None
        """Counts the messages that are not in memory; None: that is done, or there are none."""
        self._counting: asyncio.Task[None] | None = None

    async def load(self, history: History) -> list[UserText]:
        """Reads the last messages of the session; without a session, there are none.

        Returns:
            The texts that have ids, the oldest first: they are not to be said again.
        """
        session = await self.read()
        lines, texts = Lines(), []
        for said in map(said_by, session.events if session else ()):
            lines.add(said)
            texts += [text] if (text := said.user_text) else []
        history.load(with_unanswered(lines.kept), has_more=self.has_more(session))
        await self.loaded(session, lines.kept, history)
        return texts

    async def read(self) -> Session | None:
        """The session with its last events; None: there is none."""
        return await self._reader.session(self._key, _RECENT)

    def has_more(self, session: Session | None) -> bool:
        """Whether a session that was read may have messages before those events: or these are just all."""
        return session is not None and len(session.events) >= _RECENT

    async def loaded(self, session: Session | None, lines: list[Line], history: History) -> None:
        """The history has begun with a session that was just read.

        Args:
            lines: all messages of its events.
        """
        self._keep_at_hand(session)
        if session is None:
            return
        self.is_kept = True
        self.set_state.load(session.state)
        self.loaded_state = session.state
        self.waiting = waiting_in(_that_count(session))
        self.created_at = created_at(session)
        self.title = title_in(session)
        self.last_activity = session.last_update_time
        if self.has_more(session):
            self._count = partial(self._count_before, history, lines, session.events[-1].timestamp)
        if self.user_id == GUEST:  # its listeners are told how many messages there are
            await self.counted()

    async def take_over(self) -> None:
        """Keeps out who owned the conversation before: see `Fence.take_over`."""
        await self._service.take_over(
            self.session_id,
            lambda: self._reader.session(self._key, 0),
            lambda session: self._reader.outdate(self._key, session),
        )

    async def all_events(self) -> list[Event]:
        """All events of the session, those too that are not in memory."""
        session = await self._service.get_session(
            app_name=self._app_name, user_id=self.user_id, session_id=self.session_id
        )
        return session.events if session else []

    def rewound(self, session: Session) -> None:
        """Something was taken back: the state, and the calls that wait, are those of before."""
        self.set_state.load(session.state)
        self.waiting = waiting_in(_that_count(session))
        self.archive = self._new_archive()

    async def state(self) -> dict[str, Any]:
        """What clients have set in the session's state."""
        session = await self._reader.session(self._key, 0)
        return shown(session.state) if session else {}

    def touch(self) -> None:
        """The conversation is used now."""
        self.last_activity = time.time()

    async def _count_before(self, history: History, loaded: list[Line], until: float) -> None:
        before, by_user = -len(loaded), -sum(line.role == "user" for line in loaded)
        count = await self.archive.count(until)
        history.load_counts(count.messages + before, count.by_user + by_user, count.first_text)
        self._count = None

    async def counted(self) -> None:
        """Waits until the history knows how many messages there are before those that it has.

        It also returns if the conversation ends, or is emptied: then nobody needs to know.
        """
        while self._count:
            if not self._counting or self._counting.done():  # the first who asks, or the store has failed
                self._counting = asyncio.create_task(self._count(), name=f"counting {self.session_id}")
            await asyncio.wait({counting := self._counting})
            if not counting.cancelled():
                counting.result()

    def _stop_counting(self) -> None:
        self._count = None
        if self._counting:
            self._counting.cancel()

    async def before(self, number: int | None, history: History) -> tuple[list[Line], int]:
        """The messages before the one with this number (None: the last), and the number of the first one."""
        await self.counted()
        lines = history.lines()
        first = history.message_count + 1 - len(lines)
        if number is not None:
            number = min(number, history.message_count + 1)
            if number > first:
                lines = lines[: number - first]
            else:
                lines = limited(await self.archive.before(number))
                first = number - len(lines)
        return lines, first

    def close(self) -> None:
        """The conversation is over: nothing is read any more."""
        self._stop_counting()
        self._take_at_hand()

    async def find(self) -> Session:
        """The session with its last events, as the model is given them; it is made if there is none."""
        async with self._finding:
            return await self._find()

    async def write(self, make: Callable[[Session], Awaitable[Event | None]]) -> Session:
        """Stores the event that `make` makes of the session, if any, while there is no run.

        Nothing else is stored meanwhile.
        """
        async with self._finding:
            session = await self._find()
            if event := await make(session):
                await self.append(session, event)
            return session

    async def _find(self) -> Session:
        if at_hand := self._take_at_hand():
            session = at_hand.session
        else:
            session = await self.read()
        if session is None:
            try:
                session = await self._create()
            except AlreadyExistsError:  # another process has made it, since it was not there
                session = await self.read()
                if session is None:
                    raise
            else:
                self._stats.created += 1
            self.created_at = created_at(session)
        self.is_kept = True
        session.events = [*session.events, *self.unheard]
        _shorten(session)
        return session

    async def create(self) -> None:
        """Makes the session."""
        async with self._finding:
            session = await self._create()
            self._keep_at_hand(session)
            self.created_at = created_at(session)
            self.is_kept = True

    async def _create(self) -> Session:
        return await create_session(
            self._service, self._app_name, self.user_id, self.session_id, title=self.title
        )

    async def delete(self) -> None:
        """Deletes the session. The conversation begins anew, with none; the next one gets its title."""
        self._stop_counting()
        async with self._finding:
            self._take_at_hand()
            await self._service.delete_session(
                app_name=self._app_name, user_id=self.user_id, session_id=self.session_id
            )
            self.is_kept = False
            self.unheard.clear()
        self.set_state = SetState()
        self.created_at = self.last_activity = time.time()
        self.archive = self._new_archive()

    def _new_archive(self) -> Archive:
        return Archive(self._reader, self._key)

    @property
    def _key(self) -> Key:
        return Key(self._app_name, self.user_id, self.session_id)

    def _keep_at_hand(self, session: Session | None) -> None:
        self._take_at_hand()
        expiry = asyncio.get_running_loop().call_later(_AT_HAND_FOR, self._take_at_hand)
        self._at_hand = _AtHand(session, expiry)

    def _take_at_hand(self) -> _AtHand | None:
        at_hand, self._at_hand = self._at_hand, None
        if at_hand:
            at_hand.expiry.cancel()
        return at_hand

    async def append_text(self, session: Session, text: UserText) -> None:
        """Stores a user's text that no model was given."""
        await self.append(session, event_of(text, session))

    async def skip_answer(self) -> None:
        """If the session ends with a user's answer to what ADK has asked, ADK leaves it aside from now on."""
        session = await self.find()
        if ends_in_answer(session.events):
            await self.append(session, skip())

    async def append(self, session: Session, event: Event) -> None:
        """Stores an event."""
        keep(event, session)
        await self._service.append_event(session, event)

    async def rename(self, title: str) -> None:
        """Stores the title beside a run; without a session, the next one gets it."""
        event = Event(author="relay", actions=EventActions(state_delta={TITLE: title}))
        async with self._finding:  # no session is made or deleted meanwhile
            await self._append_aside(event)
            self.title = title

    async def store_unheard(self) -> None:
        """Stores, beside a run, how much of the answers was heard."""
        async with self._finding:
            while self.unheard:
                await self._append_aside(self.unheard[0])
                del self.unheard[0]

    async def _append_aside(self, event: Event) -> None:
        if self.is_kept:
            await self._service.append_aside(
                self.session_id, lambda: self._reader.session(self._key, 0), event
            )


def event_of(text: UserText, session: Session) -> Event:
    """The event of a user's text that no model was given."""
    event = Event(author="user", content=types.Content(role="user", parts=[types.Part(text=text.text)]))
    event.custom_metadata = marks_of(text) or None
    event.actions.state_delta |= delta_of(text, session.state)
    return event


async def create_session(
    service: BaseSessionService, app_name: str, user_id: str, session_id: str, *, title: str = ""
) -> Session:
    """Makes an ADK session that remembers when it was made."""
    state = {CREATED_AT: time.time()} | ({TITLE: title} if title else {})
    return await service.create_session(
        app_name=app_name, user_id=user_id, session_id=session_id, state=state
    )


def shorten_if_long(session: Session) -> None:
    """Lets a run forget the oldest events of its session: one run can last for days, and ADK only adds."""
    if len(session.events) >= 2 * _RECENT:
        session.events = session.events[-_RECENT:]
        _shorten(session)


def _shorten(session: Session) -> None:
    session.events = rewound(session.events)
    session.events = _fitting(session.events)
    session.events = with_waiting(session)


def _that_count(session: Session) -> list[Event]:
    """The events that are not taken back, and those of the calls that wait."""
    return with_waiting(session.model_copy(update={"events": rewound(session.events)}))


def _fitting(events: list[Event]) -> list[Event]:
    """The last events that the model is given, beginning with a user's message if some are left out.

    The answer of a tool without its call, for example, would be refused.
    """
    start, size = len(events), 0
    while start:
        said = said_by(events[start - 1])
        size += len(said.text) + len(said.heard) + len(said.spoken)
        if size > _FOR_MODEL and start < len(events):
            break
        start -= 1
    if start == 0 and len(events) < _RECENT:
        return events
    events = events[start:]
    for begins in (_is_users, lambda event: not event.get_function_responses()):
        for index, event in enumerate(events):
            if begins(event):
                return events[index:]
    return []


def _is_users(event: Event) -> bool:
    return any(line.role == "user" for line in said_by(event).lines())


def holds(session: Session, text: UserText, since: float) -> bool:
    """Whether a session holds a user's text that was stored at `since` (`time.time()`) or later."""
    for event in session.events:
        parts = event.content.parts if event.content else None
        if event.author == "user" and event.timestamp >= since and parts and parts[0].text == text.text:
            return True
    return False
