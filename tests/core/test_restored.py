"""Requests of an owner of a conversation before, of which not all was recorded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from adk_relay.core.answer import Answer, Asked
from adk_relay.core.inbox import Inbox
from adk_relay.core.listener import Member
from adk_relay.core.messages import Ack, Ended, Error, Message, TurnEnd, UserText
from adk_relay.core.past import Past
from adk_relay.core.recorded import Checkpoint, Requested, Told
from adk_relay.core.requests import Requests, Stats
from adk_relay.core.room import Room
from adk_relay.core.writing import Writing
from support.clock import TimedLoop


class Client:
    """A listener that remembers what it was told."""

    name = member = address = ""
    is_audio = False
    connects = False

    def __init__(self, connection_id: str, attends: Literal["all", "own"]) -> None:
        self.connection_id = connection_id
        self.attends = attends
        self.told: list[Message] = []

    def deliver(self, message: Message) -> None:
        self.told.append(message)

    def replay(self, messages: Sequence[Message]) -> None:
        self.told += messages


def test_a_request_that_an_owner_before_has_answered_ends() -> None:
    """Whoever waits for the answer asks the new owner: it is told if it is kept, or else an error is."""
    loop, requests, inbox = TimedLoop(), Requests(Stats()), Inbox(on_dropped=lambda ms: None)
    room = Room(requests, replay_bytes=1000, replay_seconds=60.0)
    writing = Writing(
        room, requests, inbox, is_owed=lambda: False, would_cut_in=lambda: False, want=lambda: None
    )
    end = TurnEnd(1, answer=Answer("Hello.", 1, (), 0.1, 2, False, Asked("alice", "answered")))
    past = Past()
    for entry in (
        Checkpoint("epoch", 0),
        Told(end),
        Requested(7, UserText("3", "begun"), "alice", "", Member("", ""), True, 0),
    ):
        past.apply(entry)
    room.restore(past)
    stored = [UserText("1", "answered"), UserText("2", "lost"), UserText("3", "begun")]
    loop.call(lambda: writing.restore(past, [], stored))
    client = Client("alice", "own")
    for text in stored[:2]:
        loop.call(lambda text=text: writing.ask(text, client))  # type: ignore[misc]
    failed = Error("agent_failed", "The answer is lost: ask again.", "lost")
    assert client.told == [Ack("answered"), end, Ack("lost"), failed, Ended("failed")]
    assert (
        requests.current and requests.current.text == stored[2]
    )  # its answer is owed, and it is not said again
    assert not requests.waiting
    loop.call(lambda: writing.ask(stored[2], client))
    assert requests.current.listener is client
    writing.close()
    room.close()
    loop.close()
