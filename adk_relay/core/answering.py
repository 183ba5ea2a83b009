"""The answer that the agent is giving."""

from __future__ import annotations

from dataclasses import dataclass, field

from adk_relay.core.answer import Asked, ToolCall
from adk_relay.core.credits import Usage
from adk_relay.core.messages import Line, ToolStart
from adk_relay.core.times import now
from adk_relay.core.used_tools import shortened


@dataclass(slots=True)
class Answering:
    """The answer that the agent is giving, as the history has it."""

    since: float
    """As `time.monotonic()`: when its question was asked."""
    asked: Asked | None
    line: int | None = None
    """Its index in the lines, those that are forgotten included; None: it has no text yet."""
    seq: int = 0
    """The `seq` of its first text."""
    chunks: list[str] = field(default_factory=list)
    timestamp: str = field(default_factory=now)
    tools: dict[str, ToolCall] = field(default_factory=dict)
    earlier: tuple[ToolCall, ...] = ()
    """Tools of the answers before it that had no words, and of what an owner before has begun of it."""
    usage: Usage | None = None
    """Of the parts of it before a connection was lost."""

    @property
    def all_tools(self) -> tuple[ToolCall, ...]:
        """The tools that are shown with it."""
        return shortened([*self.earlier, *self.tools.values()])

    @property
    def whole(self) -> Line:
        """What it is so far, as a whole message."""
        return Line("agent", "".join(self.chunks), timestamp=self.timestamp, tools=self.all_tools)


def call_of(message: ToolStart) -> ToolCall:
    """The call that a message tells of."""
    name, arguments = message.tool_name, message.arguments
    return ToolCall(message.tool_id, name, arguments, message.interim, message.is_pending)
