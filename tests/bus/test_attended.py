"""A conversation of another process, whose owner is played here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Literal

import pytest

from adk_relay.bus import link
from adk_relay.bus.attended import Attended
from adk_relay.bus.codec import decode
from adk_relay.bus.commands import Replay
from adk_relay.bus.hub import Hub
from adk_relay.bus.ownership import Owner
from adk_relay.core.answer import Answer, Asked
from adk_relay.core.inbox import InboxFullError
from adk_relay.core.messages import (
    Ack,
    Error,
    Gap,
    Message,
    Text,
    ToolComplete,
    ToolResult,
    TurnEnd,
    TurnStart,
    UserImage,
    UserText,
)
from adk_relay.core.room import After, Standing
from adk_relay.core.shape import Shape
from adk_relay.core.titles import Renamed
from adk_relay.core.voice import Configure, Configured, Voice
from support.redis_server import RedisServer


class Listener:
    """What is told it, in order."""

    name = member = address = ""
    is_audio = False
    connects = False
    attends: Literal["all"] = "all"

    def __init__(self, connection_id: str) -> None:
        self.connection_id = connection_id
        self.told: list[Message] = []

    def deliver(self, message: Message) -> None:
        self.told.append(message)

    def replay(self, messages: Sequence[Message]) -> None:
        self.told += messages


@pytest.fixture
async def attended(redis: RedisServer) -> AsyncIterator[Attended]:
    """It has an owner, whom nothing is sent really, and one listener, `a`, which is in."""
    hub = Hub(redis.url)
    attended = Attended(hub, "alice", "c", 40.0, lambda _: None)
    attended.found(Owner(1, "owner"))
    attended.opened(Standing("epoch", 10, 0, 0, ()), 0.0)
    yield attended
    await hub.aclose()


async def test_what_is_replayed_twice_is_told_once(attended: Attended) -> None:
    """A listener attends anew again, before the owner has answered both times before."""
    attended.attach(a := Listener("a"), After("epoch", 10))
    attended.attend_anew()
    first, second = Text(11, "first"), Text(12, "second")
    attended.take(["a"], Replay((first,), "epoch", 11))
    attended.take(["a"], second)
    attended.attend_anew()
    attended.take(["a"], Replay((TurnStart(None), first, second), "epoch", 12))
    attended.take(["a"], third := Text(13, "third"))
    attended.take(["a"], Replay((third,), "epoch", 13))
    assert a.told == [first, second, third]


async def test_a_gap_tells_an_epoch_that_the_listener_does_not_know(attended: Attended) -> None:
    attended.attach(a := Listener("a"), After("other", 5))
    gap = Gap(1, 10, 0)
    attended.take(["a"], Replay((gap,), "epoch", 10))
    attended.attend_anew()
    attended.take(["a"], Replay((gap,), "newer", 10))
    assert a.told == [gap, Gap(1, 10, 0, epoch="newer")]


async def test_who_comes_is_told_the_voice_and_the_title_that_others_were_told(attended: Attended) -> None:
    """The owner may have answered the one who comes a moment before."""
    attended.attach(Listener("a"), After("epoch", 10))
    attended.take([], Configured(Voice("Puck", "de-DE")))
    attended.take([], Renamed("Trip"))
    standing = attended.standing(None)
    assert (standing.voice, standing.title) == (Voice("Puck", "de-DE"), "Trip")


async def test_what_was_chosen_before_the_owner_knew_who_came_is_told(attended: Attended) -> None:
    attended.attach(a := Listener("a"))
    before = Configured(Voice())
    attended.take(["a"], Replay((), "epoch", 10, chosen=before))
    attended.attend_anew()
    attended.take(
        ["a"], Replay((), "epoch", 10, chosen=(chosen := Configured(Voice("Puck"), Shape("Rhyme."))))
    )
    attended.take([], Configured(chosen.voice, chosen.shape, "b", "1"))
    attended.attend_anew()
    attended.take(["a"], Replay((), "epoch", 10, chosen=chosen))
    assert a.told == [chosen, Configured(chosen.voice, chosen.shape, "b", "1")]
    assert attended.standing(None).shape == chosen.shape


async def test_an_ack_is_told_also_after_the_answer(attended: Attended) -> None:
    """It was lost with an owner, and the next one knows that the text is stored."""
    attended.attach(a := Listener("a"))
    attended.take(["a"], Replay((), "epoch", 10))
    attended.ask(UserText("hello", "1"), a)
    attended.attend_anew()
    end = TurnEnd(12, answer=Answer("Hello.", 1, (), 0.1, 2, False, Asked("a", "1")))
    attended.take(["a"], Replay((end,), "epoch", 12))
    for _ in range(2):
        attended.take(["a"], Ack("1"))
    assert a.told == [end, Ack("1")]


async def test_what_came_before_a_reply_is_known(attended: Attended) -> None:
    """Another listener comes; how the conversation stood then is heard after what was told since."""
    attended.attach(a := Listener("a"))
    attended.take(["a"], Replay((), "epoch", 10))
    attended.take(["a"], text := Text(11, "text"))
    attended.opened(Standing("epoch", 10, 0, 0, ()), 0.0)
    attended.attend_anew()
    attended.take(["a"], Replay((text,), "epoch", 11))
    assert a.told == [text]


async def test_what_is_refused_is_not_said_later(attended: Attended, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too much waits for its process, or of its own."""
    monkeypatch.setattr(link, "_CONTENT_BYTES", 2000)
    attended.attach(a := Listener("a"), After("epoch", 10))
    attended.handle(kept := UserText("k" * 1200, "1"), a)
    attended.handle(kept, a)  # again: it will be sent with what has to be sent anew
    for refused in (UserText("r" * 1200, "2"), UserImage(bytes(1200), "image/png")):
        with pytest.raises(InboxFullError):
            attended.handle(refused, a)
    with pytest.raises(InboxFullError):
        attended.ask(UserText("r" * 1200, "3"), a)
    attending = attended._attending["a"]
    assert ([*attending.texts], [*attending.pictures]) == (["1"], [])
    attended.lost(is_told=True)
    with pytest.raises(InboxFullError):
        for number in range(200):
            attended.handle(UserText("x" * 32 * 1024, f"{number}"), a)
    assert len(attending.texts) < 40


