"""How the HTTP interface shows conversations, in JSON."""

from __future__ import annotations

from typing import Any

from adk_relay.core.interfaces import Summary
from adk_relay.core.messages import Line, ToolStart
from adk_relay.core.times import iso
from adk_relay.wire.dialects.fields import (
    id_field,
    line_fields,
    name_field,
    start_fields,
    title_field,
    tool_fields,
)


def in_list(summary: Summary, model: str) -> dict[str, Any]:
    """A conversation in the list of a user's latest ones."""
    return {
        "session_id": summary.session_id,
        "model": model,
        **title_field(summary.title),
        **({"first_text": summary.first_text} if summary.first_text else {}),
        "message_count": summary.user_messages + summary.model_messages,
        "duration_minutes": round(_seconds(summary) / 60, 2),
        "connected_clients": summary.connections,
        "created_at": iso(summary.created_at),
        "last_activity": iso(summary.last_activity),
    }


def with_history(summary: Summary, model: str, lines: list[Line], first: int) -> dict[str, Any]:
    """A conversation with some of its messages; `first`: the number of the first one."""
    return {
        "session_id": summary.session_id,
        "model": model,
        **title_field(summary.title),
        "message_count": summary.user_messages + summary.model_messages,
        "session_duration_seconds": round(_seconds(summary), 1),
        "user_messages": summary.user_messages,
        "model_messages": summary.model_messages,
        "created_at": iso(summary.created_at),
        "first": first,
        "history": [_line(line) for line in lines],
        "pending": [_waiting(call) for call in summary.pending],
        "state": summary.state or {},
    }


def _line(line: Line) -> dict[str, Any]:
    fields: dict[str, Any] = {"role": line.role, "text": line.text}
    fields |= id_field(line.id) | name_field(line.name)
    if line.open:
        fields |= {"open": True, "chunks": line.chunks}
    return fields | line_fields(line)


def _waiting(call: ToolStart) -> dict[str, Any]:
    fields = tool_fields(call) | start_fields(call)
    del fields["pending"]  # all of these are
    return {**fields, "timestamp": call.timestamp}


def _seconds(summary: Summary) -> float:
    return max(summary.last_activity - summary.created_at, 0.0)
