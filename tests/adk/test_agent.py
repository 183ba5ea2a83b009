"""What the service is asked for, and how what it says is told."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.adk.agents import LlmAgent
from google.adk.agents.run_config import RunConfig
from google.adk.models import Gemini
from google.genai import types

from adk_relay.adk.models import run_config
from support.client import client, words
from support.gemini import HALF_CASCADE_2, NATIVE_AUDIO_2, Connection, GeminiLive, UserTurn, silence, speech
from support.server import a_relay, serving


async def test_every_run_asks_for_sound_and_both_transcriptions(gemini: GeminiLive) -> None:
    async with serving(a_relay()) as port, client(port) as alice:
        await alice.ask("hello")
    setup = gemini.connections[0].setup
    assert setup["generationConfig"]["responseModalities"] == ["AUDIO"]
    assert "inputAudioTranscription" in setup
    assert "outputAudioTranscription" in setup
    assert "slidingWindow" in setup["contextWindowCompression"]
    assert "transparent" not in setup["sessionResumption"]


async def test_voice_and_language_reach_the_service(gemini: GeminiLive) -> None:
    async with (
        serving(a_relay(run_config=run_config("Kore", "de-CH"))) as port,
        client(port) as alice,
    ):
        await alice.ask("hello")
    speech_config = gemini.connections[0].setup["generationConfig"]["speechConfig"]
    assert speech_config["languageCode"] == "de-CH"
    assert speech_config["voiceConfig"]["prebuiltVoiceConfig"]["voiceName"] == "Kore"


async def test_a_run_configuration_is_taken_whole(gemini: GeminiLive) -> None:
    config = RunConfig(response_modalities=[types.Modality.TEXT])
    agent = LlmAgent(name="tester", model=HALF_CASCADE_2)
    async with serving(a_relay(agent, run_config=config)) as port, client(port) as alice:
        assert await alice.ask("hello") == "You said: hello."
        assert not any("is_transcript" in said for said in alice.frames)
    assert gemini.connections[0].setup["generationConfig"]["responseModalities"] == ["TEXT"]


async def test_all_parts_of_a_message_are_told_once(gemini: GeminiLive) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.send_text_parts("a", "b")
        await connection.send_text_parts("hidden thought", thought=True)
        await connection.send_text_parts("c", "d")
        await connection.turn_complete()

    gemini.answer = answer
    async with serving(a_relay()) as port, client(port) as alice:
        assert await alice.ask("hello") == "abcd"


@pytest.mark.parametrize("model", ["gemini-3.8-live", NATIVE_AUDIO_2])
async def test_a_tool_in_the_middle_of_an_answer(gemini: GeminiLive, model: str) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        result = await connection.call_tool("double", {"number": 21})
        await connection.say(f"It is {result['result']}.")

    def double(number: int) -> int:
        """Twice a number."""
        return 2 * number

    gemini.answer = answer
    agent = LlmAgent(name="tester", model=model, tools=[double])
    async with serving(a_relay(agent)) as port, client(port) as alice:
        await alice.say("double 21")
        frames = await alice.turn()
    kinds = [said.get("type") for said in frames if "type" in said]
    assert kinds == ["tool_start", "tool_complete"]
    assert words(frames) == "It is 42."
    assert [said["seq"] for said in frames] == sorted({said["seq"] for said in frames})


@pytest.mark.parametrize("model", ["gemini-3.8-live", NATIVE_AUDIO_2])
async def test_a_voice_turn(gemini: GeminiLive, model: str) -> None:
    agent = LlmAgent(name="tester", model=model)
    async with serving(a_relay(agent)) as port, client(port, audio=True) as alice:
        await alice.socket.send(speech(600) + silence(600))
        frames = await alice.turn()
        heard = [said for said in frames if said.get("type") == "transcript"]
        assert heard[-1]["text"] == "Hello there."
        assert heard[-1]["final"] is True
        assert words(frames) == "I heard you."
        assert alice.audio == bytes(gemini.connections[0].sound)


async def test_barge_in_by_speech(gemini: GeminiLive) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.heard(f"turn {len(connection.context)}")
        await connection.say("la " * 200, delay=0.01)

    gemini.answer = answer
    async with serving(a_relay()) as port, client(port, audio=True) as alice:
        await alice.socket.send(speech(600) + silence(600))
        await alice.until(lambda said: said.get("mime_type") == "text/plain")
        await alice.socket.send(speech(600))
        frames = await alice.turn()
        assert frames[-1] == frames[-1] | {"turn_complete": None, "interrupted": True}
        await alice.socket.send(silence(600))
        again = await alice.until(lambda said: said.get("mime_type") == "text/plain")
        assert not any(said.get("turn_complete") for said in again)


async def test_several_turns_before_the_model_is_done(gemini: GeminiLive) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.say("First,", complete=False)
        await connection.turn_complete("IN_PROGRESS")
        await connection.say(" then.", complete=False)
        await connection.turn_complete("IDLE")

    gemini.answer = answer
    async with serving(a_relay()) as port, client(port) as alice:
        assert await alice.ask("go") == "First, then."


async def test_the_agent_is_left_as_it_was(gemini: GeminiLive) -> None:
    child = LlmAgent(name="child", model="gemini-3.8-live")
    agent = LlmAgent(name="tester", model="gemini-3.8-live", sub_agents=[child])
    async with serving(a_relay(agent)) as port, client(port) as alice:
        await alice.ask("hello")
    assert agent.model == child.model == "gemini-3.8-live"
    assert child.parent_agent is agent


async def test_an_unanswered_question_of_another_day_is_not_answered_now(gemini: GeminiLive) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text == "one":
            await asyncio.Event().wait()
        await connection.say(f"You said: {turn.text}.")

    gemini.answer = answer
    relay = a_relay()
    async with serving(relay) as port:
        async with client(port) as alice:
            await alice.say("one")
            await gemini.wait_for(lambda: gemini.connections and gemini.connections[0].texts)
        await gemini.wait_for(lambda: not gemini.open_connections)
        async with client(port) as alice:
            assert await alice.ask("two") == "You said: two."
    assert [turn["role"] for turn in gemini.connections[1].history] == ["user", "model"]


async def test_vertex_credentials_are_fetched_off_the_loop(
    gemini: GeminiLive, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Tokens(BaseHTTPRequestHandler):
        """A token endpoint that takes its time (RFC 7523)."""

        def do_POST(self) -> None:
            time.sleep(1.0)
            body = json.dumps({"access_token": gemini.api_key, "expires_in": 3600, "token_type": "Bearer"})
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Tokens) as tokens:
        threading.Thread(target=tokens.serve_forever, daemon=True).start()
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        account = {
            "type": "service_account",
            "client_email": "relay@example.iam.gserviceaccount.com",
            "token_uri": f"http://127.0.0.1:{tokens.server_port}/token",
            "private_key": key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ).decode(),
        }
        (tmp_path / "account.json").write_text(json.dumps(account))
        monkeypatch.delenv("GOOGLE_API_KEY")
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "account.json"))
        # With another base URL than Google's these count only if they are given so.
        cloud = {"vertexai": True, "project": "a-project", "location": "us-central1"}
        agent = LlmAgent(name="tester", model=Gemini(model="gemini-3.8-live", client_kwargs=cloud))
        async with serving(a_relay(agent)) as port, client(port) as alice, client(port, "bob") as bob:
            await alice.say("hello")
            slowest = 0.0
            while not gemini.connections and not alice.socket.close_code:
                began = time.monotonic()
                await bob.send(type="ping")
                assert (await bob.next())["type"] == "pong"
                slowest = max(slowest, time.monotonic() - began)
            assert words(await alice.turn()) == "You said: hello."
        tokens.shutdown()
    assert gemini.connections[0].vertex
    # One second on the event loop would show; building the client itself takes its tenths.
    assert slowest < 0.8


async def test_a_text_after_an_early_stop_is_answered(gemini: GeminiLive) -> None:
    """The service takes both texts as one turn and tells of no interruption."""

    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text == "one":
            await asyncio.Event().wait()
        await connection.say(f"You said: {turn.text}.")

    gemini.answer = answer
    async with serving(a_relay()) as port, client(port) as alice:
        await alice.say("one")
        await gemini.wait_for(lambda: gemini.connections and gemini.connections[0].texts)
        await alice.send(type="interrupt")
        assert (await alice.turn())[-1]["interrupted"]
        gemini.connections[0].turn_open = False
        assert await alice.ask("two") == "You said: two."


async def test_the_older_socket_has_the_conversation_again_when_the_newer_leaves(gemini: GeminiLive) -> None:
    async with serving(a_relay()) as port, client(port, subprotocol=False) as older:
        async with client(port, subprotocol=False):
            assert (await older.next())["state"] == "elsewhere"
        assert (await older.next())["state"] == "live"
        assert await older.ask("hello") == "You said: hello."


async def test_what_is_said_at_once_comes_in_frames_of_a_sane_size(gemini: GeminiLive) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.send_text_parts("x" * 900_000)
        blob = {"mimeType": "audio/pcm;rate=24000", "data": base64.b64encode(bytes(600_000)).decode()}
        await connection.send(
            {"serverContent": {"modelTurn": {"role": "model", "parts": [{"inlineData": blob}]}}}
        )
        await connection.turn_complete()

    gemini.answer = answer
    async with serving(a_relay()) as port, client(port, audio=True) as alice:
        await alice.say("hello")
        frames = await alice.turn()
        assert words(frames) == "x" * 900_000
        assert alice.audio == bytes(600_000)
        assert max(len(said.get("data", "")) for said in frames) == 16 * 1024
        assert max(len(said.get("pcm", b"")) for said in frames) == 24_000
