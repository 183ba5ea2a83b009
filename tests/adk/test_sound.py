"""The short way of sound, from the model: what a listener gets is the same as on the long way."""

from __future__ import annotations

from random import Random

import pytest
from google.adk.agents import LlmAgent

from adk_relay.core.messages import Audio, Message
from support.gemini import GeminiLive
from support.sound import (
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
    """What a listener gets of some random turns."""
    player = Player(seed, turns(Random(seed)))
    player.play_on(gemini)
    agent = LlmAgent(name="tester", model=model, tools=[lookup])
    async with attending(relay_of(way, agent=agent)) as alice:
        await player.listen(alice)
        return timeless(alice.messages)


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
