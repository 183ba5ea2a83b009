"""Many sockets in one conversation: who is told what, who is heard, and whose turn it is."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import resource
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from google.adk.agents import LlmAgent
from google.adk.sessions import InMemorySessionService, Session
from google.adk.sessions.base_session_service import ListSessionsResponse
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from support.chat import asking, chat, created, end, fence, guest, http, left, stored, taken, turn
from support.client import Client, Json, client, words
from support.gemini import Connection, GeminiLive, Plan, UserTurn, silence, speech
from support.raw import Peer
from support.server import a_relay, serving


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has spoken keeps the floor, and who was refused once is not told again."""
    monkeypatch.setattr("adk_relay.core.floor._QUIET", 100.0)
    monkeypatch.setattr("adk_relay.core.floor._REFUSE_EVERY", 100.0)


def typed(frames: list[Json]) -> list[tuple[str, bool]]:
    """Who was told to begin to write, or to stop."""
    return [(said["connection_id"], said["typing"]) for said in frames if "typing" in said]


def busy(frames: list[Json]) -> int:
    return sum(said.get("code") == "busy" for said in frames)


class Script:
    """A model that says "a", and "b" when it may go on; which text is answered can be waited for."""

    def __init__(self, gemini: GeminiLive) -> None:
        self._gemini = gemini
        self._may: dict[str, asyncio.Event] = {}
        self.begun: list[str] = []
        gemini.answer = self

    async def __call__(self, connection: Connection, turn: UserTurn) -> None:
        name = turn.text or "speech"
        if turn.audio:
            await connection.heard("speech")
        await connection.say(f"{name}: a", complete=False, audio=False)
        self.begun.append(name)
        self._gemini.changed()
        await self._event(name).wait()
        await connection.say(" b.", audio=False)

    def _event(self, name: str) -> asyncio.Event:
        return self._may.setdefault(name, asyncio.Event())

    def go_on(self, *names: str) -> None:
        for name in names:
            self._event(name).set()

    async def until(self, name: str) -> None:
        """Until the answer to a text has begun."""
        await self._gemini.wait_for(lambda: name in self.begun)


# ---- one stream --------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_errors")
async def test_all_sockets_see_what_one_types_and_what_the_agent_says(gemini: GeminiLive) -> None:
    async with (
        serving(a_relay()) as port,
        client(port) as writer,
        client(port, audio=True) as listener,
        client(port, subprotocol=False, query="&session_id=live-alice") as reader,
    ):
        assert {who.hello["session_id"] for who in (writer, listener, reader)} == {"live-alice"}
        assert len({who.hello["connection_id"] for who in (writer, listener, reader)}) == 3
        assert [who.hello["connections"] for who in (writer, listener, reader)] == [1, 2, 3]
        for text in ("hello", "again"):
            await writer.say(text)
            told = [await who.turn() for who in (writer, listener, reader)]
            assert [words(frames) for frames in told] == [f"You said: {text}."] * 3
            assert told[0][-1] == told[1][-1] == told[2][-1]
            assert not any(said.get("type") == "message" for said in told[0])
            assert told[1][0] == told[2][0]
            seq = told[1][0].pop("seq")
            assert told[1][0] == {
                "type": "message",
                "role": "user",
                "connection_id": writer.hello["connection_id"],
                "text": text,
            }
            assert 0 < seq < told[0][0]["seq"]
            numbers = [said["seq"] for said in told[2]]
            assert numbers == sorted(set(numbers))
        assert not any("status" in said.values() for said in writer.frames + reader.frames)
    assert gemini.connects == 1
    assert gemini.connections[0].texts == ["hello", "again"]


@pytest.mark.usefixtures("no_errors")
async def test_sound_goes_to_sockets_in_audio_mode_only(gemini: GeminiLive) -> None:
    async with (
        serving(a_relay()) as port,
        client(port, audio=True) as listener,
        client(port, audio=True, subprotocol=False, query="&session_id=live-alice") as in_json,
        client(port) as reader,
    ):
        assert await reader.ask("hello") == "You said: hello."
        await listener.turn()
        await in_json.turn()
    assert listener.audio == in_json.audio == bytes(gemini.connections[0].sound)
    assert len(listener.audio) > 0
    assert reader.audio == b""
    assert any(said.get("type") == "binary" for said in listener.frames)
    assert not any(said.get("type") == "binary" for said in in_json.frames)


@pytest.mark.usefixtures("no_errors")
async def test_typing_is_told_on_change_and_ends_with_a_message_or_the_socket(gemini: GeminiLive) -> None:
    async with serving(a_relay()) as port, client(port) as reader:
        async with client(port) as writer:
            name = writer.hello["connection_id"]
            for typing in (True, True, False, False, True):
                await writer.send(type="typing_start" if typing else "typing_stop")
                await taken(writer)
                if typed(reader.frames)[-1:] != [(name, typing)]:
                    await reader.until(lambda said: "typing" in said)
            await writer.say("hello")
            frames = await reader.turn()
            assert [said["type"] for said in frames[:2]] == ["typing", "message"]
            assert words(frames) == "You said: hello."
            await writer.turn()
            await writer.send(type="typing_start")
            await reader.until(lambda said: "typing" in said)
        await reader.until(lambda said: "typing" in said)
        assert typed(reader.frames) == [(name, typing) for typing in [True, False] * 3]
        assert typed(writer.frames) == []


