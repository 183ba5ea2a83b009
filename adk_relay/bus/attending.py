"""The web half: all conversations, for the sockets of this process, whichever process owns them."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Literal, get_args

from adk_relay.bus.answering import NotOwnerError
from adk_relay.bus.attended import Attended
from adk_relay.bus.codec import encode
from adk_relay.bus.commands import Call, Claim, Moved, Replay, Reply
from adk_relay.bus.given_up import GivenUp
from adk_relay.bus.hub import DiedError, Hub, NoReplyError
from adk_relay.bus.ownership import Owner
from adk_relay.bus.owning import Owning
from adk_relay.bus.packs import Item
from adk_relay.bus.server import AwayError
from adk_relay.bus.tasks import put
from adk_relay.core.interfaces import (
    Conversation,
    FullError,
    StoppingError,
    StoreError,
    Summary,
    ToolResultError,
    UnknownConversationError,
    UnknownToolError,
    default_id,
)
from adk_relay.core.messages import Line, Message, ToolResult
from adk_relay.core.requests import BusyError

MESSAGES: tuple[type, ...] = (Replay, Moved, *get_args(Message))
"""What owners tell."""

_OPEN_SECONDS = 20.0
"""So long a client that comes waits for an owner of its conversation."""

_LOOK_SECONDS = 1.0
_CLAIM_SECONDS = 5.0
"""After so long without an owner it is looked for again, and claimed again."""


_ERRORS: dict[str, Callable[[str], Exception]] = {
    "BusyError": BusyError,
    "FullError": lambda _: FullError(),
    "StoppingError": StoppingError,
    "ToolResultError": ToolResultError,
    "UnknownToolError": lambda _: UnknownToolError(),
}
"""Those that calls raise, from their texts."""

_ATTEMPTS = 5
"""How often a call is made again because the owner has changed."""


class Attending:
    """All conversations, for the listeners of this process. It has the methods of
    `core.interfaces.Conversations` that are about conversations.

    A conversation that this process owns is given to its listeners as it is: nothing goes through Redis.

    Args:
        owning: the conversations that this process owns; None: it owns none.
        mic_ms: milliseconds of a microphone's sound that are sent to an owner at once.

    Invariants:
        A conversation without an owner that is needed has a task that looks for one.
    """

    def __init__(self, hub: Hub, owning: Owning | None, mic_ms: float) -> None:
        self._hub = hub
        self._owning = owning
        self._mic_ms = mic_ms
        self._attended: dict[str, Attended] = {}
        self._looking: dict[str, asyncio.Task[None]] = {}
        self._hints: dict[str, asyncio.Event] = {}
        """Set when a worker has answered a claim."""
        self._given_up = GivenUp(hub.send_quietly, self._tell_speakers)
        hub.on_given_up = self._given_up.add
        hub.run_also(self._given_up)
        hub.join(self, MESSAGES)

    def check(self) -> None:
        """Asserts the invariants."""
        for name, attended in self._attended.items():
            assert attended.owner or name in self._looking, f"nobody looks for an owner of {name}"

    # ---- core.interfaces.Conversations ----

    async def open(
        self, user_id: str, session_id: str | None = None, *, must_exist: bool = False
    ) -> Conversation:
        """Opens a conversation: see `core.interfaces.Conversations.open`, and `find` if it must exist."""
        name = session_id or default_id(user_id)
        came_at = time.time()
        how: Literal["find", "open"] = "find" if must_exist else "open"
        if self._owning and self._owning.holds(name):  # it works without Redis, too
            with contextlib.suppress(NotOwnerError):
                return await self._open_here(self._owning, user_id, name, must_exist=must_exist)
        for _ in range(_ATTEMPTS):
            async with self._needed(user_id, name) as attended:
                owner = await self._owner_of(attended)
                if self._owning and owner.process == self._hub.process:
                    with contextlib.suppress(NotOwnerError):
                        return await self._open_here(self._owning, user_id, name, must_exist=must_exist)
                try:
                    reply = await self._ask(owner, how, user_id, name)
                except NoReplyError as error:
                    raise StoreError from error
                except (DiedError, NotOwnerError):
                    pass
                else:
                    if attended.owner == owner and reply.standing:
                        attended.opened(reply.standing, came_at)
                        return attended
                self._lost(attended, owner, is_told=False)
        raise StoreError

    async def _open_here(self, owning: Owning, user_id: str, name: str, *, must_exist: bool) -> Conversation:
        if owning.opened(name):
            return await owning.open(user_id, name, must_exist=must_exist)
        try:
            async with self._hub.patience.limit(_OPEN_SECONDS):  # what was recorded is in Redis
                return await owning.open(user_id, name, must_exist=must_exist)
        except TimeoutError:
            raise FullError from None

    async def find(self, user_id: str, session_id: str) -> Conversation:
        return await self.open(user_id, session_id, must_exist=True)

    async def check_user(self, user_id: str, session_id: str) -> None:
        """See `core.interfaces.Conversations.check`."""
        await self._ask_any("check", user_id, session_id)

    async def create(self, user_id: str) -> str:
        return (await self._ask_any("create", user_id)).session_id

    async def read(
        self, user_id: str, session_id: str, before: int | None = None
    ) -> tuple[Summary, list[Line], int]:
        reply: Reply | None = None
        with contextlib.suppress(DiedError, NoReplyError, NotOwnerError, AwayError):  # then from the session
            owner = None if self._hub.server.is_away else await self._hub.ownership.find(session_id)
            if owner and owner.process and not await self._hub.is_foreign(owner.process):
                reply = await self._ask(owner, "read", user_id, session_id, before=before)
        reply = reply or await self._ask_any("read", user_id, session_id, before=before)
        return reply.summaries[0], [*reply.lines], reply.first

    async def reset(self, user_id: str, session_id: str, *, delete: bool) -> None:
        await self._ask_owner("reset", user_id, session_id, delete=delete)

    async def rename(self, user_id: str, session_id: str, title: str) -> None:
        await self._ask_owner("rename", user_id, session_id, title=title)

    async def answer(self, user_id: str, session_id: str, answer: ToolResult) -> None:
        await self._ask_owner("answer", user_id, session_id, tool_id=answer.tool_id, result=answer.result)

    async def list(self, user_id: str, limit: int) -> list[Summary]:
        listed = (await self._ask_any("list", user_id, limit=limit)).summaries
        known = await self._summaries(user_id, [each.session_id for each in listed])
        latest = [known.get(each.session_id, each) for each in listed]
        return sorted(latest, key=lambda each: each.last_activity, reverse=True)

    async def _summaries(self, user_id: str, names: Sequence[str]) -> dict[str, Summary]:
        """Those of the conversations that are in memory, by name. A process that has died tells nothing."""
        owned: dict[Owner, list[str]] = {}
        with contextlib.suppress(AwayError):
            for name, owner in (await self._hub.ownership.find_all(names)).items():
                if owner.process:
                    owned.setdefault(Owner(0, owner.process), []).append(name)
        asked = [self._ask(owner, "summaries", user_id, "", of=some) for owner, some in owned.items()]
        replies = await asyncio.gather(*asked, return_exceptions=True)
        told = [reply.summaries for reply in replies if isinstance(reply, Reply)]
        return {summary.session_id: summary for summaries in told for summary in summaries}

    # ---- calls ----

    async def _ask(self, owner: Owner, name: Any, user_id: str, session_id: str, **arguments: Any) -> Reply:
        """Asks a process, this one too.

        Raises:
            DiedError, NoReplyError: see `Hub.ask`.
            NotOwnerError: it does not own the conversation.
            Exception: what the method raises (see `core.interfaces.Conversations`).
        """
        call = Call(secrets.token_urlsafe(9), self._hub.process, name, user_id, session_id, arguments or None)
        if self._owning and owner.process == self._hub.process:
            return await self._owning.answering.perform(call)
        reply = await self._hub.ask(owner.process, owner.token, call)
        if reply.error:
            raise _error(reply, session_id)
        return reply

    async def _ask_any(self, name: Any, user_id: str, session_id: str = "", **arguments: Any) -> Reply:
        """Asks this process, or any worker."""
        to = self._hub.process if self._owning else ""
        try:
            return await self._ask(Owner(0, to), name, user_id, session_id, **arguments)
        except (DiedError, NoReplyError, NotOwnerError) as error:
            raise StoreError from error

    async def _ask_owner(self, name: Any, user_id: str, session_id: str, **arguments: Any) -> Reply:
        """Asks the owner of a conversation; if it has none, some worker takes it first."""
        if self._owning and self._owning.holds(session_id):
            with contextlib.suppress(NotOwnerError):
                return await self._ask(Owner(0, self._hub.process), name, user_id, session_id, **arguments)
        for _ in range(_ATTEMPTS):
            async with self._needed(user_id, session_id) as attended:
                owner = await self._owner_of(attended)
                try:
                    return await self._ask(owner, name, user_id, session_id, **arguments)
                except NotOwnerError:
                    self._lost(attended, owner, is_told=False)
                except (DiedError, NoReplyError) as error:  # it may have been done
                    raise StoreError from error
        raise StoreError

    # ---- owners ----

    @asynccontextmanager
    async def _needed(self, user_id: str, name: str) -> AsyncIterator[Attended]:
        """A conversation whose owner is known, or looked for, as long as somebody needs it."""
        attended = self._attended.get(name)
        if not attended:
            attended = Attended(self._hub, user_id, name, self._mic_ms, self._forget_unneeded)
            self._attended[name] = attended
            self._look(attended)
        elif attended.user_id != user_id:
            raise UnknownConversationError(name)
        attended.opens += 1
        try:
            yield attended
        finally:
            attended.opens -= 1
            # If a listener comes now, it comes before anything else happens.
            asyncio.get_running_loop().call_soon(self._opened, attended)

    def _opened(self, attended: Attended) -> None:
        attended.not_coming()
        self._forget_unneeded(attended)

    def _forget_unneeded(self, attended: Attended) -> None:
        name = attended.session_id
        if not attended.is_needed and self._attended.get(name) is attended:
            del self._attended[name]
            if looking := self._looking.pop(name, None):
                looking.cancel()

    async def _owner_of(self, attended: Attended) -> Owner:
        try:
            async with self._hub.patience.limit(_OPEN_SECONDS):
                while not attended.owner:  # it may be lost again before this goes on
                    await attended.has_owner.wait()
        except TimeoutError:
            raise FullError from None
        return attended.owner

    def _lost(self, attended: Attended, owner: Owner, *, is_told: bool) -> None:
        """Somebody owns a conversation no more."""
        if attended.owner == owner and self._attended.get(attended.session_id) is attended:
            attended.lost(is_told=is_told)
            self._look(attended)

    def _look(self, attended: Attended) -> None:
        name = attended.session_id
        self._looking[name] = asyncio.create_task(self._find_owner(attended), name=f"owner of {name}")

    async def _find_owner(self, attended: Attended) -> None:
        """Finds the owner of a conversation, or lets one be found."""
        name, hub = attended.session_id, self._hub
        hint = self._hints[name] = asyncio.Event()
        claim_at = 0.0
        try:
            while True:
                await hub.is_up.wait()
                owner = await hub.server.attempt(lambda: hub.ownership.find(name))
                is_foreign = partial(hub.is_foreign, owner.process if owner else "")
                if await hub.server.attempt(is_foreign):
                    attended.tell("reconnecting")  # it can only be waited for
                elif owner and attended.could_have(owner):
                    break
                else:
                    seen = owner.token if owner else 0
                    if self._owning and self._owning.has_place():
                        owner = await self._owning.take(name, seen)
                        if attended.could_have(owner):
                            break
                    if time.monotonic() >= claim_at:
                        claim_at = time.monotonic() + _CLAIM_SECONDS
                        claim = encode(Claim(attended.user_id, name, seen, hub.process))
                        await hub.server.attempt(partial(put, hub.server, hub.claims, claim))
                hint.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_SECONDS):
                        await hint.wait()
        finally:
            if self._hints.get(name) is hint:
                del self._hints[name]
            if self._looking.get(name) is asyncio.current_task():
                del self._looking[name]
        attended.found(owner)

    # ---- bus.hub.Half ----

    def receive(self, sender: str, item: Item, content: Any) -> None:
        """Takes something that an owner tells."""
        attended = self._attended.get(item.conversation)
        if not attended:
            return
        if isinstance(content, Moved):
            self._moved(attended, Owner(item.token, sender), content)
        elif attended.owner == (item.token, sender):
            attended.take(item.connections, content)
            if not attended.is_needed:
                self._forget_unneeded(attended)

    def _moved(self, attended: Attended, sender: Owner, moved: Moved) -> None:
        if attended.owner == sender:
            if (moved.token, moved.process) == sender:
                attended.attend_anew()
            else:
                self._lost(attended, sender, is_told=False)
        elif hint := self._hints.get(attended.session_id):
            hint.set()

    def died(self, process: str) -> None:
        """A process has died: its conversations need other owners."""
        self._given_up.forget(process)
        for attended in [*self._attended.values()]:
            if attended.owner and attended.owner.process == process:
                self._lost(attended, attended.owner, is_told=True)

    def missed(self, process: str | None) -> None:
        """Something that owners have told is lost."""
        for attended in self._attended.values():
            if attended.owner and process in (None, attended.owner.process):
                attended.attend_anew()

    def _tell_speakers(self, conversation: str, connections: Sequence[str], ms: float) -> None:
        if attended := self._attended.get(conversation):
            attended.given_up(connections, ms)

    def lapsed(self) -> None:
        """The owners may have taken the listeners for gone."""
        self.missed(None)

    def changed(self, *, is_away: bool) -> None:
        """Redis is away, or back."""
        for attended in self._attended.values():
            if not attended.owner or attended.owner.process != self._hub.process:
                attended.tell("degraded" if is_away else "")


def _error(reply: Reply, session_id: str) -> Exception:
    """The error that a call has raised in another process."""
    name, text = reply.error, reply.error_text
    if name == NotOwnerError.__name__:
        return NotOwnerError()
    if name == UnknownConversationError.__name__:
        return UnknownConversationError(session_id)
    return _ERRORS[name](text) if name in _ERRORS else StoreError(text)
