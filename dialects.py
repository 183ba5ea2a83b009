"""What goes over the wire, and nothing of when: frames to what was said, messages to frames."""

from __future__ import annotations

import binascii
import json
import re
from base64 import b64encode
from collections.abc import Callable
from typing import Any, Literal

from agent.messages import (
    Audio,
    AudioEnd,
    Dropped,
    Error,
    Input,
    Interrupt,
    Message,
    Status,
    Text,
    ToolComplete,
    ToolStart,
    Transcript,
    TurnEnd,
    UserAudio,
    UserImage,
    UserText,
)
from outbox import Frame

SUBPROTOCOL = "relay.v1"
"""Offered by a client that wants sound as binary frames."""

PING = '{"type":"ping"}'
PONG = '{"type":"pong"}'

MAX_TEXT_BYTES = 32 * 1024
MAX_AUDIO_BYTES = 1024 * 1024
MAX_IMAGE_BYTES = 4 * 1024 * 1024
MAX_TOOL_BYTES = 64 * 1024
"""What a tool was given or answered is cut on the wire beyond this."""

_MAX_PLAIN_CHARS = 256 * 1024
"""A text at its limit, each byte spelled as \\u00xx, has room in it; what is longer is sound or a picture."""

_MIME_TYPES = "text/plain, audio/pcm, image/jpeg, image/png"
_TYPES = "audio_end, interrupt, ping, pong"


class BadFrameError(Exception):
    """A frame that means nothing.

    Attributes:
        code: for programs, such as `bad_data`.
    """

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        super().__init__(message)


# ---- from the client -------------------------------------------------------------------------


def decode(frame: Frame) -> Input | Literal["ping", "pong"]:
    """What a client's frame says.

    Raises:
        BadFrameError: it says nothing; the text tells what was wrong and what would be right.
    """
    if isinstance(frame, bytes):
        return UserAudio(_pcm(frame))
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
    if "mime_type" in said:
        return _content(said)
    match said.get("type"):
        case "ping":
            return "ping"
        case "pong":
            return "pong"
        case "audio_end":
            return AudioEnd()
        case "interrupt":
            return Interrupt()
        case None:
            raise BadFrameError("bad_message", f"Content has a mime_type ({_MIME_TYPES}), all else a type.")
        case _:
            raise BadFrameError("bad_message", f"This type is not known; these are: {_TYPES}.")


def _content(said: dict[str, Any]) -> Input:
    mime_type = said["mime_type"]
    kind, _, parameter = mime_type.partition(";") if isinstance(mime_type, str) else ("", "", "")
    match kind.strip():
        case "text/plain":
            return UserText(_text(_data(said)))
        case "audio/pcm":
            return UserAudio(_pcm(_decode_base64(_data(said), MAX_AUDIO_BYTES)), _rate(parameter))
        case "image/jpeg" | "image/png" as image:
            return UserImage(_decode_base64(_data(said), MAX_IMAGE_BYTES), image)
        case _:
            raise BadFrameError("unsupported_mime_type", f"These mime types are taken: {_MIME_TYPES}.")


def _data(said: dict[str, Any]) -> str:
    data = said.get("data")
    if not isinstance(data, str):
        raise BadFrameError("bad_data", "data must be a string.")
    return data


def _text(text: str) -> str:
    if not text.strip():
        raise BadFrameError("bad_data", "The text is empty.")
    try:
        length = len(text.encode())
    except UnicodeEncodeError:  # JSON can spell half of a surrogate pair
        raise BadFrameError("bad_data", "The text is not valid Unicode.") from None
    if length > MAX_TEXT_BYTES:
        raise BadFrameError("too_large", f"The text has {length} bytes; {MAX_TEXT_BYTES} are taken.")
    return text


def _decode_base64(data: str, limit: int) -> bytes:
    try:
        decoded = binascii.a2b_base64(data, strict_mode=True)
    except ValueError:
        raise BadFrameError("bad_data", "data must be base64 (RFC 4648 section 4).") from None
    if len(decoded) > limit:
        raise BadFrameError("too_large", f"data has {len(decoded)} bytes; {limit} are taken.")
    if not decoded:
        raise BadFrameError("bad_data", "data is empty.")
    return decoded


