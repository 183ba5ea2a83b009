"""The dialects: how a client's frames become commands, and how messages become frames.

A dialect is a table of functions: `decode` turns a frame into a command, and an encoder turns a message into
frames. Every listener gets the same messages in any dialect. relay's own dialects have no state and decide
nothing. A dialect that others have made may need a state for each socket: see `Dialect.act`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from adk_relay.core.heard import Heard
from adk_relay.core.messages import (
    Input,
    Message,
    ReadOlder,
    ToolResult,
    UserText,
)
from adk_relay.core.rewind import Rewind
from adk_relay.core.shape import PLAIN, Shape
from adk_relay.core.voice import MODELS_OWN, NO_CHOICES, Choices, Configure, Voice
from adk_relay.wire.closing import CloseFrame
from adk_relay.wire.dialects.fields import MAX_TOOL_BYTES, to_json
from adk_relay.wire.outbox import Encode, Frame, Frames
from adk_relay.wire.strict_json import JSON_LIMITS, read_json

MAX_TEXT_BYTES = 32 * 1024
"""UTF-8 bytes that one text of a user may have."""

_MAX_ID_CHARS = 64

_MAX_PLAIN_CHARS = 256 * 1024
"""The longest text fits, even with each byte escaped as \\u00xx. A longer frame is sound or a picture."""


class BadFrameError(Exception):
    """A frame that is not a valid command. The message says what is wrong and what would be right.

    Attributes:
        code: for programs, such as `bad_data`.
        id: the id of the text that is wrong; "": it has none, or the frame is no text.
        tool_id: the call that the frame answers; "": it answers none.
    """

    def __init__(self, code: str, message: str, id: str = "", tool_id: str = "") -> None:
        self.code = code
        self.id = id
        self.tool_id = tool_id
        super().__init__(message)


@dataclass(slots=True, frozen=True)
class Create:
    """Make a conversation and enter it."""


@dataclass(slots=True, frozen=True)
class Join:
    """Enter a conversation."""

    session_id: str


@dataclass(slots=True, frozen=True)
class Ask:
    """Answer a text; `session_id` None: in the conversation that the socket attends."""

    text: UserText
    session_id: str | None


@dataclass(slots=True, frozen=True)
class NewToken:
    """A token in place of the one that expires."""

    token: str = field(repr=False)


@dataclass(slots=True, frozen=True)
class Attend:
    """Enter a conversation, for a client that was admitted without having said who it is.

    All but `own` is what the client says, which the guard need not believe; "": it does not say it.
    """

    own: str
    """The user and the conversation of a client that is nobody else."""
    user_id: str
    session_id: str
    token: str = field(repr=False)


Command = Input | ReadOlder | Create | Join | Attend | Ask | NewToken | Literal["ping", "pong"]
"""Everything that a client's frame can ask for."""


@dataclass(slots=True, frozen=True)
class Welcome:
    """The facts for a client that enters a conversation.

    `ping_interval` is in seconds; `limits`: how much the client may send, see `wire.quotas.Rates.limits`.
    `name`: what the others are told; "": nothing. `role`: what the client was invited to do, one of
    `wire.tokens.ROLES`; "": it was not invited, so the conversation is its own. `names`: of others who are
    there, by connection id. `title`: what the users have named the conversation; "": they have not.
    """

    session_id: str
    user_id: str
    connection_id: str
    connections: int
    model: str
    is_rehearsal: bool
    is_audio: bool
    ping_interval: float
    epoch: str
    seq: int
    message_count: int
    is_new: bool
    name: str = ""
    role: str = ""
    names: Mapping[str, str] = field(default_factory=dict)
    title: str = ""
    limits: Mapping[str, float] = field(default_factory=dict)
    choices: Choices = NO_CHOICES
    voice: Voice = MODELS_OWN
    shape: Shape = PLAIN


