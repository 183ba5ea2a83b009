"""The short way of sound, to the model: it gets the same frames, in the same order, as on the long way."""

from __future__ import annotations

import asyncio
import json
import logging
from random import Random
from typing import Any

import pytest
from google.adk.agents import LlmAgent
from websockets.asyncio.client import ClientConnection

from adk_relay.core.messages import AudioEnd, Error, Message, Status, UserAudio, UserImage
from support.gemini import Connection, GeminiLive, Plan, UserTurn, silence, speech
from support.live import PNG
from support.sound import (
    GEMINI_3,
    WAYS,
    Attendee,
    Seen,
    Way,
    attending,
    backends,
    both_ways,
    models,
    on_vertex,
    relay_of,
    timeless,
)
from support.turns import lookup

CHUNK = 1280
"""Bytes of 40 ms at 16 kHz."""


def kinds(received: list[str | bytes]) -> list[str]:
    """What the frames are, in order."""
    found = []
    for frame in received:
        ((kind, value),) = json.loads(frame).items()
        found.append(next(iter(value)) if kind == "realtime_input" else kind)
    return found


async def silent(connection: Connection, turn: UserTurn) -> None:
    """A model that has nothing to say."""


def noise(seed: int, size: int) -> bytes:
    """Sound that is too quiet to be speech. Its base64 has all characters."""
    pcm = Random(seed).randbytes(size)
    return bytes(0 if index % 2 else byte for index, byte in enumerate(pcm))


@backends
@models
async def test_each_frame_is_what_google_genai_would_have_written(
    gemini: GeminiLive, monkeypatch: pytest.MonkeyPatch, seen: Seen, model: str, vertex: bool
) -> None:
    if vertex:
        on_vertex(monkeypatch)
    gemini.answer = silent
    sizes = [2, 30, 64, CHUNK, 1920]
    chunks = [UserAudio(noise(size, size), rate) for size in sizes for rate in (16_000, 24_000)]
    chunks += [UserAudio(silence(40)), UserAudio(silence(40, 24_000), 24_000), UserAudio(b"\0\0")]
    chunks += [UserAudio(noise(7, 48_000), 24_000), UserAudio(b"\xff\xff"), UserAudio(speech(1000))]
    Random(1).shuffle(chunks)
    received: list[tuple[list[str | bytes], int]] = []
    for way in WAYS:
        async with attending(relay_of(way, model, mic_ms=0)) as alice:
            connection = await gemini.connection(len(received))
            for chunk in chunks:
                alice.say(chunk)
            await gemini.wait_for(lambda: len(connection.received) == len(chunks))  # noqa: B023
            received.append((connection.received, len(seen.up)))
    (short, seen_first), (long, seen_in_all) = received
    assert short == long
    assert {*kinds(short)} == {"audio" if model == GEMINI_3 else "mediaChunks"}
    # google-genai has written one chunk of each rate, and those before it that are too short to tell.
    assert 2 <= seen_first < 8
    assert seen_in_all - seen_first == len(chunks)


async def all_kinds_of_input(gemini: GeminiLive, way: Way, model: str) -> list[str | bytes]:
    """The frames that the model gets if the user sends everything at once, and then one after the other."""

    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text == "call":
            await connection.call_tool("lookup", {"word": "ei"}, "call 1")

    gemini.answer = answer
    gate = asyncio.Event()
    gemini.on_connect = lambda number: Plan(gate=gate)
    agent = LlmAgent(name="tester", model=model, tools=[lookup])
    index = len(gemini.connections)
    async with attending(relay_of(way, agent=agent)) as alice:
        one_second = noise(1, 25 * CHUNK)
        alice.speak(one_second)
        alice.ask("a text after a second of sound")
        alice.say(UserImage(PNG, "image/png"))
        alice.say(AudioEnd())
        alice.speak(one_second)
        gate.set()
        connection = await gemini.connection(index)
        await gemini.wait_for(lambda: len(connection.received) == 54)
        sound = UserAudio(noise(2, CHUNK))
        steps: list[Any] = [
            sound,
            "text",
            sound,
            sound,
            UserImage(PNG, "image/png"),
            sound,
            "call",
            sound,
            AudioEnd(),
        ]
        ends = 0
        for count, step in enumerate([*steps, *steps[:-3], sound, AudioEnd()], start=55):
            if isinstance(step, str):
                alice.ask(step)
            else:
                alice.say(step)
            ends += step == AudioEnd()  # silence goes before the end
            expected = count + ends + bool(connection.tool_responses) + (step == "call")
            await gemini.wait_for(lambda: len(connection.received) == expected)  # noqa: B023
        return connection.received


@models
async def test_sound_keeps_its_place_among_all_other_input(gemini: GeminiLive, model: str) -> None:
    on_the_short_way = await all_kinds_of_input(gemini, "short", model)
    on_the_long_way = await all_kinds_of_input(gemini, "long", model)
    assert kinds(on_the_short_way) == kinds(on_the_long_way)
    assert on_the_short_way == on_the_long_way
    assert "tool_response" in kinds(on_the_short_way)


@models
async def test_a_text_overtakes_no_more_sound_than_on_the_long_way(gemini: GeminiLive, model: str) -> None:
    gemini.answer = silent
    sent_before_the_text = []
    for index, way in enumerate(WAYS):
        async with attending(relay_of(way, model)) as alice:
            connection = await gemini.connection(index)
            alice.speak(speech(40))
            await gemini.wait_for(lambda: connection.received)  # noqa: B023
            alice.speak(noise(1, 25 * CHUNK))
            for _ in range(20):  # ADK takes some of it
                await asyncio.sleep(0)
            alice.ask("hello")
            await gemini.wait_for(lambda: len(connection.received) == 27)  # noqa: B023
            text = "text" if model == GEMINI_3 else "client_content"
            sent_before_the_text.append(kinds(connection.received).index(text))
    short, long = sent_before_the_text
    assert long <= short < 26


