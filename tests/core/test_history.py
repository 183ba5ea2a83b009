"""The history against a model of it: a list of messages, and the answer that is open."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from adk_relay.core import history as history_module
from adk_relay.core import recorded
from adk_relay.core.answer import Answer, Asked, ToolCall
from adk_relay.core.history import History
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
from support.clock import Clock

TOOLS = ["a", "b"]


@dataclass
class OpenAnswer:
    since: float
    asked: Asked | None
    chunks: list[str] = field(default_factory=list)
    tools: dict[str, object] = field(default_factory=dict)
    line: Line | None = None
    interrupted: bool = False


class HistoryMachine(RuleBasedStateMachine):
    """Whatever is said in whatever order: the messages and each whole answer are what the model says."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(history_module, "time", clock := Clock())
        self.clock = clock
        self.history = History()
        self.seq = 0
        self.asked: Asked | None = None
        # The model.
        self.lines: list[tuple[str, str, str] | OpenAnswer] = []  # role, text, id
        self.open: OpenAnswer | None = None
        self.question_at: float | None = None

    def teardown(self) -> None:
        self.patch.undo()

    def next(self) -> int:
        self.seq += 1
        return self.seq

    def record(self, message: Numbered) -> Numbered:
        """Records a message that opens no answer."""
        (recorded,) = self.history.record(message, self.asked)
        assert isinstance(recorded, type(message))
        return recorded

    def record_in_answer(self, message: Numbered) -> tuple[OpenAnswer, Numbered]:
        """Records a message of an answer, which opens one where none is open."""
        *starts, recorded = self.history.record(message, self.asked)
        assert isinstance(recorded, type(message))
        if self.open:
            assert starts == []
            return self.open, recorded
        self.open = OpenAnswer(self.question_at or self.clock.now, self.asked)
        self.question_at = None
        assert starts == [TurnStart(self.open.asked)]
        return self.open, recorded

    # ---- what may happen ----

    @rule(text=st.sampled_from(["", "la ", "li "]))
    def agent_speaks(self, text: str) -> None:
        answer, recorded = self.record_in_answer(Text(self.next(), text))
        answer.chunks.append(text)
        if len(answer.chunks) == 1:
            self.lines.append(answer)
        assert recorded == Text(self.seq, text, number=len(answer.chunks))

    @rule(text=st.sampled_from(["one", "two"]), spoken=st.booleans())
    def user_asks(self, text: str, spoken: bool) -> None:
        if spoken:
            recorded = self.record(Transcript(self.next(), text, final=True, connection_id="alice"))
            self.lines.append(("user", text, ""))
        else:
            recorded = self.record(Written(self.next(), text, "alice", f"id {self.seq}", 0))
            self.lines.append(("user", text, f"id {self.seq}"))
        assert isinstance(recorded, Written | Transcript)
        assert recorded.message_count == len(self.lines)
        self.question_at = self.clock.now

    @rule()
    def user_is_heard(self) -> None:
        self.record(Transcript(self.next(), "o…", final=False))

    @rule(tool_id=st.sampled_from(TOOLS), late=st.booleans())
    def tool_starts(self, tool_id: str, late: bool) -> None:
        start = ToolStart(self.next(), tool_id, "tool", {}, "now", late=late)
        if late:
            assert self.record(start) == start
        else:
            answer, recorded = self.record_in_answer(start)
            answer.tools[tool_id] = None
            assert recorded == start

    @rule(tool_id=st.sampled_from(TOOLS), late=st.booleans())
    def tool_completes(self, tool_id: str, late: bool) -> None:
        complete = ToolComplete(self.next(), tool_id, "tool", self.seq, "now", late=late)
        assert self.record(complete) == complete
        if self.open and tool_id in self.open.tools:
            self.open.tools[tool_id] = self.seq

    @rule(interrupted=st.booleans())
    def turn_ends(self, interrupted: bool) -> None:
        open_answer, end = self.record_in_answer(TurnEnd(self.next(), interrupted))
        self.open, open_answer.interrupted = None, interrupted
        assert isinstance(end, TurnEnd)
        assert (answer := end.answer)
        assert (answer.text, answer.chunks) == ("".join(open_answer.chunks), len(open_answer.chunks))
        assert {call.tool_id: call.result for call in answer.tools} == open_answer.tools
        assert answer.seconds == self.clock.now - open_answer.since
        assert answer.message_count == len(self.lines)
        assert (answer.interrupted, answer.asked) == (interrupted, open_answer.asked)

    @rule()
    def turn_is_cut_and_goes_on(self) -> None:
        end = TurnEnd(self.next(), interrupted=True, goes_on=True)
        assert self.record(end) == end

    @rule()
    def answer_is_given_up(self) -> None:
        self.history.interrupt()
        if self.open:
            self.open.interrupted = True
        self.open = None

    @rule(asked=st.none() | st.just(Asked("alice", "id")))
    def next_answer_is_to(self, asked: Asked | None) -> None:
        self.asked = asked

    @rule(seconds=st.sampled_from([0.25, 2.0]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    # ---- what always holds ----

    @invariant()
    def agrees(self) -> None:
        expected = []
        for line in self.lines:
            if isinstance(line, OpenAnswer):
                is_open = line is self.open
                chunks = len(line.chunks) if is_open else 0
                text = "".join(line.chunks)
                expected.append(
                    Line("agent", text, open=is_open, chunks=chunks, interrupted=line.interrupted)
                )
            else:
                expected.append(Line("user", line[1], id=line[2]))
        assert [replace(line, tools=()) for line in self.history.lines()] == expected
        assert self.history.message_count == len(expected)
        assert self.history.user_messages == sum(line.role == "user" for line in expected)
        assert self.history.is_answering == (self.open is not None)


TestHistory = HistoryMachine.TestCase
TestHistory.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)


def test_a_client_gets_the_end_of_a_long_conversation() -> None:
    history = History()
    history.load([Line("user", str(number) + "x" * 300_000) for number in range(9)])
    assert [line.text[0] for line in history.lines()] == ["6", "7", "8"]
    assert history.message_count == 9


def test_a_client_gets_the_end_of_a_long_message() -> None:
    history = History()
    history.record(Text(1, "ß" * 300_000), None)
    history.record(Text(2, "end"), None)
    (line,) = history.lines()
    assert line.text == "ß" * ((512 * 1024 - 3) // 2) + "end"
    assert (line.open, line.chunks) == (True, 2)


def test_an_answer_has_its_tools_and_takes_from_the_question_to_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(history_module, "time", clock := Clock())
    history = History()
    history.record(Written(1, "one", "alice", "id", 0), None)
    clock.now += 2
    history.record(ToolStart(2, "id", "tool", {"a": 1}, "now"), Asked("alice", "id"))
    history.record(ToolComplete(3, "id", "tool", "result", "now"), None)
    history.record(Text(4, "la"), None)
    clock.now += 1
    (end,) = history.record(TurnEnd(5), None)
    assert isinstance(end, TurnEnd)
    tool = ToolCall("id", "tool", {"a": 1}, "result")
    assert end.answer == Answer("la", 1, (tool,), 3.0, 2, False, Asked("alice", "id"))


def test_a_stored_message_that_is_too_long_pushes_none_out() -> None:
    lines = [Line("user", "one"), Line("agent", "x" * 2_000_000), Line("user", "two")]
    history = History()
    history.load(lines)
    history.check()
    assert [line.text[-3:] for line in history.lines()] == ["one", "xxx", "two"]
    assert history.end()[1] is None


def test_places_stay_when_another_owner_loads_other_messages() -> None:
    """The first owner has loaded two messages, of which there are more, and has told three. The other owner
    loads the last three, and goes on with the answer that is open."""
    first = History()
    first.load([Line("user", "3"), Line("agent", "4")], has_more=True)
    first.load_counts(2, 1)
    _, place = first.end()
    assert place == 0 and first.number_at(place) == 3
    first.record(Written(1, "5", "", "", 0), None)
    first.record(Text(2, "6"), None)
    first.record(Text(3, "!"), None)
    second = History()
    second.load([Line("agent", "4"), Line("user", "5")], has_more=True, end=first.next_place)
    second.reopen(recorded.OpenAnswer(2, "6!", 2, None), 2)
    second.load_counts(3, 2)
    second.check()
    assert second.number_at(place) == 3 and second.place_of(3) == place
    assert second.next_place == first.next_place
    assert second.end()[0][-1] == first.end()[0][-1] == Line("agent", "6!", open=True, chunks=2)
    (end,) = second.record(TurnEnd(4), None)
    assert isinstance(end, TurnEnd) and end.answer and end.answer.text == "6!" and end.answer.chunks == 2
    assert second.message_count == 6


def test_answers_that_are_replayed_begin_where_they_did() -> None:
    """An answer of which the beginning is not replayed began before."""
    history, asked = History(), Asked("alice", "1")
    told: list[Numbered | TurnStart] = []
    for message, by in (
        (Text(1, "a"), asked),
        (Text(2, "b"), asked),
        (TurnEnd(3), asked),
        (TurnEnd(4), None),
        (ToolStart(5, "id", "tool", {}, ""), asked),
        (Text(6, "c"), asked),
    ):
        told += history.record(message, by)
    kept = [message for message in told if not isinstance(message, TurnStart)]
    assert history.with_starts(kept) == told
    assert history.with_starts(kept[1:]) == told[2:]
    assert history.with_starts(kept[5:]) == told[8:]
