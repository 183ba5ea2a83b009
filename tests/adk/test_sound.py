"""The short way of sound, from the model: what a listener gets is the same as on the long way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from random import Random
from typing import Any

import pytest
from google.adk.agents import LlmAgent
from google.adk.events import Event
from google.adk.live import _runner_utils
from google.adk.models import BaseLlm
from google.adk.models.llm_request import LlmRequest
from google.adk.models.llm_response import LlmResponse
from google.adk.tools.agent_tool import AgentTool
from google.genai import types

from adk_relay.core.messages import Audio, Message, Text, ToolComplete
from adk_relay.core.room import After
from support.gemini import Connection, GeminiLive, UserTurn, tone
from support.sound import (
    GEMINI_3,
    Attendee,
    Seen,
    Way,
    attending,
    backends,
    models,
    on_vertex,
    reasons,
    relay_of,
    timeless,
)
from support.turns import Player, lookup, turns


async def told(gemini: GeminiLive, way: Way, model: str, seed: int) -> list[Message]:
    """What a listener gets of some random turns, and then what is replayed to one that comes late."""
    player = Player(seed, turns(Random(seed)))
    player.play_on(gemini)
    agent = LlmAgent(name="tester", model=model, tools=[lookup])
    async with attending(relay_of(way, agent=agent)) as alice:
        await player.listen(alice)
        late = Attendee(alice.conversation, "late")
        alice.conversation.attach(late, After(None, len(alice.messages) // 4))
        return timeless([*alice.messages, *late.messages])


def legible(messages: list[Message]) -> list[str]:
    """Messages in lines that a failed test can show: of sound, the length and a digest."""
    return [
        f"Audio {message.seq}: {len(message.pcm)} bytes {hash(message.pcm)}"
        if isinstance(message, Audio)
        else str(message)
        for message in messages
    ]


@backends
@models
@pytest.mark.parametrize("seed", range(4))
async def test_random_turns_are_the_same_on_both_ways(
    gemini: GeminiLive,
    monkeypatch: pytest.MonkeyPatch,
    seen: Seen,
    caplog: pytest.LogCaptureFixture,
    model: str,
    vertex: bool,
    seed: int,
) -> None:
    if vertex:
        on_vertex(monkeypatch)
    on_the_short_way = await told(gemini, "short", model, seed)
    seen_first = len(seen.down)
    on_the_long_way = await told(gemini, "long", model, seed)
    assert legible(on_the_short_way) == legible(on_the_long_way)
    player = Player(seed, turns(Random(seed)))
    assert seen_first == player.sound_parts(alone=False)
    assert len(seen.down) - seen_first == player.sound_parts(alone=False) + player.sound_parts(alone=True)
    assert reasons(caplog) == []


async def test_an_event_never_comes_after_the_sound_that_followed_it(gemini: GeminiLive, seen: Seen) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        for number in range(100):
            await connection.send({"serverContent": {"outputTranscription": {"text": f"{number} "}}})
            await connection.send_audio(2)
        await connection.turn_complete()

    gemini.answer = answer
    async with attending(relay_of("short")) as alice:
        alice.ask("hello")
        await alice.turn()
        content = [message for message in alice.messages if isinstance(message, Text | Audio)]
    expected = []
    for number in range(100):
        expected += [f"{number} ", tone(2 * number), tone(2 * number + 1)]
    assert [message.text if isinstance(message, Text) else message.pcm for message in content] == expected
    assert seen.down == []


async def test_an_event_that_never_comes_out_of_adk(
    gemini: GeminiLive, monkeypatch: pytest.MonkeyPatch, seen: Seen, caplog: pytest.LogCaptureFixture
) -> None:
    """Sound waits a second for it, and then takes the long way, in this conversation and in later ones."""
    merged = _runner_utils._merge_live_event_streams

    async def without_some(*arguments: Any) -> AsyncIterator[Event]:
        async with aclosing(merged(*arguments)) as events:
            async for event in events:
                spoken = event.output_transcription
                if not (spoken and spoken.text == "is lost"):
                    yield event

    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.send_audio(3)
        await connection.send({"serverContent": {"outputTranscription": {"text": "is lost"}}})
        await connection.send_audio(5)
        await connection.turn_complete()

    monkeypatch.setattr(_runner_utils, "_merge_live_event_streams", without_some)
    gemini.answer = answer
    relay = relay_of("short")
    async with attending(relay) as alice:
        bob = Attendee(await relay.conversations.open("bob"), "bob")
        alice.ask("hello")
        await alice.turn()
        assert alice.sound == gemini.connections[0].sound
        assert len(seen.down) == 5
        bob.conversation.attach(bob)
        bob.ask("hello")
        await bob.turn()
        assert bob.sound == gemini.connections[1].sound
        assert len(seen.down) == 5 + 8
    assert len(reasons(caplog)) == 1
    assert reasons(caplog)[0].startswith("WARNING")


async def test_a_process_that_stands_still(
    gemini: GeminiLive, monkeypatch: pytest.MonkeyPatch, seen: Seen, caplog: pytest.LogCaptureFixture
) -> None:
    """On a busy machine, an event may be late by the clock though ADK has had no time to pass it on."""
    merged = _runner_utils._merge_live_event_streams

    async def with_a_pause(*arguments: Any) -> AsyncIterator[Event]:
        async with aclosing(merged(*arguments)) as events:
            async for event in events:
                spoken = event.output_transcription
                if spoken and spoken.text == "is late":
                    asyncio.get_running_loop().call_later(0.02, time.sleep, 1.2)
                    await asyncio.sleep(0.1)
                yield event

    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.send({"serverContent": {"outputTranscription": {"text": "is late"}}})
        await connection.send_audio(5)
        await connection.turn_complete()

    monkeypatch.setattr(_runner_utils, "_merge_live_event_streams", with_a_pause)
    gemini.answer = answer
    async with attending(relay_of("short")) as alice:
        alice.ask("hello")
        await alice.turn()
        assert alice.sound == gemini.connections[0].sound
    assert seen.down == []
    assert reasons(caplog) == []


class Sage(BaseLlm):
    """A model that is not live."""

    async def generate_content_async(
        self, llm_request: LlmRequest, stream: bool = False
    ) -> AsyncGenerator[LlmResponse, None]:
        yield LlmResponse(content=types.Content(role="model", parts=[types.Part(text="42")]))


@pytest.mark.filterwarnings("ignore:The `plugins` argument is deprecated")
async def test_an_agent_that_is_a_tool(
    gemini: GeminiLive, seen: Seen, caplog: pytest.LogCaptureFixture
) -> None:
    """Its events pass the same plugins, and never come out of `run_live`: sound does not wait for them."""

    async def answer(connection: Connection, turn: UserTurn) -> None:
        result = await connection.call_tool("sage", {"request": "What is the answer?"})
        await connection.say(f"It is {result['result']}.")

    gemini.answer = answer
    sage = LlmAgent(name="sage", model=Sage(model="sage"))
    agent = LlmAgent(name="tester", model=GEMINI_3, tools=[AgentTool(sage)])
    async with attending(relay_of("short", agent=agent)) as alice:
        alice.ask("hello")
        await alice.turn()
        assert alice.sound == gemini.connections[0].sound
    results = [message.result for message in alice.messages if isinstance(message, ToolComplete)]
    assert results == [{"result": "42"}]
    assert seen.down == []
    assert reasons(caplog) == []