def _pcm(pcm: bytes) -> bytes:
    if len(pcm) % 2:
        raise BadFrameError("bad_data", "16-bit sound has an even number of bytes.")
    if not pcm:
        raise BadFrameError("bad_data", "The sound is empty.")
    if len(pcm) > MAX_AUDIO_BYTES:
        raise BadFrameError("too_large", f"The sound has {len(pcm)} bytes; {MAX_AUDIO_BYTES} are taken.")
    return pcm


def _rate(parameter: str) -> int:
    if not parameter:
        return 16_000
    found = re.fullmatch(r"\s*rate=(\d{4,6})\s*", parameter)
    if found and 8_000 <= (rate := int(found[1])) <= 192_000:
        return rate
    raise BadFrameError("unsupported_mime_type", "Sound is audio/pcm;rate=N with N from 8000 to 192000.")


# ---- to the client ---------------------------------------------------------------------------


def encoder(*, is_audio: bool, binary: bool) -> Callable[[Message], Frame | None]:
    """How messages go to one kind of socket.

    Args:
        is_audio: it wants sound; without, it gets the words of it only.
        binary: sound goes as 4 bytes of `seq` (big-endian) and the PCM, not as base64 in JSON.
    """
    if not is_audio:
        return _encode_words
    return _encode_binary if binary else _encode_json


def _encode_words(message: Message) -> Frame | None:
    return None if isinstance(message, Audio) else to_json(_fields(message))


def _encode_binary(message: Message) -> Frame:
    if isinstance(message, Audio):
        return message.seq.to_bytes(4, "big") + message.pcm
    return to_json(_fields(message))


def _encode_json(message: Message) -> Frame:
    if isinstance(message, Audio):
        data = b64encode(message.pcm).decode("ascii")
        return f'{{"mime_type":"audio/pcm","data":"{data}","seq":{message.seq}}}'
    return to_json(_fields(message))


def _fields(message: Message) -> dict[str, Any]:
    match message:
        case Text(seq, text, is_transcript):
            said: dict[str, Any] = {"mime_type": "text/plain", "data": text}
            if is_transcript:
                said["is_transcript"] = True
            return said | {"seq": seq}
        case Transcript(seq, text, final):
            return {"type": "transcript", "role": "user", "text": text, "final": final, "seq": seq}
        case TurnEnd(seq, interrupted):
            # The custom-streaming sample's page reads null for "no".
            return {
                "turn_complete": None if interrupted else True,
                "interrupted": interrupted or None,
                "seq": seq,
            }
        case ToolStart():
            return _tool("tool_start", message, "arguments", message.arguments)
        case ToolComplete():
            return _tool("tool_complete", message, "result", message.result)
        case Dropped(direction, audio_ms):
            return {"type": "dropped", "direction": direction, "audio_ms": round(audio_ms)}
        case Status(state):
            return {"type": "status", "state": state}
        case Error(code, text):
            return {"type": "error", "code": code, "message": text}
        case _:
            raise TypeError(f"{type(message).__name__} has no frame")


def _tool(kind: str, message: ToolStart | ToolComplete, name: str, value: Any) -> dict[str, Any]:
    return {
        "type": kind,
        "tool_id": message.tool_id,
        "tool_name": message.tool_name,
        **_cut(name, value),
        "timestamp": message.timestamp,
        "seq": message.seq,
    }


def _cut(name: str, value: Any) -> dict[str, Any]:
    encoded = to_json(value).encode()
    if len(encoded) <= MAX_TOOL_BYTES:
        return {name: value}
    return {name: encoded[:MAX_TOOL_BYTES].decode(errors="ignore"), "truncated": True}


def to_json(value: Any) -> str:
    """Compact JSON; characters as they are, unless one of them is half of a surrogate pair."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":"))
    return text
