"""What is counted for a member, and what for all connections of an address."""

from __future__ import annotations

from array import array
from typing import Literal

import pytest

from adk_relay.core import allowance, floor, members
from adk_relay.core.floor import Floor
from adk_relay.core.listener import Member, member_of
from adk_relay.core.members import Members
from adk_relay.core.messages import Interrupt, Message, UserAudio, UserTyping
from support.clock import Clock

SECOND = array("h", [1_000, -1_000] * 8_000).tobytes()


class Guest:
    """A listener who has not signed in."""

    name = member = ""
    is_audio = False

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
    for module in (allowance, floor, members):
        monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.mark.usefixtures("clock")
def test_many_connections_of_an_address_are_not_as_many_members() -> None:
    counted = Members()
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


def test_who_is_a_member() -> None:
    assert member_of(Guest("c1", "")) == Member("c1")
    assert member_of(Guest("c1", "203.0.113.1")) == Member("c1", "203.0.113.1")
    one, two = (member_of(Guest(name, "203.0.113.1", "own")) for name in ("c1", "c2"))
    assert one == two != member_of(Guest("c1", "203.0.113.2", "own"))
