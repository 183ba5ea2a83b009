"""The live dialect, `WS /ws/{user_id}`: voice and text. It extends the frames of ADK's streaming sample."""

from __future__ import annotations

import re
from base64 import b64encode
from dataclasses import replace
from typing import Any

from adk_relay.core.going_away import GoingAway
from adk_relay.core.heard import Heard, Shortened
from adk_relay.core.messages import (
    Ack,
    ActivityStart,
    Audio,
    AudioEnd,
    Dropped,
    Error,
    Gap,
    Input,
    Interrupt,
    Line,
    Message,
    Older,
    Presence,
    ReadOlder,
    Reset,
    Status,
    Text,
    ToolComplete,
    ToolStart,
    Transcript,
    TurnEnd,
    Typing,
    UserAudio,
    UserImage,
    UserTyping,
    Written,
)
from adk_relay.core.rewind import Rewound
from adk_relay.core.titles import Renamed
from adk_relay.core.voice import Configured
from adk_relay.wire.dialects import (
    MAX_TEXT_BYTES,
    BadFrameError,
    Command,
    Dialect,
    Welcome,
    json_object,
    new_token,
    once,
    rewind,
    tool_result,
    user_text,
)
from adk_relay.wire.dialects.fields import (
    credit_fields,
    cut,
    error_fields,
    id_field,
    line_fields,
    name_field,
    names_field,
    role_field,
    start_fields,
    title_field,
    to_json,
    tool_fields,
)
from adk_relay.wire.dialects.media import (
    MAX_AUDIO_BYTES,
    MAX_IMAGE_BYTES,
    a2b,
    bounded,
    decode_base64,
    pcm_of,
    rate_of,
)
from adk_relay.wire.dialects.shaping import configure, shape_fields
from adk_relay.wire.dialects.state_delta import with_state
from adk_relay.wire.outbox import Encode, Frame

SUBPROTOCOL = "relay.v1"
"""A client offers it to get sound in binary frames."""

PING = '{"type":"ping"}'
PONG = '{"type":"pong"}'

_SIZES = {"text_bytes": MAX_TEXT_BYTES, "sound_bytes": MAX_AUDIO_BYTES, "picture_bytes": MAX_IMAGE_BYTES}
"""What a text, the sound of a frame, and a picture may have."""

_MIME_TYPES = "text/plain, audio/pcm, image/jpeg, image/png"
_TYPES = (
    "activity_start, activity_end, audio_end, configure, heard, history, interrupt, rewind, tool_result,"
    " typing_start, typing_stop, token, ping, pong"
)

_CONTENT_HEAD = re.compile(
    r'\{"mime_type": ?"(?:audio/pcm(?:;(rate=\d+))?|(image/(?:jpeg|png)))", ?"data": ?"'
)
"""How a frame of sound or of a picture begins that JSON.stringify or Python's json.dumps has made."""

# ---- from the client -------------------------------------------------------------------------


def decode(frame: Frame) -> Command:
    """The command in a client's frame.

    Raises:
        BadFrameError: the frame is not a valid command.
    """
    if isinstance(frame, bytes):
        return UserAudio(pcm_of(frame))
    if content := _plain_content(frame):
        return content
    fields = json_object(frame)
    if "mime_type" in fields:
        return _content(fields)
    match fields.get("type"):
        case "ping":
            return "ping"
        case "pong":
            return "pong"
        case "activity_start":
            return ActivityStart()
        case "audio_end" | "activity_end":
            return AudioEnd()
        case "heard":
            return _heard(fields)
        case "history":
            return _read_older(fields)
        case "configure":
            return configure(fields)
        case "interrupt":
            return Interrupt()
        case "rewind":
            return rewind(fields)
        case "tool_result":
            return tool_result(fields)
        case "token":
            return new_token(fields)
        case "typing_start":
            return UserTyping(True)
        case "typing_stop":
            return UserTyping(False)
        case None:
            raise BadFrameError(
                "bad_message", f"Content needs a mime_type ({_MIME_TYPES}); any other frame needs a type."
            )
        case _:
            raise BadFrameError("bad_message", f"This type is not known. Known types: {_TYPES}.")


