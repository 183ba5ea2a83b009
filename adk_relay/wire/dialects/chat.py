"""The chat dialect, `WS /ws`: rooms that clients create and join, and answers in numbered chunks."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from weakref import WeakValueDictionary

from adk_relay.core.answer import Asked
from adk_relay.core.going_away import GoingAway
from adk_relay.core.heard import Shortened
from adk_relay.core.messages import (
    Ack,
    Error,
    Message,
    Presence,
    Reset,
    Taken,
    Text,
    ToolComplete,
    ToolStart,
    Transcript,
    TurnEnd,
    TurnStart,
    Typing,
    UserTyping,
    Written,
)
from adk_relay.core.rewind import Rewound
from adk_relay.core.titles import Renamed
from adk_relay.wire.dialects import (
    MAX_TEXT_BYTES,
    Ask,
    BadFrameError,
    Command,
    Create,
    Dialect,
    Join,
    Welcome,
    json_object,
    new_token,
    once,
    rewind,
    session_id_of,
    tool_result,
    user_text,
)
from adk_relay.wire.dialects.fields import (
    credit_fields,
    cut,
    error_fields,
    id_field,
    name_field,
    names_field,
    role_field,
    start_fields,
    title_field,
    to_json,
    tool_fields,
)
from adk_relay.wire.dialects.state_delta import with_state
from adk_relay.wire.outbox import Encode, Frame, Frames

_TYPES = (
    "create_session, join_session, chat, rewind, tool_result, typing_start, typing_stop, token, ping, pong"
)
_PREVIEW = 80
"""Characters in the preview of a message."""


# ---- from the client -------------------------------------------------------------------------


def decode(frame: Frame) -> Command:
    """The command in a client's frame.

    Raises:
        BadFrameError: the frame is not a valid command.
    """
    fields = json_object(frame)
    match fields.get("type"):
        case "create_session":
            return Create()  # its model_id is ignored: the reply names the model that the server has
        case "join_session":
            return Join(session_id_of(fields))
        case "chat":
            has_session = fields.get("session_id") not in (None, "")
            text = with_state(user_text(fields, "message"), fields)
            return Ask(text, session_id_of(fields) if has_session else None)
        case "rewind":
            return rewind(fields)
        case "tool_result":
            return tool_result(fields)
        case "typing_start":
            return UserTyping(True)
        case "typing_stop":
            return UserTyping(False)
        case "token":
            return new_token(fields)
        case "ping":
            return "ping"
        case "pong":
            return "pong"
        case _:
            raise BadFrameError("bad_message", f"The type must be one of these: {_TYPES}.")


# ---- to the client ---------------------------------------------------------------------------


_encoders: WeakValueDictionary[str, Encode] = WeakValueDictionary()


def encoder(session_id: str) -> Encode:
    """How messages of a conversation are encoded. Its sockets share one encoder while there are any."""
    shared = _encoders.get(session_id)
    if shared is None:
        shared = _encoders[session_id] = once(_encoder(session_id))
    return shared


def _encoder(session_id: str) -> Encode:
    def encode(message: Message) -> Frames:
        match message:
            case Text(text=text, number=number):
                return (chunk(text, number, is_final=False),)
            case Taken(text, ahead, count):
                # Terminal clients from before `ahead` show this text if the word "waits" is in it.
                state = f"Your message waits for {ahead} before it." if ahead else "The agent is thinking."
                return (
                    frame("status", message=state, ahead=ahead, context_messages=count, **id_field(text.id)),
                )
            case Ack(text_id):
                return (frame("ack", id=text_id),)
            case TurnStart(asked):
                return (frame("response_start", total_length=None, **_asked_by(asked)),)
            case TurnEnd(answer=answer) if answer:
                complete: dict[str, Any] = {
                    "total_chunks": answer.chunks + 1,
                    "processing_time": round(answer.seconds, 3),
                    "message_count": answer.message_count,
                    "full_response": answer.text,
                    **_asked_by(answer.asked),
                    **credit_fields(answer),
                }
                if answer.interrupted:
                    complete["interrupted"] = True
                return chunk("", answer.chunks + 1, is_final=True), frame("response_complete", **complete)
            case Written() | Transcript(final=True):
                return (
                    update(
                        "message_added",
                        message_count=message.message_count,
                        last_message_preview=message.text[:_PREVIEW],
                        role="user",
                        message=message.text,
                        connection_id=message.connection_id,
                        **name_field(message.name),
                    ),
                )
            case ToolStart(is_pending=True):
                return (frame("tool_start", **tool_fields(message), **start_fields(message)),)
            case ToolComplete(was_pending=True):
                return (frame("tool_complete", **tool_fields(message), **cut("result", message.result)),)
            case Typing(connection_id, typing, name):  # not in a tuple: frames in a tuple are never merged
                return update("user_typing", connection_id=connection_id, typing=typing, **name_field(name))
            case Presence(joined, left, names=named):
                names = dict(named)
                return tuple(
                    update(
                        update_type, connection_id=connection_id, **name_field(names.get(connection_id, ""))
                    )
                    for update_type, changed in (("user_joined", joined), ("user_disconnected", left))
                    for connection_id in changed
                )
            case Rewound(_, text_id, messages, count):
                fields = {"messages": messages, "message_count": count, **id_field(text_id)}
                return (update("session_rewound", **fields),)
            case Shortened(_, text):
                return (update("answer_shortened", message=text),)
            case Reset(deleted=deleted):
                return (update("session_deleted" if deleted else "session_cleared"),)
            case Renamed(title):
                return (update("session_renamed", title=title),)
            case GoingAway(after):
                return (frame("going_away", after=round(after, 3)),)
            case Error():
                return (frame("error", **error_fields(message)),)
            case _:
                return None

    def chunk(text: str, number: int, *, is_final: bool) -> Frame:
        return frame("chunk", text=text, chunk_number=number, is_final=is_final)

    def update(update_type: str, **fields: Any) -> Frame:
        return frame("session_update", update_type=update_type, **fields)

    def frame(frame_type: str, **fields: Any) -> Frame:
        if session_id:
            fields["session_id"] = session_id
        return _frame(frame_type, **fields)

    return encode


def _asked_by(asked: Asked | None) -> dict[str, Any]:
    """Identifies the request that is answered; null: it is speech or a text of the live dialect."""
    if asked is None:
        return {"connection_id": None}
    return {"connection_id": asked.connection_id, **id_field(asked.id)}


def _connected(connection_id: str, model: str, limits: Mapping[str, float]) -> Frame:
    return _frame(
        "connected",
        connection_id=connection_id,
        message="Welcome. Create a session, join one, or just chat.",
        server_info={
            "model": model,
            "framework": "Google ADK",
            "features": ["streaming", "multi_turn", "rooms", "typing"],
        },
        limits={"text_bytes": MAX_TEXT_BYTES, **limits},
    )


def _welcome(welcome: Welcome) -> Frame:
    fields = {
        "session_id": welcome.session_id,
        "model": welcome.model,
        "connection_id": welcome.connection_id,
        **name_field(welcome.name),
    }
    if welcome.is_new:  # not by somebody who was invited
        return _frame("session_created", **fields)
    more = role_field(welcome.role) | names_field(welcome.names) | title_field(welcome.title)
    return _frame("session_joined", **fields, **more, message_count=welcome.message_count)


def _frame(frame_type: str, **fields: Any) -> Frame:
    return to_json({"type": frame_type, **fields, "timestamp": datetime.now(UTC).isoformat()})


CHAT = Dialect(
    name="chat",
    decode=decode,
    encoder=encoder,
    connected=_connected,
    welcome=_welcome,
    ping=lambda: _frame("ping"),
    pong=lambda connection_id: _frame("pong", connection_id=connection_id),
    expiring=lambda seconds: _frame("token_expiring", expires_in=seconds),
    is_audio=False,
    attends="all",
)
