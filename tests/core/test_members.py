"""What is counted for a member, and what for all connections of an address."""

from __future__ import annotations

from array import array
from typing import Literal

import pytest

from adk_relay.core import allowance, floor, members
from adk_relay.core import requests as requests_module
from adk_relay.core.floor import Floor
from adk_relay.core.listener import Member, member_of
from adk_relay.core.members import Members
from adk_relay.core.messages import AudioEnd, Error, Interrupt, Message, UserAudio, UserText, UserTyping
from adk_relay.core.requests import Requests, Stats
from support.clock import Clock

SECOND = array("h", [1_000, -1_000] * 8_000).tobytes()


class Guest:
    """A listener who has not signed in."""

    name = member = ""
    is_audio = False
    connects = False

    def __init__(self, connection_id: str, address: str, attends: Literal["all", "own"] = "all") -> None:
        self.connection_id, self.address = connection_id, address
        self.attends: Literal["all", "newest", "own"] = attends
        self.told: list[Message] = []

    def deliver(self, message: Message) -> None:
        self.told.append(message)

    def replay(self, messages: object) -> None:
        raise AssertionError


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (allowance, floor, members, requests_module):
        monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.mark.usefixtures("clock")
def test_many_connections_of_an_address_are_not_as_many_members() -> None:
    counted = Members(Requests(Stats()), lambda: False, lambda _: True)
    many = [Guest(f"c{number}", "203.0.113.1") for number in range(50)]
    for user_input, most in ((Interrupt(), 20), (UserTyping(True), 20)):
        assert sum(counted.may(user_input, many[0]) for _ in range(50)) == most
        assert sum(counted.may(user_input, each) for each in many * 2) == 3 * most
        for address in ("203.0.113.2", "", ""):
            assert counted.may(user_input, Guest("other", address))


def test_noise_of_many_connections_of_an_address_does_not_keep_the_floor(clock: Clock) -> None:
    """One who is alone at another address gets as much time as all of them together."""
    heard: list[object] = []
    given = Floor(mic_ms=40, hear=heard.append, refuse=lambda _: None)
    many = [Guest(f"c{number}", "203.0.113.1") for number in range(20)]
    alone = Guest("alone", "203.0.113.2")
    seconds = {True: 0, False: 0}
    for _ in range(600):
        for each in (*many, alone):
            given.offer(each.connection_id, UserAudio(SECOND), member_of(each))
            clock.now += 1 / 21
        seconds[given.speaker == "alone"] += 1
    assert seconds[True] > 200


def test_texts_that_cut_in_on_others_are_counted(clock: Clock) -> None:
    """Those that cut in on nobody are not."""
    is_under_way = False
    counted = Members(Requests(Stats()), lambda: is_under_way, lambda _: True)
    one, two = Guest("c1", ""), Guest("c2", "")

    def write(who: Guest) -> bool:
        return counted.may(UserText("hello", "id"), who)

    assert all(write(one) for _ in range(100))
    assert all(write(who) for who in (one, two) * 50)
    is_under_way = True
    assert all(write(two) for _ in range(100))
    assert all(write(who) for who in (one, two) * 20)
    assert not any(write(one) for _ in range(5))  # two has written last
    assert [each.id for each in one.told if isinstance(each, Error)] == ["id"] * 5
    assert write(two)
    clock.now += 11
    assert write(one)


def test_texts_that_cut_in_on_requests_are_counted() -> None:
    requests = Requests(Stats())
    counted = Members(requests, lambda: True, lambda _: True)
    one, two = Guest("c1", ""), Guest("c2", "")
    requests.take(UserText("question"), two)
    assert 20 <= sum(counted.may(UserText("hello"), one) for _ in range(50)) < 25
    assert all(counted.may(UserText("hello"), two) for _ in range(10))


def test_speech_gives_way_to_who_has_waited_for_an_answer(clock: Clock) -> None:
    heard: list[object] = []
    refused: list[str] = []
    requests = Requests(Stats())
    given = Floor(mic_ms=40, hear=heard.append, refuse=refused.append, others=requests.has_others)
    noise, asker = Guest("noise", ""), Guest("asker", "")

    def speak(seconds: int) -> int:
        """How many seconds were heard."""
        before = len(heard)
        for _ in range(seconds):
            given.offer("noise", UserAudio(SECOND), member_of(noise))
            clock.now += 1
        return sum(isinstance(each, UserAudio) for each in heard[before:])

    assert speak(60) == 60
    request, _ = requests.take(UserText("question"), asker)
    request.came = clock.now
    assert speak(30) == 30  # it may be that the other has not waited long
    assert speak(30) == 0
    assert refused[0] == "noise"
    assert isinstance(heard[-1], AudioEnd)
    requests.begin()
    assert speak(120) == 0  # the answer is not interrupted, however long it takes
    requests.answered()
    assert speak(10) == 10


def test_who_is_a_member() -> None:
    assert member_of(Guest("c1", "")) == Member("c1")
    assert member_of(Guest("c1", "203.0.113.1")) == Member("c1", "203.0.113.1")
    one, two = (member_of(Guest(name, "203.0.113.1", "own")) for name in ("c1", "c2"))
    assert one == two != member_of(Guest("c1", "203.0.113.2", "own"))
