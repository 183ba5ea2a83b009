"""The turn dialect: one request, its events, the end. `WS /api/v1/chat/stream`, and the same over HTTP."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

from adk_relay.core.messages import (
    Error,
    Message,
    Taken,
    ToolCall,
    ToolComplete,
    ToolStart,
    TurnEnd,
    UserText,
)
from adk_relay.wire.dialects import (
    MAX_TOOL_BYTES,
    Ask,
    Dialect,
    cut,
    json_object,
    session_id_of,
    text_of,
    to_json,
)
from adk_relay.wire.outbox import Encode, Frame, Frames

MAX_TOOLS_BYTES = 512 * 1024
"""And all that the tools of one answer were given and have answered."""


def decode(frame: Frame) -> Ask:
    """What a client asks for.

    Raises:
        BadFrameError: it asks for nothing; the text tells what was wrong and what would be right.
    """
    return request(json_object(frame))


def request(said: dict[str, Any]) -> Ask:
    """The request that a JSON object makes.

    Raises:
        BadFrameError: it makes none.
    """
    return Ask(UserText(text_of(said, "message")), session_id_of(said))


def events(session_id: str, message: Message) -> Iterator[dict[str, Any]]:
    """The events that a message is."""
    match message:
        case Taken(said):
            yield {
                "type": "user_message",
                "content": said.text,
                "session_id": session_id,
                "timestamp": _now(),
            }
        case ToolStart():
            yield {
                "type": "tool_start",
                **_named(message),
                **cut("arguments", message.arguments),
                "timestamp": message.timestamp,
            }
        case ToolComplete():
            yield {
                "type": "tool_complete",
                **_named(message),
                **cut("result", message.result),
                "timestamp": message.timestamp,
            }
        case TurnEnd(answer=answer) if answer:
            response: dict[str, Any] = {
                "type": "response",
                "content": answer.text,
                "tool_calls": [*_calls(answer.tools)],
                "timestamp": _now(),
            }
            if answer.interrupted:
                response["interrupted"] = True
            yield response
            yield {"type": "done"}
        case Error(message=said):
            yield {"type": "error", "message": said}


def _named(tool: ToolStart | ToolComplete | ToolCall) -> dict[str, Any]:
    return {"tool_id": tool.tool_id, "tool_name": tool.tool_name}


def _calls(tools: Iterable[ToolCall]) -> Iterator[dict[str, Any]]:
    """All tools of an answer, in a frame that no client is too small for."""
    left = MAX_TOOLS_BYTES
    for call in tools:
        told = _named(call)
        for name, value in (("arguments", call.arguments), ("result", call.result)):
            part = cut(name, value, min(MAX_TOOL_BYTES, left))
            left = max(0, left - len(to_json(part[name]).encode()))
            told |= part
        yield told


def _now() -> str:
    return datetime.now(UTC).isoformat()


def encoder(session_id: str) -> Encode:
    """How messages go to a WebSocket: one frame an event."""

    def encode(message: Message) -> Frames:
        return tuple(to_json(event) for event in events(session_id, message))

    return encode


def event_stream(session_id: str) -> Encode:
    """How messages go into a stream of server-sent events.

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
    connected=lambda connection_id, model: None,
    welcome=lambda to: None,
    ping=None,
    pong=lambda connection_id: "",
    is_audio=False,
    attends="own",
)
