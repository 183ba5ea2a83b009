"""A client that comes back for what is no longer kept: it gets the conversation in whole texts."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from support.client import Json, words
from support.gemini import Connection, GeminiLive, UserTurn
from support.plain_http import ask
from support.server import a_relay, serving
from support.traveler import (
    ONE_AND_TWO,
    Traveler,
    gone,
    interruptible,
    is_ack,
    is_end,
    is_interrupted,
    is_type,
    texts,
    told,
)

pytestmark = [pytest.mark.usefixtures("no_errors"), pytest.mark.voice, pytest.mark.bus]

NAMED = [line | ({"id": line["text"]} if line["role"] == "user" else {}) for line in ONE_AND_TWO]
"""The same, while the ids of the texts are still known."""


def gap(first: int, last: int, lines: list[Json]) -> list[Json]:
    return [{"type": "gap", "from": first, "to": last, "messages": len(lines)}, *lines]


async def one_and_two(port: int) -> tuple[str, list[Json]]:
    """Asks two questions; returns the epoch, and all frames that another client gets of them."""
    async with Traveler(port, audio=False) as one, Traveler(port, audio=False) as witness:
        await one.greeted()
        await witness.greeted()
        for text in ("one", "two"):
            await one.say(text, text)
            await one.until(is_end)
            await witness.until(is_end)
        return witness.epoch, witness.said


@pytest.mark.parametrize("kept", [{"replay_bytes": 2_000}, {"replay_bytes": 0}, {"replay_seconds": 0.2}])
async def test_what_is_no_longer_kept_is_told_in_whole_texts(
    gemini: GeminiLive, kept: dict[str, float]
) -> None:
    async with serving(a_relay(grace=30, **kept)) as port:
        epoch, said = await one_and_two(port)
        last = said[-1]["seq"]
        if "replay_seconds" in kept:
            await asyncio.sleep(0.25)
        for seq in (0, 1, last // 2, last - 1):
            told_ = await told(port, f"&after={epoch}.{seq}")
            if kept == {"replay_bytes": 2_000} and seq == last - 1:
                assert told_ == said[-1:]
            else:
                assert told_ == gap(seq + 1, last, NAMED)
        assert await told(port, f"&after={epoch}.{last}") == []


async def test_what_is_kept_for_some_time_is_replayed_until_then(gemini: GeminiLive) -> None:
    async with serving(a_relay(grace=30, replay_seconds=1)) as port:
        epoch, said = await one_and_two(port)
        last = said[-1]["seq"]
        assert await told(port, f"&after={epoch}.{last - 1}") == said[-1:]
        await asyncio.sleep(1)
        assert await told(port, f"&after={epoch}.{last - 1}") == gap(last, last, NAMED)


async def test_numbers_that_mean_nothing_here_are_a_gap(gemini: GeminiLive) -> None:
    async with serving(a_relay(grace=30)) as port:
        epoch, said = await one_and_two(port)
        last = said[-1]["seq"]
        everything = gap(1, last, NAMED)
        for after in ("0.0", f"another.{last}", f"{epoch}.{last + 1}", f"{last + 1}", f"{epoch}.{10**14}"):
            assert await told(port, f"&after={after}") == everything, after
        # These numbers are valid.
        assert await told(port, "") == []
        for after in (f"{epoch}.{last}", f"{last}"):
            assert await told(port, f"&after={after}") == []
        for seq in (one["seq"] for one in said):
            rest = [one for one in said if one["seq"] > seq]
            for after in (f"{epoch}.{seq}", f"{seq}"):
                assert merged(await told(port, f"&after={after}")) == merged(rest)
        # Another user's conversation has another epoch.
        assert await told(port, f"&after={epoch}.{last}", user="bob") == gap(1, 0, [])


async def test_a_conversation_that_has_not_begun_is_an_empty_gap(gemini: GeminiLive) -> None:
    async with serving(a_relay()) as port, Traveler(port, audio=False, epoch="0") as one:
        await one.say("hello", "q")
        await one.until(is_end)
        assert one.gaps == gap(1, 0, [])
        assert one.lines == []
        assert one.words == "You said: hello."


@pytest.mark.parametrize(
    "after",
    ["", "x", "-1", "1.5.2", ".1", "a.", "a.-1", "a.b", "a%20b.1", "a.1%0a", "1" * 16, "a" * 65 + ".1"],
)
async def test_an_after_that_is_none_is_refused(after: str) -> None:
    async with serving(a_relay()) as port:
        url = f"ws://127.0.0.1:{port}/ws/alice?after={after}"
        with pytest.raises(InvalidStatus) as refused:
            await connect(url, proxy=None)
        assert refused.value.response.status_code == 404
        async with connect(url, subprotocols=[Subprotocol("relay.v1")], proxy=None) as socket:
            with pytest.raises(ConnectionClosed) as closed:
                await socket.recv()
        assert closed.value.rcvd
        assert closed.value.rcvd.code == 4404
        assert "after" in closed.value.rcvd.reason


async def test_a_life_later_the_whole_texts_are_there(gemini: GeminiLive) -> None:
    """After the grace, the session's messages belong to a new epoch."""
    relay = a_relay(grace=0.1)
    async with serving(relay) as port, Traveler(port) as one:
        await one.say("one", "q1")
        await one.until(is_end)
        before = one.epoch
        await one.leave()
        await gone(relay)
        await one.greeted()
        await one.say("two", "q2")
        await one.until(is_end)
        assert one.gaps == [{"type": "gap", "from": 1, "to": 0, "messages": 2}]
        assert one.lines == ONE_AND_TWO[:2]
        assert one.epoch != before
        assert one.words == "You said: two."
        assert one.said[0]["seq"] <= 3  # numbers of a new epoch begin with 1; the client's own text had one


