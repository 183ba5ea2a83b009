"""A room against a model of it: who is told what, by all that attend, and to those who come back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Literal

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from adk_relay.core.listener import member_of
from adk_relay.core.messages import (
    Audio,
    Error,
    Gap,
    Line,
    Message,
    Numbered,
    Presence,
    Reset,
    Status,
    Text,
    ToolStart,
    TurnEnd,
    TurnStart,
    Typing,
    UserText,
    Written,
)
from adk_relay.core.requests import Request, Requests, Stats
from adk_relay.core.room import After, Room
from support.clock import TimedLoop

Attends = Literal["all", "newest", "own"]

ATTENDS = st.sampled_from(["all", "newest", "own"])

PUBLISHED: dict[str, Callable[[int], Numbered]] = {
    "text": lambda seq: Text(seq, "la "),
    "audio": lambda seq: Audio(seq, bytes(4)),
    "written": lambda seq: Written(seq, "one", "alice", "", 0),
    "tool": lambda seq: ToolStart(seq, "id", "tool", {}, "now"),
    "late tool": lambda seq: ToolStart(seq, "id", "tool", {}, "now", late=True),
    "end": lambda seq: TurnEnd(seq),
    "interrupted": lambda seq: TurnEnd(seq, interrupted=True),
}


class Attendant:
    """A listener that remembers what it was told, and who it thinks is there."""

    name = member = address = ""
    is_audio = False
    connects = False

    def __init__(self, connection_id: str, attends: Attends, present: set[str]) -> None:
        self.connection_id = connection_id
        self.attends: Attends = attends
        self.told: list[object] = []
        self.present = present
        self.is_new = True
        """It came since presence was told last."""

    def deliver(self, message: Message) -> None:
        match message:
            case Presence(joined, left):
                assert self.connection_id not in joined
                if not self.is_new:  # it is told the difference, and nothing twice
                    assert self.present.isdisjoint(joined)
                    assert self.present.issuperset(left)
                self.present = (self.present | {*joined}) - {*left}
            case TurnStart():
                pass  # where it comes is the history's affair
            case _:
                self.told.append(key(message))

    def replay(self, messages: Sequence[Message]) -> None:
        self.told += [key(message) for message in messages if not isinstance(message, TurnStart)]


def key(message: Message) -> object:
    """A numbered message by its kind and number: the history has added the rest."""
    return (type(message), message.seq) if isinstance(message, Numbered) else message


class RoomMachine(RuleBasedStateMachine):
    """Whoever comes, goes, asks and types: each is told what the model says, and in that order."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = TimedLoop()
        self.requests = Requests(Stats())
        self.room = Room(self.requests, replay_bytes=1_000_000, replay_seconds=1_000_000.0)
        # The model.
        self.here: list[Attendant] = []
        self.expected: dict[Attendant, list[object]] = {}
        self.asking: Attendant | None = None
        self.typing: set[Attendant] = set()
        self.kept: list[Numbered] = []
        self.seq = 0
        self.came = 0
        self.epochs = [self.room.epoch]

    def teardown(self) -> None:
        self.room.close()
        self.loop.close()

    # ---- the model ----

    def newest(self) -> Attendant | None:
        return next((each for each in reversed(self.here) if each.attends == "newest"), None)

    def hears(self, listener: Attendant) -> bool:
        return {
            "all": True,
            "newest": listener is self.newest(),
            "own": listener is self.asking,
        }[listener.attends]

    def expect(self, message: Message, but: Attendant | None = None) -> None:
        for listener in self.here:
            if self.hears(listener) and listener is not but:
                self.expected[listener].append(key(message))

    def one_of(self, data: st.DataObject) -> Attendant:
        return data.draw(st.sampled_from(self.here), "listener")

    # ---- what may happen ----

    @rule(attends=ATTENDS, back=st.booleans(), data=st.data())
    def enter(self, attends: Attends, back: bool, data: st.DataObject) -> None:
        after = None
        if back:
            epoch = data.draw(st.just(None) | st.sampled_from(self.epochs), "epoch")
            after = After(epoch, data.draw(st.just(0) | st.integers(0, self.seq + 1), "seq"))
        self.let_in(attends, after)

    @precondition(lambda self: self.here)
    @rule(data=st.data(), is_live=st.booleans())
    def leave(self, data: st.DataObject, is_live: bool) -> None:
        self.let_out(self.one_of(data), is_live)

    @rule(attends=ATTENDS)
    def come_and_go(self, attends: Attends) -> None:
        self.let_out(self.let_in(attends))

    @precondition(lambda self: self.here)
    @rule(data=st.data())
    def go_and_come_back(self, data: st.DataObject) -> None:
        listener = self.one_of(data)
        self.let_out(listener)
        self.let_in(listener.attends, connection_id=listener.connection_id)

    def let_in(
        self, attends: Attends, after: After | None = None, connection_id: str | None = None
    ) -> Attendant:
        self.came += 1
        present = {each.connection_id for each in self.here if each.attends != "own"}
        listener = Attendant(connection_id or str(self.came), attends, present)
        expected: list[object] = []
        if after and after.epoch in (None, self.epochs[-1]) and after.seq <= self.seq:
            expected += [key(message) for message in self.kept if message.seq > after.seq]
        elif after:
            lines = self.room.history.lines()
            expected += [Gap(1, self.seq, len(lines)), *lines]
        if attends == "newest" and (before := self.newest()):
            self.expected[before].append(Status("elsewhere"))
        self.here.append(listener)
        self.expected[listener] = expected
        self.loop.call(lambda: self.room.enter(listener, after))
        return listener

    def let_out(self, listener: Attendant, is_live: bool = True) -> None:
        if listener in self.typing:
            self.typing.remove(listener)
            self.expect(Typing(listener.connection_id, False), but=listener)
        was_newest = listener is self.newest()
        self.here.remove(listener)
        if was_newest and (before := self.newest()):
            self.expected[before].append(Status("live" if is_live else "reconnecting"))
        self.loop.call(lambda: self.room.leave(listener, is_live=is_live))

    @precondition(lambda self: self.here)
    @rule(data=st.data())
    def ask(self, data: st.DataObject) -> None:
        self.asking = data.draw(st.sampled_from([None, *self.here]), "asking")
        self.requests.current = (
            Request(UserText("one"), self.asking, member_of(self.asking)) if self.asking else None
        )
        self.room.update_audience()

    @precondition(lambda self: self.here)
    @rule(data=st.data(), typing=st.booleans())
    def type(self, data: st.DataObject, typing: bool) -> None:
        listener = self.one_of(data)
        if typing != (listener in self.typing):
            self.typing ^= {listener}
            self.expect(Typing(listener.connection_id, typing), but=listener)
        self.room.set_typing(listener, typing)

    @rule(kind=st.sampled_from(sorted(PUBLISHED)), data=st.data())
    def publish(self, kind: str, data: st.DataObject) -> None:
        self.seq += 1
        assert self.room.number() == self.seq
        message = PUBLISHED[kind](self.seq)
        but = data.draw(st.sampled_from([None, *self.here]), "but") if kind == "written" else None
        self.room.publish(message, but)
        if kind == "interrupted":
            self.kept = [message for message in self.kept if not isinstance(message, Audio)]
        self.kept.append(message)
        self.expect(message, self.asking if kind == "late tool" else but)

    @rule(recipient=st.integers(1, 5))
    def send_to(self, recipient: int) -> None:
        self.room.send_to(str(recipient), Error("busy", "Wait."))
        for listener in self.here:
            if listener.connection_id == str(recipient):
                self.expected[listener].append(Error("busy", "Wait."))

    @rule()
    def recall_audio(self) -> None:
        self.room.recall_audio()
        self.kept = [message for message in self.kept if not isinstance(message, Audio)]

    @rule(deleted=st.booleans())
    def restart(self, deleted: bool) -> None:
        self.asking = None
        self.requests.current = None
        self.room.update_audience()
        self.room.restart(deleted=deleted)
        assert self.room.epoch not in self.epochs
        assert self.room.history.lines() == []
        self.epochs.append(self.room.epoch)
        self.seq, self.kept = 0, []
        for listener in self.here:
            self.expected[listener].append(Reset(self.room.epoch, deleted))

    @rule()
    def wait(self) -> None:
        """Presence is told, and then each that is told of it knows who is there."""
        self.loop.wait(0.11)
        present = {each.connection_id for each in self.here if each.attends != "own"}
        for listener in self.here:
            listener.is_new = False
            if listener.attends == "all":
                assert listener.present | {listener.connection_id} == present
            listener.present = present

    # ---- what always holds ----

    @invariant()
    def agrees(self) -> None:
        assert self.room.listeners == self.here
        assert self.room.seq == self.seq
        for listener, expected in self.expected.items():
            assert listener.told == expected