def _plain_content(frame: str) -> UserAudio | UserImage | None:
    """The sound or the picture in a frame of the usual form; None: the frame has another form.

    This finds what parsing the JSON would find, because base64 needs no escapes in JSON, and takes half the
    time.

    Raises:
        BadFrameError: the frame is not a valid command.
    """
    head = _CONTENT_HEAD.match(frame)
    if not (head and frame.endswith('"}', head.end())):
        return None
    try:
        decoded = a2b(frame[head.end() : -2])
    except ValueError:  # it may be base64 all the same: JSON allows "/" to be escaped
        return None
    if image := head[2]:
        return UserImage(bounded(decoded, MAX_IMAGE_BYTES), image)
    return UserAudio(pcm_of(bounded(decoded, MAX_AUDIO_BYTES)), rate_of(head[1] or ""))


def _content(fields: dict[str, Any]) -> Input:
    mime_type = fields["mime_type"]
    media_type, _, parameter = mime_type.partition(";") if isinstance(mime_type, str) else ("", "", "")
    match media_type.strip():
        case "text/plain":
            return with_state(user_text(fields, "data"), fields)
        case "audio/pcm":
            return UserAudio(pcm_of(decode_base64(_data(fields), MAX_AUDIO_BYTES)), rate_of(parameter))
        case "image/jpeg" | "image/png" as image:
            return UserImage(decode_base64(_data(fields), MAX_IMAGE_BYTES), image)
        case _:
            raise BadFrameError(
                "unsupported_mime_type", f"This mime type is not supported. Supported: {_MIME_TYPES}."
            )


def _read_older(fields: dict[str, Any]) -> ReadOlder:
    before = fields.get("before")
    if isinstance(before, str) and re.fullmatch(r"[\w-]{1,64}\.-?[0-9]{1,9}", before, re.ASCII):
        return ReadOlder(before)
    raise BadFrameError("bad_data", "before must be the `older` of the last gap or history.")


def _heard(fields: dict[str, Any]) -> Heard:
    match fields.get("audio_ms"), fields.get("seq", 0):
        case (bool(), _) | (_, bool()):  # which Python takes for numbers
            pass
        case (int() | float() as audio_ms, int(seq)) if 0 <= audio_ms < 1e9 and 0 <= seq < 2**53:
            return Heard(float(audio_ms), seq)
    raise BadFrameError(
        "bad_data", "audio_ms must be milliseconds, from 0 on; seq, a number, may be left out."
    )


def _data(fields: dict[str, Any]) -> str:
    data = fields.get("data")
    if not isinstance(data, str):
        raise BadFrameError("bad_data", "data must be a string.")
    return data


# ---- to the client ---------------------------------------------------------------------------


def _encode_without_sound(message: Message) -> Frame | None:
    return None if isinstance(message, Audio) else _encode_fields(message)


def _encode_binary(message: Message) -> Frame | None:
    if isinstance(message, Audio):
        return message.seq.to_bytes(4, "big") + message.pcm
    return _encode_fields(message)


def _encode_json(message: Message) -> Frame | None:
    if isinstance(message, Audio):
        data = b64encode(message.pcm).decode("ascii")
        return f'{{"mime_type":"audio/pcm","data":"{data}","seq":{message.seq}}}'
    return _encode_fields(message)


def _encode_fields(message: Message) -> Frame | None:
    fields = _fields(message)
    return to_json(fields) if fields else None


