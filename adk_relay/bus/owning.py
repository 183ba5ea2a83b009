"""The worker half: conversations that this process owns, and listeners of other processes in their rooms."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal, Protocol, get_args

from adk_relay.bus import keys
from adk_relay.bus.codec import CodecError, decode, encode
from adk_relay.bus.commands import About, Ask, Attend, Call, Claim, Leave, Moved, Replay, Reply
from adk_relay.bus.hub import Hub
from adk_relay.bus.log import Log
from adk_relay.bus.ownership import Owner
from adk_relay.bus.packs import Item
from adk_relay.bus.server import AwayError
from adk_relay.bus.tasks import Tasks, put
from adk_relay.bus.writer import Writer, read_past
from adk_relay.core import interfaces
from adk_relay.core.inbox import InboxFullError
from adk_relay.core.interfaces import (
    Conversation,
    StoppingError,
    StoreError,
    ToolResultError,
    UnknownConversationError,
    UnknownToolError,
)
from adk_relay.core.logs import failure, one_line
from adk_relay.core.messages import Audio, Ended, Error, Input, Message, ReadOlder, ToolResult, UserText
from adk_relay.core.recording import Past, Recorded, Recorder
from adk_relay.core.requests import BusyError
from adk_relay.core.room import Room, Standing

log = logging.getLogger("relay")

COMMANDS: tuple[type, ...] = (Attend, Leave, Ask, ReadOlder, Call, *get_args(Input))
"""What listeners of other processes send, and calls."""

_UNOPENED_SECONDS = 10.0
"""A conversation that was claimed and is not opened for so long is given up."""

_ABOUT_SECONDS = 20.0
_LOG_EXTRA_BYTES = 1024 * 1024
_LOG_EXTRA_SECONDS = 10.0
"""What is kept in a log beyond what is kept to be replayed."""

ERRORS = (
    *(UnknownConversationError, UnknownToolError, ToolResultError),
    *(StoreError, StoppingError, BusyError),
)
"""What a call may raise: it is raised again where the call was made."""


class NotOwnerError(Exception):
    """This process does not own the conversation."""


class OwnConversation(Conversation, Protocol):
    """A conversation that runs in this process."""

    room: Room


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
        """Ends a conversation between two turns, and tells nobody."""

    def lose(self, session_id: str) -> None:
        """Ends a conversation that another process owns now. Nobody is told, and nothing is stored."""


class _Owned:
    """A conversation that this process owns.

    Invariants:
        `counts` says how many listeners each process has.
    """

    def __init__(self, name: str, token: int, log: Log) -> None:
        self.name = name
        self.token = token
        self.log = log
        self.conversation: OwnConversation | None = None
        """None: it is not open."""
        self.opening = asyncio.Lock()
        self.waiting: list[tuple[str, Item, Any]] = []
        """What came while it was being opened."""
        self.opener: asyncio.Task[None] | None = None
        """Opens it because a listener attends."""
        self.listeners: dict[str, _Remote] = {}
        """By connection id."""
        self.counts = Counter[str]()
        self.arriving = Counter[str]()
        """How many listeners of each process have been told how it stands, and attend soon."""
        self.leaving: list[tuple[_Remote, bool]] = []
        """The last listener has left, but another one is about to come: the conversation is not over."""
        self.taken_at = time.monotonic()
        self.closing: asyncio.Task[None] | None = None
        """Set when it is over, until another process may take it."""

    def check(self) -> None:
        """Asserts the invariants."""
        assert self.counts == Counter(each.process for each in self.listeners.values())


class _Remote:
    """A listener in another process. It implements `core.listener.Listener`."""

    def __init__(self, owning: Owning, owned: _Owned, process: str, connection: str, attend: Attend) -> None:
        self.connection_id = connection
        self.name = attend.name
        self.member = attend.member
        self.address = attend.address
        self.is_audio = attend.is_audio
        self.attends: Literal["all", "newest", "own"] = attend.attends
        self.process = process
        self._owning = owning
        self._owned = owned
        self.is_cut = False
        """Nothing is sent to it any more."""

    def deliver(self, message: Message) -> None:
        """Takes a message of the conversation."""
        if not self.is_cut:
            self._owning.tell(self._owned, self, message)

    def replay(self, messages: Sequence[Message]) -> None:
        """Takes the messages that it has missed."""
        conversation = self._owned.conversation
        if conversation and not self.is_cut:
            standing = conversation.standing(self)
            self._owning.tell(self._owned, self, Replay((*messages,), standing.epoch, standing.seq))


class _Recorder:
    """Records one conversation in its log."""

    def __init__(self, writer: Writer, log: Log) -> None:
        self._writer = writer
        self._log = log

    def record(self, entry: Recorded) -> None:
        self._writer.add(self._log, entry)


class Owning:
    """The conversations that this process owns.

    It is owned first (`take`), and opened when somebody needs it. When it is over, it is released.

    Invariants:
        Each of them is held (see `Ownership`), or is being closed.
    """

    def __init__(self, hub: Hub, conversations: Conversations) -> None:
        self._hub = hub
        self._conversations = conversations
        conversations.on_end = self._ended
        hub.on_lost = self._lost
        self._writer = Writer(hub.server, hub.ownership.lose)
        hub.before_pack = self._writer.flushed
        hub.join(self, COMMANDS)
        self._owned: dict[str, _Owned] = {}
        self._claims = Tasks(hub.server, keys.CLAIMS, hub.process, self._claimed, pause=self._pause)
        self._calls = Tasks(hub.server, keys.CALLS, hub.process, self._called, pause=self._pause)
        self._group: asyncio.TaskGroup | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._last: tuple[Message | Replay | None, bytes] = (None, b"")
        """What was encoded last: a room tells all its listeners the same message."""
        self._is_draining = False

    def check(self) -> None:
        """Asserts the invariants."""
        for owned in self._owned.values():
            owned.check()

    # ---- its life ----

    async def run(self) -> None:
        """Serves the other processes, until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            for part in (self._writer, self._claims, self._calls):
                group.create_task(part.run())
            group.create_task(self._tell_about())
            group.create_task(self._give_up_unopened())

    async def drain(self) -> None:
        """Gives all conversations away, each between two turns. Their listeners notice nothing."""
        self._is_draining = True
        self._note_place()
        given = [self._give(owned) for owned in [*self._owned.values()]]
        await asyncio.gather(*given)

    def abandon(self) -> None:
        """Ends what could not be given away in time. Others go on with it as if this process had died."""
        for owned in [*self._owned.values()]:
            if not owned.closing:
                for listener in owned.listeners.values():
                    listener.is_cut = True
                self._conversations.lose(owned.name)
                if not owned.closing:
                    self._release(owned)

    async def aclose(self) -> None:
        """Releases what is over. The conversations are closed already."""
        await asyncio.gather(*(owned.closing for owned in self._owned.values() if owned.closing))
        for tasks in (self._claims, self._calls):
            with contextlib.suppress(AwayError):
                await tasks.leave()

    async def _tell_about(self) -> None:
        conversations = self._conversations
        about = About(conversations.model, conversations.is_rehearsal, conversations.push_to_talk)
        command = ("SET", keys.ABOUT, encode(about), "PX", int(_ABOUT_SECONDS * 3000))
        while True:
            await self._hub.server.attempt(lambda: self._hub.server.run(*command))
            await asyncio.sleep(_ABOUT_SECONDS)

    async def _give_up_unopened(self) -> None:
        while True:
            await asyncio.sleep(_UNOPENED_SECONDS / 4)
            now = time.monotonic()
            for owned in [*self._owned.values()]:
                is_open = owned.conversation or owned.opening.locked() or owned.closing
                if not is_open and now - owned.taken_at > _UNOPENED_SECONDS:
                    self._release(owned)

    # ---- taking and giving ----

    def holds(self, name: str) -> bool:
        """Whether this process owns a conversation."""
        owned = self._owned.get(name)
        return owned is not None and not owned.closing

    def has_place(self) -> bool:
        """Whether this process can take one more conversation."""
        return not self._is_draining and self._conversations.has_place("", "")

    async def take(self, name: str, seen: int) -> Owner:
        """Takes a conversation, if its last owner is the one that was seen. See `Ownership.take`."""
        while (owned := self._owned.get(name)) and owned.closing:
            await asyncio.shield(owned.closing)
        server, ownership = self._hub.server, self._hub.ownership
        owner = await server.attempt(lambda: ownership.take(name, seen))
        if owner.process == self._hub.process:
            owned = self._owned.get(name)
            if not owned or owned.token != owner.token:
                max_bytes, max_age = self._conversations.replay_limits
                journal = Log(
                    name,
                    owner.token,
                    owner.process,
                    max_bytes=max_bytes + _LOG_EXTRA_BYTES,
                    max_age=max_age + _LOG_EXTRA_SECONDS,
                )
                self._owned[name] = _Owned(name, owner.token, journal)
        return owner

    async def may_write(self, name: str) -> bool:
        """Whether this process still owns a conversation: asked before its session is written."""
        try:
            return await self._hub.ownership.is_held(name)
        except AwayError:  # nobody else can take it now
            return name in self._hub.ownership.held

    async def open(self, user_id: str, name: str, *, must_exist: bool) -> Conversation:
        """Opens a conversation that this process owns.

        Raises:
            NotOwnerError: it does not own it, or is about to give it away.
            Exception: as `core.interfaces.Conversations.open`.
        """
        owned = self._owned.get(name)
        if not owned or (self._is_draining and not owned.conversation):
            raise NotOwnerError
        async with owned.opening:
            if owned.closing or self._owned.get(name) is not owned:
                raise NotOwnerError
            try:
                if owned.conversation:
                    opening = self._conversations.find if must_exist else self._conversations.open
                    return await opening(user_id, name)
                past = await self._past(owned)
                recorder = _Recorder(self._writer, owned.log)
                conversation = await self._conversations.take(
                    user_id, name, past, recorder, must_exist=must_exist
                )
            except Exception:
                if not owned.conversation:
                    self._release(owned)
                raise
            owned.conversation = conversation
            self._note_place()
            return conversation

    async def _past(self, owned: _Owned) -> Past:
        try:
            return await self._hub.server.attempt(lambda: read_past(self._hub.server, owned.log))
        except CodecError as error:  # it goes on from its session
            log.error("%s", error)
            return Past()

    async def _give(self, owned: _Owned) -> None:
        if owned.conversation:
            await self._conversations.give(owned.conversation)
        if not owned.closing:
            self._release(owned)
        if owned.closing:
            await asyncio.shield(owned.closing)

    def _ended(self, conversation: OwnConversation) -> None:
        """A conversation is over."""
        for owned in self._owned.values():
            if owned.conversation is conversation and not owned.closing:
                self._release(owned)
                return

    def _release(self, owned: _Owned) -> None:
        owned.closing = self._start(self._released(owned))

    async def _released(self, owned: _Owned) -> None:
        try:
            await self._writer.flushed()
            server, ownership = self._hub.server, self._hub.ownership
            if ownership.held.get(owned.name) == owned.token:
                await server.attempt(lambda: ownership.release(owned.name))
        finally:
            if self._owned.get(owned.name) is owned:
                del self._owned[owned.name]
            self._note_place()
            self._tell_moved(owned, Moved(0, ""))

    def _lost(self, name: str, owner: Owner) -> None:
        """Another process owns a conversation: this one was taken for dead."""
        if owned := self._owned.pop(name, None):
            log.warning("%s has another owner: it ends here", one_line(name))
            for remote in owned.listeners.values():
                remote.is_cut = True
            self._tell_moved(owned, Moved(*owner))
            if owned.conversation:
                for listener in [*owned.conversation.room.listeners]:
                    if not isinstance(listener, _Remote):  # its client comes back, to the new owner
                        listener.deliver(Ended("stopping"))
                self._conversations.lose(name)

    def _note_place(self) -> None:
        (self._claims.may_read.set if self.has_place() else self._claims.may_read.clear)()
        if self._is_draining:
            self._calls.may_read.clear()

    def _pause(self) -> float:
        """Workers that have less to do are quicker to read the next claim."""
        return min(self._conversations.active / 5000, 0.1)

    # ---- claims and calls ----

    async def _claimed(self, data: bytes) -> None:
        claim = decode(data)
        assert isinstance(claim, Claim)
        if not self.has_place():
            await asyncio.sleep(0.1)
            await self._hub.server.attempt(lambda: put(self._hub.server, keys.CLAIMS, data))
            return
        owner = await self.take(claim.session_id, claim.seen)
        with contextlib.suppress(InboxFullError):  # it asks again
            self._hub.send(claim.asker, claim.session_id, owner.token, "", encode(Moved(*owner)))

    async def _called(self, data: bytes) -> None:
        call = decode(data)
        assert isinstance(call, Call)
        await self._answer(call)

    async def _answer(self, call: Call) -> None:
        try:
            reply = await self.perform(call)
        except ERRORS as error:
            reply = Reply(call.id, type(error).__name__, str(error))
        except NotOwnerError:
            reply = Reply(call.id, "NotOwnerError")
        except Exception as error:
            log.exception("a call failed: %s", failure(error))
            reply = Reply(call.id, "StoreError")
        self._hub.reply(call.asker, call.session_id, reply)

    async def perform(self, call: Call) -> Reply:
        """Does what a call asks for.

        Raises:
            NotOwnerError: only the owner of the conversation can do that.
            Exception: those of `ERRORS`.
        """
        conversations, user_id, session_id = self._conversations, call.user_id, call.session_id
        match call.name:
            case "open" | "find":
                conversation = await self.open(user_id, session_id, must_exist=call.name == "find")
                return Reply(call.id, standing=self._announced(session_id, call.asker, conversation))
            case "answer":
                await self.open(user_id, session_id, must_exist=True)
                await conversations.answer(user_id, session_id, ToolResult(**call.arguments))
            case "reset":
                await self.open(user_id, session_id, must_exist=True)
                await conversations.reset(user_id, session_id, **call.arguments)
            case "check":
                await conversations.check(user_id, session_id)
            case "create":
                return Reply(call.id, session_id=await conversations.create(user_id))
            case "list":
                return Reply(
                    call.id, summaries=(*await conversations.list(user_id, call.arguments["limit"]),)
                )
            case "read":
                before = call.arguments["before"]
                summary, lines, first = await conversations.read(user_id, session_id, before)
                return Reply(call.id, summaries=(summary,), lines=(*lines,), first=first)
        return Reply(call.id)

    # ---- the listeners of other processes ----

    def _announced(self, name: str, process: str, conversation: Conversation) -> Standing:
        """How a conversation stands, for a listener of another process that will attend soon."""
        standing, arriving = conversation.standing(None), self._owned[name].arriving
        standing = replace(standing, others=standing.others + arriving.total())
        arriving[process] += 1
        return standing

    def tell(self, owned: _Owned, listener: _Remote, message: Message | Replay) -> None:
        """Sends a message to a listener."""
        last, content = self._last
        if last is not message:
            content = encode(message)
            self._last = message, content
        is_sound = isinstance(message, Audio)
        with contextlib.suppress(InboxFullError):  # it notices that something is missing, and asks for it
            item = self._hub.send(
                listener.process, owned.name, owned.token, listener.connection_id, content, is_sound
            )
            if 1 < len(item.connections) == owned.counts[listener.process]:
                item.connections.clear()  # all of them

    def take_item(self, owned: _Owned, sender: str, connection: str, content: Any) -> None:
        """Does what a listener of another process asks for."""
        conversation = owned.conversation
        assert conversation
        if not connection:  # somebody who was announced does not come
            self._came(owned, sender)
            return
        if isinstance(content, Attend):
            self._attend(owned, conversation, sender, connection, content)
            return
        listener = owned.listeners.get(connection)
        if listener is None or listener.process != sender:
            if not isinstance(content, Leave):  # it was taken for gone: it has to attend anew
                self._send_moved(sender, owned.name, owned.token, Moved(owned.token, self._hub.process))
            return
        try:
            match content:
                case Leave(at_once):
                    self._leave(owned, listener, at_once=at_once)
                case Ask(text):
                    conversation.ask(text, listener)
                case ReadOlder():
                    conversation.older.read(content, listener)
                case _:
                    conversation.handle(content, listener)
        except (BusyError, InboxFullError) as full:
            text = content.text if isinstance(content, Ask) else content
            text_id = text.id if isinstance(text, UserText) else ""
            listener.deliver(Error("busy", str(full), text_id))

    def _attend(
        self, owned: _Owned, conversation: Conversation, process: str, connection: str, attend: Attend
    ) -> None:
        if attend.user_id != conversation.user_id:
            return  # it was told so when it asked to open it
        listener = owned.listeners.get(connection)
        if listener and listener.process == process:
            if attend.after:
                conversation.replay(listener, attend.after)
            else:
                listener.replay(())
            return
        if listener:  # its process was taken for another
            self._leave(owned, listener)
        listener = _Remote(self, owned, process, connection, attend)
        self._came(owned, process)
        owned.listeners[connection] = listener
        owned.counts[process] += 1
        if not attend.after:
            listener.replay(())
        conversation.attach(listener, attend.after)

    def _came(self, owned: _Owned, process: str) -> None:
        """A listener that was announced attends now, or does not come."""
        owned.arriving[process] -= 1
        if owned.arriving[process] <= 0:
            del owned.arriving[process]

    def _leave(self, owned: _Owned, listener: _Remote, *, at_once: bool = False) -> None:
        listener.is_cut = True
        del owned.listeners[listener.connection_id]
        owned.counts[listener.process] -= 1
        if not owned.counts[listener.process]:
            del owned.counts[listener.process]
        owned.leaving.append((listener, at_once))
        self._let_leave(owned)

    def _let_leave(self, owned: _Owned) -> None:
        conversation = owned.conversation
        if not owned.leaving or not conversation:
            return
        if owned.arriving.total() and len(conversation.room.listeners) <= len(owned.leaving):
            return
        leaving, owned.leaving = owned.leaving, []
        for listener, at_once in leaving:
            if conversation.is_attended_by(listener):
                conversation.detach(listener, at_once=at_once)

    async def _open_for(self, owned: _Owned, attend: Attend) -> None:
        """Opens a conversation because a listener attends that has attended it with the owner before."""
        waiting: list[tuple[str, Item, Any]] = []
        try:
            await self.open(attend.user_id, owned.name, must_exist=False)
        except (NotOwnerError, StoppingError):
            pass  # `receive` says so
        except (StoreError, UnknownConversationError, BusyError):
            failed = encode(Replay((), "", 0)), encode(Ended("failed"))
            for sender, item, _ in owned.waiting:
                for connection in item.connections:
                    for data in failed:
                        self._send(sender, owned, connection, data)
            owned.waiting.clear()
        finally:
            owned.opener = None
            waiting, owned.waiting = owned.waiting, waiting
        for sender, item, content in waiting:
            self.receive(sender, item, content)

    # ---- bus.hub.Half ----

    def receive(self, sender: str, item: Item, content: Any) -> None:
        """Takes something that another process has sent."""
        if isinstance(content, Call):
            self._start(self._answer(content))
            return
        owned = self._owned.get(item.conversation)
        is_open = owned and not owned.closing and (owned.conversation or not self._is_draining)
        if not owned or not is_open or owned.token != item.token:
            if not isinstance(content, Leave):
                self._send_moved(sender, item.conversation, item.token, Moved(0, ""))
            return
        if not owned.conversation:
            owned.waiting.append((sender, item, content))
            if isinstance(content, Attend) and not owned.opener:
                owned.opener = self._start(self._open_for(owned, content))
            return
        for connection in item.connections or [""]:
            self.take_item(owned, sender, connection, content)
        self._let_leave(owned)

    def died(self, process: str) -> None:
        """A process has died: its listeners have left."""
        for owned in self._owned.values():
            del owned.arriving[process]
            for listener in [*owned.listeners.values()]:
                if listener.process == process:
                    self._leave(owned, listener)
            self._let_leave(owned)

    def missed(self, process: str | None) -> None:
        """Something of a process is lost: its listeners attend anew, and say again what may be lost."""
        for owned in self._owned.values():
            for each in [*owned.counts] if process is None else [process]:
                if owned.counts[each]:
                    moved = Moved(owned.token, self._hub.process)
                    self._send_moved(each, owned.name, owned.token, moved)

    def lapsed(self) -> None:
        """The others may have taken this process for dead: `Ownership` asks what it still owns."""

    def changed(self, *, is_away: bool) -> None:
        """Redis is away, or back."""

    def _send(self, process: str, owned: _Owned, connection: str, content: bytes) -> None:
        with contextlib.suppress(InboxFullError):  # it notices that something is missing
            self._hub.send(process, owned.name, owned.token, connection, content)

    def _send_moved(self, process: str, name: str, token: int, moved: Moved) -> None:
        with contextlib.suppress(InboxFullError):  # it will notice that something is missing
            self._hub.send(process, name, token, "", encode(moved))

    def _tell_moved(self, owned: _Owned, moved: Moved) -> None:
        for process in owned.counts:
            self._send_moved(process, owned.name, owned.token, moved)

    def _start(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
