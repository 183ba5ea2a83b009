"""Many microphones in one conversation: one is heard at a time, and an answer can be interrupted."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from google.adk.sessions import InMemorySessionService, Session

from support.api import all_ended
from support.chat import asking, chat, created, end, fence, guest, http, stored, taken
from support.client import Client, client, words
from support.gemini import GeminiLive, Plan, silence, speech
from support.script import Script, busy
from support.server import a_relay, serving

pytestmark = [pytest.mark.voice, pytest.mark.bus]


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """A speaker keeps the floor for long, and a refusal is told only once."""
    monkeypatch.setattr("adk_relay.core.floor._QUIET", 100.0)
    monkeypatch.setattr("adk_relay.core.floor._REFUSE_EVERY", 100.0)


# ---- one talks at a time -----------------------------------------------------------------------


@pytest.mark.usefixtures("no_errors", "no_pause")
async def test_another_ones_speech_is_refused_and_their_quiet_is_dropped(gemini: GeminiLive) -> None:
    async with (
        serving(a_relay()) as port,
        client(port, audio=True) as speaker,
        client(port, audio=True) as other,
        client(port) as reader,
    ):
        await speaker.socket.send(speech(400))
        connection = await gemini.connection()
        await gemini.wait_for(lambda: bytes(connection.audio) == speech(400))
        for pcm in (silence(200), speech(200), silence(40), speech(80), silence(1000)):
            await other.socket.send(pcm)
        error = await other.until(lambda said: said.get("type") == "error")
        assert error[-1]["code"] == "busy"
        assert 10 < len(error[-1]["message"]) < 200
        await taken(other)
        await speaker.socket.send(silence(400))
        heard = [await who.turn() for who in (speaker, other, reader)]
        assert [words(frames) for frames in heard] == ["I heard you."] * 3
        assert bytes(connection.audio) == speech(400) + silence(400)
        assert [busy(who.frames) for who in (speaker, other, reader)] == [0, 1, 0]


@pytest.mark.usefixtures("no_errors", "no_pause")
async def test_who_is_refused_is_told_once_though_they_mute_in_between(gemini: GeminiLive) -> None:
    async with (
        serving(a_relay()) as port,
        client(port, audio=True) as speaker,
        client(port, audio=True) as other,
    ):
        await speaker.socket.send(speech(400))
        await gemini.wait_for(lambda: gemini.connections and gemini.connections[0].audio)
        for _ in range(5):
            await other.socket.send(speech(50))
            await other.send(type="audio_end")
        await taken(other)
        await fence(speaker, other)
        assert busy(other.frames) == 1
        assert gemini.connections[0].audio_stream_ends == 0


async def speaking(who: Client, until: Callable[[], bool]) -> bytes:
    """Sends speech as a microphone does, in frames of 40 ms, and returns all of it."""
    said = b""
    async with asyncio.timeout(60):
        while not until():
            await who.socket.send(speech(40))
            said += speech(40)
            await asyncio.sleep(0.04)
    return said


@pytest.mark.usefixtures("no_errors")
async def test_refusals_come_once_a_second_and_a_second_of_quiet_gives_the_floor(gemini: GeminiLive) -> None:
    async with (
        serving(a_relay()) as port,
        client(port, audio=True) as speaker,
        client(port, audio=True) as other,
    ):
        connection = await gemini.connection()
        refused: list[float] = []
        heard = b""
        heard_at = quiet_since = 0.0

        async def listen() -> None:
            while True:
                if (await other.next()).get("code") == "busy":
                    refused.append(time.monotonic())

        def other_is_heard() -> bool:
            nonlocal heard_at
            heard_at = time.monotonic()
            return len(connection.audio) > len(heard)

        listening = asyncio.create_task(listen())
        second = asyncio.create_task(speaking(other, lambda: len(connection.audio) > len(heard) > 0))
        heard = await speaking(speaker, lambda: len(refused) >= 3)
        quiet_since = time.monotonic()
        # The speaker's last frames may still be on their way.
        await gemini.wait_for(lambda: bytes(connection.audio[: len(heard)]) == heard)
        await gemini.wait_for(other_is_heard)
        await second
        listening.cancel()
        assert bytes(connection.audio[: len(heard)]) == heard
        assert set(connection.audio[len(heard) :]) <= set(speech(40))
        assert all(later - one > 0.9 for one, later in itertools.pairwise(refused))
        assert 0.9 < heard_at - quiet_since < 10


@pytest.mark.usefixtures("no_errors", "no_pause")
@pytest.mark.parametrize("how", ["mutes", "leaves"])
async def test_the_sound_ends_when_the_speaker_mutes_or_leaves(gemini: GeminiLive, how: str) -> None:
    async with (
        serving(a_relay()) as port,
        client(port, audio=True) as speaker,
        client(port, audio=True) as other,
        client(port, audio=True) as third,
    ):
        await speaker.socket.send(speech(410))  # not a whole number of frames
        connection = await gemini.connection()
        await gemini.wait_for(lambda: connection.audio)
        # They do not have the floor, so this ends nothing.
        await other.send(type="audio_end")
        await taken(other)
        await third.socket.send(silence(100))
        await third.socket.close()
        if how == "mutes":
            await speaker.send(type="audio_end")
            await speaker.turn()
        else:
            await speaker.socket.close()
        frames = await other.turn()
        assert words(frames) == "I heard you."
        heard = next(said for said in frames if said.get("type") == "transcript")
        assert heard["connection_id"] == speaker.hello["connection_id"]
        await gemini.wait_for(lambda: connection.audio_stream_ends == 1)
        assert bytes(connection.audio) == speech(410) + silence(500)
        # The floor is free at once.
        await other.socket.send(speech(400))
        await other.send(type="audio_end")
        frames = await other.turn()
        assert words(frames) == "I heard you."
        heard = next(said for said in frames if said.get("type") == "transcript")
        assert heard["connection_id"] == other.hello["connection_id"]
        await gemini.wait_for(lambda: connection.audio_stream_ends == 2)
        assert bytes(connection.audio) == speech(410) + silence(500) + speech(400) + silence(500)
        assert busy(other.frames) == 0


@pytest.mark.usefixtures("no_errors")
async def test_a_transcript_names_who_spoke_for_all(
    gemini: GeminiLive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adk_relay.core.floor._QUIET", 0.0)
    async with (
        serving(a_relay()) as port,
        client(port, audio=True) as one,
        client(port, audio=True) as two,
        client(port) as reader,
    ):
        everybody = (one, two, reader)
        for who in (one, two, two, one):
            await who.socket.send(speech(200) + silence(400))
            for frames in [await each.turn() for each in everybody]:
                heard = [said for said in frames if said.get("type") == "transcript"]
                assert [(said["connection_id"], said["text"], said["final"]) for said in heard] == [
                    (who.hello["connection_id"], "Hello there.", True)
                ]
        assert sum(map(busy, (who.frames for who in everybody))) == 0


# ---- interruptions -----------------------------------------------------------------------------


@pytest.mark.usefixtures("no_errors")
@pytest.mark.parametrize("how", ["text", "speech", "interrupt"])
async def test_one_interrupts_what_another_asked_for(gemini: GeminiLive, how: str) -> None:
    script = Script(gemini)
    async with (
        serving(a_relay()) as port,
        client(port) as asker,
        client(port, audio=True) as other,
    ):
        await asker.say("one")
        await script.until("one")
        await other.until(lambda said: said.get("data") == " a")
        script.go_on("two", "speech")
        if how == "text":
            await other.say("two")
        elif how == "speech":
            await other.socket.send(speech(400) + silence(400))
        else:
            await other.send(type="interrupt")
        frames = await asker.turn()
        assert words(frames) == "one: a"
        assert frames[-1]["interrupted"] is True
        assert (await other.turn())[-1] == frames[-1]
        if how != "interrupt":
            frames = await asker.turn()
            assert words(frames) == f"{'two' if how == 'text' else 'speech'}: a b."
            assert frames[-1]["turn_complete"] is True
            assert (await other.turn())[-1] == frames[-1]


class Held(InMemorySessionService):
    """A store that reads a session only while `may` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.may = asyncio.Event()
        self.may.set()
        self.reading = asyncio.Event()

    async def get_session(self, **which: Any) -> Session | None:
        if not self.may.is_set():
            self.reading.set()
        await self.may.wait()
        return await super().get_session(**which)


