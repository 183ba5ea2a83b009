"""What clients may change of how the agent answers in one conversation: its shape."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

MAX_INSTRUCTIONS_BYTES = 32 * 1024
"""UTF-8 bytes of instructions."""

MAX_TOOLS = 128
"""Tools of one conversation."""

MAX_TOOLS_BYTES = 64 * 1024
"""UTF-8 bytes of all tools together, as compact JSON."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}", re.ASCII)
"""Names that all models take."""

_ADKS = "adk_"
"""How the names of ADK's own calls begin, which ask a user for a confirmation or for credentials."""

_RESERVED = frozenset({"transfer_to_agent", "task_completed", "finish_task", "set_model_response"})
"""Functions that ADK adds to agents."""

_HOTTEST = 2.0


class ShapeError(ValueError):
    """A conversation can't have this shape. The text says what would be right."""


@dataclass(slots=True, frozen=True)
class ClientTool:
    """A function that a client has: the model may call it, and the client answers the call."""

    name: str
    description: str = ""
    parameters: Any = None
    """The JSON schema of its arguments, an object; None: it has none."""


@dataclass(slots=True, frozen=True)
class Shape:
    """How the agent answers in a conversation, as far as its clients have set it."""

    instructions: str = ""
    """The model is told them after the agent's own."""
    tools: tuple[ClientTool, ...] = ()
    """They are there besides the agent's own."""
    push_to_talk: bool | None = None
    """Whether the clients tell when their users begin and stop to speak; None: as the operator has set it.
    Listeners are always told which of the two it is."""
    temperature: float | None = None
    """None: as the operator has set it."""

    def changed(
        self,
        instructions: str | None = None,
        tools: tuple[ClientTool, ...] | None = None,
        push_to_talk: bool | None = None,
        temperature: float | None = None,
    ) -> Shape:
        """This shape with a change. What is None stays."""
        return Shape(
            self.instructions if instructions is None else instructions,
            self.tools if tools is None else tools,
            self.push_to_talk if push_to_talk is None else push_to_talk,
            self.temperature if temperature is None else temperature,
        )

    def check(self, taken: Iterable[str] = ()) -> None:
        """Raises ShapeError if a conversation can't have this shape.

        Args:
            taken: the names of the agent's own tools.
        """
        length = _bytes_of(self.instructions, "The instructions")
        if length > MAX_INSTRUCTIONS_BYTES:
            raise ShapeError(
                f"The instructions have {length} bytes; at most {MAX_INSTRUCTIONS_BYTES} are allowed."
            )
        if self.temperature is not None and not 0 <= self.temperature <= _HOTTEST:
            raise ShapeError(f"temperature must be a number from 0 to {_HOTTEST:g}.")
        self._check_tools(frozenset(taken))

    def _check_tools(self, taken: frozenset[str]) -> None:
        if len(self.tools) > MAX_TOOLS:
            raise ShapeError(f"There are {len(self.tools)} tools; at most {MAX_TOOLS} are allowed.")
        names = set[str]()
        for tool in self.tools:
            if not _NAME.fullmatch(tool.name):
                raise ShapeError(
                    "The name of a tool must have 1 to 64 of A-Z a-z 0-9 _ -, and begin with a letter or _."
                )
            if tool.name.startswith(_ADKS) or tool.name in _RESERVED:
                raise ShapeError(f"A tool can't be named {tool.name!r}: ADK needs this name itself.")
            if tool.name in taken:
                raise ShapeError(f"The agent has a tool {tool.name!r} already: choose another name.")
            if tool.name in names:
                raise ShapeError(f"Two tools are named {tool.name!r}: each needs a name of its own.")
            names.add(tool.name)
            if tool.parameters is not None and not isinstance(tool.parameters, dict):
                raise ShapeError(f"The parameters of {tool.name!r} must be a JSON schema: an object.")
        length = sum(_bytes_of(_as_json(tool), f"The tool {tool.name!r}") for tool in self.tools)
        if length > MAX_TOOLS_BYTES:
            raise ShapeError(f"The tools have {length} bytes; at most {MAX_TOOLS_BYTES} are allowed.")


PLAIN = Shape()
"""Clients have set nothing."""


def _as_json(tool: ClientTool) -> str:
    try:
        return json.dumps(
            [tool.name, tool.description, tool.parameters],
            ensure_ascii=False,
            allow_nan=False,
            separators=(",", ":"),
        )
    except (TypeError, ValueError, RecursionError):
        raise ShapeError(f"The parameters of {tool.name!r} must be JSON.") from None


def _bytes_of(text: str, what: str) -> int:
    """How many bytes a text has that models and databases take: JSON can hold what they do not."""
    try:
        length = len(text.encode())
    except UnicodeEncodeError:  # half of a surrogate pair
        raise ShapeError(f"{what} must be valid Unicode.") from None
    if "\0" in text or "\\u0000" in text:
        raise ShapeError(f"{what} must have no NUL character.")
    return length