async def test_a_cleared_conversation_is_another_epoch(gemini: GeminiLive) -> None:
    gemini.answer = interruptible
    async with serving(a_relay(grace=30)) as port:
        room: dict[str, Any] = {"user": "guest", "session_id": "a-room", "audio": False}
        async with Traveler(port, **room) as there, Traveler(port, **room) as away:
            await away.greeted()
            await there.say("go", "q")
            await there.until(lambda said: words([said]).endswith(" 19"))
            await away.until(lambda said: words([said]).endswith(" 19"))
            await away.leave()
            before = away.epoch
            assert (await ask(port, "/sessions/a-room/clear", "POST", Content_Length="0")).status == 200
            frames = await there.until(is_type("cleared"))
            assert sum(map(is_interrupted, frames)) == 1
            assert frames[-1] == {"type": "cleared", "epoch": there.epoch, "seq": 0}
            assert there.epoch != before
            await away.until(is_type("gap"))
            assert away.gaps == gap(1, 0, [])
            assert away.epoch == there.epoch
            # The talk goes on, and an id of the old epoch is free again.
            await there.say("well", "q")
            await there.until(is_end)
            await away.until(is_end)
            assert there.words == away.words == "Yes?"
            assert [said["text"] for said in away.said if said.get("type") == "message"] == ["well"]
            assert there.owed == {}
            # Only messages of the new epoch are replayed.
            again = await told(port, f"&session_id=a-room&after={there.epoch}.0", user="guest")
            assert merged(again) == [("message", ("user", "well")), *there.story]
        assert [one.context for one in gemini.connections if one.texts == ["well"]] == [
            [("user", "well"), ("model", "Yes?")]
        ]


async def test_of_what_is_too_long_for_a_gap_the_end_is_told(gemini: GeminiLive) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text == "go":
            for number in range(80):
                await connection.send_text_parts(f"{number} ß".ljust(16_000, "."))
            await connection.turn_complete()
        else:
            await connection.say("Yes?")

    gemini.answer = answer
    async with serving(a_relay(grace=30)) as port, Traveler(port, audio=False) as one:
        await one.greeted()
        for question in ("go", "well"):
            await one.say(question, question)
            await one.until(is_end)
        whole = one.words.removesuffix("Yes?")
        assert len(whole) > 1024 * 1024
        _, *lines = await told(port, "&after=0.0")
        assert [line["role"] for line in lines] == ["user", "agent", "user", "agent"]
        assert whole.endswith(lines[1]["text"])
        assert 500_000 < len(lines[1]["text"]) < 525_000
        assert [line["text"] for line in lines[2:]] == ["well", "Yes?"]


