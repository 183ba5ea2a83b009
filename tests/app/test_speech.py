"""What the model is told of a user's speech besides its sound: where it begins and ends."""

from __future__ import annotations

from base64 import b64encode

import pytest
from google.adk.agents.run_config import RunConfig
from google.genai import types

from support.chat import taken
from support.client import client, words
from support.gemini import GeminiLive, silence, speech
from support.server import a_relay, serving

MANUAL = RunConfig(
    response_modalities=[types.Modality.AUDIO],
    realtime_input_config=types.RealtimeInputConfig(
        automatic_activity_detection=types.AutomaticActivityDetection(disabled=True)
    ),
    session_resumption=types.SessionResumptionConfig(),
)


@pytest.mark.voice
@pytest.mark.parametrize("rate", [16_000, 48_000])
async def test_speech_is_answered_although_the_service_ignores_its_end(gemini: GeminiLive, rate: int) -> None:
    gemini.heeds_stream_end = False
    async with serving(a_relay()) as port, client(port, audio=True) as alice:
        sound = b64encode(speech(200, rate)).decode()
        await alice.send(mime_type=f"audio/pcm;rate={rate}", data=sound)
        await alice.send(type="audio_end")
        assert words(await alice.turn()) == "I heard you."
        await gemini.wait_for(lambda: gemini.connections[0].audio_stream_ends == 1)
    assert bytes(gemini.connections[0].audio) == speech(200, rate) + silence(500, rate)
    assert gemini.connections[0].rates == {rate}


@pytest.mark.voice
async def test_with_push_to_talk_the_client_tells_when_its_user_speaks(gemini: GeminiLive) -> None:
    async with serving(a_relay(run_config=MANUAL)) as port, client(port, audio=True) as alice:
        assert alice.hello["push_to_talk"] is True
        for _ in range(2):
            await alice.send(type="activity_start")
            await alice.socket.send(speech(200))
            await alice.socket.send(silence(400))  # ends nothing
            await alice.socket.send(speech(400))
            await alice.send(type="activity_end")
            assert words(await alice.turn()) == "I heard you."
    said = speech(200) + silence(400) + speech(400)
    assert gemini.connections[0].activities == [said, said]
    assert gemini.connections[0].audio_stream_ends == 0


@pytest.mark.voice
async def test_sound_alone_begins_an_activity(gemini: GeminiLive) -> None:
    """Of a client that knows of no push to talk, and of one whose beginning was lost with a connection."""
    async with serving(a_relay(run_config=MANUAL)) as port, client(port, audio=True) as alice:
        await alice.send(type="activity_start")
        connection = await gemini.connection()
        connection.abort()
        await alice.until(lambda said: said.get("state") == "live")
        await alice.socket.send(speech(200))
        await alice.send(type="audio_end")
        assert words(await alice.turn()) == "I heard you."
    assert gemini.connections[-1].activities == [speech(200)]


async def test_who_leaves_while_speaking_has_finished(gemini: GeminiLive) -> None:
    relay = a_relay(run_config=MANUAL)
    async with serving(relay) as port, client(port, audio=True) as alice:
        async with client(port, audio=True) as bob:
            await bob.send(type="activity_start")
            await bob.socket.send(speech(200))
        assert words(await alice.turn()) == "I heard you."


async def test_the_floor_is_taken_by_the_beginning(gemini: GeminiLive) -> None:
    async with (
        serving(a_relay(run_config=MANUAL)) as port,
        client(port, audio=True) as alice,
        client(port, audio=True) as bob,
    ):
        await gemini.connection()
        await alice.send(type="activity_start")
        await taken(alice)
        await bob.send(type="activity_start")
        refusal = await bob.until(lambda said: said.get("type") == "error")
        assert refusal[-1]["code"] == "busy"
        await bob.send(type="activity_end")
        await alice.socket.send(speech(200))
        await alice.send(type="activity_end")
        assert words(await alice.turn()) == "I heard you."
    assert gemini.connections[0].activities == [speech(200)]


async def test_with_detection_a_beginning_is_not_passed_on(gemini: GeminiLive) -> None:
    """The service would close the connection."""
    async with serving(a_relay()) as port, client(port, audio=True) as alice:
        assert "push_to_talk" not in alice.hello
        await alice.send(type="activity_start")
        await alice.socket.send(speech(200))
        await alice.send(type="activity_end")
        assert words(await alice.turn()) == "I heard you."
        await gemini.wait_for(lambda: gemini.connections[0].audio_stream_ends == 1)


async def test_a_configuration_without_resumption_is_honored(gemini: GeminiLive) -> None:
    config = RunConfig(response_modalities=[types.Modality.AUDIO])
    assert config.session_resumption is None
    async with serving(a_relay(run_config=config)) as port, client(port) as alice:
        await alice.ask("one")
        await gemini.connections[0].go_away(5)
        await gemini.wait_for(lambda: len(gemini.connections) == 2 or not gemini.open_connections)
        await alice.ask("two")
    assert all("sessionResumption" not in connection.setup for connection in gemini.connections)
    assert gemini.connections[-1].context[0] == ("user", "one")
