"""What is told of conversations: those in memory, and those that the session service keeps."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from adk_relay.adk.catalog import Catalog
from adk_relay.adk.fence import NotOwnerError
from adk_relay.adk.session import StoredSession
from adk_relay.core.at_once import limited
from adk_relay.core.interfaces import StoreError, Summary, UnknownConversationError
from adk_relay.core.logs import failure
from adk_relay.core.messages import Line
from adk_relay.core.room import Room

if TYPE_CHECKING:
    from adk_relay.adk.conversation import Conversation

log = logging.getLogger("relay.agent")

T = TypeVar("T")


async def of_store(operation: Awaitable[T]) -> T:
    """Awaits the session service. A failure is logged once, here, and raised as StoreError."""
    try:
        return await operation
    except NotOwnerError as error:
        raise StoreError from error
    except Exception as error:
        log.error("the session service failed: %s", failure(error))
        raise StoreError from error


def exists(conversation: Conversation) -> bool:
    """Whether there is something of a conversation in memory that can be found."""
    return conversation.session.is_kept or bool(conversation.room.history.message_count)


async def read(
    catalog: Catalog, in_memory: Mapping[str, Conversation], user_id: str, session_id: str, before: int | None
) -> tuple[Summary, list[Line], int]:
    """See `core.interfaces.Conversations.read`.

    Args:
        in_memory: all conversations in memory, by session id.
    """
    while (conversation := in_memory.get(session_id)) and exists(conversation):
        history = conversation.room.history
        lines, first = await of_store(conversation.session.before(before, history))
        if in_memory.get(session_id) is conversation and conversation.room.history is history:
            summary = await conversation.summary()
            pending, state = tuple(conversation.waiting.calls), await of_store(conversation.session.state())
            return replace(summary, pending=pending, state=state), lines, first
        # It has ended meanwhile, or was emptied.
    found = await of_store(catalog.read(user_id, session_id, before))
    if found is None:
        raise UnknownConversationError(session_id)
    summary, lines = found[0], limited(found[1])
    end = min(before or summary.messages + 1, summary.messages + 1)
    return summary, lines, end - len(lines)


async def newest(
    catalog: Catalog, in_memory: Mapping[str, Conversation], user_id: str, limit: int
) -> list[Summary]:
    """See `core.interfaces.Conversations.list`."""
    stored = {brief.session_id: brief for brief in await of_store(catalog.newest(user_id, limit))}
    last_used = {brief.session_id: brief.last_used for brief in stored.values()}
    open_ = {
        conversation.session_id: conversation
        for conversation in in_memory.values()
        if conversation.user_id == user_id and exists(conversation)
    }
    last_used |= {session_id: each.session.last_activity for session_id, each in open_.items()}
    latest = sorted(last_used, key=lambda session_id: last_used[session_id], reverse=True)[:limit]
    return [
        await open_[session_id].summary()
        if session_id in open_
        else await of_store(catalog.summary(user_id, stored[session_id]))
        for session_id in latest
    ]


async def summary_of(session: StoredSession, room: Room) -> Summary:
    """What is told of a conversation in memory.

    Raises:
        UnknownConversationError: there is nothing of it.
    """
    if not (session.is_kept or room.history.message_count):
        raise UnknownConversationError(session.session_id)
    await of_store(session.counted())
    history = room.history
    return Summary(
        session.session_id,
        session.created_at,
        session.last_activity,
        history.user_messages,
        history.message_count - history.user_messages,
        len(room.listeners),
        title=session.title,
        first_text=history.first_text,
    )