@dataclass(slots=True, frozen=True)
class Event:
    """A client's frame whose meaning depends on what its socket has seen before: see `Dialect.act`."""


@dataclass(slots=True, frozen=True)
class Reply:
    """What the client gets at once for an event."""

    frames: Frames


@dataclass(slots=True, frozen=True)
class Dialect:
    """The frames of one kind of client.

    Attributes:
        name: the dialect's name in the log.
        decode: turns a frame into a command or an event; raises BadFrameError. It may be called in a thread.
        encoder: given a session id, returns the function that encodes this conversation's messages.
        connected: makes the first frame from the connection's id, the model's name and the limits of the
            `Welcome`; None: there is none.
        welcome: makes the frames that tell a client it has entered a conversation; None: there are none.
        ping: makes the frame that asks for a sign of life; None: the dialect has none.
        pong: makes the answer to a client's ping from the connection's id.
        expiring: makes the frame that says when, in seconds, the client's token expires; None: there is none.
        is_audio: the client wants sound. The model is connected as soon as it comes.
        configures_first: but not before it has said something: its clients first say how the agent is to
            answer, and the model would be connected twice.
        attends: which messages its sockets get (see `adk_relay.core.listener.Listener`).
        act: for a dialect with a state, which is made for one socket: given an event, yields the commands
            that it means and the replies to it, in order; raises BadFrameError. What has come
            before it is done already, and each command is done when the next one is asked for.
        look: asked every second for how the socket is to be closed now, given `time.monotonic()`; it returns
            None if it is not.
        heard: asked when a turn has ended for how much its client has heard of an answer that was cut, and
            when the socket leaves (True); None if nothing was cut.
        is_playing: whether its client still has to hear something, though all was sent or can't be sent yet.
    """

    name: str
    decode: Callable[[Frame], Command | Event]
    encoder: Callable[[str], Encode]
    connected: Callable[[str, str, Mapping[str, float]], Frame | None]
    welcome: Callable[[Welcome], Frames]
    ping: Callable[[], Frame] | None
    pong: Callable[[str], Frame]
    expiring: Callable[[int], Frame | None]
    is_audio: bool
    attends: Literal["all", "newest", "own"]
    act: Callable[[Any], Iterable[Command | Reply]] | None = None
    look: Callable[[float], CloseFrame | None] | None = None
    heard: Callable[[bool], Heard | None] | None = None
    is_playing: Callable[[], bool] | None = None
    configures_first: bool = False


def once(encode: Encode) -> Encode:
    """Encodes a message once for all sockets that share `encode`: they get it directly after each other."""
    last: Message | None = None
    frames: Frames = None

    def encode_once(message: Message) -> Frames:
        nonlocal last, frames
        if message is not last:
            frames, last = encode(message), message
        return frames

    return encode_once


def json_object(frame: Frame) -> dict[str, Any]:
    """The JSON object that a text frame holds.

    Raises:
        BadFrameError: it holds none.
    """
    if isinstance(frame, bytes):
        raise BadFrameError("bad_message", "A frame must be text.")
    if len(frame) > _MAX_PLAIN_CHARS and frame.count(",") + frame.count("[") > 64:
        # Parsing millions of small values would block all sockets for seconds.
        raise BadFrameError(
            "too_large", f"A frame of over {_MAX_PLAIN_CHARS} characters may only hold one base64 string."
        )
    try:
        fields = read_json(frame)
    except ValueError:
        raise BadFrameError("bad_message", f"A text frame must be JSON{JSON_LIMITS}.") from None
    if not isinstance(fields, dict):
        raise BadFrameError("bad_message", "A text frame must be a JSON object.")
    return fields


def user_text(fields: dict[str, Any], field: str) -> UserText:
    """The user's text in `field`, with the `id` that the client has given it, if any.

    Raises:
        BadFrameError: the text or the id is not valid.
    """
    text_id = fields.get("id", "")
    if isinstance(text_id, str) and len(text_id) <= _MAX_ID_CHARS and text_id.isprintable():
        return UserText(text_of(fields, field, text_id), text_id)
    raise BadFrameError("bad_data", f"id must be a string of at most {_MAX_ID_CHARS} characters.")