async def test_a_listener_that_the_owner_has_forgotten_misses_nothing(attended: Attended) -> None:
    """Its process was taken for dead; others of it come, and are told the rest, before it attends anew."""
    attended.attach(a := Listener("a"))
    attended.take(["a"], Replay((), "epoch", 10))
    attended.take(["a"], first := Text(11, "first"))
    attended.opened(Standing("epoch", 12, 0, 0, ()), 0.0)
    attended.attach(b := Listener("b"))
    attended.take(["b"], Replay((), "epoch", 12))
    attended.take(["b"], third := Text(13, "third"))
    attended.attend_anew()
    assert attended._attending["a"].after == After("epoch", 11)
    assert attended._attending["b"].after == After("epoch", 13)
    attended.take(["a"], Replay((second := Text(12, "second"), third), "epoch", 13))
    assert (a.told, b.told) == ([first, second, third], [third])


async def test_a_listener_that_the_owner_has_forgotten_learns_of_a_new_epoch(attended: Attended) -> None:
    attended.attach(a := Listener("a"))
    attended.take(["a"], Replay((), "epoch", 10))
    attended.opened(Standing("newer", 3, 0, 0, ()), 0.0)
    attended.attend_anew()
    assert attended._attending["a"].after == After("epoch", 10)
    attended.take(["a"], Replay((Gap(1, 3, 0),), "newer", 3))
    assert a.told == [Gap(1, 3, 0, epoch="newer")]


async def test_what_an_owner_took_into_death_is_said_to_the_next_one(
    attended: Attended, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[object] = []
    monkeypatch.setattr(Attended, "_send", lambda self, connection, data, **_: sent.append(decode(data)))
    attended.attach(a := Listener("a"))
    attended.take(["a"], Replay((), "epoch", 10))
    first, second, third = (ToolResult(each, "done") for each in ("1", "2", "3"))
    chosen = Configure(id="c", instructions="Rhyme.")
    for each in (first, second, third, chosen):
        attended.handle(each, a)
    attended.take(["a"], ToolComplete(11, "1", "paint", "done", ""))
    attended.lost(is_told=True)
    sent.clear()
    attended.found(Owner(2, "next"))
    assert sent[1:] == [second, third, chosen]
    # It knew of one of them already.
    attended.take(["a"], Replay((done := ToolComplete(12, "2", "paint", "done", ""),), "epoch", 12))
    for number in "23":
        attended.take(["a"], Error("bad_data", "No call waits.", tool_id=number))
    assert [each for each in a.told if isinstance(each, Error)] == [
        Error("bad_data", "No call waits.", tool_id="3")
    ]
    assert done in a.told
    attended.take(["a"], Configured(Voice(), id="c"))
    attended.check()
    sent.clear()
    attended.found(Owner(3, "another"))
    assert len(sent) == 1
