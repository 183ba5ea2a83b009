"""Input of a listener that has no ack, and would be lost with the owner of its conversation."""

from __future__ import annotations

from adk_relay.bus.codec import encode
from adk_relay.core.messages import Error, Input, Message, ToolComplete, ToolResult
from adk_relay.core.voice import Configure, Configured

_MAX_KEPT = 16
"""The oldest is given up first: most are answered at once."""


class Unsettled:
    """The results of tools, and what was chosen with an id, until the conversation has answered them.

    Invariants:
        At most `_MAX_KEPT` are kept.
    """

    def __init__(self) -> None:
        self._kept: dict[str, bytes] = {}
        """By the ids with which they are answered."""
        self._again: set[str] = set()
        """The ids of those that another owner was told again: it may have heard of them already."""

    def check(self) -> None:
        """Asserts the invariants."""
        assert len(self._kept) <= _MAX_KEPT, "too much is kept"

    def keep(self, user_input: Input) -> bool:
        """Keeps input that will be answered; returns whether it is such input."""
        match user_input:
            case ToolResult(tool_id=key) | Configure(id=key) if key:
                self._kept[key] = encode(user_input)
                if len(self._kept) > _MAX_KEPT:
                    del self._kept[next(iter(self._kept))]
                return True
        return False

    def again(self) -> list[bytes]:
        """What a new owner has to be told."""
        self._again = {*self._kept}
        return [*self._kept.values()]

    def settle(self, message: Message) -> bool:
        """Takes an answer; returns whether it says only that it was said twice."""
        match message:
            case Error(tool_id=key) if key in self._again and key not in self._kept:
                return True
            case Error(id=text_id, tool_id=tool_id):
                keys = [text_id, tool_id]
            case Configured(id=key) | ToolComplete(tool_id=key):
                keys = [key]
            case _:
                return False
        for key in keys:
            self._kept.pop(key, None)
        return False