@pytest.mark.usefixtures("no_errors")
async def test_typing_ends_when_the_message_is_sent_though_it_waits_for_its_turn(gemini: GeminiLive) -> None:
    script = Script(gemini)
    async with serving(a_relay()) as port, chat(port) as first:
        await first.chat("one")
        session_id = (await first.get("session_created"))["session_id"]
        await script.until("one")
        async with chat(port, session_id) as second:
            await second.send(type="typing_start")
            assert (await first.get("user_typing"))["typing"] is True
            await second.chat("two")
            await second.get("status")
            assert (await first.get("user_typing"))["typing"] is False
            assert gemini.connections[0].texts == ["one"]
            script.go_on("one", "two")
            assert (await first.get("response_complete"))["full_response"] == "one: a b."
            assert (await first.get("response_complete"))["full_response"] == "two: a b."


@pytest.mark.usefixtures("no_errors")
async def test_who_comes_and_who_leaves_is_told_to_the_others(gemini: GeminiLive) -> None:
    async with serving(a_relay()) as port, client(port) as first:
        name = first.hello["connection_id"]

        async def told(joined: list[str], left: list[str], connections: int) -> None:
            before = len(first.presence)
            while len(first.presence) == before:
                with pytest.raises(TimeoutError):  # presence is not among what `next` returns
                    await first.next(0.05)
            (said,) = first.presence[before:]
            others = [one for one in said["joined"] if one != name]
            assert (others, said["left"], said["connections"]) == (joined, left, connections)

        async with client(port) as second:
            await told([second.hello["connection_id"]], [], 2)
            async with client(port, query="&session_id=live-alice", subprotocol=False) as third:
                await told([third.hello["connection_id"]], [], 3)
            await told([], [third.hello["connection_id"]], 2)
            # One that is gone again before anybody was told of it never was there.
            async with client(port):
                pass
            await fence(first, second)
            await fence(second, first)
        await told([], [second.hello["connection_id"]], 1)
        assert [said["joined"] + said["left"] for said in second.presence[-2:]] == [
            [third.hello["connection_id"]],
            [third.hello["connection_id"]],
        ]


@pytest.mark.usefixtures("no_errors")
async def test_one_that_leaves_at_once_is_missed_by_those_who_were_told_of_it(gemini: GeminiLive) -> None:
    async with serving(a_relay()) as port, client(port) as brief, client(port) as stays:
        assert stays.hello["connections"] == 2
        await brief.socket.close()
        async with asyncio.timeout(5):
            while not stays.presence:
                with pytest.raises(TimeoutError):
                    await stays.next(0.05)
        assert stays.presence[-1]["left"] == [brief.hello["connection_id"]]
        assert stays.presence[-1]["connections"] == 1


@pytest.mark.usefixtures("no_errors")
async def test_nobody_is_told_of_oneself_when_several_come_at_once(gemini: GeminiLive) -> None:
    async with serving(a_relay()) as port, client(port) as first, AsyncExitStack() as stack:
        several = [await stack.enter_async_context(client(port)) for _ in range(5)]
        ids = {who.hello["connection_id"] for who in several}
        while len({one for said in first.presence for one in said["joined"]}) < 5:
            with pytest.raises(TimeoutError):
                await first.next(0.05)
        await fence(first, *several)
        assert {one for said in first.presence for one in said["joined"]} == ids
        for who in several:
            assert who.hello["connection_id"] not in str(who.presence)


@pytest.mark.usefixtures("no_errors")
async def test_only_sockets_that_name_nothing_give_way_to_a_newer_one(gemini: GeminiLive) -> None:
    elsewhere = {"type": "status", "state": "elsewhere"}
    async with (
        serving(a_relay()) as port,
        client(port, subprotocol=False) as older,
        client(port) as sharing,
        client(port, subprotocol=False, query="&session_id=live-alice") as naming,
    ):
        await fence(sharing, older, naming)
        assert elsewhere not in older.frames
        async with client(port, subprotocol=False) as newer:
            assert await older.next() == elsewhere
            assert await sharing.ask("one") == "You said: one."
            for who in (naming, newer):
                assert words(await who.turn()) == "You said: one."
            await older.say("two")  # it is still heard
            for who in (sharing, naming, newer):
                assert words(await who.turn()) == "You said: two."
        assert await older.next() == {"type": "status", "state": "live"}
        await sharing.say("three")
        for who in (sharing, naming, older):
            assert words(await who.turn()) == "You said: three."
        for who in (sharing, naming, newer):
            assert not any(said.get("type") == "status" for said in who.frames)
    assert gemini.connects == 1


# ---- whose conversation it is ------------------------------------------------------------------


async def refusal(port: int, path: str) -> tuple[int, int]:
    """How a WebSocket is refused: by HTTP, and to a client that offers the subprotocol."""
    url = f"ws://127.0.0.1:{port}{path}"
    with pytest.raises(InvalidStatus) as refused:
        await connect(url, proxy=None)
    async with connect(url, subprotocols=[Subprotocol("relay.v1")], proxy=None) as ours:
        with pytest.raises(ConnectionClosed) as closed:
            await ours.recv()
    assert closed.value.rcvd is not None
    return refused.value.response.status_code, closed.value.rcvd.code


