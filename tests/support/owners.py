"""Processes that have a conversation one after the other, all in one: each can be killed without a word."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from google.adk.agents import LlmAgent
from google.adk.events import Event
from google.adk.sessions import Session

from adk_relay.adk.conversation import Conversation
from adk_relay.adk.conversations import Conversations
from adk_relay.adk.lines import lines_of
from adk_relay.adk.sqlite import Sqlite
from adk_relay.bus.codec import decode, encode
from adk_relay.core.messages import Line, Message, Numbered
from adk_relay.core.recorded import Checkpoint, Recorded
from adk_relay.core.recording import past_of
from adk_relay.core.room import After
from support.process import HANGS
from support.sound import Attendee

ID = "live-alice"


class _Service(Sqlite):
    """Tells when an event is stored, and can stand still before that."""

    on_stored: Callable[[Event], None] = staticmethod(lambda event: None)
    pause: Callable[[Event, str], Awaitable[None]] | None = None
    """Awaited "before" an event is stored; when ADK has "looked" at the session, and is about to write; and
    when all is "written", but nothing is committed."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.writes = asyncio.Event()
        """Set when something is to be written, which may have to wait for another process."""
        self.event: Event | None = None
        """It is being stored."""

    async def append_event(self, session: Session, event: Event) -> Event:
        if self.pause:
            await self.pause(event, "before")
        self.event = event
        stored = await super().append_event(session, event)
        self.event = None
        self.on_stored(event)
        return stored

    @asynccontextmanager
    async def _get_db_connection(self) -> AsyncIterator[Any]:
        async with super()._get_db_connection() as database:
            yield _Database(database, self)


class _Database:
    """A connection whose service learns what is done with it."""

    def __init__(self, database: Any, service: _Service) -> None:
        self._database = database
        self._service = service

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)

    def execute(self, query: str, *values: Any) -> Any:
        if query.split()[0] in ("INSERT", "UPDATE"):
            self._service.writes.set()
            if self._service.pause and self._service.event:
                return self._after("looked", lambda: self._database.execute(query, *values))
        return self._database.execute(query, *values)

    async def commit(self) -> None:
        await self._after("written", self._database.commit)

    async def _after(self, at: str, do: Callable[[], Awaitable[Any]]) -> Any:
        if self._service.pause and self._service.event:
            await self._service.pause(self._service.event, at)
        return await do()


class _Listener(Attendee):
    """Its process may be dead: then it is told nothing."""

    is_dead = False

    def deliver(self, message: Message) -> None:
        if not self.is_dead:
            super().deliver(message)


@dataclass
class Owner:
    """A process that has alice's conversation.

    Args:
        file: where sessions are kept.
        entries: what the owners before have recorded; this one adds to it.
    """

    file: Path
    agent: Any = None
    entries: list[bytes] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    every_entry: bool = False
    """A checkpoint follows each entry."""
    is_dead: bool = False

    def __post_init__(self) -> None:
        self.agent = self.agent or LlmAgent(name="tester", model="gemini-3.8-live")
        self.service = _Service(str(self.file))
        fixed = {"grace": 5, "idle_timeout": 0, "mic_ms": 40, "replay_bytes": 100_000, "replay_seconds": 60}
        self.conversations = Conversations(
            self.agent,
            app_name="tester",
            sessions=self.service,
            sound="long",
            may_write=self._may_write,
            **(fixed | self.settings),
        )
        self.listeners: list[_Listener] = []
        self.conversation: Conversation | None = None

    async def _may_write(self, session_id: str) -> bool:
        return not self.is_dead

    def record(self, entry: Recorded) -> None:
        if not self.is_dead:
            self.entries.append(encode(entry))

    @property
    def recorded(self) -> list[Recorded]:
        return [decode(entry) for entry in self.entries]

    async def take(self) -> Conversation:
        """Begins where the owner before has left the conversation, wherever the recording begins."""
        entries = self.recorded
        past = past_of(entries)
        past.check()
        known = past.checkpoint()
        for index, entry in enumerate(entries):
            if isinstance(entry, Checkpoint):
                later = past_of(entries[index:])
                later.check()
                assert later.checkpoint() == known
        self.conversation = await self.conversations.take("alice", ID, past, self, must_exist=False)
        if self.every_entry:
            self.conversation.room.recording._every_bytes = 1
        return self.conversation

    def attend(self, connection_id: str = "alice", after: Attendee | None = None, **options: Any) -> Attendee:
        """A listener comes; `after`: it had attended at the owner before."""
        assert self.conversation
        options = {"is_audio": False} | options
        listener = _Listener(self.conversation, connection_id=connection_id, **options)
        self.listeners.append(listener)
        since = After(self.conversation.room.epoch, last_seq(after)) if after else None
        self.conversation.attach(listener, since)
        return listener

    def cut(self) -> None:
        """From now on nothing is stored, recorded or told."""
        self.is_dead = True
        for listener in self.listeners:
            listener.is_dead = True

    def cut_when(self, is_it: Callable[[Event], bool]) -> asyncio.Event:
        """The same as soon as such an event is stored; the result is set then."""
        done = asyncio.Event()

        def stored(event: Event) -> None:
            if is_it(event):
                self.cut()
                done.set()

        self.service.on_stored = stored
        return done

    def stop_when(self, is_it: Callable[[Event], bool], where: str) -> tuple[asyncio.Event, asyncio.Event]:
        """The process stands still when such an event is stored, see `_Service.pause`: the first result is
        set then. When the second one is set it goes on, and others have its conversation."""
        stands, goes_on = asyncio.Event(), asyncio.Event()

        async def pause(event: Event, at: str) -> None:
            if at == where and is_it(event):
                self.cut()
                stands.set()
                await goes_on.wait()

        self.service.pause = pause
        return stands, goes_on

    async def kill(self) -> None:
        """The process dies without a word."""
        self.cut()
        assert self.conversation
        task = self.conversation._task
        task.cancel()
        async with asyncio.timeout(HANGS):
            await asyncio.wait({task})

    def heir(self) -> Owner:
        """Another process, which is to go on."""
        return Owner(self.file, self.agent, self.entries, self.settings, self.every_entry)

    async def stored(self) -> list[Line]:
        """The messages in the session."""
        session = await self.service.get_session(app_name="tester", user_id="alice", session_id=ID)
        return lines_of(session.events) if session else []

    async def aclose(self) -> None:
        await self.conversations.aclose()


def last_seq(listener: Attendee) -> int:
    return max((each.seq for each in listener.messages if isinstance(each, Numbered)), default=0)


def check_numbers(*listeners: Attendee) -> None:
    """The numbers that a client was told rise, over all its listeners."""
    messages = [message for listener in listeners for message in listener.messages]
    numbers = [message.seq for message in messages if isinstance(message, Numbered) and message.seq]
    assert all(a < b for a, b in pairwise(numbers)), numbers