TestRoom = RoomMachine.TestCase
TestRoom.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)


@pytest.fixture
def loop() -> Iterator[TimedLoop]:
    with closing(TimedLoop()) as loop:
        yield loop


@pytest.mark.parametrize("how", ["interrupted", "recalled"])
def test_sound_that_nobody_wants_any_more_is_not_replayed(loop: TimedLoop, how: str) -> None:
    room = Room(Requests(Stats()), replay_bytes=10_000, replay_seconds=60.0)
    room.publish(Text(room.number(), "la"))
    room.publish(Audio(room.number(), bytes(4)))
    if how == "interrupted":
        room.publish(TurnEnd(room.number(), interrupted=True))
    else:
        room.recall_audio()
    back = Attendant("alice", "all", set())
    loop.call(lambda: room.enter(back, After(None, 0)))
    room.close()
    assert back.told == [(Text, 1)] + [(TurnEnd, 3)] * (how == "interrupted")


def test_who_attends_for_its_own_request_is_told_its_answer_and_no_other(loop: TimedLoop) -> None:
    requests = Requests(Stats())
    room = Room(requests, replay_bytes=10_000, replay_seconds=60.0)
    alice, bob = Attendant("alice", "own", set()), Attendant("bob", "own", set())
    loop.call(lambda: room.enter(alice, None))
    loop.call(lambda: room.enter(bob, None))
    for listener in (bob, alice):
        requests.current = Request(UserText("one"), listener, member_of(listener))
        room.update_audience()
        room.publish(Text(room.number(), "la"))
        room.publish(TurnEnd(room.number()))
    room.publish(PUBLISHED["late tool"](room.number()))  # it belongs to an answer that was stopped before
    room.close()
    assert bob.told == [(Text, 1), (TurnEnd, 2)]
    assert alice.told == [(Text, 3), (TurnEnd, 4)]


def test_messages_that_are_not_kept_become_a_gap_and_whole_messages(loop: TimedLoop) -> None:
    room = Room(Requests(Stats()), replay_bytes=300, replay_seconds=60.0)
    for text in ["x" * 200, "y" * 200]:
        room.publish(Text(room.number(), text))
        room.publish(TurnEnd(room.number()))
    back = Attendant("alice", "all", set())
    loop.call(lambda: room.enter(back, After(room.epoch, 1)))
    room.close()
    assert back.told == [Gap(2, 4, 2), Line("agent", "x" * 200), Line("agent", "y" * 200)]
