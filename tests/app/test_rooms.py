"""Many sockets in one conversation: who is told what, and whose conversation it is."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from typing import Any

import pytest
from google.adk.sessions import InMemorySessionService, Session
from google.adk.sessions.base_session_service import ListSessionsResponse
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from support.chat import chat, created, end, fence, http, left, taken
from support.client import Client, client, words
from support.gemini import GeminiLive
from support.script import Script, typed
from support.server import a_relay, serving

pytestmark = pytest.mark.bus

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
            # A socket that comes and leaves between two presence messages is never told of.
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
        async with asyncio.timeout(60):
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
        for who in (older, naming):  # typing is told only to those who attend already
            await taken(who)
        await fence(sharing, older, naming)
        assert elsewhere not in older.frames
        async with client(port, subprotocol=False) as newer:
            assert await older.next() == elsewhere
            assert await sharing.ask("one") == "You said: one."
            for who in (naming, newer):
                assert words(await who.turn()) == "You said: one."
            await older.say("two")  # what it sends is still taken
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
    """A store that answers the first two look-ups of an id's owner only when both have been made."""

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
    """A store that reads a session slowly."""

    async def get_session(self, **which: Any) -> Session | None:
        await asyncio.sleep(0.1)
        return await super().get_session(**which)


@pytest.mark.alone  # from another process, nobody attends so soon
@pytest.mark.usefixtures("no_errors")
async def test_a_session_that_is_slow_to_read_can_be_attended_all_the_same(
    gemini: GeminiLive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adk_relay.adk.attendance._UNATTENDED", 0.05)
    async with serving(a_relay(sessions=Slow())) as port, http(port) as web:
        session_id = await created(port)
        async with client(port) as live, chat(port, session_id) as room:
            assert await live.ask("by live") == "You said: by live."
            assert await room.ask("by chat") == "You said: by chat."
        body = {"session_id": "mine", "message": "by HTTP"}
        assert (await web.post("/api/v1/chat", json=body)).json()["content"] == "You said: by HTTP."
        await left(port)
