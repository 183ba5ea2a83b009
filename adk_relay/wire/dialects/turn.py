"""The turn dialect, `WS /api/v1/chat/stream` and over HTTP: one request, its events, and the close."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

from adk_relay.core.answer import ToolCall
from adk_relay.core.messages import Error, Message, Taken, ToolComplete, ToolStart, TurnEnd, UserText
from adk_relay.wire.dialects import Ask, Dialect, json_object, session_id_of, text_of
from adk_relay.wire.dialects.fields import (
    MAX_TOOL_BYTES,
    credit_fields,
    cut,
    start_fields,
    to_json,
    tool_fields,
)
from adk_relay.wire.dialects.state_delta import with_state
from adk_relay.wire.outbox import Encode, Frame, Frames

MAX_TOOLS_BYTES = 512 * 1024
"""The arguments and results of all tools of one answer are cut to this, together."""


def decode(frame: Frame) -> Ask:
    """The command in a client's frame.

    Raises:
        BadFrameError: the frame is not a valid command.
    """
    return request(json_object(frame))


def request(fields: dict[str, Any]) -> Ask:
    """The command in a JSON object; its `session_id` is not None.

    Raises:
        BadFrameError: the object is not a valid command.
    """
    text = with_state(UserText(text_of(fields, "message")), fields)
    return Ask(text, session_id_of(fields))


def events(session_id: str, message: Message) -> Iterator[dict[str, Any]]:
    """A message as events."""
    match message:
        case Taken(text):
            yield {
                "type": "user_message",
                "content": text.text,
                "session_id": session_id,
                "timestamp": _now(),
            }
        case ToolStart():
            yield {
                "type": "tool_start",
                **tool_fields(message),
                **start_fields(message),
                "timestamp": message.timestamp,
            }
        case ToolComplete():
            yield {
                "type": "tool_complete",
                **tool_fields(message),
                **cut("result", message.result),
                "timestamp": message.timestamp,
            }
        case TurnEnd(answer=answer) if answer:
            response: dict[str, Any] = {
                "type": "response",
                "content": answer.text,
                "tool_calls": [*_calls(answer.tools)],
                **credit_fields(answer),
                "timestamp": _now(),
            }
            if answer.interrupted:
                response["interrupted"] = True
            yield response
            yield {"type": "done"}
        case Error(message=detail):
            yield {"type": "error", "message": detail}


def _calls(tools: Iterable[ToolCall]) -> Iterator[dict[str, Any]]:
    """All tools of an answer, cut so that the frame fits the 1 MiB that many clients accept."""
    left = MAX_TOOLS_BYTES
    for call in tools:
        fields = tool_fields(call)
        for field, value in (("arguments", call.arguments), ("result", call.result)):
            part = cut(field, value, min(MAX_TOOL_BYTES, left))
            left = max(0, left - len(to_json(part[field]).encode()))
            fields |= part
        if call.is_pending:
            fields["pending"] = True
        yield fields


def _now() -> str:
    return datetime.now(UTC).isoformat()


def encoder(session_id: str) -> Encode:
    """How messages are encoded for a WebSocket: each event is a frame."""

    def encode(message: Message) -> Frames:
        return tuple(to_json(event) for event in events(session_id, message))

    return encode


def event_stream(session_id: str) -> Encode:
    """How messages are encoded for a stream of server-sent events.

    Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
    """

    def encode(message: Message) -> Frames:
        return tuple(
            f"event: {event['type']}\ndata: {to_json(event)}\n\n" for event in events(session_id, message)
        )

    return encode


TURN = Dialect(
    name="turn",
    decode=decode,
    encoder=encoder,
    connected=lambda connection_id, model, limits: None,
    welcome=lambda to: None,
    ping=None,
    pong=lambda connection_id: "",
    expiring=lambda seconds: None,
    is_audio=False,
    attends="own",
)