@pytest.mark.usefixtures("no_errors")
@pytest.mark.parametrize("store", ["memory", "sqlite"])
async def test_a_conversation_of_another_users_is_refused(
    gemini: GeminiLive, store: str, tmp_path: Any
) -> None:
    sessions = "memory://" if store == "memory" else f"sqlite:///{tmp_path}/session.db"
    async with serving(a_relay(sessions=sessions)) as port:
        guests = await created(port)
        assert await refusal(port, "/ws/alice?session_id=live-bob") == (404, 4404)
        assert await refusal(port, f"/ws/alice?session_id={guests}") == (404, 4404)
        async with client(port, "bob", query="&session_id=plans") as bob:
            # Nothing is stored yet.
            assert await refusal(port, "/ws/alice?session_id=plans") == (404, 4404)
            assert await bob.ask("hello") == "You said: hello."
            assert await refusal(port, "/ws/alice?session_id=plans") == (404, 4404)
            assert await refusal(port, "/ws/guest?session_id=plans") == (404, 4404)
        await gemini.wait_for(lambda: not gemini.open_connections)
        assert await refusal(port, "/ws/alice?session_id=plans") == (404, 4404)
        async with client(port, "bob", query="&session_id=plans&after=0.0") as bob:
            frames = await bob.until(lambda said: said.get("role") == "agent")
            assert [said["text"] for said in frames[1:]] == ["hello", "You said: hello."]
        async with client(port, "alice", query="&session_id=live-alice") as alice:
            assert alice.hello["session_id"] == "live-alice"


class Together(InMemorySessionService):
    """A store that answers two questions for an id's owner only when both are asked."""

    def __init__(self) -> None:
        super().__init__()
        self._both = asyncio.Barrier(2)
        self._asked = 0

    async def list_sessions(self, *, app_name: str, user_id: str | None = None) -> ListSessionsResponse:
        self._asked += 1
        if self._asked <= 2:
            await self._both.wait()
        return await super().list_sessions(app_name=app_name, user_id=user_id)


@pytest.mark.usefixtures("no_errors")
async def test_of_two_users_that_claim_an_id_at_once_one_gets_it(gemini: GeminiLive) -> None:
    async def claim(user: str) -> ClientConnection:
        url = f"ws://127.0.0.1:{port}/ws/{user}?session_id=theirs"
        return await connect(url, subprotocols=[Subprotocol("relay.v1")], proxy=None)

    async with serving(a_relay(sessions=Together())) as port:
        sockets = await asyncio.gather(claim("alice"), claim("bob"))
        got: list[Any] = []
        for one in sockets:
            try:
                got.append(json.loads(await one.recv())["type"])
            except ConnectionClosed as closed:
                assert closed.rcvd is not None
                got.append(closed.rcvd.code)
        winner = sockets[got.index("hello")]
        assert sorted(got, key=str) == [4404, "hello"]
        await winner.send('{"mime_type": "text/plain", "data": "mine"}')
        await gemini.wait_for(lambda: gemini.connections and gemini.connections[0].texts == ["mine"])
        for one in sockets:
            await one.close()


@pytest.mark.usefixtures("no_errors")
async def test_a_live_users_default_conversation_is_not_for_the_other_dialects(gemini: GeminiLive) -> None:
    async with serving(a_relay()) as port, http(port) as web, client(port) as alice:
        assert await alice.ask("a secret") == "You said: a secret."
        for session_id in ("live-alice", "live-nobody"):
            assert (await web.get(f"/sessions/{session_id}")).status_code == 404
            assert (await web.delete(f"/sessions/{session_id}")).status_code == 404
            assert (await web.post(f"/sessions/{session_id}/clear")).status_code == 404
            body = {"session_id": session_id, "message": "hello"}
            assert (await web.post("/api/v1/chat", json=body)).status_code == 404
            async with connect(f"ws://127.0.0.1:{port}/api/v1/chat/stream", proxy=None) as raw:
                who = Client(raw, {})
                await who.send(**body)
                frames, code = await end(who)
                assert [said["type"] for said in frames] == ["error"]
                assert code == 1008
            async with chat(port) as other:
                await other.send(type="join_session", session_id=session_id)
                assert "secret" not in (await other.next())["message"]
                await other.chat("hello", session_id=session_id)
                await other.next()
                assert {said["type"] for said in other.frames} == {"error"}
        listed = (await web.get("/sessions")).json()
        assert "live-" not in str(listed["sessions"])
        assert await alice.ask("still there?") == "You said: still there?."
    assert gemini.connections[0].texts == ["a secret", "still there?"]


class Slow(InMemorySessionService):
    """A store that takes its time to read a session."""

    async def get_session(self, **which: Any) -> Session | None:
        await asyncio.sleep(0.1)
        return await super().get_session(**which)