def text_of(fields: dict[str, Any], field: str, text_id: str = "") -> str:
    """The text in `field`; `text_id` is for the error.

    Raises:
        BadFrameError: it is not a string, is empty or too long, or can't be encoded as UTF-8.
    """
    text = fields.get(field)
    if not isinstance(text, str):
        raise BadFrameError("bad_data", f"{field} must be a string.", text_id)
    if not text.strip():
        raise BadFrameError("bad_data", "The text is empty.", text_id)
    try:
        length = len(text.encode())
    except UnicodeEncodeError:  # JSON can hold half of a surrogate pair
        raise BadFrameError("bad_data", "The text is not valid Unicode.", text_id) from None
    if length > MAX_TEXT_BYTES:
        message = f"The text has {length} bytes; at most {MAX_TEXT_BYTES} are allowed."
        raise BadFrameError("too_large", message, text_id)
    return text


_MAX_TOOL_ID_CHARS = 256


def tool_result(fields: dict[str, Any]) -> ToolResult:
    """The answer to a tool call that waits.

    Raises:
        BadFrameError: it is not valid.
    """
    tool_id = fields.get("tool_id")
    if not (isinstance(tool_id, str) and 0 < len(tool_id) <= _MAX_TOOL_ID_CHARS):
        raise BadFrameError("bad_data", "tool_id must be that of a tool_start.")
    if "result" not in fields:
        raise BadFrameError("bad_data", "There is no result.", tool_id=tool_id)
    length = len(to_json(fields["result"]).encode())
    if length > MAX_TOOL_BYTES:
        message = f"The result has {length} bytes; at most {MAX_TOOL_BYTES} are allowed."
        raise BadFrameError("too_large", message, tool_id=tool_id)
    return ToolResult(tool_id, fields["result"])


def rewind(fields: dict[str, Any]) -> Rewind:
    """Which text is to be taken back.

    Raises:
        BadFrameError: its id is not valid.
    """
    text_id = fields.get("id", "")
    if isinstance(text_id, str) and len(text_id) <= _MAX_ID_CHARS:
        return Rewind(text_id)
    raise BadFrameError("bad_data", f"id must be a string of at most {_MAX_ID_CHARS} characters.")


def new_token(fields: dict[str, Any]) -> NewToken:
    """A token in place of the one that expires.

    Raises:
        BadFrameError: there is none.
    """
    token = fields.get("token")
    if not isinstance(token, str):
        raise BadFrameError("bad_data", "token must be a string.")
    return NewToken(token)


def text_id_of(command: Command) -> str:
    """The id that a client has given its text or its choice, if the command is one of them."""
    text = command.text if isinstance(command, Ask) else command
    return text.id if isinstance(text, UserText | Configure) else ""


def session_id_of(fields: dict[str, Any]) -> str:
    """The session id in a frame.

    Raises:
        BadFrameError: there is none, or it is not valid.
    """
    session_id = fields.get("session_id")
    if isinstance(session_id, str) and is_session_id(session_id):
        return session_id
    raise BadFrameError("bad_data", f"session_id must be a string of {SESSION_ID}.")


NAME = "1 to 128 of A-Z a-z 0-9 . _ ~ -"
SESSION_ID = f"{NAME} (but not new, . or ..)"


def is_name(name: str) -> bool:
    """Whether it is a valid user id: only characters that need no escape in a URL (RFC 3986 section 2.3)."""
    return re.fullmatch(r"[A-Za-z0-9._~-]{1,128}", name) is not None


def is_session_id(name: str) -> bool:
    """Whether it is a valid session id: /sessions/{id} must lead to the session."""
    return is_name(name) and name not in ("new", ".", "..")
