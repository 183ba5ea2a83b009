"""A whole answer of the agent, as the end of a turn tells it (`messages.TurnEnd`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from adk_relay.core.credits import Grounding, Usage


@dataclass(slots=True, frozen=True)
class Answer:
    """A whole answer of the agent."""

    text: str
    chunks: int
    """How many `Text` messages it came in."""
    tools: tuple[ToolCall, ...]
    seconds: float
    """From the question to the end; if there was no question, from the first chunk."""
    message_count: int
    """Number of messages in the conversation, this one included."""
    interrupted: bool
    asked: Asked | None = None
    """The request that it answers; None: it answers live speech or a live text."""
    usage: Usage | None = None
    """Of the whole answer; None: the model has reported none."""
    grounding: Grounding | None = None


@dataclass(slots=True, frozen=True)
class Asked:
    """Identifies the request that an answer belongs to."""

    connection_id: str
    """That of the listener that made the request."""
    id: str
    """That of its `UserText`."""


@dataclass(slots=True, frozen=True)
class ToolCall:
    """A tool that was called in an answer; `result` is None until it has returned."""

    tool_id: str
    tool_name: str
    arguments: Any
    result: Any
    is_pending: bool = False
    """It waits for an answer of a user."""
    is_truncated: bool = False
    """The arguments, or the result, are the beginning of their JSON."""
