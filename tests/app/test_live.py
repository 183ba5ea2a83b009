"""The live dialect, from both sides, on a real socket."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
from datetime import datetime
from typing import Any

import pytest
from google.adk.agents import LlmAgent
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from support.client import client, words
from support.gemini import Connection, GeminiLive, UserTurn, silence, speech
from support.live import PNG, answered, encoded
from support.server import a_relay, serving
from support.values import RESULTS

pytestmark = [pytest.mark.usefixtures("no_errors"), pytest.mark.voice, pytest.mark.bus]


# ---- what the server says ------------------------------------------------------------------


@pytest.mark.parametrize("audio", [False, True])
async def test_hello_comes_first_and_says_where_one_is(gemini: GeminiLive, audio: bool) -> None:
    async with serving(a_relay(ping_interval=7)) as port, client(port, "al.i-c_e~1", audio=audio) as alice:
        epoch = alice.hello.pop("epoch")
        assert isinstance(epoch, str) and epoch
        assert isinstance(alice.hello.pop("session_id"), str)
        assert alice.hello.pop("connection_id")
        assert alice.hello.pop("connections") == 1
        assert alice.hello == {
            "type": "hello",
            "user_id": "al.i-c_e~1",
            "model": "gemini-3.8-live",
            "rehearsal": False,
            "is_audio": audio,
            "ping_interval": 7,
            "seq": 0,
            "limits": {
                "text_bytes": 32 * 1024,
                "picture_bytes": 4 * 1024 * 1024,
                "sound_bytes": 1024 * 1024,
                "messages_per_second": 100,
            },
        }
        assert alice.socket.subprotocol == "relay.v1"


async def test_a_text_turn_has_words_and_no_sound(gemini: GeminiLive) -> None:
    async with serving(a_relay()) as port, client(port) as alice:
        await alice.say("hello, Zoë 👋")
        frames = await alice.turn()
        assert words(frames) == "You said: hello, Zoë 👋."
        assert {said["mime_type"] for said in frames[:-1]} == {"text/plain"}
        assert all(said["is_transcript"] is True for said in frames[:-1])
        numbers = [said["seq"] for said in frames]
        assert numbers == sorted(set(numbers))
        assert frames[-1] == {"turn_complete": True, "interrupted": None, "seq": numbers[-1]}
        async with client(port) as later:
            assert later.hello["seq"] == numbers[-1]
            assert later.hello["epoch"] == alice.hello["epoch"]
    assert len(gemini.connections[0].sound) > 0


async def test_a_binary_voice_turn_brings_the_very_same_sound(gemini: GeminiLive) -> None:
    async with serving(a_relay()) as port, client(port, audio=True) as alice:
        await alice.socket.send(speech(400) + silence(400))
        frames = await alice.turn()
        numbers = [said["seq"] for said in frames]
        assert numbers == sorted(set(numbers))
        assert any(said.get("type") == "binary" for said in frames)
        assert not any(said.get("mime_type") == "audio/pcm" for said in frames)
        assert alice.audio == bytes(gemini.connections[0].sound)
        assert words(frames) == "I heard you."


async def test_a_client_without_the_subprotocol_gets_base64(gemini: GeminiLive) -> None:
    async with serving(a_relay()) as port, client(port, audio=True, subprotocol=False) as alice:
        assert alice.socket.subprotocol is None
        await alice.send(mime_type="audio/pcm", data=encoded(speech(400) + silence(400)))
        frames = await alice.turn()
        sound = [said for said in frames if said.get("mime_type") == "audio/pcm"]
        assert b"".join(base64.b64decode(said["data"]) for said in sound) == gemini.connections[0].sound
        assert not any(said.get("type") == "binary" for said in frames)
        numbers = [said["seq"] for said in frames]
        assert numbers == sorted(set(numbers))


async def test_of_several_subprotocols_ours_is_chosen(gemini: GeminiLive) -> None:
    offered = [Subprotocol("relay.v9"), Subprotocol("relay.v1")]
    async with serving(a_relay()) as port:
        async with connect(f"ws://127.0.0.1:{port}/ws/a", subprotocols=offered, proxy=None) as socket:
            assert socket.subprotocol == "relay.v1"
        async with connect(f"ws://127.0.0.1:{port}/ws/a", subprotocols=offered[:1], proxy=None) as socket:
            assert socket.subprotocol is None
            assert json.loads(await socket.recv())["is_audio"] is False


async def test_the_users_words_are_told_in_pieces_and_whole(gemini: GeminiLive) -> None:
    agent = LlmAgent(name="tester", model="gemini-2.5-flash-native-audio-preview-12-2025")
    async with serving(a_relay(agent)) as port, client(port, audio=True) as alice:
        await alice.socket.send(speech(400) + silence(400))
        frames = await alice.turn()
    heard = [said for said in frames if said.get("type") == "transcript"]
    assert all(said["role"] == "user" for said in heard)
    assert [said["final"] for said in heard] == [False] * (len(heard) - 1) + [True]
    assert heard[-1]["text"] == "Hello there."
    # Each transcript holds all that was heard so far.
    assert all(later["text"].startswith(said["text"]) for said, later in itertools.pairwise(heard))


# ---- what the client says ------------------------------------------------------------------


async def test_pictures_reach_the_service(gemini: GeminiLive) -> None:
    async with serving(a_relay()) as port, client(port) as alice:
        await alice.send(mime_type="image/png", data=encoded(PNG))
        await alice.send(mime_type="image/jpeg", data=encoded(b"\xff\xd8 jpeg"))
        assert await alice.ask("what is this?") == "You said: what is this?."
    assert gemini.connections[0].images == [PNG, b"\xff\xd8 jpeg"]


async def test_the_end_of_sound_is_told_to_the_model(gemini: GeminiLive) -> None:
    async with serving(a_relay()) as port, client(port, audio=True) as alice:
        await alice.socket.send(speech(410))
        await alice.send(type="audio_end")
        assert words(await alice.turn()) == "I heard you."
        await gemini.wait_for(lambda: gemini.connections[0].audio_stream_ends == 1)
    assert bytes(gemini.connections[0].audio) == speech(410) + silence(500)


async def test_another_rate_is_told_to_the_model(gemini: GeminiLive) -> None:
    async with serving(a_relay()) as port, client(port, audio=True) as alice:
        for mime_type in ("audio/pcm;rate=48000", "audio/pcm; rate=48000"):
            await alice.send(mime_type=mime_type, data=encoded(speech(200, 48_000)))
        await alice.send(type="audio_end")
        await alice.turn()
    assert gemini.connections[0].rates == {48_000}
    assert bytes(gemini.connections[0].audio) == speech(200, 48_000) * 2 + silence(500, 48_000)


async def test_a_binary_frame_is_sound_also_without_the_subprotocol(gemini: GeminiLive) -> None:
    async with serving(a_relay()) as port, client(port, audio=True, subprotocol=False) as alice:
        await alice.socket.send(speech(400))
        await alice.send(type="audio_end")
        assert words(await alice.turn()) == "I heard you."
    assert bytes(gemini.connections[0].audio) == speech(400) + silence(500)


async def test_short_frames_of_the_microphone_are_merged(gemini: GeminiLive) -> None:
    frames = 0

    async def counting(connection: Connection, body: Any) -> None:
        nonlocal frames
        frames += "audio" in body
        await take(connection, body)

    take = Connection._take_realtime
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Connection, "_take_realtime", counting)
        async with serving(a_relay()) as port, client(port, audio=True, subprotocol=False) as alice:
            pcm = speech(800) + silence(400)
            await gemini.connection()
            for start in range(0, len(pcm), 256):  # 8 ms
                await alice.send(mime_type="audio/pcm", data=encoded(pcm[start : start + 256]))
            await alice.turn()
            assert bytes(gemini.connections[0].audio) == pcm
            assert frames == 1200 // 40


async def test_a_ping_is_answered_with_a_pong(gemini: GeminiLive) -> None:
    async with serving(a_relay()) as port, client(port) as alice:
        await alice.send(type="ping")
        assert await alice.next() == {"type": "pong"}
        await alice.send(type="pong")  # there was no ping
        assert await answered(alice) == []
    assert gemini.connects == 0


# ---- interrupt -----------------------------------------------------------------------------


@pytest.mark.parametrize("audio", [False, True])
async def test_an_interrupted_answer_is_not_delivered_any_more(gemini: GeminiLive, audio: bool) -> None:
    go_on = asyncio.Event()

    def look(where: str) -> str:
        """Looks."""
        return f"a cat in the {where}"

    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text == "again":
            await connection.say("Here I am.")
            return
        await connection.say("One two", complete=False)
        await go_on.wait()
        await connection.say(" three", complete=False)
        await connection.call_tool("look", {"where": "garden"})
        await connection.say(" four.")

    gemini.answer = answer
    agent = LlmAgent(name="tester", model="gemini-3.8-live", tools=[look])
    async with serving(a_relay(agent)) as port, client(port, audio=audio) as alice:
        await alice.say("count")
        await alice.until(lambda said: said.get("data") == " two")
        await alice.send(type="interrupt")
        await alice.send(type="interrupt")
        before = await alice.turn()
        assert before[-1]["interrupted"] is True
        assert before[-1]["turn_complete"] is None
        go_on.set()
        await gemini.wait_for(lambda: "four" in gemini.connections[0].said)
        await gemini.wait_for(lambda: not gemini.connections[0].turn_open)
        await alice.say("again")
        after = await alice.turn()
        assert words(after) == "Here I am."
        assert [said["type"] for said in after if "tool_id" in said] == ["tool_start", "tool_complete"]
        assert sum(bool(said.get("interrupted")) for said in alice.frames) == 1
        if audio:
            told = alice.audio
            assert len(told) < len(gemini.connections[0].sound)
            assert gemini.connections[0].sound.endswith(told[-2 * 3 * 1920 :])  # the whole next answer
    assert gemini.connects == 1


async def test_an_interrupt_with_nothing_to_interrupt_says_nothing(gemini: GeminiLive) -> None:
    async with serving(a_relay()) as port, client(port) as alice:
        await alice.send(type="interrupt")
        assert await alice.ask("hello") == "You said: hello."
        await alice.send(type="interrupt")
        assert await answered(alice) == []
        assert await alice.ask("hello") == "You said: hello."
        assert not any(said.get("interrupted") for said in alice.frames)


# ---- tools ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", RESULTS)
async def test_any_result_of_a_tool_is_shown(gemini: GeminiLive, kind: str) -> None:
    def anything(kind: str) -> Any:
        """Anything at all."""
        return RESULTS[kind]

    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text == "go":
            await connection.call_tool("anything", {"kind": kind})
        await connection.say("Done.")

    gemini.answer = answer
    agent = LlmAgent(name="tester", model="gemini-3.8-live", tools=[anything])
    async with serving(a_relay(agent)) as port, client(port) as alice:
        await alice.say("go")
        start, complete, *rest = await alice.turn()
        assert start["type"] == "tool_start"
        assert start["tool_name"] == "anything"
        assert start["arguments"] == {"kind": kind}
        assert datetime.fromisoformat(start["timestamp"]).tzinfo
        assert complete["type"] == "tool_complete"
        assert complete["tool_id"] == start["tool_id"]
        assert "result" in complete
        assert words(rest) == "Done."
        assert await alice.ask("and now?") == "Done."
    assert gemini.connects == 1


async def test_a_large_result_is_cut_on_the_wire_only(gemini: GeminiLive) -> None:
    def read() -> str:
        """A book."""
        return "ß" * 200_000

    async def answer(connection: Connection, turn: UserTurn) -> None:
        result = await connection.call_tool("read", {})
        await connection.say(f"{len(result['result'])} letters.")

    gemini.answer = answer
    agent = LlmAgent(name="tester", model="gemini-3.8-live", tools=[read])
    async with serving(a_relay(agent)) as port, client(port) as alice:
        assert await alice.ask("read it") == "200000 letters."
        complete = next(said for said in alice.frames if said.get("type") == "tool_complete")
        assert complete["truncated"] is True
        assert isinstance(complete["result"], str)
        assert 60_000 < len(complete["result"].encode()) <= 64 * 1024
        assert complete["result"].strip('{"result:').startswith("ßßß")
        assert "truncated" not in next(said for said in alice.frames if said.get("type") == "tool_start")