@pytest.mark.parametrize("kept", [4_000_000, 3_000, 0])
async def test_whoever_comes_in_mid_answer_gets_each_character_once(gemini: GeminiLive, kept: int) -> None:
    """Clients come at each moment of the answer, with or without its beginning, and get all of it."""
    moments = 25
    step: asyncio.Queue[str] = asyncio.Queue()

    async def answer(connection: Connection, turn: UserTurn) -> None:
        for _ in range(moments):
            await connection.say(await step.get(), complete=False)
        await connection.say(".")

    gemini.answer = answer
    relay = a_relay(grace=30, replay_bytes=kept)
    whole = "".join(f" [{n}]" for n in range(moments)) + "."
    async with serving(relay) as port, Traveler(port) as first, AsyncExitStack() as stack:
        await first.say("go", "q")
        await first.until(is_ack("q"))
        comers: list[Traveler] = []
        for moment in range(moments):
            for epoch in ("0", first.epoch):
                comer = Traveler(port, audio=moment % 2 == 0, epoch=epoch)
                comers.append(await stack.enter_async_context(comer))
                await comer.arrived()
            step.put_nowait(f" [{moment}]")
            await first.until(lambda said: words([said]))
            await first.until(is_type("sound"))
        for comer in [first, *comers]:
            await comer.until(is_end)
            assert everything(comer) == whole
            assert comer.lines[:1] in ([], [texts("go")[0] | {"id": "q"}])
            assert all(line["role"] == "agent" and line["open"] for line in comer.lines[1:])
        assert first.words == whole
        # Of the clients that name the right epoch: with 4 MB kept none gets a gap, with 3,000 bytes some do.
        gaps = sum(bool(comer.gaps) for comer in comers[1::2])
        assert gaps == {4_000_000: 0, 0: moments}.get(kept, gaps)
        assert kept != 3_000 or 0 < gaps < moments
        assert all(len(comer.gaps) == 1 for comer in comers[::2])


async def test_many_who_come_while_the_agent_speaks_as_fast_as_it_can(gemini: GeminiLive) -> None:
    whole = "".join(f" [{n}]" for n in range(300))

    one_is_there = asyncio.Event()

    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.say(whole[:600], audio=False, complete=False)
        await one_is_there.wait()
        await connection.say(whole[600:], audio=False)

    gemini.answer = answer
    dice = random.Random(6)
    relay = a_relay(grace=30, replay_bytes=15_000)
    async with serving(relay) as port, Traveler(port, audio=False) as first:
        await first.greeted()

        async def comes(seconds: float, epoch: str) -> Traveler:
            await asyncio.sleep(seconds)
            async with Traveler(port, audio=False, epoch=epoch) as comer:
                await comer.until(lambda said: is_end(said) or _is_closed_answer(said))
                return comer

        await first.say("go", "q")
        coming = [
            asyncio.create_task(comes(dice.uniform(0, 0.2), epoch)) for epoch in ("0", first.epoch) * 30
        ]
        await first.until(lambda said: words([said]))
        coming.append(asyncio.create_task(comes(0, "0")))
        await first.until(is_type("presence"))
        one_is_there.set()
        await first.until(is_end)
        comers = await asyncio.gather(*coming)
    assert first.words == whole
    for comer in comers:
        assert everything(comer) == whole
    assert any(line.get("open") for comer in comers for line in comer.lines)


def _is_closed_answer(said: Json) -> bool:
    return said.get("type") == "message" and said["role"] == "agent" and not said.get("open")


def everything(one: Traveler) -> str:
    """What the agent has said as far as the client knows, before a gap and after it."""
    return "".join(line["text"] for line in one.lines if line["role"] == "agent") + one.words


def merged(frames: list[Json]) -> list[tuple[str, Any]]:
    return Traveler(0, said=frames).story
