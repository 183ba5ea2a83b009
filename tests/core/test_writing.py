"""Texts, requests and writing, each against a model of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from adk_relay.core.inbox import Inbox
from adk_relay.core.messages import Ack, Error, Message, Taken, UserImage, UserText
from adk_relay.core.requests import BusyError, Requests, Stats
from adk_relay.core.room import Room
from adk_relay.core.texts import Known, Texts
from adk_relay.core.writing import Writing
from support.clock import TimedLoop

IDS = st.sampled_from(["", "a", "b", "c"])
WORDS = st.sampled_from(["one", "two"])


class Client:
    """A listener that remembers what it was told."""

    name = member = address = ""
    is_audio = False
    connects = False

    def __init__(self, connection_id: str, attends: Literal["all", "own"] = "all") -> None:
        self.connection_id = connection_id
        self.attends = attends
        self.told: list[Message] = []

    def deliver(self, message: Message) -> None:
        self.told.append(message)

    def replay(self, messages: Sequence[Message]) -> None:
        self.told += messages

    def take(self, *kinds: type[Message]) -> list[Message]:
        """What it was told of these kinds since the last time."""
        taken, self.told = [message for message in self.told if isinstance(message, kinds)], []
        return taken


# ---- texts -----------------------------------------------------------------------------------


class TextsMachine(RuleBasedStateMachine):
    """The model is a dict of ids: the text, and who waits for its ack."""

    def __init__(self) -> None:
        super().__init__()
        self.texts = Texts()
        self.clients = {name: Client(name) for name in ("alice", "bob")}
        self.known: dict[str, tuple[str, Client | None]] = {}

    @rule(text_id=IDS, words=WORDS, name=st.sampled_from(["alice", "bob"]))
    def send(self, text_id: str, words: str, name: str) -> None:
        text, client = UserText(words, text_id), self.clients[name]
        known = self.texts.look_up(text)
        if text_id not in self.known:
            assert known is Known.NEW
        elif self.known[text_id][0] != words:
            assert known is Known.TAKEN
            return
        else:
            assert known is (Known.WAITING if self.known[text_id][1] else Known.STORED)
        if known is not Known.STORED:
            self.texts.add(text, client)
            if text_id:
                self.known[text_id] = words, client

    @rule(text_id=IDS)
    def store(self, text_id: str) -> None:
        words, client = self.known.get(text_id, ("one", None))
        assert self.texts.stored(UserText(words, text_id)) is client
        if text_id in self.known:
            self.known[text_id] = words, None

    @rule(text_id=IDS, words=WORDS)
    def forget(self, text_id: str, words: str) -> None:
        self.texts.forget(UserText(words, text_id))
        self.known.pop(text_id, None)

    @rule(kept=st.sets(IDS))
    def clear(self, kept: set[str]) -> None:
        gone = {text_id: client for text_id, (_, client) in self.known.items() if text_id not in kept}
        waiting = [(text_id, client) for text_id, client in gone.items() if client]
        assert sorted(self.texts.clear(but={("", text_id) for text_id in kept}), key=str) == sorted(
            waiting, key=str
        )
        self.known = {text_id: entry for text_id, entry in self.known.items() if text_id in kept}


def test_only_the_latest_ids_are_known() -> None:
    texts, client = Texts(), Client("alice")
    for number in range(5000):
        texts.add(UserText("one", str(number)), client)
    assert texts.look_up(UserText("one", str(5000 - 4097))) is Known.NEW
    assert texts.look_up(UserText("one", str(5000 - 4096))) is Known.WAITING


# ---- requests --------------------------------------------------------------------------------


class RequestsMachine(RuleBasedStateMachine):
    """The model is a list: the first may be current. Each that was taken is counted once when it ends."""

    def __init__(self) -> None:
        super().__init__()
        self.stats = Stats()
        self.requests = Requests(self.stats)
        self.clients = [Client("alice"), Client("bob")]
        self.open: list[tuple[UserText, Client]] = []
        self.has_current = False
        self.taken = self.successful = self.failed = 0

    def ends(self, ended: int) -> None:
        self.failed += ended

    @rule(client=st.integers(0, 1), many=st.sampled_from([1, 1, 1, 20]))
    def take(self, client: int, many: int) -> None:
        for _ in range(many):
            self.taken += 1
            waiting = [each for _, each in self.open[self.has_current :]]
            text, is_full = UserText(str(self.taken)), waiting.count(self.clients[client]) >= 16
            if is_full:
                with pytest.raises(BusyError):
                    self.requests.take(text, self.clients[client])
                self.ends(1)
            else:
                _, ahead = self.requests.take(text, self.clients[client])
                self.open.insert(ahead + self.has_current, (text, self.clients[client]))
                self.takes_turns(waiting.count(self.clients[client]), ahead)

    def takes_turns(self, own: int, ahead: int) -> None:
        """A text that is the nth of its member has at most n of each other one before it."""
        waiting = [each for _, each in self.open[self.has_current :]]
        mine = waiting[ahead]
        others = [each for each in waiting[:ahead] if each is not mine]
        assert waiting[:ahead].count(mine) == own
        assert len(others) <= own + 1

    @precondition(lambda self: self.open and not self.has_current)
    @rule()
    def begin(self) -> None:
        request = self.requests.begin()
        assert request and (request.text, request.listener) == self.open[0]
        self.has_current = True

    @rule()
    def answered(self) -> None:
        self.requests.answered()
        if self.has_current:
            self.successful += 1
            self.has_current = False
            del self.open[0]

    @rule()
    def fail(self) -> None:
        assert [(request.text, request.listener) for request in self.requests.fail()] == self.open
        self.ends(len(self.open))
        self.open, self.has_current = [], False

    @rule()
    def fail_waiting(self) -> None:
        waiting = self.open[self.has_current :]
        assert [(request.text, request.listener) for request in self.requests.fail_waiting()] == waiting
        self.ends(len(waiting))
        del self.open[self.has_current :]

    @rule(client=st.integers(0, 1))
    def withdraw(self, client: int) -> None:
        theirs = [each for each in self.open if each[1] is self.clients[client]]
        withdrawn = self.requests.withdraw(self.clients[client])
        assert [(request.text, request.listener) for request in withdrawn] == theirs
        self.has_current = self.has_current and self.open[0] not in theirs
        self.open = [each for each in self.open if each not in theirs]
        self.ends(len(theirs))

    @invariant()
    def agrees(self) -> None:
        current, waiting = self.open[: self.has_current], self.open[self.has_current :]
        assert [request.text for request in self.requests.waiting] == [text for text, _ in waiting]
        assert bool(self.requests.current) == self.has_current
        for place, (text, _) in enumerate(waiting):
            found = self.requests.find(text)
            assert found
            assert found[1] == place
        for text, client in current:
            found = self.requests.find(text)
            assert found
            assert found[0] is self.requests.current
            assert found[0].listener is client
        stats = self.stats
        assert (stats.requests, stats.successful, stats.failed) == (self.taken, self.successful, self.failed)


# ---- writing ---------------------------------------------------------------------------------


class WritingMachine(RuleBasedStateMachine):
    """A model agent answers one text at a time. Each text is given to it once, in the order of its turn.

    `live` are texts that wait for it, `asked` are requests: one is said when nothing else is under way.
    """

    def __init__(self) -> None:
        super().__init__()
        self.loop = TimedLoop()
        requests = Requests(Stats())
        self.room = Room(requests, replay_bytes=0, replay_seconds=0.0)
        self.inbox = Inbox(on_dropped=lambda ms: None)
        self.is_owed = False
        self.writing = Writing(
            self.room,
            requests,
            self.inbox,
            is_owed=lambda: self.is_owed,
            would_cut_in=lambda: False,
            want=lambda: None,
        )
        self.clients = [Client("alice"), Client("bob")]
        for client in self.clients:
            self.loop.call(lambda client=client: self.room.enter(client, None))  # type: ignore[misc]
        self.sent: dict[str, str] = {}  # the first text of each id
        self.ids = 0
        self.asked: list[UserText] = []
        self.given: list[UserText] = []
        self.due: list[UserText] = []  # in the order in which they are to be given to the agent

    def teardown(self) -> None:
        self.writing.close()
        self.room.close()
        self.loop.close()

    def text(self, data: st.DataObject) -> UserText:
        text_id = data.draw(IDS, "id")
        self.ids += 1
        return UserText(data.draw(WORDS, "words") if text_id else f"text {self.ids}", text_id)

    def is_new(self, text: UserText, client: Client) -> bool:
        """Whether it is the first of its id. If another text has that id, its sender is told."""
        refused = [message for message in client.take(Error) if isinstance(message, Error)]
        is_other = bool(text.id) and self.sent.get(text.id, text.text) != text.text
        assert [error.code for error in refused] == ["bad_data"] * is_other
        is_new = not (text.id and text.id in self.sent)
        if is_new and text.id:
            self.sent[text.id] = text.text
        return is_new

    @rule(data=st.data(), client=st.integers(0, 1))
    def say(self, data: st.DataObject, client: int) -> None:
        text = self.text(data)
        self.loop.call(lambda: self.writing.say(text, self.clients[client]))
        if self.is_new(text, self.clients[client]):
            self.due.append(text)

    @precondition(lambda self: len(self.asked) < 15)
    @rule(data=st.data(), client=st.integers(0, 1))
    def ask(self, data: st.DataObject, client: int) -> None:
        text, is_busy = self.text(data), self.is_busy()
        self.clients[client].take()
        self.loop.call(lambda: self.writing.ask(text, self.clients[client]))
        told = [message for message in self.clients[client].told if isinstance(message, Taken)]
        if self.is_new(text, self.clients[client]):
            assert [taken.text for taken in told] == [text]
            place = told[0].ahead - is_busy
            assert 0 <= place <= len(self.asked)
            self.asked.insert(place, text)  # members take turns: `RequestsMachine` says how
        elif text in self.asked:
            assert [taken.text for taken in told] == [text]
        self.begins()

    def is_busy(self) -> bool:
        return bool(self.writing.requests.current or self.is_owed or self.due)

    def begins(self) -> None:
        """A request begins when nothing else is under way."""
        if self.asked and not (self.is_owed or self.due):
            self.due.append(self.asked.pop(0))

    @precondition(lambda self: self.due and not self.is_owed)
    @rule()
    def give(self) -> None:
        """The agent is given the next text."""
        text = self.inbox.take()
        assert text == self.due.pop(0)
        assert isinstance(text, UserText)
        self.given.append(text)
        self.is_owed = True

    @precondition(lambda self: self.is_owed)
    @rule()
    def answer(self) -> None:
        self.is_owed = False
        self.loop.call(self.writing.answered)
        self.loop.wait(0.0)
        self.begins()

    @precondition(lambda self: self.given)
    @rule(data=st.data())
    def store(self, data: st.DataObject) -> None:
        """Whoever sent a text last gets its ack; a second one gets none."""
        text = data.draw(st.sampled_from(self.given), "text")
        for client in self.clients:
            client.take()
        self.loop.call(lambda: self.writing.stored(text))
        self.loop.call(lambda: self.writing.stored(text))
        acks = [message for client in self.clients for message in client.take(Ack)]
        assert len(acks) <= bool(text.id)

    @rule()
    def drop(self) -> None:
        """What had not begun can be asked again."""
        waiting = [*self.asked]
        self.loop.call(lambda: self.writing.drop("Enough."))
        told = [error for client in self.clients for error in client.take(Error)]
        assert {error.id for error in told if isinstance(error, Error)} >= {text.id for text in waiting}
        self.asked.clear()
        for text in waiting:
            self.sent.pop(text.id, None)
        assert not self.writing.requests.current

    @precondition(lambda self: not (self.is_owed or self.writing.requests.current))
    @rule()
    def clear(self) -> None:
        """What was said is forgotten, and whoever waits for its ack gets it. Requests wait on."""
        waiting = {text.id for text in self.asked}
        for client in self.clients:
            client.take()
        self.loop.call(self.writing.clear)
        acked = {ack.id for client in self.clients for ack in client.take(Ack) if isinstance(ack, Ack)}
        assert not acked & waiting
        self.sent = {text_id: text for text_id, text in self.sent.items() if text_id in waiting}
        self.given.clear()
        self.due.clear()
        self.loop.wait(1.0)
        self.begins()

    @invariant()
    def agrees(self) -> None:
        assert [request.text for request in self.writing.requests.waiting] == self.asked


for machine in (TextsMachine, RequestsMachine, WritingMachine):
    machine.TestCase.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)
TestTexts = TextsMachine.TestCase
TestRequests = RequestsMachine.TestCase
TestWriting = WritingMachine.TestCase


def test_a_request_for_which_there_is_no_room_at_the_end_can_be_sent_again() -> None:
    loop, requests, inbox = TimedLoop(), Requests(Stats()), Inbox(on_dropped=lambda ms: None)
    room = Room(requests, replay_bytes=0, replay_seconds=0.0)
    writing = Writing(
        room,
        requests,
        inbox,
        is_owed=lambda: True,
        would_cut_in=lambda: False,
        want=lambda: None,
    )
    client, text = Client("alice"), UserText("one", "the-id")
    loop.call(lambda: writing.ask(text, client))
    picture = UserImage(bytes(8 * 1024 * 1024 - 500), "image/jpeg")
    loop.call(lambda: inbox.add(picture))
    loop.call(writing.keep_waiting)
    assert inbox.take() == picture
    assert inbox.take() is None
    loop.call(lambda: writing.say(text, client))
    assert inbox.take() == text
    writing.close()
    room.close()
    loop.close()


def test_a_request_waits_for_a_turn_of_which_the_asker_has_left() -> None:
    loop, requests, inbox = TimedLoop(), Requests(Stats()), Inbox(on_dropped=lambda ms: None)
    room = Room(requests, replay_bytes=0, replay_seconds=0.0)
    owed = [True]
    writing = Writing(
        room,
        requests,
        inbox,
        is_owed=lambda: any(owed),
        would_cut_in=lambda: False,
        want=lambda: None,
    )
    first, second = Client("first", "own"), Client("second", "own")
    for client in (first, second):
        loop.call(lambda client=client: room.enter(client, None))  # type: ignore[misc]
        loop.call(lambda client=client: writing.ask(UserText(client.connection_id), client))  # type: ignore[misc]
    owed.clear()
    loop.wait(1.0)
    assert inbox.take() == UserText("first")
    loop.call(lambda: writing.withdraw(first))
    writing.check()
    loop.wait(1.0)  # whatever became of the first one's turn
    assert inbox.take() == UserText("second")
    writing.close()
    room.close()
    loop.close()