@pytest.mark.usefixtures("no_errors")
@pytest.mark.parametrize("when", ["before there is a run", "while it connects"])
@pytest.mark.parametrize("kind", ["live", "chat", "turn"])
async def test_a_text_that_is_stopped_before_the_model_has_it_is_kept_and_its_answer_is_not_told(
    gemini: GeminiLive, monkeypatch: pytest.MonkeyPatch, kind: str, when: str
) -> None:
    monkeypatch.setattr("adk_relay.adk.session._AT_HAND_FOR", 0.0)  # so a run reads the session
    store = Held()
    relay = a_relay(sessions=store)
    gemini.on_connect = lambda number: Plan(delay=0.3)
    async with serving(relay) as port, http(port) as web:
        session_id = await created(port)
        async with guest(port, session_id) as live, chat(port, session_id) as room, AsyncExitStack() as stack:
            if when == "before there is a run":
                store.may.clear()
            match kind:
                case "live":
                    await live.say("hello")
                case "chat":
                    await room.chat("hello")
                    await live.until(lambda said: said.get("text") == "hello")
                case "turn":
                    one = await stack.enter_async_context(asking(port, session_id, "hello"))
                    await live.until(lambda said: said.get("text") == "hello")
            if when == "before there is a run":
                await store.reading.wait()
            else:
                await gemini.wait_for(lambda: gemini.connections and gemini.connections[0].setup)
            for _ in range(2):
                await live.send(type="interrupt")
            await live.turn()
            await taken(live)
            complete = await room.get("response_complete")
            assert (complete["full_response"], complete["interrupted"]) == ("", True)
            if kind == "turn":
                frames, code = await end(one)
                assert [said["type"] for said in frames] == ["response", "done"]
                assert (frames[0]["content"], frames[0]["interrupted"], code) == ("", True, 1000)
            store.may.set()
            async with asyncio.timeout(60):
                while await stored(relay, session_id) != [("user", "hello"), ("tester", "You said: hello.")]:
                    await asyncio.sleep(0.01)
            assert await room.ask("again") == "You said: again."
            await live.turn()
            assert sum(bool(said.get("interrupted")) for said in live.frames) == 1
            assert words(live.frames) == "You said: again."
            assert len(room.of("response_start")) == len(room.of("response_complete")) == 2
        await all_ended(web, 1 if kind == "live" else 2)
    assert [text for one in gemini.connections for text in one.texts] == ["hello", "again"]
