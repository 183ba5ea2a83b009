"""The conversation in whole texts: what the session holds, and what was said since."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from adk_relay.core.messages import (
    Answer,
    Asked,
    Line,
    Said,
    Text,
    ToolCall,
    ToolComplete,
    ToolStart,
    Transcript,
    TurnEnd,
    TurnStart,
    Written,
)

_LINES_BYTES = 1024 * 1024
"""What is told of a conversation at once, as text: its end."""

_LINE_BYTES = 512 * 1024
"""And of one message: its end. However it is escaped, it fits into a frame of 1 MiB."""


@dataclass(slots=True)
class _Open:
    """The answer that the agent is giving."""

    at: int  # its place among the lines, if it has words
    since: float
    asked: Asked | None
    texts: list[str] = field(default_factory=list)


class History:
    """The messages of a conversation, and the answer that is being given."""

    def __init__(self) -> None:
        self.asked: Asked | None = None
        """Whose request the next answer is to."""
        self._lines: list[Line] = []
        self._open: _Open | None = None
        self._tools: dict[str, ToolCall] = {}
        self._asked_at: float | None = None

    @property
    def message_count(self) -> int:
        return len(self._lines)

    @property
    def user_messages(self) -> int:
        return sum(line.role == "user" for line in self._lines)

    @property
    def is_answering(self) -> bool:
        """An answer was begun, and its end has not come."""
        return self._open is not None

    def load(self, lines: list[Line]) -> None:
        """Begins with what the session holds."""
        self._lines = lines

    def cut(self) -> None:
        """The answer under way will not go on."""
        if self._open:
            self._end(interrupted=True)

    def lines(self) -> list[Line]:
        """The last messages, oldest first, at most a MiB of them."""
        lines: list[Line] = []
        left = _LINES_BYTES
        for at in range(len(self._lines) - 1, -1, -1):
            line = self._lines[at]
            if self._open and self._open.texts and at == self._open.at:
                texts = self._open.texts
                line = Line("agent", "".join(texts), open=True, pieces=len(texts))
            text = line.text.encode(errors="replace")
            if len(text) > _LINE_BYTES:
                text = text[-_LINE_BYTES:]
                line = replace(line, text=text.decode(errors="ignore"))
            left -= len(text)
            if left < 0:
                break
            lines.append(line)
        return lines[::-1]

    def note(self, message: Said) -> Iterator[Said | TurnStart]:
        """Takes note of a message, and passes it on with what is now known of it."""
        match message:
            case Text():
                if not self._open:
                    yield self._begin()
                assert self._open
                if not self._open.texts:
                    self._open.at = len(self._lines)
                    self._lines.append(Line("agent", ""))
                self._open.texts.append(message.text)
                yield replace(message, number=len(self._open.texts))
            case Written() | Transcript(final=True):
                name = message.id if isinstance(message, Written) else ""
                self._lines.append(Line("user", message.text, id=name))
                self._asked_at = time.monotonic()
                yield replace(message, message_count=len(self._lines))
            case ToolStart(late=False):  # a late one is shown, but of no other answer
                if not self._open:
                    yield self._begin()
                call = ToolCall(message.tool_id, message.tool_name, message.arguments, None)
                self._tools[message.tool_id] = call
                yield message
            case ToolComplete():
                if call_ := self._tools.get(message.tool_id):
                    self._tools[message.tool_id] = replace(call_, result=message.result)
                yield message
            case TurnEnd(goes_on=False):
                if not self._open:
                    yield self._begin()
                yield replace(message, answer=self._end(message.interrupted))
            case _:
                yield message

    def _begin(self) -> TurnStart:
        self._open = _Open(-1, self._asked_at or time.monotonic(), self.asked)
        self._asked_at = None
        self._tools.clear()
        return TurnStart(self.asked)

    def _end(self, interrupted: bool) -> Answer:
        assert self._open
        answer, self._open = self._open, None
        text = "".join(answer.texts)
        if text:
            self._lines[answer.at] = Line("agent", text)
        return Answer(
            text,
            len(answer.texts),
            tuple(self._tools.values()),
            time.monotonic() - answer.since,
            len(self._lines),
            interrupted,
            answer.asked,
        )
