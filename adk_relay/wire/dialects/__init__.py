"""What goes over the wire, and nothing of when: frames to what was said, messages to frames.

A dialect is a table. It has no state and decides nothing: `decode` tells what a frame says, an encoder
what frames a message is, and who attends a conversation is told the same messages whatever it speaks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from adk_relay.core.messages import Input, Message, UserText
from adk_relay.wire.outbox import Encode, Frame, Frames

MAX_TEXT_BYTES = 32 * 1024
"""UTF-8 bytes of one text of a user's."""

_MAX_ID_CHARS = 64

_MAX_PLAIN_CHARS = 256 * 1024
"""A text at its limit, each byte spelled as \\u00xx, has room in it; what is longer is sound or a picture."""

MAX_TOOL_BYTES = 64 * 1024
"""What a tool was given or answered is cut on the wire beyond this."""


class BadFrameError(Exception):
    """A frame that means nothing.

    Attributes:
        code: for programs, such as `bad_data`.
        id: the client's own name for the text that is wrong, if it has one.
    """

    def __init__(self, code: str, message: str, id: str = "") -> None:
        self.code = code
        self.id = id
        super().__init__(message)


@dataclass(slots=True, frozen=True)
class Create:
    """A conversation is to be made, and entered."""


@dataclass(slots=True, frozen=True)
class Join:
    """A conversation is to be entered."""

    session_id: str


@dataclass(slots=True, frozen=True)
class Ask:
    """A text whose answer is waited for; `session_id` None: in the conversation one is in."""

    text: UserText
    session_id: str | None


Command = Input | Create | Join | Ask | Literal["ping", "pong"]
"""What a client's frame can say."""


@dataclass(slots=True, frozen=True)
class Welcome:
    """What a socket is told when it enters a conversation."""

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


@dataclass(slots=True, frozen=True)
class Dialect:
    """How one kind of client speaks.

    Attributes:
        name: for the log.
        decode: what a frame says; raises BadFrameError.
        encoder: how messages of a conversation, by its id, go to the client.
        connected: the first frame, given the connection's id and the model's name.
        welcome: the frame for having entered a conversation.
        ping: the frame that asks for a sign of life, if the dialect has one.
        pong: the answer to a client's ping, given the connection's id.
        is_audio: the client wants sound.
        attends: what of a conversation it is told (see `adk_relay.core.room.Listener`).
    """

    name: str
    decode: Callable[[Frame], Command]
    encoder: Callable[[str], Encode]
    connected: Callable[[str, str], Frame | None]
    welcome: Callable[[Welcome], Frame | None]
    ping: Frame | None
    pong: Callable[[str], Frame]
    is_audio: bool
    attends: Literal["all", "newest", "own"]


def once(encode: Encode) -> Encode:
    """Encodes a message once for all sockets of a dialect: they are told it one after the other."""
    last: Message | None = None
    frames: Frames = None

    def encoded(message: Message) -> Frames:
        nonlocal last, frames
        if message is not last:
            frames, last = encode(message), message
        return frames

    return encoded


def json_object(frame: Frame) -> dict[str, Any]:
    """The JSON object that a text frame holds.

    Raises:
        BadFrameError: it holds none.
    """
    if isinstance(frame, bytes):
        raise BadFrameError("bad_message", "A frame must be text.")
    if len(frame) > _MAX_PLAIN_CHARS and frame.count(",") + frame.count("[") > 64:
        # Millions of little values would hold up everybody for seconds.
        raise BadFrameError(
            "too_large", f"A frame of over {_MAX_PLAIN_CHARS} characters holds one base64 string."
        )
    try:
        said = json.loads(frame)
    except (ValueError, RecursionError):
        raise BadFrameError("bad_message", "A text frame must be JSON.") from None
    if not isinstance(said, dict):
        raise BadFrameError("bad_message", "A text frame must be a JSON object.")
    return said


def user_text(said: dict[str, Any], name: str) -> UserText:
    """A user's text, in the field `name`, and the `id` that its client has given it, if any.

    Raises:
        BadFrameError: one of the two is no such thing.
    """
    id_ = said.get("id", "")
    if isinstance(id_, str) and len(id_) <= _MAX_ID_CHARS and id_.isprintable():
        return UserText(text_of(said, name, id_), id_)
    raise BadFrameError("bad_data", f"id must be a string of at most {_MAX_ID_CHARS} characters.")


def text_of(said: dict[str, Any], name: str, id_: str = "") -> str:
    """A text in the field `name`; `id_` is for the error.

    Raises:
        BadFrameError: it is no string, empty, too long, or nothing that UTF-8 can spell.
    """
    text = said.get(name)
    if not isinstance(text, str):
        raise BadFrameError("bad_data", f"{name} must be a string.", id_)
    if not text.strip():
        raise BadFrameError("bad_data", "The text is empty.", id_)
    try:
        length = len(text.encode())
    except UnicodeEncodeError:  # JSON can spell half of a surrogate pair
        raise BadFrameError("bad_data", "The text is not valid Unicode.", id_) from None
    if length > MAX_TEXT_BYTES:
        raise BadFrameError("too_large", f"The text has {length} bytes; {MAX_TEXT_BYTES} are taken.", id_)
    return text


def named(id_: str) -> dict[str, Any]:
    """The `id` of a text on the wire, if its client has given it one."""
    return {"id": id_} if id_ else {}


def session_id_of(said: dict[str, Any]) -> str:
    """The conversation that a client names.

    Raises:
        BadFrameError: it names none.
    """
    session_id = said.get("session_id")
    if isinstance(session_id, str) and is_session_id(session_id):
        return session_id
    raise BadFrameError("bad_data", f"session_id must be a string of {SESSION_ID}.")


NAME = "1 to 128 of A-Z a-z 0-9 . _ ~ -"
SESSION_ID = f"{NAME} (but not new, . or ..)"


def is_name(name: str) -> bool:
    """Whether it can name a user or a conversation: what needs no escape in a URL (RFC 3986 section 2.3)."""
    return re.fullmatch(r"[A-Za-z0-9._~-]{1,128}", name) is not None


def is_session_id(name: str) -> bool:
    """Whether it can name a conversation: /sessions/{id} is to lead to it."""
    return is_name(name) and name not in ("new", ".", "..")


def cut(name: str, value: Any, limit: int = MAX_TOOL_BYTES) -> dict[str, Any]:
    """What a tool was given or answered, or the beginning of it."""
    encoded = to_json(value).encode()
    if len(encoded) <= limit:
        return {name: value}
    return {name: encoded[:limit].decode(errors="ignore"), "truncated": True}


def to_json(value: Any) -> str:
    """Compact JSON; characters as they are, unless one of them is half of a surrogate pair."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":"))
    return text