def _fields(message: Message) -> dict[str, Any] | None:
    match message:
        case Text(seq, text, is_transcript):
            content: dict[str, Any] = {"mime_type": "text/plain", "data": text}
            if is_transcript:
                content["is_transcript"] = True
            return content | {"seq": seq}
        case Transcript(seq, text, final, connection_id):
            return {
                "type": "transcript",
                "role": "user",
                "connection_id": connection_id,
                **name_field(message.name),
                "text": text,
                "final": final,
                "seq": seq,
            }
        case Written(seq, text, connection_id, text_id):
            written = {"type": "message", "role": "user", "connection_id": connection_id, "text": text}
            return written | name_field(message.name) | id_field(text_id) | {"seq": seq}
        case TurnEnd(seq, interrupted):
            # The page of ADK's custom-streaming sample expects null for "no".
            return {
                "turn_complete": None if interrupted else True,
                "interrupted": interrupted or None,
                **credit_fields(message),
                "seq": seq,
            }
        case ToolStart():
            return _tool("tool_start", message, start_fields(message))
        case ToolComplete():
            return _tool("tool_complete", message, cut("result", message.result))
        case Dropped(direction, audio_ms):
            return {"type": "dropped", "direction": direction, "audio_ms": round(audio_ms)}
        case Status(state):
            return {"type": "status", "state": state}
        case GoingAway(after):
            return {"type": "going_away", "after": round(after, 3)}
        case Error():
            return {"type": "error", **error_fields(message)}
        case Gap(first, last, lines, older, epoch):
            gap = {"type": "gap", "from": first, "to": last, "messages": lines} | _older_field(older)
            return gap | ({"epoch": epoch} if epoch else {})
        case Older(lines, older):
            return {"type": "history", "messages": lines} | _older_field(older)
        case Line(role, text, is_open, text_id, name=name) as whole:
            line = {"type": "message", "role": role, **name_field(name), "text": text}
            return line | id_field(text_id) | ({"open": True} if is_open else {}) | line_fields(whole)
        case Ack(text_id):
            return {"type": "ack", "id": text_id}
        case Presence(joined, left, connections):
            presence = {"type": "presence", "joined": joined, "left": left, "connections": connections}
            return presence | names_field(dict(message.names))
        case Typing(connection_id, typing, name):
            return {"type": "typing", "connection_id": connection_id, **name_field(name), "typing": typing}
        case Rewound(seq, text_id, messages):
            return {"type": "rewound", **id_field(text_id), "messages": messages, "seq": seq}
        case Shortened(seq, text):
            return {"type": "heard", "text": text, "seq": seq}
        case Configured(voice, shape):
            chosen = {"type": "configured", "voice": voice.name, "language": voice.language}
            return chosen | shape_fields(shape)
        case Reset(epoch, deleted):
            return {"type": "deleted" if deleted else "cleared", "epoch": epoch, "seq": 0}
        case Renamed(title):
            return {"type": "renamed", "title": title}
        case _:  # TurnStart, Taken and Ended have no frame in this dialect
            return None


def _older_field(older: str) -> dict[str, Any]:
    return {"older": older} if older else {}


def _tool(frame_type: str, message: ToolStart | ToolComplete, fields: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": frame_type,
        **tool_fields(message),
        **fields,
        "timestamp": message.timestamp,
        **({"seq": message.seq} if message.seq else {}),
    }


def _welcome(welcome: Welcome) -> Frame:
    return to_json(
        {
            "type": "hello",
            "session_id": welcome.session_id,
            "user_id": welcome.user_id,
            "connection_id": welcome.connection_id,
            "connections": welcome.connections,
            "model": welcome.model,
            "rehearsal": welcome.is_rehearsal,
            "is_audio": welcome.is_audio,
            "ping_interval": welcome.ping_interval,
            "epoch": welcome.epoch,
            "seq": welcome.seq,
            "limits": {**_SIZES, **welcome.limits},
            **shape_fields(welcome.shape),
            **name_field(welcome.name),
            **role_field(welcome.role),
            **names_field(welcome.names),
            **_choices(welcome),
            **title_field(welcome.title),
        }
    )


def _choices(welcome: Welcome) -> dict[str, Any]:
    """What the user may choose, and what is chosen now; there are no fields where there is no choice."""
    voices, languages, voice = welcome.choices.voices, welcome.choices.languages, welcome.voice
    fields: dict[str, Any] = {"voices": [*voices], "voice": voice.name} if voices else {}
    return fields | ({"languages": [*languages], "language": voice.language} if languages else {})


def _dialect(encode: Encode, *, is_audio: bool) -> Dialect:
    encode = once(encode)
    return Dialect(
        name="audio" if is_audio else "text",
        decode=decode,
        encoder=lambda session_id: encode,
        connected=lambda connection_id, model, limits: None,
        welcome=_welcome,
        ping=lambda: PING,
        pong=lambda connection_id: PONG,
        expiring=lambda seconds: to_json({"type": "token_expiring", "expires_in": seconds}),
        is_audio=is_audio,
        attends="all",
    )


_WITHOUT_SOUND = _dialect(_encode_without_sound, is_audio=False)
_BINARY = _dialect(_encode_binary, is_audio=True)
_JSON = _dialect(_encode_json, is_audio=True)


def live(*, is_audio: bool, binary: bool, newest: bool) -> Dialect:
    """The live dialect of one kind of socket.

    Args:
        is_audio: it gets sound; otherwise it gets only the transcript of the sound.
        binary: a frame of sound is 4 bytes of `seq` (big-endian) and the PCM, not base64 in JSON.
        newest: of the user's sockets with this value, only the newest gets messages.
    """
    dialect = (_BINARY if binary else _JSON) if is_audio else _WITHOUT_SOUND
    return replace(dialect, attends="newest") if newest else dialect
