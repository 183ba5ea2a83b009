"""What the client of a socket is told when a command of it is refused."""

from __future__ import annotations

from typing import NamedTuple

from adk_relay.core.inbox import InboxFullError
from adk_relay.core.interfaces import UnknownConversationError
from adk_relay.core.messages import Error
from adk_relay.core.requests import BusyError
from adk_relay.wire.admission import NotAllowedError
from adk_relay.wire.closing import BUSY, FORBIDDEN, RATE_LIMITED, UNKNOWN_SESSION, CloseFrame
from adk_relay.wire.quotas import RateLimitedError

REFUSALS = (UnknownConversationError, BusyError, InboxFullError, NotAllowedError, RateLimitedError)


class Refusal(NamedTuple):
    """`error` tells it; `close` is for a turn socket, and for any socket if `is_last`."""

    error: Error
    close: CloseFrame
    is_last: bool = False


def refusal_of(why: Exception, text_id: str) -> Refusal:
    """What one of `REFUSALS` means for the client."""
    match why:
        case UnknownConversationError():
            return Refusal(Error("unknown_session", str(why), text_id), UNKNOWN_SESSION)
        case NotAllowedError():
            return Refusal(Error("not_allowed", str(why), text_id), FORBIDDEN)
        case RateLimitedError():
            error = Error("rate_limited", str(why), text_id, retry_after=why.retry_after)
            return Refusal(error, RATE_LIMITED, why.is_last)
        case _:
            return Refusal(Error("busy", str(why), text_id), BUSY)
