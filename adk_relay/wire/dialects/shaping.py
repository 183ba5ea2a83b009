"""How the agent is to answer in one conversation: `configure`, and what is told of it."""

from __future__ import annotations

import math
from typing import Any

from adk_relay.core.shape import ClientTool, Shape
from adk_relay.core.voice import Configure
from adk_relay.wire.dialects import BadFrameError

_FIELDS = "voice, language, instructions, tools, push_to_talk, temperature"


def configure(fields: dict[str, Any]) -> Configure:
    """What a client chooses.

    Raises:
        BadFrameError: it is nothing, or of another type.
    """
    voice, language, instructions = (_text(fields, each) for each in ("voice", "language", "instructions"))
    push_to_talk, temperature = fields.get("push_to_talk"), fields.get("temperature")
    if not isinstance(push_to_talk, bool | None):
        raise BadFrameError("bad_data", "push_to_talk must be true or false.")
    if temperature is not None and not is_number(temperature):
        raise BadFrameError("bad_data", "temperature must be a number.")
    listed = fields.get("tools")
    tools = None if listed is None else tools_of(listed)
    chosen = Configure(voice, language, instructions, tools, push_to_talk, temperature)
    if chosen == Configure():
        raise BadFrameError("bad_data", f"configure needs at least one of: {_FIELDS}.")
    return chosen


def _text(fields: dict[str, Any], name: str) -> str | None:
    text = fields.get(name)
    if isinstance(text, str | None):
        return text
    raise BadFrameError("bad_data", f"{name} must be a string.")


def tools_of(listed: Any) -> tuple[ClientTool, ...]:
    """The tools that a client declares, each an object with `name`, `description` and `parameters`.

    Raises:
        BadFrameError: they are of another form.
    """
    if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
        raise BadFrameError("bad_data", "tools must be a list of objects.")
    return tuple(map(_tool, listed))


def _tool(fields: dict[str, Any]) -> ClientTool:
    name, description, parameters = (fields.get(each) for each in ("name", "description", "parameters"))
    if not isinstance(name, str):
        raise BadFrameError("bad_data", "The name of a tool must be a string.")
    if not isinstance(description, str | None):
        raise BadFrameError("bad_data", "The description of a tool must be a string.")
    if not isinstance(parameters, dict | None):
        raise BadFrameError("bad_data", "The parameters of a tool must be a JSON schema: an object.")
    return ClientTool(name, description or "", parameters)


def is_number(value: Any) -> bool:
    """Whether a JSON value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def shape_fields(shape: Shape) -> dict[str, Any]:
    """What clients have set. There are no fields for what they have not."""
    fields: dict[str, Any] = {"instructions": shape.instructions} if shape.instructions else {}
    if shape.tools:
        fields["tools"] = [_declared(tool) for tool in shape.tools]
    if shape.push_to_talk:
        fields["push_to_talk"] = True
    return fields | ({} if shape.temperature is None else {"temperature": shape.temperature})


def _declared(tool: ClientTool) -> dict[str, Any]:
    fields: dict[str, Any] = {"name": tool.name}
    fields |= {"description": tool.description} if tool.description else {}
    return fields | ({} if tool.parameters is None else {"parameters": tool.parameters})