@pytest.mark.usefixtures("no_errors")
async def test_a_session_that_is_slow_to_read_can_be_attended_all_the_same(
    gemini: GeminiLive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adk_relay.adk.conversation._UNATTENDED", 0.05)
    async with serving(a_relay(sessions=Slow())) as port, http(port) as web:
        session_id = await created(port)
        async with client(port) as live, chat(port, session_id) as room:
            assert await live.ask("by live") == "You said: by live."
            assert await room.ask("by chat") == "You said: by chat."
        body = {"session_id": "mine", "message": "by HTTP"}
        assert (await web.post("/api/v1/chat", json=body)).json()["content"] == "You said: by HTTP."
        await left(port)


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
    """Speaks as a microphone does, in frames of 40 ms, and returns what was said."""
    said = b""
    async with asyncio.timeout(10):
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
        # What the speaker said last may be on its way still.
        await gemini.wait_for(lambda: bytes(connection.audio[: len(heard)]) == heard)
        await gemini.wait_for(other_is_heard)
        await second
        listening.cancel()
        assert bytes(connection.audio[: len(heard)]) == heard
        assert set(connection.audio[len(heard) :]) <= set(speech(40))
        assert all(later - one > 0.9 for one, later in itertools.pairwise(refused))
        assert 0.9 < heard_at - quiet_since < 2.0


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
        # They have nothing to end.
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
        assert bytes(connection.audio) == speech(410)
        assert connection.audio_stream_ends == 1
        # The floor is free at once.
        await other.socket.send(speech(400))
        await other.send(type="audio_end")
        frames = await other.turn()
        assert words(frames) == "I heard you."
        heard = next(said for said in frames if said.get("type") == "transcript")
        assert heard["connection_id"] == other.hello["connection_id"]
        assert bytes(connection.audio) == speech(410) + speech(400)
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
    """A store that lets a session be read only while it may."""

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
    gemini: GeminiLive, kind: str, when: str
) -> None:
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
            async with asyncio.timeout(10):
                while await stored(relay, session_id) != [("user", "hello"), ("tester", "You said: hello.")]:
                    await asyncio.sleep(0.01)
            assert await room.ask("again") == "You said: again."
            await live.turn()
            assert sum(bool(said.get("interrupted")) for said in live.frames) == 1
            assert words(live.frames) == "You said: again."
            assert len(room.of("response_start")) == len(room.of("response_complete")) == 2
        stats = (await web.get("/stats")).json()
        assert stats["successful_requests"] + stats["failed_requests"] == stats["total_requests"]
    assert [text for one in gemini.connections for text in one.texts] == ["hello", "again"]


# ---- requests: one at a time -------------------------------------------------------------------


@pytest.mark.usefixtures("no_errors")
async def test_requests_of_all_kinds_are_answered_one_after_the_other(gemini: GeminiLive) -> None:
    script = Script(gemini)
    async with serving(a_relay()) as port, chat(port) as asker, http(port) as web:
        await asker.chat("one")
        session_id = (await asker.get("session_created"))["session_id"]
        await script.until("one")
        async with asking(port, session_id, "two") as two:
            body = {"session_id": session_id, "message": "three"}
            posted = asyncio.create_task(web.post("/api/v1/chat", json=body))
            while (await web.get("/stats")).json()["total_requests"] < 3:
                pass
            await asker.chat("four")
            status = await asker.until(lambda said: said["type"] == "status" and "3" in said["message"])
            assert status[-1]["session_id"] == session_id
            connection = gemini.connections[0]
            for number, name in enumerate(("one", "two", "three", "four"), 1):
                await script.until(name)
                assert connection.texts == ["one", "two", "three", "four"][:number]
                script.go_on(name)
            frames, code = await end(two)
            assert [said["type"] for said in frames] == ["response", "done"]
            assert frames[0]["content"] == "two: a b."
            assert "interrupted" not in frames[0]
            assert code == 1000
            answer = (await posted).json()
            assert answer.pop("timestamp")
            assert answer == {"content": "three: a b.", "tool_calls": [], "session_id": session_id}
            said = [await asker.get("response_complete") for _ in range(4)]
            assert [one["full_response"][:-5] for one in said] == ["one:", "two:", "three:", "four:"]
            assert [one["message_count"] for one in said] == [2, 4, 6, 8]
            assert not any("interrupted" in one for one in said)
        stats = (await web.get("/stats")).json()
        assert (stats["total_requests"], stats["successful_requests"], stats["failed_requests"]) == (4, 4, 0)


@pytest.mark.usefixtures("no_errors")
async def test_a_request_waits_for_what_a_live_socket_asked(gemini: GeminiLive) -> None:
    script = Script(gemini)
    async with serving(a_relay()) as port:
        session_id = await created(port)
        async with guest(port, session_id) as live:
            await live.say("one")
            async with asking(port, session_id, "two") as two:
                await script.until("one")
                await fence(live)
                assert gemini.connections[0].texts == ["one"]
                script.go_on("one", "two")
                assert words(await live.turn()) == "one: a b."
                frames, _ = await end(two)
                assert frames[0]["content"] == "two: a b."
                frames = await live.turn()
                assert [said["text"] for said in frames if said.get("type") == "message"] == ["two"]
                assert words(frames) == "two: a b."


