"""The journal against a model of it: one list of all that was added."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from adk_relay.core import journal as journal_module
from adk_relay.core.journal import Journal
from adk_relay.core.messages import Audio, Numbered, Text, ToolComplete, ToolStart, TurnEnd
from support.clock import Clock

LIMIT, MAX_AGE = 1_000, 60.0


def size(message: Numbered) -> int:
    """Bytes of a message's frame: what it holds, sound in base64, and 64 besides."""
    match message:
        case Audio():
            return 64 + len(message.pcm) * 4 // 3
        case Text():
            return 64 + len(message.text.encode())
    return 64


class JournalMachine(RuleBasedStateMachine):
    """Whatever is added and whenever: the newest messages within the bounds are there, and no other."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(journal_module, "time", clock := Clock())
        self.clock = clock
        self.journal = Journal(limit=LIMIT, max_age=MAX_AGE)
        # The model.
        self.seq = 0
        self.kept: list[tuple[float, Numbered]] = []
        self.forgotten = 0

    def teardown(self) -> None:
        self.patch.undo()

    def forget(self) -> None:
        """Of what is kept, the longest end of it that is within the bounds stays."""
        while self.kept and (
            sum(size(message) for _, message in self.kept) > LIMIT
            or self.clock.now - self.kept[0][0] > MAX_AGE
        ):
            self.forgotten = self.kept.pop(0)[1].seq

    def add(self, message: Numbered) -> None:
        self.journal.add(message)
        self.kept.append((self.clock.now, message))
        self.forget()

    def next(self) -> int:
        self.seq += 1
        return self.seq

    @rule(text=st.text(max_size=40) | st.just("x" * 950))
    def add_text(self, text: str) -> None:
        self.add(Text(self.next(), text))

    @rule(length=st.integers(0, 150))
    def add_audio(self, length: int) -> None:
        self.add(Audio(self.next(), bytes(length * 2)))

    @rule()
    def add_end(self) -> None:
        self.add(TurnEnd(self.next()))

    @rule()
    def skip_a_number(self) -> None:
        self.next()

    @rule(seconds=st.sampled_from([1.0, 20.0, 61.0]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule()
    def recall_audio(self) -> None:
        self.journal.recall_audio()
        self.kept = [entry for entry in self.kept if not isinstance(entry[1], Audio)]

    @rule()
    def clear(self) -> None:
        self.journal.clear()
        self.seq = self.forgotten = 0
        self.kept = []

    @invariant()
    def agrees(self) -> None:
        self.forget()  # time may have passed
        kept = [message for _, message in self.kept]
        for seq in {0, self.forgotten - 1, self.forgotten, self.seq // 2, self.seq}:
            expected = [message for message in kept if message.seq > seq] if seq >= self.forgotten else None
            assert self.journal.since(seq) == expected
        assert self.journal.last == (kept[-1].seq if kept else self.forgotten)


TestJournal = JournalMachine.TestCase
TestJournal.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)


def test_the_size_of_a_tool_is_that_of_its_values() -> None:
    journal = Journal(limit=300, max_age=MAX_AGE)
    journal.add(ToolStart(1, "id", "tool", {"a": "x" * 100}, "now"))
    journal.add(ToolComplete(2, "id", "tool", "x" * 20, "now"))
    assert journal.since(0) is not None
    journal.add(ToolComplete(3, "id", "tool", "x" * 100, "now"))
    assert [message.seq for message in journal.since(1) or []] == [2, 3]
    assert journal.since(0) is None


def test_a_message_that_is_larger_than_the_bound_is_not_kept() -> None:
    journal = Journal(limit=300, max_age=MAX_AGE)
    journal.add(Text(1, "short"))
    journal.add(Text(2, "x" * 400))
    assert journal.since(1) is None
    assert journal.since(2) == []
