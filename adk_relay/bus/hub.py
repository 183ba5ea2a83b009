"""The hub: what this process has for the others. It sends and takes packs, and knows which of them live."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from typing import Any, Protocol

from adk_relay.bus import keys, names
from adk_relay.bus.codec import CodecError, decode, encode
from adk_relay.bus.commands import Call, Reply
from adk_relay.bus.inbox import Inbox
from adk_relay.bus.lease import Lease, Watcher
from adk_relay.bus.link import Link
from adk_relay.bus.ownership import Owner, Ownership
from adk_relay.bus.packs import Item
from adk_relay.bus.patience import Patience
from adk_relay.bus.server import Server
from adk_relay.bus.tasks import put
from adk_relay.core.inbox import InboxFullError
from adk_relay.core.logs import one_line

log = logging.getLogger("relay")

_CALL_SECONDS = 10.0
"""So long a call waits for its reply."""

_MAX_GONE = 1000

_FAILED_SECONDS = 1.0
"""So long a link pauses that has failed."""


class NoReplyError(Exception):
    """The process that was asked has not replied in time."""


class DiedError(Exception):
    """The process that was asked has died."""


class Runs(Protocol):
    """Something that has a task."""

    async def run(self) -> None:
        """Does what is to be done all the time."""


class Half(Protocol):
    """One half of the bus. No method may wait."""

    def receive(self, sender: str, item: Item, content: Any) -> None:
        """Takes something that another process has sent."""

    def died(self, process: str) -> None:
        """A process has died."""

    def missed(self, process: str | None) -> None:
        """Something that a process has sent is lost; None: that is true of any."""

    def lapsed(self) -> None:
        """The others may have taken this process for dead."""

    def changed(self, *, is_away: bool) -> None:
        """Redis is away, or back."""


class Hub:
    """This process among the others.

    Each process that it sends something to is watched, until it dies.

    Invariants:
        There is a task for each link.
        No call waits for a process that is known to have died.
    """

    def __init__(self, url: str) -> None:
        self.process = names.new_name()
        self.claims, self.calls = (
            keys.for_version(key, names.protocol_of(self.process)) for key in (keys.CLAIMS, keys.CALLS)
        )
        """The keys of the two queues."""
        self.server = Server(url, self._changed)
        self.patience = Patience()
        self.on_lost: Callable[[str, Owner], None] = lambda *_: None
        """Called with a conversation that another process owns now."""
        self.on_given_up: Callable[[str, Item], None] = lambda *_: None
        """Called with sound that is given up, and the process that it was for."""
        self.ownership = Ownership(self.server, self.process, lambda *lost: self.on_lost(*lost))
        self.lease = Lease(self.server, self.process, self._lapsed)
        self.is_up = asyncio.Event()
        """Set when the others can depend on this process."""
        self.has_failed = False
        """This process can't reach the others until it is started again."""
        self.before_pack: Callable[[], Awaitable[None]] | None = None
        """Awaited before a pack goes to a process."""
        self._watcher = Watcher(self.server, self.lease, self._died)
        self._inbox = Inbox(self.server, self.process, self._take_pack, self._missed)
        self._halves: list[Half] = []
        self._more: list[Runs] = []
        self._takers: dict[type, Half] = {}
        self._links: dict[str, tuple[Link, asyncio.Task[None]]] = {}
        self._calls: dict[str, tuple[str, asyncio.Future[Reply]]] = {}
        """By id: the process that is asked ("": any worker), and what waits for its reply."""
        self._misunderstood: set[str] = set()
        """The processes of which the log says that they have other messages."""
        self._gone: dict[str, None] = {}
        """The processes of which the log says that they have died or stopped, the last ones."""
        self._task: asyncio.Task[None] | None = None
        self._last: tuple[Any, bytes] = (None, b"")
        """What was encoded last."""

    def check(self) -> None:
        """Asserts the invariants."""
        assert all(not task.done() or self._task is None for _, task in self._links.values())
        assert len(self._gone) <= _MAX_GONE

    def join(self, half: Half, kinds: Collection[type]) -> None:
        """Adds a half, which takes what is of these types. To be called before `start`."""
        self._halves.append(half)
        self._takers |= dict.fromkeys(kinds, half)

    def run_also(self, part: Runs) -> None:
        """Adds something that runs as long as the hub. To be called before `start`."""
        self._more.append(part)

    # ---- its life ----

    def start(self) -> None:
        """Begins. If Redis is away, it goes on as soon as that is back."""
        if not self._task:
            self._task = asyncio.create_task(self._run(), name="bus")

    @property
    def works(self) -> bool:
        """Whether this process can reach the others now."""
        return self.is_up.is_set() and not self.server.is_away

    async def aclose(self) -> None:
        """Ends. What waits for others goes first, if Redis is there."""
        if self._task:
            async with self.patience.at_last():
                for link, _ in [*self._links.values()]:
                    await link.is_idle.wait()
        tasks = [task for _, task in self._links.values()]
        tasks += [self._task] if self._task else []
        self._task = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        async with self.patience.at_last():  # they expire
            await self._inbox.close()
            await self.lease.release()
        await self.server.close()

    async def _run(self) -> None:
        parts: tuple[Any, ...] = (
            self.lease,
            self._watcher,
            self._inbox,
            self.ownership,
            *self._more,
        )
        try:
            async with asyncio.TaskGroup() as group:
                for part in parts:
                    group.create_task(part.run())
                await self.lease.is_taken.wait()
                await self._inbox.is_made.wait()
                self.is_up.set()
        except Exception:
            log.exception("the bus has failed: this process has to be started again")
            self.has_failed = True
            self.is_up.clear()

    async def is_foreign(self, process: str) -> bool:
        """Whether a process lives, and has other messages than this one: it can't be asked for anything.

        Raises:
            AwayError: Redis is away.
        """
        if names.understand(process, self.process):
            return False
        if not await self.server.run("EXISTS", keys.lease(process)):
            return False
        self._misunderstand(process, "its conversations can't be reached from here until it stops")
        return True

    def _misunderstand(self, process: str, why: str) -> None:
        if process not in self._misunderstood:
            self._misunderstood.add(process)
            log.warning("process %s runs another version of relay: %s", one_line(process), why)

    # ---- to others ----

    def send(
        self, to: str, conversation: str, token: int, connection: str, content: bytes, is_sound: bool = False
    ) -> Item:
        """Sends something to a process, or to this one. See `Link.send`.

        Raises:
            InboxFullError: too much waits for it already.
        """
        if to == self.process:
            item = Item(conversation, token, [connection] if connection else [], content)
            asyncio.get_running_loop().call_soon(self._take_pack, to, [item])
            return item
        return self._link(to).send(conversation, token, connection, content, is_sound=is_sound)

    def send_quietly(self, to: str, conversation: str, token: int, connection: str, content: bytes) -> None:
        """The same. If too much waits, the receiver notices that something is missing, and asks for it."""
        with contextlib.suppress(InboxFullError):
            self.send(to, conversation, token, connection, content)

    def drop(self, conversation: str, token: int) -> None:
        """Sends nothing more of what this owner of a conversation has told: there is a newer one."""
        for link, _ in self._links.values():
            link.drop(conversation, token)

    def encoded(self, content: Any) -> bytes:
        """The same as `codec.encode`. A room tells all its listeners the same message, one after another."""
        if self._last[0] is not content:
            self._last = content, encode(content)
        return self._last[1]

    async def ask(self, to: str, token: int, call: Call) -> Reply:
        """Asks a process, or any worker (""), and returns its reply.

        Raises:
            DiedError: it has died.
            NoReplyError: it does not reply. It may do what it was asked for.
            UnreachableError: Redis is away. The same is true.
        """
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._calls[call.id] = to, reply
        data = encode(call)
        try:
            async with self.patience.limit(_CALL_SECONDS):
                if to:
                    self.send(to, call.session_id, token, "", data)
                else:
                    await self.server.attempt(lambda: put(self.server, self.calls, data))
                return await reply
        except (TimeoutError, InboxFullError):
            raise NoReplyError from None
        finally:
            del self._calls[call.id]

    def reply(self, to: str, conversation: str, reply: Reply) -> None:
        """Answers a call of a process."""
        with contextlib.suppress(InboxFullError):  # it is told nothing else either
            self.send(to, conversation, 0, "", encode(reply))

    def _link(self, to: str) -> Link:
        if to not in self._links:
            given_up = partial(self.on_given_up, to)
            link = Link(self.server, self.process, to, self.before_pack, given_up)
            self._links[to] = link, asyncio.create_task(self._carry(link), name=f"link to {to}")
            self._watcher.watch(to)
        return self._links[to][0]

    async def _carry(self, link: Link) -> None:
        while True:
            try:
                await link.run()
            except Exception:  # the receiver notices that something is missing
                log.exception("the link to %s has failed", one_line(link.to))
                await asyncio.sleep(_FAILED_SECONDS)

    # ---- from others ----

    def _take_pack(self, sender: str, items: list[Item]) -> None:
        self._gone.pop(sender, None)
        self._watcher.heard(sender)
        for item in items:
            try:
                content = decode(item.content)
                if isinstance(content, Reply):
                    self._take_reply(content)
                elif half := self._takers.get(type(content)):
                    half.receive(sender, item, content)
            except CodecError as error:
                self._misunderstand(sender, str(error))
            except Exception:  # the other conversations go on
                log.exception("something from process %s can't be dealt with", one_line(sender))

    def _take_reply(self, reply: Reply) -> None:
        if reply.id in self._calls and not (waiting := self._calls[reply.id][1]).done():
            waiting.set_result(reply)

    # ---- what happens to others, and to Redis ----

    def _died(self, process: str, is_planned: bool) -> None:
        if process in self._gone:
            pass  # it was sent something once more: what it has asked for before may be found late
        elif is_planned:
            log.info("process %s has stopped", one_line(process))
        else:
            log.warning("process %s has died, or has lost Redis", one_line(process))
        self._gone[process] = None
        if len(self._gone) > _MAX_GONE:
            del self._gone[next(iter(self._gone))]
        self._inbox.forget(process)
        self._misunderstood.discard(process)
        if process in self._links:
            self._links.pop(process)[1].cancel()
        for asked, reply in [*self._calls.values()]:
            if asked == process and not reply.done():
                reply.set_exception(DiedError())
        for half in self._halves:
            half.died(process)

    def _missed(self, process: str | None) -> None:
        for half in self._halves:
            half.missed(process)

    def _lapsed(self) -> None:
        self.ownership.renew()
        for half in self._halves:
            half.lapsed()

    def _changed(self, is_away: bool) -> None:
        self.patience.changed(is_away=is_away)
        for half in self._halves:
            half.changed(is_away=is_away)