@pytest.mark.usefixtures("no_errors")
async def test_the_seventeenth_that_would_wait_is_told_to_come_again(gemini: GeminiLive) -> None:
    script = Script(gemini)
    names = [f"n{number}" for number in range(17)]
    async with serving(a_relay()) as port, http(port) as web, chat(port) as asker:
        await asker.chat(names[0])
        session_id = (await asker.get("session_created"))["session_id"]
        for name in names[1:]:
            await asker.chat(name)
        for _ in names:
            await asker.get("status")
        async with connect(f"ws://127.0.0.1:{port}/api/v1/chat/stream", proxy=None) as raw:
            late = Client(raw, {})
            await late.send(session_id=session_id, message="late")
            frames, code = await end(late)
            assert [said["type"] for said in frames] == ["error"]
            assert code == 1013
        response = await web.post("/api/v1/chat", json={"session_id": session_id, "message": "late"})
        assert response.status_code == 429
        assert int(response.headers["retry-after"]) > 0
        assert response.json()["detail"]
        await asker.chat("late")
        error = await asker.get("error")
        assert error["session_id"] == session_id
        assert "16" in error["message"]
        script.go_on(*names)
        said = [(await asker.get("response_complete"))["full_response"] for _ in names]
        assert said == [f"{name}: a b." for name in names]
        stats = (await web.get("/stats")).json()
        assert (stats["total_requests"], stats["successful_requests"], stats["failed_requests"]) == (
            20,
            17,
            3,
        )
        # There is room again.
        script.go_on("more")
        assert await asker.ask("more") == "more: a b."
    assert gemini.connections[0].texts == [*names, "more"]


@pytest.mark.usefixtures("no_errors")
@pytest.mark.parametrize("how", ["text", "speech", "interrupt"])
async def test_an_interrupted_request_ends_with_what_was_said_and_the_next_one_runs(
    gemini: GeminiLive, how: str
) -> None:
    script = Script(gemini)
    async with serving(a_relay()) as port, http(port) as web, chat(port) as watcher:
        await watcher.send(type="create_session")
        session_id = (await watcher.get("session_created"))["session_id"]
        async with (
            guest(port, session_id, audio=True) as live,
            asking(port, session_id, "one") as one,
        ):
            await script.until("one")
            await live.until(lambda said: said.get("data") == " a")
            async with asking(port, session_id, "two") as two:
                posted = asyncio.create_task(
                    web.post("/api/v1/chat", json={"session_id": session_id, "message": "three"})
                )
                while (await web.get("/stats")).json()["total_requests"] < 3:
                    pass
                script.go_on("cut in", "speech")
                if how == "text":
                    await live.say("cut in")
                elif how == "speech":
                    await live.socket.send(speech(400))
                    await live.send(type="audio_end")
                else:
                    await live.send(type="interrupt")
                frames, code = await end(one)
                assert code == 1000
                assert [said["type"] for said in frames] == ["response", "done"]
                assert frames[0]["content"] == "one: a"
                assert frames[0]["interrupted"] is True
                script.go_on("two", "three")
                frames, code = await end(two)
                assert code == 1000
                assert [said["type"] for said in frames] == ["response", "done"]
                assert frames[0]["content"] == "two: a b."
                assert "interrupted" not in frames[0]
                assert (await posted).json()["content"] == "three: a b."
                complete = await watcher.get("response_complete")
                assert complete["full_response"] == "one: a"
                assert complete["interrupted"] is True
                between = {"text": ["cut in"], "speech": ["speech"], "interrupt": []}[how]
                told = [await watcher.get("response_complete") for _ in (*between, "two", "three")]
                answers = [said["full_response"] for said in told]
                assert answers == [f"{name}: a b." for name in (*between, "two", "three")]
                assert not any("interrupted" in said for said in told)


@pytest.mark.usefixtures("no_errors")
async def test_a_tool_of_a_stopped_answer_is_shown_and_is_not_of_the_answer_to_the_next_request(
    gemini: GeminiLive,
) -> None:
    stopped = asyncio.Event()

    def look() -> Json:
        """Looks."""
        return {"seen": "a cat"}

    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text == "one":
            await connection.say("One is", complete=False)
            await stopped.wait()
            await connection.call_tool("look", {})
        else:
            await connection.say(f"You said: {turn.text}.")

    gemini.answer = answer
    relay = a_relay(LlmAgent(name="tester", model="gemini-3.8-live", tools=[look]))
    async with serving(relay) as port:
        session_id = await created(port)
        async with guest(port, session_id) as live, asking(port, session_id, "one") as one:
            await live.until(lambda said: said.get("data") == " is")
            async with asking(port, session_id, "two") as two:
                # The next request and the call cross.
                transport = gemini.connections[0]._ws.transport
                transport.pause_reading()
                await live.send(type="interrupt")
                frames, _ = await end(one)
                assert (frames[0]["content"], frames[0]["interrupted"]) == ("One is", True)
                stopped.set()
                shown = await live.until(lambda said: said.get("type") == "tool_complete")
                assert [said["tool_name"] for said in shown if "tool_name" in said] == ["look", "look"]
                assert [said["text"] for said in shown if said.get("type") == "message"] == ["two"]
                transport.resume_reading()
                frames, _ = await end(two)
                assert [said["type"] for said in frames] == ["response", "done"]
                assert (frames[0]["content"], frames[0]["tool_calls"]) == ("You said: two.", [])


