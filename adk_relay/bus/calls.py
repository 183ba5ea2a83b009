"""What a process does when another one asks: methods of conversations, called from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from adk_relay.bus.commands import Call, Reply
from adk_relay.bus.owned import Conversations, Owned
from adk_relay.core.interfaces import (
    Conversation,
    StoppingError,
    StoreError,
    ToolResultError,
    UnknownConversationError,
    UnknownToolError,
)
from adk_relay.core.messages import ToolResult
from adk_relay.core.requests import BusyError

ERRORS = (
    *(UnknownConversationError, UnknownToolError, ToolResultError),
    *(StoreError, StoppingError, BusyError),
)
"""What a call may raise: it is raised again where the call was made."""


class Open(Protocol):
    """Opens a conversation that this process owns."""

    async def __call__(self, user_id: str, name: str, *, must_exist: bool) -> Conversation: ...


async def perform(call: Call, conversations: Conversations, owned: Mapping[str, Owned], open_: Open) -> Reply:
    """Does what a call asks for.

    Args:
        conversations: those that run in this process.
        owned: those that it owns.

    Raises:
        Exception: what the method raises.
    """
    user_id, session_id = call.user_id, call.session_id
    match call.name:
        case "open" | "find":
            await open_(user_id, session_id, must_exist=call.name == "find")
            return Reply(call.id, standing=owned[session_id].announce(call.asker))
        case "answer":
            await open_(user_id, session_id, must_exist=True)
            await conversations.answer(user_id, session_id, ToolResult(**call.arguments))
        case "reset":
            await open_(user_id, session_id, must_exist=True)
            await conversations.reset(user_id, session_id, **call.arguments)
        case "check":
            await conversations.check(user_id, session_id)
        case "create":
            return Reply(call.id, session_id=await conversations.create(user_id))
        case "list":
            found = await conversations.list(user_id, call.arguments["limit"])
            return Reply(call.id, summaries=(*found,))
        case "summaries":
            known = [owned[name].conversation for name in call.arguments["of"] if name in owned]
            mine = [each for each in known if each and each.user_id == user_id]
            return Reply(call.id, summaries=(*[await each.summary() for each in mine],))
        case "read":
            before = call.arguments["before"]
            summary, lines, first = await conversations.read(user_id, session_id, before)
            return Reply(call.id, summaries=(summary,), lines=(*lines,), first=first)
    return Reply(call.id)
