"""The chat dialect, `WS /ws`: rooms, as multi-turn chat clients know them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from weakref import WeakValueDictionary

from adk_relay.core.messages import (
    Ack,
    Asked,
    Error,
    Message,
    Presence,
    Reset,
    Taken,
    Text,
    Transcript,
    TurnEnd,
    TurnStart,
    Typing,
    UserTyping,
    Written,
)
from adk_relay.wire.dialects import (
    Ask,
    BadFrameError,
    Command,
    Create,
    Dialect,
    Join,
    Welcome,
    json_object,
    named,
    once,
    session_id_of,
    to_json,
    user_text,
)
from adk_relay.wire.outbox import Encode, Frame, Frames

_TYPES = "create_session, join_session, chat, typing_start, typing_stop, ping"
_PREVIEW = 80
"""Characters of a message that its preview has."""


# ---- from the client -------------------------------------------------------------------------


def decode(frame: Frame) -> Command:
    """What a client's frame says.

    Raises:
        BadFrameError: it says nothing; the text tells what was wrong and what would be right.
    """
    said = json_object(frame)
    match said.get("type"):
        case "create_session":
            return Create()  # whatever its model_id: the reply names the model there is
        case "join_session":
            return Join(session_id_of(said))
        case "chat":
            is_named = said.get("session_id") not in (None, "")
            return Ask(user_text(said, "message"), session_id_of(said) if is_named else None)
        case "typing_start":
            return UserTyping(True)
        case "typing_stop":
            return UserTyping(False)
        case "ping":
            return "ping"
        case _:
            raise BadFrameError("bad_message", f"The type must be one of these: {_TYPES}.")


# ---- to the client ---------------------------------------------------------------------------


_encoders: WeakValueDictionary[str, Encode] = WeakValueDictionary()


def encoder(session_id: str) -> Encode:
    """How messages of a conversation go to the sockets in it, which share it while there are any."""
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
                said = f"Your message waits for {ahead} before it." if ahead else "The agent is thinking."
                return (frame("status", message=said, context_messages=count, **named(text.id)),)
            case Ack(name):
                return (frame("ack", id=name),)
            case TurnStart(asked):
                return (frame("response_start", total_length=None, **_asked(asked)),)
            case TurnEnd(answer=answer) if answer:
                complete: dict[str, Any] = {
                    "total_chunks": answer.pieces + 1,
                    "processing_time": round(answer.seconds, 3),
                    "message_count": answer.message_count,
                    "full_response": answer.text,
                    **_asked(answer.asked),
                }
                if answer.interrupted:
                    complete["interrupted"] = True
                return chunk("", answer.pieces + 1, is_final=True), frame("response_complete", **complete)
            case Written() | Transcript(final=True):
                return (
                    update(
                        "message_added",
                        message_count=message.message_count,
                        last_message_preview=message.text[:_PREVIEW],
                        role="user",
                        message=message.text,
                        connection_id=message.connection_id,
                    ),
                )
            case Typing(connection_id, typing):  # no tuple: of several that wait, the last one counts
                return update("user_typing", connection_id=connection_id, typing=typing)
            case Presence(joined, left):
                return (
                    *(update("user_joined", connection_id=one) for one in joined),
                    *(update("user_disconnected", connection_id=one) for one in left),
                )
            case Reset(deleted=deleted):
                return (update("session_deleted" if deleted else "session_cleared"),)
            case Error(code, said, name):
                return (frame("error", code=code, message=said, **named(name)),)
            case _:
                return None

    def chunk(text: str, number: int, *, is_final: bool) -> Frame:
        return frame("chunk", text=text, chunk_number=number, is_final=is_final)

    def update(update_type: str, **fields: Any) -> Frame:
        return frame("session_update", update_type=update_type, **fields)

    def frame(kind: str, **fields: Any) -> Frame:
        return _frame(kind, **fields, session_id=session_id) if session_id else _frame(kind, **fields)

    return encode


def _asked(by: Asked | None) -> dict[str, Any]:
    """Whose message an answer is to; null: to what was said in another dialect."""
    return {"connection_id": by.connection_id, **named(by.id)} if by else {"connection_id": None}


def _connected(connection_id: str, model: str) -> Frame:
    return _frame(
        "connected",
        connection_id=connection_id,
        message="Welcome. Create a session, join one, or just chat.",
        server_info={
            "model": model,
            "framework": "Google ADK",
            "features": ["streaming", "multi_turn", "rooms", "typing"],
        },
    )


def _welcome(to: Welcome) -> Frame:
    where = {"session_id": to.session_id, "model": to.model, "connection_id": to.connection_id}
    if to.is_new:
        return _frame("session_created", **where)
    return _frame("session_joined", **where, message_count=to.message_count)


def _frame(kind: str, **fields: Any) -> Frame:
    return to_json({"type": kind, **fields, "timestamp": datetime.now(UTC).isoformat()})


CHAT = Dialect(
    name="chat",
    decode=decode,
    encoder=encoder,
    connected=_connected,
    welcome=_welcome,
    ping=None,
    pong=lambda connection_id: _frame("pong", connection_id=connection_id),
    is_audio=False,
    attends="all",
)
