"""Clients that come back after the process was killed, or because they were too slow."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from support.gemini import Connection, GeminiLive, UserTurn
from support.process import PYTHON, serving_warm
from support.proxy import Cut, Proxy
from support.server import a_relay, serving
from support.traveler import (
    CHUNK,
    ONE_AND_TWO,
    Traveler,
    emitted,
    is_ack,
    is_end,
    is_over,
    is_type,
    texts,
    uncut,
)

pytestmark = [pytest.mark.usefixtures("no_errors"), pytest.mark.voice]


# ---- the process is killed -------------------------------------------------------------------


async def test_killed_in_mid_answer_and_started_again(gemini: GeminiLive, tmp_path: Path) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text == "go on":
            await connection.say("word " * 10_000, delay=0.01)
        else:
            await connection.say(f"You said: {turn.text}.")

    gemini.answer = answer
    environment = {"RELAY_SESSIONS": f"sqlite:///{tmp_path}/kept/session.db", **gemini.env}
    async with Traveler(0) as one:
        async with serving_warm(PYTHON, tmp_path, **environment) as relay:
            one.port = relay.port
            await one.greeted()
            for text in ("one", "two"):
                await one.say(text, f"id of {text}")
                await one.until(is_end)
            await one.say("go on", "id of go on")
            await one.until(is_ack("id of go on"))
            await one.until(is_type("sound"))
            assert await relay.stop(signal.SIGKILL) == -signal.SIGKILL
        before = one.epoch
        async with serving_warm(PYTHON, tmp_path, **environment) as relay:
            one.port = relay.port
            while not one.gaps or len(one.lines) < one.gaps[-1]["messages"]:
                await one.next()
            assert one.gaps == [{"type": "gap", "from": 1, "to": 0, "messages": 5}]
            assert one.lines == [*ONE_AND_TWO, *(line | {"unanswered": True} for line in texts("go on"))]
            assert one.epoch != before
            await one.say("three", "id of three")
            await one.until(is_end)
            assert one.words == "You said: three."
            await one.leave()
            assert relay.problems() == []
    context = gemini.connections[-1].context
    assert context[:5] == [
        ("user", "one"),
        ("model", "You said: one."),
        ("user", "two"),
        ("model", "You said: two."),
        ("user", "go on"),
    ]
    assert context[-2:] == [("user", "three"), ("model", "You said: three.")]
    assert Counter(text for who, text in context if who == "user").most_common(1)[0][1] == 1


# ---- slow clients ----------------------------------------------------------------------------


async def much_sound(connection: Connection, turn: UserTurn) -> None:
    await connection.say("Listen.", complete=False)
    await connection.send_audio(600)
    await connection.say(" That was it.")


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "base64"])
async def test_a_slow_client_that_is_cut_between_merged_frames_goes_on_exactly(
    gemini: GeminiLive, small_send_buffer: None, binary: bool
) -> None:
    gemini.answer = much_sound
    relay = a_relay(grace=30, slow_timeout=30)
    async with serving(relay) as port, Proxy(port) as network, Traveler(network.port, binary=binary) as one:
        expected = await uncut(port, binary=binary)
        network.cuts += [Cut(messages=40), *(Cut(messages=4) for _ in range(5))]
        await one.say("go", "q")
        await one.until(is_type("sound"))
        line = network.lines[0]
        line.hold()
        await emitted(relay, is_over)
        line.flow()
        await one.until(is_end)
        assert one.story == expected
        assert len(one.hellos) == 7
        # The frames that waited were merged, and the replayed ones, too.
        sizes = [len(said["pcm"]) for said in one.said if said.get("type") == "sound"]
        assert max(sizes) > 2 * CHUNK


async def test_a_client_that_was_given_up_as_too_slow_comes_back_for_the_rest(
    gemini: GeminiLive, small_send_buffer: None
) -> None:
    gemini.answer = much_sound
    relay = a_relay(grace=30, slow_timeout=0.5)
    async with serving(relay) as port, Proxy(port) as network, Traveler(network.port) as one:
        await one.greeted()
        line = network.lines[0]
        line.hold()
        await one.say("go", "q")
        await emitted(relay, lambda room: is_over(room) and not room.listeners)
        line.flow()
        with pytest.raises(ConnectionClosed) as closed:
            await one.until(is_end)
        assert closed.value.rcvd
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1013, "too slow")
        connection = gemini.connections[0]
        assert len(one.sound) < len(connection.sound)
        await one.until(is_end)
        assert one.sound == connection.sound
        assert one.words == connection.context[-1][1]
        assert not one.gaps
        assert not any(said.get("type") == "dropped" for said in one.notices)


async def test_a_client_whose_words_did_not_fit_comes_back_for_the_rest(
    gemini: GeminiLive, small_send_buffer: None
) -> None:
    pieces = [f"{n} ".ljust(8_000, ".") for n in range(200)]

    async def answer(connection: Connection, turn: UserTurn) -> None:
        for piece in pieces:
            await connection.send_text_parts(piece)
        await connection.turn_complete()

    gemini.answer = answer
    relay = a_relay(grace=30, queue_bytes=50_000, slow_timeout=30)
    async with serving(relay) as port, Proxy(port) as network, Traveler(network.port) as one:
        await one.greeted()
        line = network.lines[0]
        line.hold()
        await one.say("go", "q")
        await emitted(relay, is_over)
        line.flow()
        with pytest.raises(ConnectionClosed) as closed:
            await one.until(is_end)
        assert closed.value.rcvd
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1013, "too slow")
        await one.until(is_end)
        assert one.words == "".join(pieces)
        assert not one.gaps


async def test_a_replay_is_larger_than_the_queue(gemini: GeminiLive, small_send_buffer: None) -> None:
    """The replay arrives whole, and so does what the agent says meanwhile."""
    go_on = asyncio.Event()

    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.say("Listen.", complete=False)
        await connection.send_audio(600)
        await go_on.wait()
        await connection.send_audio(10)
        await connection.say(" That was it.")

    gemini.answer = answer
    relay = a_relay(grace=30, queue_bytes=100_000, slow_timeout=30)
    async with serving(relay) as port, Proxy(port) as network, Traveler(network.port) as one:
        await one.say("go", "q")
        await one.until(is_ack("q"))
        network.lines[0].cut()
        await emitted(relay, lambda room: room.seq == 604)
        await one.greeted()
        network.lines[1].hold()
        go_on.set()
        await emitted(relay, is_over)
        network.lines[1].flow()
        await one.until(is_end)
        assert one.sound == gemini.connections[0].sound
        assert len(one.sound) > 10 * 100_000
        assert one.words == gemini.connections[0].said
        assert not any(said.get("type") == "dropped" for said in one.notices)