@both_ways
@models
async def test_sound_waits_for_the_history(
    gemini: GeminiLive, quick_retries: None, seen: Seen, way: Way, model: str
) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        if connection.number == 1:
            await connection.say("I am ", complete=False)
            connection.abort()

    gemini.answer = answer
    gemini.on_connect = {2: Plan(delay=0.3)}.get
    async with attending(relay_of(way, model)) as alice:
        alice.speak(noise(1, CHUNK))
        alice.ask("hello")
        await alice.until(lambda message: message == Status("reconnecting"))
        sound = noise(2, 25 * CHUNK)
        alice.speak(sound)  # while there is no connection, and no setup
        connection = await gemini.connection(1)
        await gemini.wait_for(lambda: len(connection.audio) == len(sound))
        assert connection.audio == sound
        before_sound = ["client_content", "text"] if model == GEMINI_3 else ["client_content"]
        assert kinds(connection.received)[: len(before_sound)] == before_sound
        assert {*kinds(connection.received)[len(before_sound) :]} <= {"audio", "mediaChunks"}
    assert len(seen.up) == (2 if way == "short" else 26)


@both_ways
@models
async def test_a_sub_agent_takes_over_in_the_middle_of_speech(
    gemini: GeminiLive, seen: Seen, way: Way, model: str
) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        if connection.number == 1 and turn.text:
            await connection.call_tool("transfer_to_agent", {"agent_name": "other"})

    gemini.answer = answer
    agent = LlmAgent(name="tester", model=model, sub_agents=[LlmAgent(name="other", model=model)])
    async with attending(relay_of(way, agent=agent)) as alice:
        first = await gemini.connection()
        chunks = [noise(number, CHUNK) for number in range(1000)]
        alice.ask("let me talk to the other")
        for chunk in chunks:
            alice.speak(chunk)
            await asyncio.sleep(0.002)
        second = await gemini.connection(1)
        await gemini.wait_for(lambda: second.audio.endswith(chunks[-1]))
    heard = bytes(first.audio + second.audio)
    heard_chunks = [heard[start : start + CHUNK] for start in range(0, len(heard), CHUNK)]
    assert len(first.audio) > CHUNK
    assert len(second.audio) > CHUNK
    # ADK cancels its sending task before the sub-agent takes over: what it had in its hands is lost.
    assert len(chunks) - len(heard_chunks) <= 1
    assert heard_chunks == [chunk for chunk in chunks if chunk in heard_chunks]
    found = kinds(second.received)
    before_sound = 2 if model == GEMINI_3 else 1
    assert found[0] == "client_content"
    assert {*found[before_sound:]} <= {"audio", "mediaChunks"}
    assert len(seen.up) == 2 if way == "short" else len(seen.up) >= len(heard_chunks)


@models
async def test_a_connection_that_breaks_under_speech(
    gemini: GeminiLive, quick_retries: None, caplog: pytest.LogCaptureFixture, model: str
) -> None:
    told: list[list[Message]] = []
    logged: list[list[str]] = []
    gemini.answer = silent
    for way in WAYS:
        caplog.clear()
        async with attending(relay_of(way, model)) as alice:
            index = len(gemini.connections)
            connection = await gemini.connection(index)
            talking = asyncio.create_task(_talk(alice))
            await gemini.wait_for(lambda: len(connection.audio) > 10 * CHUNK)  # noqa: B023
            connection.abort()
            await alice.until(lambda message: message == Status("live"))
            after = await gemini.connection(index + 1)
            await gemini.wait_for(lambda: len(after.audio) > 10 * CHUNK)  # noqa: B023
            talking.cancel()
            told.append(timeless(alice.messages))
        logged.append([record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING])
    assert told[0] == told[1]
    assert [type(message) for message in told[0]] == [Status, Error, Status]
    assert [len(lines) for lines in logged] == [1, 1]
    assert all("try 2 of 5" in lines[0] for lines in logged)


async def _talk(alice: Attendee) -> None:
    while True:
        alice.speak(speech(40))
        await asyncio.sleep(0.005)


@both_ways
async def test_sound_that_cannot_be_sent_is_a_loss(
    gemini: GeminiLive,
    monkeypatch: pytest.MonkeyPatch,
    quick_retries: None,
    caplog: pytest.LogCaptureFixture,
    way: Way,
) -> None:
    """Also if the receiving side sees nothing of it."""
    gemini.answer = silent
    async with attending(relay_of(way)) as alice:
        connection = await gemini.connection()
        alice.speak(speech(200))
        await gemini.wait_for(lambda: len(connection.audio) == 5 * CHUNK)

        async def fail(*args: Any, **options: Any) -> None:
            raise OSError("out of buffers")

        with monkeypatch.context() as patch:
            patch.setattr(ClientConnection, "send", fail)
            alice.speak(speech(40))
            await alice.until(lambda message: message == Status("reconnecting"))
        await alice.until(lambda message: message == Status("live"))
        assert any(isinstance(message, Error) and message.code == "speech_lost" for message in alice.messages)
    assert len([record for record in caplog.records if "out of buffers" in record.getMessage()]) == 1
