"""The parts of frames that several dialects have in common."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from adk_relay.core.answer import Answer, ToolCall
from adk_relay.core.messages import Error, Line, ToolComplete, ToolStart, TurnEnd
from adk_relay.core.own_ids import is_own

MAX_TOOL_BYTES = 64 * 1024
"""The arguments or the result of a tool are cut to this on the wire."""


def id_field(text_id: str) -> dict[str, Any]:
    """The `id` of a text on the wire; there is no such field for a text whose client gave it none."""
    return {"id": text_id} if text_id and not is_own(text_id) else {}


def error_fields(error: Error) -> dict[str, Any]:
    """What is wrong, with which text or tool call, and when the client may try again, if that is known."""
    fields = {"code": error.code, "message": error.message, **id_field(error.id)}
    fields |= {"tool_id": error.tool_id} if error.tool_id else {}
    return fields | ({"retry_after": error.retry_after} if error.retry_after else {})


def name_field(name: str) -> dict[str, Any]:
    """The `name` of a person on the wire; there is no such field for a person without one."""
    return {"name": name} if name else {}


def title_field(title: str) -> dict[str, Any]:
    """The `title` of a conversation on the wire; there is no such field for one without."""
    return {"title": title} if title else {}


def names_field(names: Mapping[str, str]) -> dict[str, Any]:
    """The `names` of several connections on the wire; there is no such field if none has one."""
    return {"names": dict(names)} if names else {}


def role_field(role: str) -> dict[str, Any]:
    """The `role` of somebody who was invited; there is no such field for the user itself."""
    return {"role": role} if role else {}


def tool_fields(tool: ToolStart | ToolComplete | ToolCall) -> dict[str, Any]:
    """Which tool call it is."""
    return {"tool_id": tool.tool_id, "tool_name": tool.tool_name}


def start_fields(message: ToolStart) -> dict[str, Any]:
    """The arguments of a tool call, and what a call that waits has besides."""
    fields = cut("arguments", message.arguments)
    if message.is_pending:
        fields["pending"] = True
    if message.interim is not None:
        fields |= cut("interim", message.interim)
    return fields


def line_fields(line: Line) -> dict[str, Any]:
    """What is told of a whole message besides its words; there are no fields for what is not known."""
    fields: dict[str, Any] = {**({"timestamp": line.timestamp} if line.timestamp else {})}
    for name, holds in (("interrupted", line.interrupted), ("unanswered", line.unanswered)):
        fields |= {name: True} if holds else {}
    if line.tools:
        fields["tools"] = [_used_tool(call) for call in line.tools]
    return fields


def _used_tool(call: ToolCall) -> dict[str, Any]:
    fields = {**tool_fields(call), "arguments": call.arguments, "result": call.result}
    for name, holds in (("truncated", call.is_truncated), ("pending", call.is_pending)):
        fields |= {name: True} if holds else {}
    return fields


def credit_fields(of: TurnEnd | Answer) -> dict[str, Any]:
    """The token usage and the grounding of an answer; there are no fields for what is not known."""
    fields: dict[str, Any] = {}
    if usage := of.usage:
        fields["usage"] = {
            "input_tokens": usage.input,
            "output_tokens": usage.output,
            "thought_tokens": usage.thoughts,
            "total_tokens": usage.total,
        }
    if grounding := of.grounding:
        fields["grounding"] = {
            "sources": [{"title": source.title, "url": source.url} for source in grounding.sources],
            "searches": [*grounding.searches],
            "suggestions": grounding.suggestions,
        }
    return fields


def cut(field: str, value: Any, limit: int = MAX_TOOL_BYTES) -> dict[str, Any]:
    """The arguments or the result of a tool. If it is too long: the beginning of its JSON, as a string."""
    encoded = to_json(value).encode()
    if len(encoded) <= limit:
        return {field: value}
    return {field: encoded[:limit].decode(errors="ignore"), "truncated": True}


def to_json(value: Any) -> str:
    """Compact JSON. Characters are not escaped, unless one of them is half of a surrogate pair."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":"))
    return text
