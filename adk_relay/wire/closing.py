"""How the server closes a WebSocket: each code, its reason, and whether a client is to come back.

Codes 1000 to 1015 are those of RFC 6455 section 7.4.1. Codes 4000 to 4999 are private (section 7.4.2).
The range of a private code tells a client what to do, even if it does not know the code:

    4400 to 4409   do not come back by yourself
    4410 to 4499   come back after a pause

Source of the idea: https://centrifugal.dev/docs/server/codes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

_MAX_REASON_BYTES = 123
"""Bytes of a reason that fit into a close frame (RFC 6455 section 5.5)."""


@dataclass(slots=True, frozen=True)
class CloseFrame:
    """A close frame, and what the client is to do.

    Attributes:
        code: the close code.
        reason: a few words for people and logs.
        come_back: what the client is to do. "never": a new connection would be closed the same way;
            "on input": connect again when the user next sends something; "after a pause": connect again
            after a random pause, which grows each time.
    """

    code: int
    reason: str
    come_back: Literal["never", "on input", "after a pause"] = "never"

    def because(self, reason: str) -> CloseFrame:
        """The same code with a reason of its own, cut to what a close frame can hold."""
        cut = reason.encode(errors="replace")[:_MAX_REASON_BYTES].decode(errors="ignore")
        return replace(self, reason=cut)

    def private(self) -> CloseFrame:
        """The same with a private code, for servers that can send no standard one but 1000."""
        return replace(self, code=PRIVATE.get(self.code, self.code))


class Close(Exception):
    """The socket is to be closed with `frame`."""

    def __init__(self, frame: CloseFrame) -> None:
        self.frame = frame
        super().__init__(frame.code, frame.reason)


class PeerGone(Close):
    """The peer has closed the socket, with this code and reason: no close frame is sent."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(CloseFrame(code, reason))


DONE = CloseFrame(1000, "done", "on input")
"""The one request of a turn socket is answered."""

SERVER_STOPPING = CloseFrame(1001, "the server is stopping", "after a pause")
"""The server stops, or is stopping already when a client connects."""

BAD_FRAMES = CloseFrame(1008, "bad frames in a row", "never")
"""Too many frames in a row were no valid command; on a turn socket the first one is too many."""

UNKNOWN_SESSION = CloseFrame(1008, "unknown_session", "never")
"""A turn socket has asked in a conversation that is another user's."""

INTERNAL_ERROR = CloseFrame(1011, "an internal error", "after a pause")
"""The code that serves the socket has failed; the log has the traceback."""

AGENT_FAILED = CloseFrame(1011, "the agent failed", "after a pause")
"""The agent or the session service has failed for good; an error message comes before it."""

STORE_FAILED = CloseFrame(1011, "the conversations can't be reached", "after a pause")
"""The session service has failed while a client was connecting."""

SERVER_RESTARTS = CloseFrame(1012, "service restart", "after a pause")
"""uvicorn closes sockets with this code when it stops. A client may send it, too."""

MOVED = CloseFrame(1012, "the conversation has moved", "after a pause")
"""Another process of the server goes on with the conversation: this one was taken for dead."""

TOO_SLOW = CloseFrame(1013, "too slow", "after a pause")
"""The client does not read, or reads too slowly for the texts that it is sent."""

BUSY = CloseFrame(1013, "busy", "after a pause")
"""Too many requests wait already: the request of this turn socket is refused."""

SIGN_IN = CloseFrame(4401, "sign in first", "never")
"""The client has no valid token, or its token has expired."""

FORBIDDEN = CloseFrame(4403, "not allowed", "never")
"""The client may not do this, whoever it is."""

NOT_FOUND = CloseFrame(4404, "not found", "never")
"""There is no such address or conversation, or the conversation is another user's."""

IDLE = CloseFrame(4408, "idle", "on input")
"""Nothing but pings and pongs has come for the idle timeout."""

NO_PONG = CloseFrame(4410, "no pong", "after a pause")
"""A client that had answered a ping before has not answered the last one."""

RATE_LIMITED = CloseFrame(4429, "too much", "after a pause")
"""There is no place for the client now, or it has gone on sending too much after it was told."""

PRIVATE = {1001: 4412, 1008: 4400, 1011: 4411, 1012: 4412, 1013: 4413}
"""The private code that stands for a standard one. Its range says the same about coming back."""

CONVERSATION_ENDED = {"idle": IDLE, "failed": AGENT_FAILED, "stopping": SERVER_STOPPING, "moved": MOVED}
"""How sockets are closed when their conversation ends, by `Ended.why`."""

CONVERSATION_ENDED_TEXT = {
    "idle": "The agent has said nothing for too long.",
    "failed": "The agent failed. The server's log says why.",
    "stopping": "The server is stopping.",
    "moved": "The conversation goes on in another process of the server.",
}
"""The error message for a listener that waits for an answer, by `Ended.why`."""
