"""A conversation that this process owns, and the listeners of other processes in its room."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal, Protocol

from adk_relay.bus.codec import encode
from adk_relay.bus.commands import Ask, Attend, Leave, Moved, Replay
from adk_relay.bus.hub import Hub
from adk_relay.bus.log import Log
from adk_relay.bus.packs import Item
from adk_relay.core import interfaces
from adk_relay.core.inbox import InboxFullError
from adk_relay.core.interfaces import Conversation, Summary
from adk_relay.core.messages import Audio, Ended, Error, Message, ReadOlder, Status, ToolResult, UserText
from adk_relay.core.past import Past
from adk_relay.core.recording import Recorder
from adk_relay.core.requests import BusyError
from adk_relay.core.room import Room, Standing
from adk_relay.core.voice import Configured

_COMES_SECONDS = 10.0
"""A listener that was told how a conversation stands, and has not come for so long, does not come."""


class Title(Protocol):
    """The title of a conversation."""

    @property
    def text(self) -> str: ...


class OwnConversation(Conversation, Protocol):
    """A conversation that runs in this process."""

    room: Room

    @property
    def title(self) -> Title: ...

    async def reset(self, *, delete: bool) -> None:
        """Empties it: see `core.interfaces.Conversations`."""

    async def rename(self, title: str) -> None:
        """Names it, for all listeners: see `core.interfaces.Conversations`."""

    def answer(self, answer: ToolResult) -> None:
        """Takes the answer to a tool call: see `core.interfaces.Conversations`."""

    async def summary(self) -> Summary:
        """What is told of it in lists.

        Raises:
            UnknownConversationError: there is nothing of it.
        """


class Conversations(interfaces.Conversations, Protocol):
    """Conversations that run in this process."""

    @property
    def app_name(self) -> str: ...

    def use_loop(self) -> bool:
        """Everything happens in the running event loop from now on. True: the loop is another one."""

    async def prepare(self) -> None:
        """Does, when the server starts, what the first conversation would have to wait for."""

    def is_answering(self) -> bool:
        """Whether an answer is under way in any conversation."""

    async def aclose(self) -> None:
        """Ends all conversations."""

    on_end: Callable[[Any], None]
    """Called with a conversation that is over, or was given away."""

    @property
    def replay_limits(self) -> tuple[int, float]:
        """Bytes of messages, and seconds, that a conversation keeps to be replayed."""

    async def take(
        self, user_id: str, session_id: str, past: Past, recorder: Recorder, *, must_exist: bool
    ) -> OwnConversation:
        """Opens a conversation that goes on from what was recorded of it."""

    async def give(self, conversation: Any) -> None:
        """Ends a conversation between two turns. Only its listeners in this process are told so."""

    def lose(self, session_id: str) -> None:
        """Ends a conversation that another process owns now. Its listeners here are told so; nothing is
        stored."""


class Remote:
    """A listener in another process. It implements `core.listener.Listener`."""

    def __init__(self, owned: Owned, process: str, connection: str, attend: Attend) -> None:
        self.connection_id = connection
        self.name = attend.name
        self.member = attend.member
        self.address = attend.address
        self.is_audio = attend.is_audio
        self.connects = attend.connects
        self.attends: Literal["all", "newest", "own"] = attend.attends
        self.came_at = attend.came_at
        self.process = process
        self._owned = owned
        self.is_cut = False
        """Nothing is sent to it any more."""

    def deliver(self, message: Message) -> None:
        """Takes a message of the conversation."""
        has_moved = isinstance(message, Ended) and message.why == "moved"
        is_heard = self.is_audio or not isinstance(message, Audio)
        if is_heard and not (self.is_cut or has_moved):  # its own process finds the new owner
            self._owned.tell(self, message)

    def replay(self, messages: Sequence[Message]) -> None:
        """Takes the messages that it has missed."""
        if not self.is_cut and (conversation := self._owned.conversation):
            room = conversation.room
            if not self.is_audio:
                messages = [message for message in messages if not isinstance(message, Audio)]
            standing = conversation.standing(self)
            chosen = Configured(standing.voice, standing.shape)
            missed = Replay((*messages,), room.epoch, room.seq, room.emptied, standing.title, chosen)
            self._owned.tell(self, missed)


class Owned:
    """A conversation that this process owns.

    Invariants:
        `counts` says how many listeners each process has. Of each process in `_arriving`, some arrive.

    Args:
        token: with which it is owned.
        log: where it is recorded.
    """

    def __init__(self, hub: Hub, name: str, token: int, log: Log) -> None:
        self.name = name
        self.token = token
        self.log = log
        self.conversation: OwnConversation | None = None
        """None: it is not open."""
        self.opening = asyncio.Lock()
        self.waiting: list[tuple[str, Item, Any]] = []
        """What came while it was being opened."""
        self.waiting_bytes = 0
        """At least the bytes of that."""
        self.opener: asyncio.Task[None] | None = None
        """Opens it because a listener attends."""
        self.listeners: dict[str, Remote] = {}
        """By connection id."""
        self.counts = Counter[str]()
        self.taken_at = time.monotonic()
        self.closing: asyncio.Task[None] | None = None
        """Set when it is over, until another process may take it."""
        self._hub = hub
        self._arriving: dict[str, deque[float]] = {}
        """Of each process: since when listeners have been told how it stands, and attend soon."""
        self._leaving: list[tuple[Remote, bool]] = []
        """The last listener has left, but another one is about to come: the conversation is not over."""

    def check(self) -> None:
        """Asserts the invariants."""
        assert self.counts == Counter(each.process for each in self.listeners.values())
        assert all(self._arriving.values()), f"{self._arriving}"

    @property
    def is_attended_here(self) -> bool:
        """Whether it has listeners, and all of them are in this process."""
        listeners = self.conversation.room.listeners if self.conversation else ()
        return bool(listeners) and not any(isinstance(each, Remote) for each in listeners)

    def record_anew(self) -> None:
        """What was recorded may be lost."""
        if self.conversation and not self.closing:
            self.conversation.room.recording.anew()

    # ---- to the listeners ----

    def tell(self, listener: Remote, message: Message | Replay) -> None:
        """Sends a message to a listener."""
        content = self._hub.encoded(message)
        with contextlib.suppress(InboxFullError):  # it notices that something is missing, and asks for it
            item = self._hub.send(
                listener.process,
                self.name,
                self.token,
                listener.connection_id,
                content,
                isinstance(message, Audio),
            )
            if 1 < len(item.connections) == self.counts[listener.process]:
                item.connections.clear()  # all of them

    def tell_moved(self, moved: Moved, process: str | None = None) -> None:
        """Tells a process whose listeners attend, or all of them (None), who owns the conversation."""
        for each in [*self.counts] if process is None else [process]:
            self._hub.send_quietly(each, self.name, self.token, "", encode(moved))

    def attend_anew(self, process: str | None) -> None:
        """The listeners of a process, or all (None), attend anew: something may be lost."""
        if process is None or self.counts[process]:
            self.tell_moved(Moved(self.token, self._hub.process), process)

    def cut(self) -> None:
        """Nothing is sent to listeners of other processes any more."""
        for listener in self.listeners.values():
            listener.is_cut = True

    def changed(self, *, is_away: bool) -> None:
        """Redis is away, or back: who attends here has to wait for those who attend elsewhere."""
        if self.listeners and self.conversation:
            for listener in [*self.conversation.room.listeners]:
                if not isinstance(listener, Remote):
                    listener.deliver(Status("degraded" if is_away else "live"))

    # ---- from the listeners ----

    def announce(self, process: str) -> Standing:
        """How the conversation stands, for a listener of another process that will attend soon."""
        assert self.conversation
        standing = self.conversation.standing(None)
        standing = replace(standing, others=standing.others + self._arrive)
        self._arriving.setdefault(process, deque()).append(time.monotonic())
        return standing

    def give_up_arriving(self) -> None:
        """Listeners that have not come for too long do not come: their process has given them up."""
        latest = time.monotonic() - _COMES_SECONDS
        for process, arriving in [*self._arriving.items()]:
            while self._arriving.get(process) and arriving[0] < latest:
                self._came(process)
        self._let_leave()

    @property
    def _arrive(self) -> int:
        return sum(map(len, self._arriving.values()))

    def take(self, process: str, item: Item, content: Any) -> None:
        """Does what listeners of another process ask for. The conversation must be open."""
        for connection in item.connections:
            self._take(process, connection, content)
        if not item.connections:  # somebody who was announced does not come
            self._came(process)
        self._let_leave()

    def lose(self, process: str) -> None:
        """A process has died: its listeners have left."""
        self._arriving.pop(process, None)
        for listener in [*self.listeners.values()]:
            if listener.process == process:
                self._leave(listener)
        self._let_leave()

    def _take(self, process: str, connection: str, content: Any) -> None:
        assert self.conversation
        if isinstance(content, Attend):
            self._attend(self.conversation, process, connection, content)
            return
        listener = self.listeners.get(connection)
        if listener is None or listener.process != process:
            if not isinstance(content, Leave):  # it was taken for gone: it has to attend anew
                self.tell_moved(Moved(self.token, self._hub.process), process)
            return
        try:
            match content:
                case Leave(at_once):
                    self._leave(listener, at_once=at_once)
                case Ask(text):
                    self.conversation.ask(text, listener)
                case ReadOlder():
                    self.conversation.older.read(content, listener)
                case _:
                    self.conversation.handle(content, listener)
        except (BusyError, InboxFullError) as full:
            text = content.text if isinstance(content, Ask) else content
            text_id = text.id if isinstance(text, UserText) else ""
            listener.deliver(Error("busy", str(full), text_id))

    def _attend(self, conversation: Conversation, process: str, connection: str, attend: Attend) -> None:
        if attend.user_id != conversation.user_id:
            return  # it was told so when it asked to open it
        listener = self.listeners.get(connection)
        if listener and listener.process == process:
            if attend.after:
                conversation.replay(listener, attend.after)
            else:
                listener.replay(())
            return
        if listener:  # its process was taken for another
            self._leave(listener)
        listener = Remote(self, process, connection, attend)
        self._came(process)
        self.listeners[connection] = listener
        self.counts[process] += 1
        if not attend.after:
            listener.replay(())
        conversation.attach(listener, attend.after)

    def _came(self, process: str) -> None:
        """A listener that was announced attends now, or does not come."""
        if arriving := self._arriving.get(process):
            arriving.popleft()
            if not arriving:
                del self._arriving[process]

    def _leave(self, listener: Remote, *, at_once: bool = False) -> None:
        listener.is_cut = True
        del self.listeners[listener.connection_id]
        self.counts[listener.process] -= 1
        if not self.counts[listener.process]:
            del self.counts[listener.process]
        self._leaving.append((listener, at_once))
        self._let_leave()

    def _let_leave(self) -> None:
        conversation = self.conversation
        if not self._leaving or not conversation:
            return
        if self._arrive and len(conversation.room.listeners) <= len(self._leaving):
            return
        leaving, self._leaving = self._leaving, []
        for listener, at_once in leaving:
            if conversation.is_attended_by(listener):
                conversation.detach(listener, at_once=at_once)
