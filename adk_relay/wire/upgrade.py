"""What is asked before a WebSocket is accepted: who its client is, and which conversation it is to attend."""

from __future__ import annotations

from adk_relay.core.interfaces import (
    Conversations,
    FullError,
    StoreError,
    UnknownConversationError,
    UnreachableError,
)
from adk_relay.core.visitor import Visitor
from adk_relay.wire import sound
from adk_relay.wire.asgi import Scope
from adk_relay.wire.closing import BUSY, NOT_FOUND, SERVER_STOPPING, STORE_FAILED
from adk_relay.wire.draining import Draining
from adk_relay.wire.guard import Guard, Refused, too_many
from adk_relay.wire.http import retry_after
from adk_relay.wire.limits import Limits
from adk_relay.wire.targets import NoSuchTargetError, Target, for_visitor, is_call, target_of, with_name
from adk_relay.wire.twilio import NotInstalledError


async def admit(
    scope: Scope, guard: Guard, draining: Draining, conversations: Conversations, limits: Limits
) -> tuple[Visitor, Target]:
    """The visitor of a WebSocket, and what its URL means for this visitor.

    Raises:
        Refused: the WebSocket is not to be accepted.
    """
    _check_is_running(draining, conversations)  # first: a refusal must not use up a token
    visitor = with_name(await (guard.admit_call if is_call(scope) else guard.admit)(scope), scope)
    try:
        # The path and the query choose the dialect.
        target = for_visitor(target_of(scope, limits.queue_bytes), visitor)
        if target.user_id and target.session_id:
            # Only the session service knows which user a session belongs to.
            await conversations.check(target.user_id, target.session_id)
        if target.user_id and not conversations.has_place(target.user_id, target.session_id):
            raise too_many(FullError.TEXT)
        if target.dialect.act:  # the dialects with a state code their sound
            await sound.prepare()
    except NotInstalledError as missing:
        raise Refused(501, NOT_FOUND.because(str(missing)), str(missing)) from None
    except (NoSuchTargetError, UnknownConversationError) as unknown:
        raise Refused(404, NOT_FOUND, str(unknown)) from None
    except UnreachableError as away:
        raise Refused(503, BUSY.because(str(away)), str(away), [retry_after(5)]) from None
    except StoreError:
        raise Refused(500, STORE_FAILED, STORE_FAILED.reason) from None
    _check_is_running(draining, conversations)  # it may have begun to stop meanwhile
    return visitor, target


def _check_is_running(draining: Draining, conversations: Conversations) -> None:
    later = draining.retry_after()
    if later or conversations.is_closing():
        raise Refused(503, SERVER_STOPPING, SERVER_STOPPING.reason, later)
