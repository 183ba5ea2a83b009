"""The worker half: conversations that this process owns, and listeners of other processes in their rooms."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any, get_args

from adk_relay.bus.answering import Answering, NotOwnerError
from adk_relay.bus.codec import CodecError, decode, encode
from adk_relay.bus.commands import Ask, Attend, Call, Claim, Leave, Moved, Replay
from adk_relay.bus.fence import Fence
from adk_relay.bus.hub import Hub
from adk_relay.bus.log import Log
from adk_relay.bus.owned import Conversations, OwnConversation, Owned
from adk_relay.bus.ownership import Owner
from adk_relay.bus.packs import Item
from adk_relay.bus.tasks import Tasks, put
from adk_relay.bus.writer import LogRecorder, Writer, read_past
from adk_relay.core.interfaces import (
    StoppingError,
    StoreError,
    UnknownConversationError,
)
from adk_relay.core.logs import failure, one_line
from adk_relay.core.messages import Ended, Input, ReadOlder, UserAudio, UserImage
from adk_relay.core.recording import Past
from adk_relay.core.requests import BusyError
from adk_relay.core.room import Standing

log = logging.getLogger("relay")

COMMANDS: tuple[type, ...] = (Attend, Leave, Ask, ReadOlder, Call, *get_args(Input))
"""What listeners of other processes send, and calls."""

_UNOPENED_SECONDS = 10.0
"""A conversation that was claimed and is not opened for so long is given up."""

_MAX_WAITING = 1000
_MAX_WAITING_BYTES = 8 * 1024 * 1024
"""Sound and pictures that come while a conversation is being opened are kept while less than this waits."""

_OPENINGS = 8
"""Conversations that are opened at once: what those that are open store has to wait for no more of them."""

_LOG_EXTRA_BYTES = 1024 * 1024
_LOG_EXTRA_SECONDS = 10.0
"""What is kept in a log beyond what is kept to be replayed."""


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
        self._writer = Writer(hub.server, hub.ownership.lose, self._recorded_anew)
        hub.before_pack = self._writer.flushed
        hub.join(self, COMMANDS)
        hub.run_also(self)
        self._owned: dict[str, Owned] = {}
        self.fence = Fence(hub, self._owned, self._writer.flushed)
        self._claims = Tasks(hub.server, hub.claims, hub.process, self._claimed, pause=self._pause)
        self.answering = Answering(hub, conversations, self._open_own, self._announce, self.opened)
        self._calls = Tasks(hub.server, hub.calls, hub.process, self._called, pause=self._pause)
        self._tasks: set[asyncio.Task[None]] = set()
        self._openings = asyncio.Semaphore(_OPENINGS)
        self._is_draining = False
        self._has_told_unreadable = False

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
            group.create_task(self._give_up())

    async def drain(self) -> None:
        """Gives all conversations away, each between two turns. Their listeners notice nothing."""
        self._is_draining = True
        self._note_place()
        giving = [self._give(owned) for owned in [*self._owned.values()]]
        for error in await asyncio.gather(*giving, return_exceptions=True):
            if isinstance(error, Exception):
                log.error("a conversation can't be given away: %s", failure(error))

    def abandon(self) -> None:
        """Ends what could not be given away in time. Others go on with it as if this process had died."""
        for owned in [*self._owned.values()]:
            if not owned.closing:
                owned.cut()
                self._conversations.lose(owned.name)
                if not owned.closing:
                    self._release(owned)

    async def aclose(self) -> None:
        """Releases what is over. The conversations are closed already."""
        async with self._hub.patience.at_last():  # others take them when the lease of this process ends
            await asyncio.gather(*(owned.closing for owned in self._owned.values() if owned.closing))
        async with self._hub.patience.at_last():
            for tasks in (self._claims, self._calls):
                await tasks.leave()

    async def _give_up(self) -> None:
        """Gives up conversations that are not opened, and listeners that do not come."""
        while True:
            await asyncio.sleep(_UNOPENED_SECONDS / 4)
            now = time.monotonic()
            for owned in [*self._owned.values()]:
                owned.give_up_arriving()
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
        await self._hub.lease.assure()
        owner = await server.attempt(lambda: ownership.take(name, seen))
        if owner.process == self._hub.process:
            owned = self._owned.get(name)
            if owned and owned.token != owner.token:  # others took this process for dead: it is as if it was
                self._lost(name, owner)
            if name not in self._owned:
                max_bytes, max_age = self._conversations.replay_limits
                journal = Log(
                    name,
                    owner.token,
                    owner.process,
                    max_bytes=max_bytes + _LOG_EXTRA_BYTES,
                    max_age=max_age + _LOG_EXTRA_SECONDS,
                )
                self._owned[name] = Owned(self._hub, name, owner.token, journal)
        return owner

    async def open(self, user_id: str, name: str, *, must_exist: bool) -> OwnConversation:
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
                if conversation := owned.conversation:
                    # Not opened by name: if it is over by then, that would begin one without a log.
                    if conversation.user_id != user_id:
                        raise UnknownConversationError(name)
                    if must_exist:
                        await conversation.summary()
                    if owned.closing:
                        raise NotOwnerError
                    return conversation
                async with self._openings:
                    past = await self._past(owned)
                    recorder = LogRecorder(self._writer, owned.log)
                    conversation = await self._conversations.take(
                        user_id, name, past, recorder, must_exist=must_exist
                    )
            except Exception:
                if not owned.conversation:
                    self._release(owned)
                raise
            if self._owned.get(name) is not owned:  # it was lost meanwhile
                self._conversations.lose(name)
                raise NotOwnerError
            owned.conversation = conversation
            self._note_place()
            return conversation

    async def _past(self, owned: Owned) -> Past:
        try:
            return await self._hub.server.attempt(lambda: read_past(self._hub.server, owned.log))
        except CodecError as error:
            if not self._has_told_unreadable:
                self._has_told_unreadable = True
                log.warning("conversations of other processes go on from their sessions: %s", error)
            return Past()

    def _recorded_anew(self, name: str) -> None:
        """The log of a conversation has a gap."""
        if owned := self._owned.get(name):
            owned.record_anew()

    async def _give(self, owned: Owned) -> None:
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

    def _release(self, owned: Owned) -> None:
        owned.closing = self._start(self._released(owned))

    async def _released(self, owned: Owned) -> None:
        try:
            await self._writer.flushed()
            server, ownership = self._hub.server, self._hub.ownership
            if ownership.held.get(owned.name) == owned.token:
                await server.attempt(lambda: ownership.release(owned.name))
        finally:
            if self._owned.get(owned.name) is owned:
                del self._owned[owned.name]
            self._note_place()
            owned.tell_moved(Moved(0, ""))

    def _lost(self, name: str, owner: Owner) -> None:
        """Another process owns a conversation: this one was taken for dead."""
        if owned := self._owned.pop(name, None):
            log.warning("%s has another owner: it ends here", one_line(name))
            owned.cut()
            self._hub.drop(name, owned.token)
            owned.tell_moved(Moved(*owner))
            if owned.conversation:
                self._conversations.lose(name)

    def _note_place(self) -> None:
        (self._claims.may_read.set if self.has_place() else self._claims.may_read.clear)()
        if self._is_draining:
            self._calls.may_read.clear()

    def _pause(self) -> float:
        """Workers that have less to do are quicker to read the next claim."""
        return min(self._conversations.active / 50_000, 0.02)  # hundreds of claims come if a worker dies

    # ---- claims and calls ----

    async def _claimed(self, data: bytes) -> None:
        claim = decode(data)
        assert isinstance(claim, Claim)
        if not self.has_place():
            await asyncio.sleep(0.1)
            await self._hub.server.attempt(lambda: put(self._hub.server, self._hub.claims, data))
            return
        owner = await self.take(claim.session_id, claim.seen)
        self._hub.send_quietly(claim.asker, claim.session_id, owner.token, "", encode(Moved(*owner)))

    async def _called(self, data: bytes) -> None:
        call = decode(data)
        assert isinstance(call, Call)
        await self.answering.answer(call)

    async def _open_own(self, user_id: str, name: str, must_exist: bool) -> OwnConversation:
        return await self.open(user_id, name, must_exist=must_exist)

    def opened(self, name: str) -> OwnConversation | None:
        """A conversation that this process owns, if it is open."""
        return self._owned[name].conversation if name in self._owned else None

    def _announce(self, name: str, process: str) -> Standing:
        return self._owned[name].announce(process)

    async def _open_for(self, owned: Owned, attend: Attend) -> None:
        """Opens a conversation because a listener attends that has attended it with the owner before."""
        waiting: list[tuple[str, Item, Any]] = []
        try:
            await self.open(attend.user_id, owned.name, must_exist=False)
        except (NotOwnerError, StoppingError):
            pass  # `receive` says so
        except Exception as error:
            if not isinstance(error, StoreError | UnknownConversationError | BusyError):
                log.exception("%s can't be opened", one_line(owned.name))
            failed = encode(Replay((), "", 0)), encode(Ended("failed"))
            for sender, item, _ in owned.waiting:
                for connection in item.connections:
                    for data in failed:
                        self._hub.send_quietly(sender, owned.name, owned.token, connection, data)
            owned.waiting.clear()
        finally:
            owned.opener = None
            waiting, owned.waiting = owned.waiting, waiting
            owned.waiting_bytes = 0
        for sender, item, content in waiting:
            self.receive(sender, item, content)

    # ---- bus.hub.Half ----

    def receive(self, sender: str, item: Item, content: Any) -> None:
        """Takes something that another process has sent."""
        if isinstance(content, Call):
            self.answering.take(content)
            return
        owned = self._owned.get(item.conversation)
        is_open = owned and not owned.closing and (owned.conversation or not self._is_draining)
        if not owned or not is_open or owned.token != item.token:
            if not isinstance(content, Leave):
                self._hub.send_quietly(sender, item.conversation, item.token, "", encode(Moved(0, "")))
            return
        if not owned.conversation:
            is_full = len(owned.waiting) >= _MAX_WAITING or owned.waiting_bytes >= _MAX_WAITING_BYTES
            if not (is_full and isinstance(content, UserAudio | UserImage)):
                owned.waiting.append((sender, item, content))
                owned.waiting_bytes += len(item.content)
            if isinstance(content, Attend) and not owned.opener:
                owned.opener = self._start(self._open_for(owned, content))
            return
        owned.take(sender, item, content)

    def died(self, process: str) -> None:
        """A process has died: its listeners have left."""
        for owned in self._owned.values():
            owned.lose(process)

    def missed(self, process: str | None) -> None:
        """Something of a process is lost: its listeners attend anew, and say again what may be lost."""
        for owned in self._owned.values():
            owned.attend_anew(process)

    def lapsed(self) -> None:
        """`Ownership` asks what this process still owns. Redis may have lost what was recorded, too."""
        for owned in self._owned.values():
            owned.record_anew()

    def changed(self, *, is_away: bool) -> None:
        """Redis is away, or back."""
        for owned in self._owned.values():
            owned.changed(is_away=is_away)

    def _start(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
