"""Calls: what other processes ask this one for, and what they ask any worker for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from adk_relay.bus.commands import Call, Reply
from adk_relay.bus.hub import Hub
from adk_relay.bus.owned import Conversations, OwnConversation
from adk_relay.core.interfaces import (
    FullError,
    StoppingError,
    StoreError,
    ToolResultError,
    UnknownConversationError,
    UnknownToolError,
)
from adk_relay.core.logs import failure
from adk_relay.core.messages import ToolResult
from adk_relay.core.requests import BusyError
from adk_relay.core.room import Standing

log = logging.getLogger("relay")

_MAX_CALLS = 1000
"""Calls that are answered at once."""

ERRORS = (
    *(UnknownConversationError, UnknownToolError, ToolResultError),
    *(StoreError, StoppingError, BusyError),
)
"""What a call may raise: it is raised again where the call was made."""


class NotOwnerError(Exception):
    """This process does not own the conversation."""


class Answering:
    """Answers calls.

    Args:
        open_own: opens a conversation that this process owns; `must_exist`: it must exist already.
        announce: returns how such a conversation stands, for a listener of a process that attends soon.
        opened: returns such a conversation if it is open.

    Invariants:
        At most `_MAX_CALLS` are answered at once.
    """

    def __init__(
        self,
        hub: Hub,
        conversations: Conversations,
        open_own: Callable[[str, str, bool], Awaitable[OwnConversation]],
        announce: Callable[[str, str], Standing],
        opened: Callable[[str], OwnConversation | None],
    ) -> None:
        self._hub = hub
        self._conversations = conversations
        self._open = open_own
        self._announce = announce
        self._opened = opened
        self._under_way: set[asyncio.Task[None]] = set()

    def check(self) -> None:
        """Asserts the invariants."""
        assert len(self._under_way) <= _MAX_CALLS, f"{len(self._under_way)} calls are being answered"

    def take(self, call: Call) -> None:
        """Takes a call that another process has sent."""
        if len(self._under_way) >= _MAX_CALLS:
            self._hub.reply(call.asker, call.session_id, Reply(call.id, FullError.__name__))
            return
        task = asyncio.create_task(self.answer(call), name=f"call {call.name}")
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def answer(self, call: Call) -> None:
        """Answers a call; raises nothing."""
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
                await self._open(user_id, session_id, call.name == "find")
                return Reply(call.id, standing=self._announce(session_id, call.asker))
            case "answer":
                (await self._open(user_id, session_id, True)).answer(ToolResult(**call.arguments))
            case "reset":
                await (await self._open(user_id, session_id, True)).reset(**call.arguments)
            case "rename":
                await (await self._open(user_id, session_id, True)).rename(**call.arguments)
            case "check":
                await conversations.check(user_id, session_id)
            case "create":
                return Reply(call.id, session_id=await conversations.create(user_id))
            case "list":
                listed = await conversations.list(user_id, call.arguments["limit"])
                return Reply(call.id, summaries=(*listed,))
            case "summaries":
                known = [self._opened(name) for name in call.arguments["of"]]
                mine = [each for each in known if each and each.user_id == user_id]
                return Reply(call.id, summaries=(*[await each.summary() for each in mine],))
            case "read":
                before = call.arguments["before"]
                summary, lines, first = await conversations.read(user_id, session_id, before)
                return Reply(call.id, summaries=(summary,), lines=(*lines,), first=first)
        return Reply(call.id)