@pytest.mark.usefixtures("no_errors")
async def test_the_first_words_of_an_answer_that_was_stopped_before_them_are_not_the_next_requests(
    gemini: GeminiLive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adk_relay.core.writing._LOOK_EVERY", 0.05)
    stopped = asyncio.Event()

    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text == "one":
            await stopped.wait()
            await connection.say("Well, one", complete=False)
            gemini.changed()
            await asyncio.Event().wait()
        else:
            await connection.say(f"You said: {turn.text}.")

    gemini.answer = answer
    async with serving(a_relay()) as port, http(port) as web:
        session_id = await created(port)
        async with guest(port, session_id) as live, asking(port, session_id, "one") as one:
            await gemini.wait_for(lambda: gemini.connections and gemini.connections[0].texts == ["one"])
            async with asking(port, session_id, "two") as two:
                # Whatever is told the model now crosses with its words.
                connection = gemini.connections[0]
                connection._ws.transport.pause_reading()
                await live.send(type="interrupt")
                frames, _ = await end(one)
                assert (frames[0]["content"], frames[0]["interrupted"]) == ("", True)
                stopped.set()
                await gemini.wait_for(lambda: connection.said == "Well, one")
                connection._ws.transport.resume_reading()
                frames, _ = await end(two)
                assert [said["type"] for said in frames] == ["response", "done"]
                assert frames[0]["content"] == "You said: two."
                assert "interrupted" not in frames[0]
                history = (await web.get(f"/sessions/{session_id}")).json()["history"]
                assert [line["text"] for line in history] == ["one", "two", "You said: two."]


@pytest.mark.usefixtures("no_errors")
async def test_a_request_is_not_told_the_model_while_somebody_speaks(gemini: GeminiLive) -> None:
    script = Script(gemini)
    async with serving(a_relay()) as port:
        session_id = await created(port)
        async with guest(port, session_id, audio=True) as live, asking(port, session_id, "one") as one:
            await script.until("one")
            async with asking(port, session_id, "two") as two:
                await live.socket.send(speech(400))
                frames, _ = await end(one)
                assert frames[0]["interrupted"] is True
                await fence(live)
                script.go_on("speech", "two")
                await live.send(type="audio_end")
                frames, _ = await end(two)
                assert frames[0]["content"] == "two: a b."
                await live.until(lambda said: said.get("type") == "transcript")
                frames = await live.turn()
                assert words(frames) == "speech: a b."
    assert gemini.connections[0].context[-2:] == [("user", "two"), ("model", "two: a b.")]


@pytest.mark.usefixtures("no_errors", "quick_retries")
async def test_a_request_goes_on_to_its_real_end_over_a_lost_connection(gemini: GeminiLive) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        if connection.number == 1:
            await connection.say("One two", complete=False, audio=False)
            await gemini.wait_for(lambda: ready)
            connection.abort()
        elif connection.number == 2:
            await connection.say(" three", complete=False, audio=False)
            connection.abort()
        elif turn.text == "next":
            await connection.say("Next.", audio=False)
        else:
            await connection.say(" four.", audio=False)

    ready = False
    gemini.answer = answer
    async with serving(a_relay()) as port, http(port) as web, chat(port) as asker:
        await asker.send(type="create_session")
        session_id = (await asker.get("session_created"))["session_id"]
        async with chat(port, session_id) as watcher, asking(port, session_id, "count") as counting:
            await asker.until(lambda said: said.get("text") == " two")
            await asker.chat("next")
            await asker.get("status")
            ready = True
            gemini.changed()
            frames, code = await end(counting)
            assert code == 1000
            assert [said["type"] for said in frames] == ["response", "done"]
            assert frames[0]["content"] == "One two three four."
            assert "interrupted" not in frames[0]
            for who in (asker, watcher):
                complete = await who.get("response_complete")
                assert complete["full_response"] == "One two three four."
                assert "interrupted" not in complete
                assert len(who.of("response_start")) == 1
                chunks = who.of("chunk")
                assert "".join(said["text"] for said in chunks) == "One two three four."
                numbers = [said["chunk_number"] for said in chunks]
                assert numbers == [*range(1, complete["total_chunks"] + 1)]
                assert [said["is_final"] for said in chunks] == [False] * (len(chunks) - 1) + [True]
                assert (await who.get("response_complete"))["full_response"] == "Next."
        history = (await web.get(f"/sessions/{session_id}")).json()["history"]
        assert history == [
            {"role": "user", "text": "count"},
            {"role": "agent", "text": "One two three four."},
            {"role": "user", "text": "next"},
            {"role": "agent", "text": "Next."},
        ]
    assert gemini.connects == 3
    assert [text for one in gemini.connections for text in one.texts] == ["count", "next"]


@pytest.mark.parametrize("when", ["at once", "in mid answer"])
@pytest.mark.usefixtures("quick_retries")
async def test_requests_are_told_when_the_agent_fails_for_good(
    gemini: GeminiLive, when: str, caplog: pytest.LogCaptureFixture
) -> None:
    all_wait = asyncio.Event()

    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.say("One two", complete=False)
        await all_wait.wait()
        gemini.on_connect = lambda number: Plan(http_status=403)
        connection.abort()

    def refuse(number: int) -> Plan:
        return Plan(http_status=403)

    gemini.answer = answer
    async with serving(a_relay()) as port, http(port) as web, chat(port) as asker:
        await asker.send(type="create_session")
        session_id = (await asker.get("session_created"))["session_id"]
        if when == "at once":
            gemini.on_connect = lambda number: Plan(hang="handshake")
        await asker.chat("one")
        await asker.get("status")
        async with asking(port, session_id, "two") as two:
            posted = asyncio.create_task(
                web.post("/api/v1/chat", json={"session_id": session_id, "message": "three"})
            )
            while (await web.get("/stats")).json()["total_requests"] < 3:
                pass
            if when == "at once":
                await gemini.wait_for(lambda: gemini.open_connections)
                gemini.on_connect = refuse
                for ws in list(gemini._sockets):
                    ws.transport.abort()
            else:
                all_wait.set()
            frames, code = await end(asker)
            assert frames[-1]["type"] == "error"
            assert code == 1011
            frames, code = await end(two)
            assert [said["type"] for said in frames] == ["error"]
            assert code == 1011
            response = await posted
            assert response.status_code == 502
            assert response.json()["detail"]
        stats = (await web.get("/stats")).json()
        assert (stats["total_requests"], stats["successful_requests"], stats["failed_requests"]) == (3, 0, 3)
        errors = [record for record in caplog.get_records("call") if record.levelno >= logging.ERROR]
        assert len(errors) == 1
        assert errors[0].exc_text is None
        # It is not over for ever.
        gemini.answer, gemini.on_connect = say_hello, lambda number: None
        assert (await turn(port, session_id, "four"))["content"] == "Hello."


@pytest.mark.parametrize("when", ["before the model has it", "in mid answer"])
@pytest.mark.usefixtures("quick_retries")
async def test_after_a_failure_for_good_the_next_request_gets_its_own_answer(
    gemini: GeminiLive, when: str
) -> None:
    """The conversation lives on, and what it still owes to one who has gone is answered first."""

    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text == "one":
            await connection.say("One is", complete=False)
            if connection.number == 1:
                gemini.on_connect = lambda number: Plan(http_status=403)
                connection.abort()
        await connection.say(f"You said: {turn.text}.")

    gemini.answer = answer
    if when == "before the model has it":
        gemini.on_connect = lambda number: Plan(http_status=503)
    async with serving(a_relay(grace=30)) as port, http(port) as web:
        session_id = await created(port)
        path = f"/sessions/{session_id}"
        failed = await web.post("/api/v1/chat", json={"session_id": session_id, "message": "one"})
        assert failed.status_code == 502
        assert (await web.get("/health")).json()["active_sessions"] == 1
        gemini.on_connect = lambda number: None
        answered = await web.post("/api/v1/chat", json={"session_id": session_id, "message": "two"})
        assert answered.status_code == 200
        assert answered.json()["content"] == "You said: two."
        assert "interrupted" not in answered.json()
        history = (await web.get(path)).json()["history"]
        assert [line["text"] for line in history if line["role"] == "user"] == ["one", "two"]
        assert history[-2:] == [{"role": "user", "text": "two"}, {"role": "agent", "text": "You said: two."}]
        stats = (await web.get("/stats")).json()
        assert (stats["total_requests"], stats["successful_requests"], stats["failed_requests"]) == (2, 1, 1)
    assert [text for one in gemini.connections for text in one.texts] == ["one", "two"]


@pytest.mark.parametrize("when", ["before the answer", "in mid answer", "while it is remade"])
@pytest.mark.usefixtures("no_errors", "quick_retries")
async def test_one_who_comes_while_the_run_is_ended_for_one_who_left_is_answered(
    gemini: GeminiLive, when: str
) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text != "one":
            await connection.say(f"You said: {turn.text}.")
            return
        if when != "before the answer":
            await connection.say("First half", complete=False)
        if when == "while it is remade":
            gemini.on_connect = lambda number: Plan(hang="setup")
            connection.abort()
        await asyncio.Event().wait()

    gemini.answer = answer
    async with serving(a_relay()) as port, http(port) as web:
        session_id = await created(port)
        async with chat(port, session_id) as first:
            await first.chat("one")
            if when == "before the answer":
                await gemini.wait_for(lambda: gemini.connections and gemini.connections[0].texts == ["one"])
            else:
                await first.until(lambda said: said.get("text") == " half")
            if when == "while it is remade":
                await gemini.wait_for(lambda: len(gemini.connections) == 2 and gemini.connections[1].setup)
            else:
                gemini.connections[0].deafen()
        await left(port)
        gemini.on_connect = lambda number: None
        async with chat(port, session_id) as second:
            await second.chat("two")
            await second.get("status")
            gemini.connections[-1].abort()
            complete = await second.get("response_complete")
            assert complete["connection_id"] == first.hello["connection_id"]
            assert complete["full_response"] == ("" if when == "before the answer" else "First half")
            assert complete["interrupted"] is True
            complete = await second.get("response_complete")
            assert complete["connection_id"] == second.hello["connection_id"]
            assert complete["full_response"] == "You said: two."
            assert "interrupted" not in complete
        stats = (await web.get("/stats")).json()
        assert stats["total_requests"] == 2
        assert stats["successful_requests"] + stats["failed_requests"] == 2
    assert [text for one in gemini.connections for text in one.texts] == ["one", "two"]


@pytest.mark.usefixtures("no_errors")
async def test_a_request_that_nobody_waits_for_any_more_is_counted_when_its_run_is_ended(
    gemini: GeminiLive,
) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        await asyncio.Event().wait()

    gemini.answer = answer
    async with serving(a_relay()) as port, http(port) as web:
        async with chat(port) as asker:
            await asker.chat("one")
            await gemini.wait_for(lambda: gemini.connections and gemini.connections[0].texts == ["one"])
        while (await web.get("/stats")).json()["active_sessions"]:
            pass
        stats = (await web.get("/stats")).json()
        assert (stats["total_requests"], stats["successful_requests"], stats["failed_requests"]) == (1, 0, 1)


async def say_hello(connection: Connection, turn: UserTurn) -> None:
    await connection.say("Hello.")


@pytest.mark.usefixtures("no_errors")
async def test_of_those_who_wait_and_leave_what_is_said_in_a_room_is_asked(gemini: GeminiLive) -> None:
    """The others are there to read the answer; that of a turn would be nobody's."""
    script = Script(gemini)
    async with serving(a_relay()) as port, chat(port) as asker:
        await asker.chat("one")
        session_id = (await asker.get("session_created"))["session_id"]
        await script.until("one")
        async with asking(port, session_id, "two"), chat(port, session_id) as other:
            await other.chat("three")
            await other.get("status")
        async with chat(port, session_id) as other:
            await other.chat("four")
            status = await other.get("status")
            while "2" not in status["message"]:  # until the server has seen them leave
                await other.chat("four")
                status = await other.get("status")
            script.go_on("one", "three", "four")
            for text in ("one", "three", "four"):
                assert (await asker.get("response_complete"))["full_response"] == f"{text}: a b."
    assert "two" not in gemini.connections[0].texts


# ---- a thousand --------------------------------------------------------------------------------

THOUSAND = 1_000


@pytest.fixture
def _files() -> Iterator[None]:
    """Each socket is two files of this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 3 * THOUSAND
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Reader:
    """A text client that counts and keeps little; a thousand of them are one test."""

    def __init__(self, socket: ClientConnection, greeting: Json) -> None:
        self.socket = socket
        self.name: str = greeting["connection_id"]
        self.presence = 0
        self.joined: set[str] = set()
        self.words = ""
        self.messages: list[str] = []
        self.turns = 0
        self.changed = asyncio.Event()
        self.reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for frame in self.socket:
            said = json.loads(frame)
            match said.get("type"):
                case "presence":
                    self.presence += 1
                    self.joined.update(said["joined"])
                case "message":
                    self.messages.append(said["text"])
                case None if "turn_complete" in said:
                    self.turns += 1
                    self.changed.set()
                case None:
                    self.words += said["data"]

    async def turn(self, number: int) -> None:
        while self.turns < number:
            self.changed.clear()
            await self.changed.wait()


@asynccontextmanager
async def readers(port: int, count: int) -> AsyncIterator[list[Reader]]:
    """So many clients in one conversation, attached in batches."""
    url = f"ws://127.0.0.1:{port}/ws/alice"

    async def one() -> Reader:
        raw = await connect(
            url, subprotocols=[Subprotocol("relay.v1")], proxy=None, compression=None, ping_interval=None
        )
        return Reader(raw, json.loads(await raw.recv()))

    found: list[Reader] = []
    try:
        while len(found) < count:
            found += await asyncio.gather(*(one() for _ in range(min(100, count - len(found)))))
        yield found
    finally:
        for reader in found:
            reader.reading.cancel()
            reader.socket.transport.abort()
        await asyncio.gather(*(reader.reading for reader in found), return_exceptions=True)


@pytest.mark.usefixtures("no_errors", "_files")
async def test_a_thousand_sockets_get_everything_though_one_of_them_stalls(
    gemini: GeminiLive, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def narrow(address: tuple[str, int]) -> socket.socket:
        """What the kernel takes for a peer that does not read is little."""
        listener = create_server(address)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 * 1024)
        return listener

    create_server = socket.create_server
    monkeypatch.setattr("socket.create_server", narrow)
    pieces = [f"{number:03} " * 2_000 for number in range(24)]  # 192 kB

    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text == "much":
            for piece in pieces:
                await connection.send_text_parts(piece)
            await connection.turn_complete()
        else:
            await connection.say("Good.", audio=False)

    gemini.answer = answer
    caplog.set_level(logging.INFO, "relay")
    relay = a_relay(slow_timeout=3.0)
    began = time.monotonic()
    async with serving(relay) as port, Peer.upgraded(port) as stalled:
        async with readers(port, THOUSAND - 2) as many, client(port) as writer:
            attached = time.monotonic() - began
            assert writer.hello["connections"] == THOUSAND
            await writer.say("much")
            async with asyncio.timeout(30):
                frames = await writer.turn(30)
                await asyncio.gather(*(reader.turn(1) for reader in many))
            assert words(frames) == "".join(pieces)
            assert all(reader.words == "".join(pieces) for reader in many)
            assert all(reader.messages == ["much"] for reader in many)
            # It was given up for it, and all others were told that it left; they are served on.
            async with asyncio.timeout(10):
                while "1013 too slow" not in caplog.text:
                    await writer.send(type="ping")
                    await writer.next()
            await writer.say("and now?")
            await asyncio.gather(*(reader.turn(2) for reader in many))
            assert all(reader.words == "".join(pieces) + "Good." for reader in many)
            # Who came is told to all, and yet in few frames: together, and not a thousand times a thousand.
            told = sum(reader.presence for reader in many)
            assert many[0].joined >= {reader.name for reader in many[100:]}
            assert told < THOUSAND * (attached / 0.1 + 10)
            assert told < THOUSAND * THOUSAND / 5
        assert stalled.sock.fileno() >= 0
    assert gemini.connects == 1
