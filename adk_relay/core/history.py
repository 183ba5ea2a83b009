"""The history of a conversation in whole messages: those of its session, and those since then."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from dataclasses import replace

from adk_relay.core.answer import Answer, Asked, ToolCall
from adk_relay.core.answering import Answering, call_of
from adk_relay.core.at_once import LINES_BYTES, limited, short, size_of_line
from adk_relay.core.heard import Shortened
from adk_relay.core.messages import (
    Line,
    Numbered,
    Text,
    ToolComplete,
    ToolStart,
    Transcript,
    TurnEnd,
    TurnStart,
    Written,
)
from adk_relay.core.recorded import OpenAnswer
from adk_relay.core.rewind import Rewound
from adk_relay.core.spoken import Aloud
from adk_relay.core.times import now
from adk_relay.core.titles import beginning
from adk_relay.core.used_tools import shortened, with_result

KEPT = 200
"""How many messages are in memory. Those before them are read from the session when they are asked for."""


class History:
    """The last messages of a conversation, and the answer that is being given.

    At most one answer is open at a time. It opens with the first chunk of text, tool call or turn end after
    the previous answer. It ends with its `TurnEnd`, unless that has `goes_on`, or with `interrupt()`.

    Invariants:
        An open answer has a line if, and only if, it has chunks; the line is the agent's, and it is
        empty until the answer ends.
        No stored line is open: only `lines()` makes open lines.
        `_size` is right. At most `KEPT` lines are kept, or those from an open answer on.
    """

    def __init__(self) -> None:
        self._lines: list[Line] = []
        self._forgotten = 0
        """How many lines are not kept any more."""
        self._before = self._before_by_user = 0
        """How many messages there were before those that were loaded, and how many of them a user's."""
        self._has_more = False
        """Whether there may be messages before those that were loaded."""
        self.first_text = ""
        """The beginning of what a user said first; "": nothing was, or `load_counts` tells it later."""
        self._base = 0
        """The place of the first message that was loaded: see `load`."""
        self._size = 0
        """Characters of the lines."""
        self._by_user = 0
        """How many of the messages since those are a user's."""
        self._open: Answering | None = None
        self._loose: tuple[ToolCall, ...] = ()
        """The tools of answers without words since the last message: they are shown with the next one."""
        self._questions = deque[int](maxlen=KEPT)
        """The numbers of the users' messages that were recorded."""
        self._question_at: float | None = None
        """`time.monotonic()` of the last question, until an answer opens; None: there is none."""
        self.aloud = Aloud()

    def check(self) -> None:
        """Asserts the invariants."""
        assert not any(line.open for line in self._lines), "a stored line is open"
        assert self._size == sum(map(size_of_line, self._lines)), "the size is not right"
        assert len(self._lines) <= KEPT or (self._open and self._open.line == self._forgotten), "too many"
        if answer := self._open:
            if answer.line is None:
                assert not answer.chunks, "an open answer has chunks and no line"
            else:
                assert answer.chunks, "an open answer has a line and no chunks"
                line = self._lines[answer.line - self._forgotten]
                assert line == Line("agent", ""), f"an open answer's line is {line}"
        self.aloud.check()

    @property
    def message_count(self) -> int:
        return self._before + self._forgotten + len(self._lines)

    @property
    def user_messages(self) -> int:
        return self._before_by_user + self._by_user

    @property
    def is_answering(self) -> bool:
        """Whether an answer is open."""
        return self._open is not None

    @property
    def answer_seq(self) -> int | None:
        """The `seq` of the first text of the open answer; None: it has no text, or no answer is open."""
        return self._open.seq if self._open and self._open.line is not None else None

    def load(self, lines: list[Line], *, has_more: bool = False, end: int | None = None) -> None:
        """Begins with the last messages of the session.

        Args:
            has_more: there may be others before them.
            end: the place after the last one, if an owner before has told clients of places; None: the first
                one's is 0.
        """
        self._lines = [short(line) for line in lines]
        self._has_more = has_more
        self._base = 0 if end is None else max(0, end - len(lines))
        self._by_user = sum(line.role == "user" for line in lines)
        self._size = sum(map(size_of_line, self._lines))
        by_user = (line.text for line in lines if line.role == "user")
        self.first_text = "" if has_more else beginning(next(by_user, ""))
        self._forget()

    def reopen(self, answer: OpenAnswer, index: int, tools: tuple[ToolCall, ...] = ()) -> None:
        """Goes on with an answer that an owner before has begun.

        Args:
            index: that of its line among those that were loaded; the line is added there.
            tools: those that it has used so far.
        """
        chunks = [answer.text, *[""] * (answer.chunks - 1)] if answer.chunks else []
        self._open = Answering(time.monotonic(), answer.asked, seq=answer.seq, chunks=chunks, earlier=tools)
        if chunks:
            self.aloud.lost(0, len(answer.text))
            self._open.line = max(index, self._forgotten)
            self._lines.insert(self._open.line - self._forgotten, Line("agent", ""))
            self._base = max(0, self._base - 1)
            self._forget()

    def load_counts(self, count: int, by_user: int, first_text: str = "") -> None:
        """Sets how many messages the session had before its last ones were loaded, in all and of users."""
        self._before, self._before_by_user = count, by_user
        self.first_text = first_text or self.first_text
        self._has_more = count > 0

    def number_at(self, place: int) -> int:
        """The number of the message at a place, from 1. Places count from the first message that was loaded.

        A place is known at once. Numbers are wrong until `load_counts` was called.
        """
        return self._before + place - self._base + 1

    def place_of(self, number: int) -> int:
        """The place of the message with this number."""
        return number - self._before - 1 + self._base

    @property
    def next_place(self) -> int:
        """The place of the next message."""
        return self._base + self._forgotten + len(self._lines)

    def restored(self, seq: int) -> None:
        """Goes on after the number of the last message that is known of an owner before."""
        self.aloud.open.after = self._open.seq - 1 if self._open and self._open.seq else seq

    def end(self) -> tuple[list[Line], int | None]:
        """The `lines()`, and the place of the first one, if there may be messages before it."""
        lines = self.lines()
        first = self._forgotten + len(self._lines) - len(lines)
        return lines, self._base + first if first or self._has_more else None

    def interrupt(self) -> None:
        """Ends the open answer, if there is one: it will not be continued."""
        if self._open:
            self._end(self._open, 0, interrupted=True)

    def lines(self) -> list[Line]:
        """The last messages, oldest first, at most 1 MiB of text."""
        lines = [*self._lines]
        if self._open and self._open.line is not None:
            chunks = self._open.chunks
            line = replace(self._open.whole, open=True, chunks=len(chunks))
            lines[self._open.line - self._forgotten] = line
        return limited(lines)

    def record(self, message: Numbered, asked: Asked | None) -> list[Numbered | TurnStart]:
        """Records a message.

        Args:
            asked: the request that is answered if this message opens an answer; None: there is none.

        Returns:
            The message, completed with what only the history knows: the number of a chunk, the count of
            messages, or the whole answer at its end. If it opens an answer, a `TurnStart` is before it.
        """
        start: list[Numbered | TurnStart] = []
        match message:
            case Text():
                answer = self._open or self._begin(asked, start)
                if answer.line is None:
                    answer.line, answer.seq = self._forgotten + len(self._lines), message.seq
                    self._answered()
                    self._add(Line("agent", ""))
                answer.chunks.append(message.text)
                return [*start, replace(message, number=len(answer.chunks))]
            case Written() | Transcript(final=True):
                self._ask(message)
                return [replace(message, message_count=self.message_count)]
            case ToolStart(late=True):  # it is shown with the last answer, but is not part of it
                self._add_late(call_of(message))
                return [message]
            case ToolStart():
                answer = self._open or self._begin(asked, start)
                answer.tools[message.tool_id] = call_of(message)
                return [*start, message]
            case ToolComplete():
                self._returned(message)
                return [message]
            case Rewound():
                messages = self._take_back()
                return [replace(message, messages=messages, message_count=self.message_count)]
            case TurnEnd(goes_on=False):
                answer = self._open or self._begin(asked, start)
                usage = message.usage.plus(answer.usage) if message.usage else answer.usage
                ended = self._end(answer, message.seq, message.interrupted)
                whole = replace(ended, usage=usage, grounding=message.grounding)
                return [*start, replace(message, answer=whole)]
            case TurnEnd():
                if self._open and message.usage:
                    self._open.usage = message.usage.plus(self._open.usage)
                self.aloud.lost(message.seq, len("".join(self._open.chunks)) if self._open else 0)
                return [message]
            case Shortened():
                self._shorten(message)
                return [message]
            case _:
                return [message]

    def with_starts(self, messages: Iterable[Numbered]) -> list[Numbered | TurnStart]:
        """The last messages that were recorded, with the `TurnStart` of each answer that begins there.

        It has no number, and is not kept.
        """
        whole: list[Numbered | TurnStart] = []
        begun: int | None = None  # where the first message of the answer is that is looked at
        parts = 0
        for message in messages:
            if isinstance(message, Text) or (isinstance(message, ToolStart) and not message.late):
                begun = len(whole) if begun is None else begun
                parts += 1
            whole.append(message)
            if isinstance(message, TurnEnd) and (answer := message.answer):
                if parts == answer.chunks + len(answer.tools):
                    whole.insert(len(whole) - 1 if begun is None else begun, TurnStart(answer.asked))
                begun, parts = None, 0
        if self._open and begun is not None and parts == len(self._open.chunks) + len(self._open.tools):
            whole.insert(begun, TurnStart(self._open.asked))
        return whole

    def _begin(self, asked: Asked | None, start: list[Numbered | TurnStart]) -> Answering:
        """Opens an answer, and adds a `TurnStart` to `start`."""
        self._open = Answering(self._question_at or time.monotonic(), asked, earlier=self._loose)
        self._question_at, self._loose = None, ()
        start.append(TurnStart(asked))
        return self._open

    def _end(self, answer: Answering, seq: int, interrupted: bool) -> Answer:
        self._open = None
        text = "".join(answer.chunks)
        self.aloud.ended(seq, answer.seq, answer.line, text, is_interrupted=interrupted)
        if answer.line is not None:
            line = short(replace(answer.whole, interrupted=interrupted))
            self._change(answer.line - self._forgotten, line)
        elif not interrupted:
            self._loose = answer.all_tools
        return Answer(
            text,
            len(answer.chunks),
            tuple(answer.tools.values()),
            time.monotonic() - answer.since,
            self.message_count,
            interrupted,
            answer.asked,
        )

    @property
    def last_of_user(self) -> Line | None:
        """The last message of a user; None: there is none in memory."""
        return next((line for line in reversed(self._lines) if line.role == "user"), None)

    @property
    def messages_to_take_back(self) -> int:
        """How many messages there are from the last one of a user on."""
        back = (at for at, line in enumerate(reversed(self._lines), 1) if line.role == "user")
        return next(back, 0)

    @property
    def questions(self) -> tuple[int, int]:
        """The numbers of the last two messages of users; 0: it was loaded, or there is none."""
        before, last = [0, 0, *self._questions][-2:]
        return before, last

    def _take_back(self) -> int:
        """Removes the last message of a user, and all after it; returns how many these are."""
        self.interrupt()
        self.aloud.forget()
        self._question_at = None
        if self._questions:
            self._questions.pop()
        if not (count := self.messages_to_take_back):
            return 0
        first = len(self._lines) - count
        gone = self._lines[first:]
        del self._lines[first:]
        self._by_user -= 1
        self._size -= sum(map(size_of_line, gone))
        self._loose = ()
        if not (self.user_messages or self._has_more):
            self.first_text = ""
        return count

    def _shorten(self, message: Shortened) -> None:
        """The last answer was heard only in part. Its line stays, also if nothing was heard."""
        last = self.aloud.last
        at = -1 if last is None or last.line is None else last.line - self._forgotten
        if at >= 0:
            line = replace(self._lines[at], text=message.text, interrupted=True)
            self._change(at, short(line))

    def _add(self, line: Line) -> None:
        self._lines.append(line)
        self._by_user += line.role == "user"
        self._size += size_of_line(line)
        self._forget()

    def _change(self, index: int, line: Line) -> None:
        self._size += size_of_line(line) - size_of_line(self._lines[index])
        self._lines[index] = line

    def _answered(self) -> None:
        """The last message is answered after all."""
        if self._lines and self._lines[-1].unanswered:
            self._lines[-1] = replace(self._lines[-1], unanswered=False)

    def _add_late(self, call: ToolCall) -> None:
        """Adds a tool to the last answer that has ended."""
        open_at = self._open and self._open.line
        for index in range(len(self._lines) - 1, -1, -1):
            line = self._lines[index]
            if line.role == "agent" and self._forgotten + index != open_at:
                others = [each for each in line.tools if each.tool_id != call.tool_id]
                self._change(index, replace(line, tools=shortened([*others, call])))
                return

    def _ask(self, message: Written | Transcript) -> None:
        """A user has written or said something."""
        text_id = message.id if isinstance(message, Written) else ""
        self._add(Line("user", message.text, id=text_id, name=message.name, timestamp=now()))
        self._loose = ()
        self._questions.append(message.seq)
        self._question_at = time.monotonic()
        if not (self.first_text or self._has_more):
            self.first_text = beginning(message.text)

    def _returned(self, message: ToolComplete) -> None:
        """A tool has returned: one of the answer under way, or one that no answer waits for any more."""
        if self._open and (call := self._open.tools.get(message.tool_id)):
            self._open.tools[message.tool_id] = replace(call, result=message.result, is_pending=False)
            return
        if loose := with_result(self._loose, message.tool_id, message.result):
            self._loose = loose
            return
        if self._open and (earlier := with_result(self._open.earlier, message.tool_id, message.result)):
            self._open.earlier = earlier
            return
        for index in range(len(self._lines) - 1, -1, -1):
            if tools := with_result(self._lines[index].tools, message.tool_id, message.result):
                self._change(index, replace(self._lines[index], tools=tools))
                return

    def _forget(self) -> None:
        """Forgets the oldest lines, but not that of the open answer."""
        end = len(self._lines) - 1
        if self._open and self._open.line is not None:
            end = self._open.line - self._forgotten
        first = 0
        while first < end and (len(self._lines) - first > KEPT or self._size > LINES_BYTES):
            self._size -= size_of_line(self._lines[first])
            first += 1
        del self._lines[:first]
        self._forgotten += first
