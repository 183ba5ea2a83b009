"""Clearing and deleting: all who attend are told, and nothing of before is written into what comes after."""

from __future__ import annotations

import asyncio
import base64
import logging
import random
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
from google.adk.agents import LlmAgent
from google.adk.events import Event
from google.adk.sessions import InMemorySessionService, Session

from support.chat import asking, chat, created, end, fence, guest, http, stored, taken, turn
from support.client import Client, Json, words
from support.gemini import Connection, GeminiLive, Plan, UserTurn, speech
from support.server import a_relay, serving

WAYS = pytest.mark.parametrize("how", ["clear", "delete"])
STORES = pytest.mark.parametrize("store", ["memory", "sqlite"])


@pytest.fixture
def slow_end(monkeypatch: pytest.MonkeyPatch, _soon: None) -> None:
    """Long enough for something to be said meanwhile."""
    monkeypatch.setattr("adk_relay.adk.runs._END_WAIT", 1.5)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run or a connection that does not end by itself is not waited for as long as usual."""
    monkeypatch.setattr("adk_relay.adk.runs._END_WAIT", 0.4)
    monkeypatch.setattr("adk_relay.adk.connection._CLOSE_TIMEOUT", 0.5)


async def come_in(port: int) -> None:
    """Until the server has taken the requests that were begun before."""
    async with http(port) as web:
        for _ in range(5):
            assert (await web.get("/health")).status_code == 200


def sessions_in(store: str, folder: Path) -> str:
    return "memory://" if store == "memory" else f"sqlite:///{folder}/session.db"


async def empty(port: int, session_id: str, how: str) -> httpx.Response:
    async with http(port) as web:
        if how == "delete":
            return await web.delete(f"/sessions/{session_id}")
        return await web.post(f"/sessions/{session_id}/clear")


async def emptied(port: int, session_id: str, how: str) -> None:
    """Empties a session, which succeeds."""
    response = await empty(port, session_id, how)
    assert response.status_code == 200, response.text
    assert set(response.json()) == {"message"}


async def reset(who: Client, how: str) -> tuple[list[Json], Json]:
    """All that a live client still gets of the epoch, and the frame that ends it."""
    *before, told = await who.until(lambda said: said.get("type") in ("cleared", "deleted"))
    assert told == {"type": f"{how}ed".replace("eed", "ed"), "epoch": told["epoch"], "seq": 0}
    assert told["epoch"] != who.hello["epoch"]
    return before, told


def numbers(frames: list[Json]) -> list[int]:
    return [said["seq"] for said in frames if "seq" in said]


class Gate(InMemorySessionService):
    """A store that waits before it deletes."""

    def __init__(self) -> None:
        super().__init__()
        self.deleting = asyncio.Event()
        self.may = asyncio.Event()
        self.deletions = 0

    async def delete_session(self, *, app_name: str, user_id: str, session_id: str) -> None:
        self.deletions += 1
        self.deleting.set()
        await self.may.wait()
        await super().delete_session(app_name=app_name, user_id=user_id, session_id=session_id)


# ---- told to all -------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_errors")
@STORES
@WAYS
async def test_all_who_attend_are_told_and_talk_on_in_an_empty_conversation(
    gemini: GeminiLive, how: str, store: str, tmp_path: Path
) -> None:
    relay = a_relay(sessions=sessions_in(store, tmp_path))
    async with serving(relay) as port, chat(port) as chatting:
        assert await chatting.ask("hello") == "You said: hello."
        session_id = chatting.of("session_created")[0]["session_id"]
        async with guest(port, session_id) as text, guest(port, session_id, subprotocol=False) as naming:
            assert await text.ask("once more") == "You said: once more."
            await emptied(port, session_id, how)
            told = [(await reset(who, how))[1] for who in (text, naming)]
            assert told[0] == told[1]
            await chatting.get("session_cleared" if how == "clear" else "session_deleted")
            if how == "delete":
                assert await stored(relay, session_id) is None
                async with http(port) as web:
                    assert (await web.get(f"/sessions/{session_id}")).status_code == 404
                    assert session_id not in (await web.get("/sessions")).text
            else:
                assert await stored(relay, session_id) == []
            # It goes on with number 1, and the model knows nothing of before.
            assert await text.ask("who am I?") == "You said: who am I?."
            assert numbers(text.frames[-3:]) == sorted(numbers(text.frames[-3:]))
            frames = await naming.turn()
            assert numbers(frames)[0] == 1
            assert words(frames) == "You said: who am I?."
            connection = await gemini.connection(1)
            assert connection.context == [("user", "who am I?"), ("model", "You said: who am I?.")]
            assert await stored(relay, session_id) == [
                ("user", "who am I?"),
                ("tester", "You said: who am I?."),
            ]
            async with guest(port, session_id, query="&after=0.0") as late:
                assert late.hello["epoch"] == told[0]["epoch"]
            if how == "clear":
                assert (await chatting.get("response_complete"))["message_count"] == 2
                assert await chatting.ask("and I?") == "You said: and I?."
            else:  # a chat client is in no session now, and the next chat makes one
                assert await chatting.ask("and I?") == "You said: and I?."
                assert len(chatting.of("session_created")) == 2
                assert chatting.of("session_created")[1]["session_id"] != session_id
                assert chatting.of("response_complete")[-1]["message_count"] == 2
                assert chatting.of("message_added")[1:] == []


@pytest.mark.usefixtures("no_errors")
@WAYS
async def test_a_request_of_a_turn_socket_under_way_is_told(gemini: GeminiLive, how: str) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.say("One two", complete=False)
        gemini.changed()
        await asyncio.Event().wait()

    gemini.answer = answer
    async with serving(a_relay()) as port, http(port) as web:
        session_id = await created(port)
        async with asking(port, session_id, "one") as one, asking(port, session_id, "two") as two:
            body = {"session_id": session_id, "message": "three"}
            posted = asyncio.create_task(web.post("/api/v1/chat", json=body))
            while (await web.get("/stats")).json()["total_requests"] < 3:
                pass
            await gemini.wait_for(lambda: gemini.connections and gemini.connections[0].said == "One two")
            await emptied(port, session_id, how)
            frames, code = await end(one)
            assert code == 1000
            assert [said["type"] for said in frames] == ["response", "done"]
            assert frames[0]["interrupted"] is True
            assert "One two".startswith(frames[0]["content"])
            frames, code = await end(two)
            assert [said["type"] for said in frames] == ["error"]
            assert code == 1013
            response = await posted
            assert response.status_code == 429
            assert response.json()["detail"] == frames[0]["message"]
    assert gemini.connections[0].texts == ["one"]


# ---- in the middle of something ----------------------------------------------------------------


class Moment:
    """Something that goes on while the conversation is emptied, until `let_go` is called."""

    def __init__(self, gemini: GeminiLive, kind: str) -> None:
        self._gemini = gemini
        self._kind = kind
        self._begun = asyncio.Event()
        self._over = threading.Event()
        self._loop = asyncio.get_running_loop()
        self.done = asyncio.Event()
        self.agent = LlmAgent(name="tester", model="gemini-3.8-live", tools=[self.block, self.wait])
        gemini.answer = self.answer
        gemini.on_connect = self.plan

    def plan(self, number: int) -> Plan | None:
        if self._kind == "connecting" and number == 1:
            self._begun.set()
            return Plan(hang="setup")
        if self._kind == "reconnecting" and number == 2:
            self._begun.set()
            return Plan(hang="handshake")
        return None

    async def answer(self, connection: Connection, turn: UserTurn) -> None:
        if turn.text != "old":
            await connection.say(f"You said: {turn.text}.")
            return
        match self._kind:
            case "answer":
                await connection.say("stale words", complete=False)
                self._begun.set()
                await asyncio.Event().wait()
            case "reconnecting":
                await connection.say("stale words", complete=False)
                connection.abort()
            case "a tool that blocks":
                await connection.call_tool("block", {})
            case "a tool that waits":
                await connection.call_tool("wait", {})

    def block(self) -> str:
        """Blocks its thread."""
        self._loop.call_soon_threadsafe(self._begun.set)
        self._over.wait(20)
        self._loop.call_soon_threadsafe(self.done.set)
        return "stale result"

    async def wait(self) -> str:
        """Waits."""
        self._begun.set()
        await asyncio.sleep(20)
        return "stale result"

    async def here(self) -> None:
        """Until it goes on."""
        await asyncio.wait_for(self._begun.wait(), 10)

    async def pass_by(self) -> None:
        """Lets what blocks come to its end."""
        self._over.set()
        if self._kind == "a tool that blocks":
            await asyncio.wait_for(self.done.wait(), 10)


MOMENTS = ["answer", "a tool that blocks", "a tool that waits", "connecting", "reconnecting"]


@pytest.mark.usefixtures("quick_retries")
@STORES
@WAYS
@pytest.mark.parametrize("kind", MOMENTS)
async def test_whatever_goes_on_ends_with_the_conversation(
    gemini: GeminiLive, how: str, kind: str, store: str, tmp_path: Path
) -> None:
    moment = Moment(gemini, kind)
    relay = a_relay(moment.agent, sessions=sessions_in(store, tmp_path))
    async with serving(relay) as port:
        session_id = await created(port)
        async with (
            guest(port, session_id) as live,
            guest(port, session_id, audio=kind == "answer") as other,
            chat(port, session_id) as chatting,
        ):
            await live.say("old")
            await moment.here()
            await emptied(port, session_id, how)
            for who in (live, other):
                before, _ = await reset(who, how)
                # An answer that had begun has an end; one that had not may have.
                if kind == "answer":
                    assert before[-1]["interrupted"] is True
            await chatting.get("session_cleared" if how == "clear" else "session_deleted")
            await moment.pass_by()
            assert await live.ask("new") == "You said: new."
            frames = await other.turn()
            assert numbers(frames) == sorted(set(numbers(frames)))
            assert frames[0] | {"seq": 1, "connection_id": ""} == {
                "type": "message",
                "role": "user",
                "connection_id": "",
                "text": "new",
                "seq": 1,
            } or frames[0] == {"type": "status", "state": "live"}
            assert words(frames) == "You said: new."
            assert not any("tool_id" in said for said in frames)
            assert await stored(relay, session_id) == [("user", "new"), ("tester", "You said: new.")]
            latest = gemini.connections[-1]
            assert latest.context == [("user", "new"), ("model", "You said: new.")]
            async with guest(port, session_id) as late:
                await fence(late, live)
                await fence(live, late)
                assert not any("status" in (said.get("type"), said.get("code")) for said in late.frames)
            assert all(not one.open for one in gemini.connections[:-1])
    assert await stored(relay, session_id) == [("user", "new"), ("tester", "You said: new.")]


@pytest.mark.usefixtures("quick_retries")
async def test_a_reset_while_the_connection_is_remade_ends_that_too(gemini: GeminiLive) -> None:
    moment = Moment(gemini, "reconnecting")
    async with serving(a_relay(moment.agent)) as port:
        session_id = await created(port)
        async with guest(port, session_id) as live:
            await live.say("old")
            await moment.here()
            await live.until(lambda said: said.get("state") == "reconnecting")
            await emptied(port, session_id, "clear")
            await reset(live, "clear")
            async with guest(port, session_id) as late:
                await fence(live, late)
                # Nothing is being remade: there is no run, and none is wanted.
                assert not any(said.get("state") for said in late.frames)


@pytest.mark.usefixtures("no_errors")
async def test_no_session_is_made_after_a_delete_until_something_is_said(gemini: GeminiLive) -> None:
    relay = a_relay()
    async with serving(relay) as port:
        session_id = await created(port)
        async with guest(port, session_id, audio=True) as live:
            assert await live.ask("hello") == "You said: hello."
            await emptied(port, session_id, "delete")
            await reset(live, "delete")
            async with http(port) as web:
                for _ in range(20):  # as many turns of the event loop as a run needs to begin
                    assert (await web.get(f"/sessions/{session_id}")).status_code == 404
            assert await stored(relay, session_id) is None
            assert gemini.connects == 1
            await live.socket.send(speech(400))
            await live.send(type="audio_end")
            assert words(await live.turn()) == "I heard you."
        assert await stored(relay, session_id) is not None


# ---- what is said meanwhile --------------------------------------------------------------------


@pytest.mark.usefixtures("no_errors")
@WAYS
async def test_what_is_said_while_the_session_is_deleted_is_answered_afterwards(
    gemini: GeminiLive, how: str
) -> None:
    store = Gate()
    relay = a_relay(sessions=store)
    async with serving(relay) as port:
        session_id = await created(port)
        async with guest(port, session_id) as live, guest(port, session_id) as other:
            assert await live.ask("old") == "You said: old."
            await other.turn()
            emptying = asyncio.create_task(emptied(port, session_id, how))
            await store.deleting.wait()
            await live.send(mime_type="text/plain", data="new", id="n1")
            await taken(live)
            assert not emptying.done()
            store.may.set()
            await emptying
            _, told = await reset(other, how)
            frames = await other.turn()
            assert (frames[0].get("type"), frames[0].get("text")) == ("message", "new")
            assert numbers(frames)[0] == 1
            assert words(frames) == "You said: new."
            before, _ = await reset(live, how)
            assert words(before) == ""
            frames = await live.turn()
            assert {"type": "ack", "id": "n1"} in frames
            assert words(frames) == "You said: new."
            async with guest(port, session_id, query=f"&after={told['epoch']}.0") as late:
                frames = await late.turn()
                assert [said["text"] for said in frames if said.get("type") == "message"] == ["new"]
            async with http(port) as web:
                history = (await web.get(f"/sessions/{session_id}")).json()["history"]
                assert [line["text"] for line in history] == ["new", "You said: new."]
            assert await stored(relay, session_id) == [("user", "new"), ("tester", "You said: new.")]
            # It was said once: the id is known in the new epoch.
            await live.send(mime_type="text/plain", data="new", id="n1")
            assert await live.next() == {"type": "ack", "id": "n1"}
            assert gemini.connections[-1].texts == ["new"]


@pytest.mark.usefixtures("no_errors")
@WAYS
async def test_a_request_made_meanwhile_is_answered_afterwards_or_told_that_all_is_deleted(
    gemini: GeminiLive, how: str
) -> None:
    store = Gate()
    async with serving(a_relay(sessions=store)) as port, http(port) as web:
        session_id = await created(port)
        async with chat(port, session_id) as asker:
            assert await asker.ask("old") == "You said: old."
            emptying = asyncio.create_task(emptied(port, session_id, how))
            await store.deleting.wait()
            await asker.chat("one", id="n1")
            assert (await asker.get("status"))["id"] == "n1"
            async with asking(port, session_id, "two") as two:
                body = {"session_id": session_id, "message": "three"}
                posted = asyncio.create_task(web.post("/api/v1/chat", json=body))
                while (await web.get("/stats")).json()["total_requests"] < 4:
                    pass
                assert not emptying.done()
                assert gemini.connections[-1].texts == ["old"]
                store.may.set()
                await emptying
                frames, code = await end(two)
                response = await posted
                if how == "clear":
                    await asker.get("session_cleared")
                    assert not asker.of("ack")  # it waits, and is not stored yet
                    complete = await asker.get("response_complete")
                    assert (complete["full_response"], complete["id"]) == ("You said: one.", "n1")
                    assert [ack["id"] for ack in asker.of("ack")] == ["n1"]
                    assert complete["message_count"] == 2
                    assert ([said["type"] for said in frames], code) == (["response", "done"], 1000)
                    assert frames[0]["content"] == "You said: two."
                    assert response.json()["content"] == "You said: three."
                    assert not asker.of("error")
                    assert gemini.connections[-1].texts == ["one", "two", "three"]
                else:
                    assert (await asker.get("error"))["id"] == "n1"
                    await asker.get("session_deleted")
                    assert ([said["type"] for said in frames], code) == (["error"], 1013)
                    assert response.status_code == 429
                    assert gemini.connections[-1].texts == ["old"]
        stats = (await web.get("/stats")).json()
        ends = (4, 0) if how == "clear" else (1, 3)
        assert (stats["successful_requests"], stats["failed_requests"]) == ends


@pytest.mark.usefixtures("no_errors", "slow_end")
@WAYS
async def test_what_is_said_while_the_run_ends_is_answered_afterwards(gemini: GeminiLive, how: str) -> None:
    async with serving(a_relay()) as port:
        session_id = await created(port)
        async with guest(port, session_id) as live, guest(port, session_id) as other:
            assert await live.ask("old") == "You said: old."
            await other.turn()
            gemini.connections[0].deafen()  # its run takes a while to end
            emptying = asyncio.create_task(emptied(port, session_id, how))
            await come_in(port)
            assert not emptying.done()
            await live.say("new")
            await emptying
            await reset(other, how)
            frames = await other.turn()
            assert [said["text"] for said in frames if said.get("type") == "message"] == ["new"]
            assert numbers(frames)[0] == 1
            assert words(frames) == "You said: new."
    assert gemini.connections[1].context == [("user", "new"), ("model", "You said: new.")]


@pytest.mark.usefixtures("no_errors", "slow_end")
async def test_pictures_sent_meanwhile_may_be_too_many_and_the_conversation_goes_on(
    gemini: GeminiLive,
) -> None:
    picture = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(3 * 2**20)).decode()
    async with serving(a_relay()) as port:
        session_id = await created(port)
        async with guest(port, session_id) as live:
            assert await live.ask("old") == "You said: old."
            gemini.connections[0].deafen()
            emptying = asyncio.create_task(empty(port, session_id, "clear"))
            await come_in(port)
            for _ in range(4):
                await live.send(mime_type="image/png", data=picture)
            assert (await emptying).status_code == 200
            before, _ = await reset(live, "clear")
            assert await live.ask("new") == "You said: new."
            assert {said["code"] for said in before + live.frames if "code" in said} <= {"busy"}


@pytest.mark.usefixtures("no_errors")
@WAYS
async def test_sound_sent_meanwhile_is_dropped(gemini: GeminiLive, how: str) -> None:
    store = Gate()
    async with serving(a_relay(sessions=store)) as port:
        session_id = await created(port)
        async with guest(port, session_id) as live:
            assert await live.ask("old") == "You said: old."
            emptying = asyncio.create_task(emptied(port, session_id, how))
            await store.deleting.wait()
            await live.socket.send(b"\1\0" * 320)  # too short to be passed on by itself
            await taken(live)
            store.may.set()
            await emptying
            await live.socket.send(b"\2\0" * 640)
            await gemini.wait_for(lambda: gemini.connections[-1].audio)
            assert bytes(gemini.connections[-1].audio) == b"\2\0" * 640


class SlowToStore(InMemorySessionService):
    """A store that takes a text of the user's, and does not come to an end with it."""

    def __init__(self) -> None:
        super().__init__()
        self.storing = asyncio.Event()

    async def append_event(self, session: Session, event: Event) -> Event:
        if event.content and event.content.parts and event.content.parts[0].text == "old":
            self.storing.set()
            await asyncio.sleep(20)
        return await super().append_event(session, event)


@WAYS
async def test_a_text_that_was_being_stored_is_not_said_afterwards(gemini: GeminiLive, how: str) -> None:
    store = SlowToStore()
    relay = a_relay(sessions=store)
    async with serving(relay) as port:
        session_id = await created(port)
        async with guest(port, session_id) as live:
            await live.say("old")
            await store.storing.wait()
            await emptied(port, session_id, how)
            await reset(live, how)
            assert await live.ask("new") == "You said: new."
            assert await stored(relay, session_id) == [("user", "new"), ("tester", "You said: new.")]
    assert [text for one in gemini.connections for text in one.texts] == ["new"]


# ---- several at once, and none -------------------------------------------------------------------


@pytest.mark.usefixtures("no_errors")
@pytest.mark.parametrize("attended", [True, False])
@pytest.mark.parametrize("ways", [("clear", "clear"), ("delete", "clear"), ("clear", "delete")])
async def test_two_resets_at_once(gemini: GeminiLive, attended: bool, ways: tuple[str, str]) -> None:
    store = Gate()
    async with serving(a_relay(sessions=store)) as port:
        session_id = await created(port)
        assert (await turn(port, session_id, "old"))["content"] == "You said: old."
        await gemini.wait_for(lambda: not gemini.open_connections)

        async def both() -> None:
            first = asyncio.create_task(empty(port, session_id, ways[0]))
            await store.deleting.wait()
            second = asyncio.create_task(empty(port, session_id, ways[1]))
            await come_in(port)
            store.may.set()
            async with asyncio.timeout(10):
                assert (await first).status_code == 200
                assert (await second).status_code in (200, 404)

        if attended:
            async with guest(port, session_id) as live:
                await both()
                await live.until(lambda said: said.get("type") in ("cleared", "deleted"))
                await live.say("new")
                await live.until(lambda said: said.get("data") == " new.")
        else:
            await both()
            assert (await turn(port, session_id, "new"))["content"] == "You said: new."
    assert gemini.connections[-1].texts == ["new"]
    assert not any("old" in said for _, said in gemini.connections[-1].context)


@pytest.mark.usefixtures("no_errors")
@STORES
@WAYS
async def test_a_reset_of_a_conversation_that_nobody_attends(
    gemini: GeminiLive, how: str, store: str, tmp_path: Path
) -> None:
    relay = a_relay(sessions=sessions_in(store, tmp_path))
    async with serving(relay) as port, http(port) as web:
        session_id = await created(port)
        assert (await turn(port, session_id, "old"))["content"] == "You said: old."
        await gemini.wait_for(lambda: not gemini.open_connections)
        await emptied(port, session_id, how)
        if how == "delete":
            assert await stored(relay, session_id) is None
            for response in (
                await web.get(f"/sessions/{session_id}"),
                await empty(port, session_id, "delete"),
                await empty(port, session_id, "clear"),
            ):
                assert response.status_code == 404
                assert session_id in response.json()["detail"]
            assert await stored(relay, session_id) is None
        else:
            assert await stored(relay, session_id) == []
            assert (await web.get(f"/sessions/{session_id}")).json()["message_count"] == 0
        while (await web.get("/health")).json()["active_sessions"]:
            pass
        assert (await turn(port, session_id, "new"))["content"] == "You said: new."
        assert gemini.connections[-1].context == [("user", "new"), ("model", "You said: new.")]


@pytest.mark.usefixtures("no_errors")
async def test_what_is_deleted_is_unknown_also_while_somebody_is_still_there(gemini: GeminiLive) -> None:
    async with serving(a_relay()) as port, http(port) as web, chat(port) as chatting:
        session_id = await created(port)
        async with guest(port, session_id) as live:
            assert await live.ask("hello") == "You said: hello."
            await emptied(port, session_id, "delete")
            await reset(live, "delete")
            await chatting.send(type="join_session", session_id=session_id)
            assert (await chatting.next())["type"] == "error"
            assert (await web.get(f"/sessions/{session_id}")).status_code == 404
            assert (await empty(port, session_id, "delete")).status_code == 404
            assert await live.ask("again") == "You said: again."
            assert (await chatting.join(session_id))["message_count"] == 2


class Slow(InMemorySessionService):
    """A store that takes its time to add what was said and heard by nobody."""

    def __init__(self) -> None:
        super().__init__()
        self.storing = asyncio.Event()
        self.may = asyncio.Event()

    async def append_event(self, session: Session, event: Event) -> Event:
        self.storing.set()
        await self.may.wait()
        return await super().append_event(session, event)


async def test_a_reset_of_a_conversation_that_is_just_ending(gemini: GeminiLive) -> None:
    """The last one has left before the model could be told what they said; it is being stored."""
    gemini.on_connect = lambda number: Plan(hang="setup") if number == 1 else None
    store = Slow()
    relay = a_relay(sessions=store)
    async with serving(relay) as port:
        session_id = await created(port)
        async with guest(port, session_id) as live:
            await live.say("unsaid")
            await gemini.wait_for(lambda: gemini.connections and gemini.connections[0].setup)
        await store.storing.wait()
        deleting = asyncio.create_task(empty(port, session_id, "delete"))
        await come_in(port)
        store.may.set()
        assert (await deleting).status_code == 200
        assert await stored(relay, session_id) is None


# ---- a store that fails --------------------------------------------------------------------------


class Failing(InMemorySessionService):
    """A store that can delete nothing."""

    async def delete_session(self, *, app_name: str, user_id: str, session_id: str) -> None:
        raise RuntimeError("the disk is read-only")


@WAYS
async def test_a_store_that_fails_is_told_and_the_conversation_goes_on(
    gemini: GeminiLive, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    relay = a_relay(sessions=Failing())
    async with serving(relay) as port:
        session_id = await created(port)
        async with guest(port, session_id) as live, chat(port, session_id) as chatting:
            assert await live.ask("one") == "You said: one."
            response = await empty(port, session_id, how)
            assert response.status_code == 500
            assert response.json()["detail"]
            assert "disk" not in response.text
            errors = [record for record in caplog.get_records("call") if record.levelno >= logging.ERROR]
            assert len(errors) == 1
            assert "the disk is read-only" in errors[0].getMessage()
            assert errors[0].exc_text is None and not errors[0].exc_info
            assert await live.ask("two") == "You said: two."
            await chatting.chat("three")
            await chatting.until(lambda said: said.get("full_response") == "You said: three.")
            assert chatting.of("response_complete")[-1]["message_count"] == 6
            assert [text for _, text in gemini.connections[-1].context][::2] == ["one", "two", "three"]
            assert not any(said.get("type") in ("cleared", "deleted") for said in live.frames)
            assert not chatting.of("session_cleared", "session_deleted")


class Uncreating(InMemorySessionService):
    """A store that can make no session while it is full."""

    full = False

    async def create_session(self, **which: Any) -> Session:
        if self.full:
            raise OSError("the disk is full")
        return await super().create_session(**which)


async def test_a_clear_that_only_deletes_leaves_an_empty_room_that_goes_on(
    gemini: GeminiLive, caplog: pytest.LogCaptureFixture
) -> None:
    store = Uncreating()
    relay = a_relay(sessions=store)
    async with serving(relay) as port, http(port) as web:
        session_id = await created(port)
        async with guest(port, session_id) as live, chat(port, session_id) as chatting:
            assert await live.ask("a secret") == "You said: a secret."
            store.full = True
            assert (await empty(port, session_id, "clear")).status_code == 500
            store.full = False
            errors = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
            assert len(errors) == 1 and "the disk is full" in errors[0]
            await reset(live, "clear")
            await chatting.get("session_cleared")
            assert await stored(relay, session_id) is None
            assert "secret" not in (await web.get(f"/sessions/{session_id}")).text
            async with guest(port, session_id, query="&after=0.0") as late:
                assert (await late.next())["messages"] == 0
            assert await live.ask("next") == "You said: next."
            assert (await chatting.get("response_complete"))["message_count"] == 2
            read = (await web.get(f"/sessions/{session_id}")).json()
            assert [line["text"] for line in read["history"]] == ["next", "You said: next."]
            assert await stored(relay, session_id) == [("user", "next"), ("tester", "You said: next.")]
            assert gemini.connections[-1].context == [("user", "next"), ("model", "You said: next.")]


class Stubborn(Slow, Failing):
    """One that is slow to store, and can delete nothing."""


async def test_after_a_clear_that_failed_a_text_that_was_being_stored_is_not_said_again(
    gemini: GeminiLive,
) -> None:
    store = Stubborn()
    store.may.set()
    relay = a_relay(sessions=store)
    async with serving(relay) as port:
        session_id = await created(port)
        async with guest(port, session_id) as live:
            assert await live.ask("one") == "You said: one."
            store.may.clear()
            store.storing.clear()
            await live.send(mime_type="text/plain", data="two", id="n2")
            await store.storing.wait()
            clearing = asyncio.create_task(empty(port, session_id, "clear"))
            await come_in(port)
            store.may.set()
            assert (await clearing).status_code == 500
            await live.until(lambda said: said == {"type": "ack", "id": "n2"})
            await live.send(mime_type="text/plain", data="two", id="n2")
            await live.until(lambda said: said == {"type": "ack", "id": "n2"})
            await live.say("three")
            await live.until(lambda said: said.get("data") == " three.")
            lines = await stored(relay, session_id)
            assert lines is not None
            assert [text for who, text in lines if who == "user"] == ["one", "two", "three"]
    assert [text for one in gemini.connections for text in one.texts].count("two") <= 1


# ---- at any moment -------------------------------------------------------------------------------


async def ended(who: Client, text: str) -> None:
    """Until an answer to this text has come to its end."""
    await who.until(lambda said: said.get("data", "").endswith(f" {text}."), 15)


@pytest.mark.parametrize(("store", "seed"), [("memory", 1), ("sqlite", 2)])
async def test_resets_at_random_moments(
    gemini: GeminiLive, store: str, seed: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    chance = random.Random(seed)

    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.say(f"You said: {turn.text}.", audio=False, delay=0.002)

    gemini.answer = answer
    relay = a_relay(sessions=sessions_in(store, tmp_path))
    async with serving(relay) as port, http(port) as web:
        session_id = await created(port)
        async with (
            guest(port, session_id) as live,
            guest(port, session_id) as other,
            chat(port) as chatting,
        ):

            async def talk(number: int) -> None:
                for part in range(chance.randrange(3)):
                    await asyncio.sleep(chance.random() * 0.03)
                    await live.say(f"old-{number}-{part}")
                if chance.random() < 0.3:
                    await chatting.chat(f"old-{number}-chat")

            async def wipe(how: str) -> int:
                await asyncio.sleep(chance.random() * 0.04)
                path = f"/sessions/{session_id}"
                response = await (web.delete(path) if how == "delete" else web.post(f"{path}/clear"))
                return response.status_code

            for number in range(50):
                await chatting.send(type="join_session", session_id=session_id)
                talking = asyncio.create_task(talk(number))
                how = "delete" if chance.random() < 0.4 else "clear"
                status = await wipe(how)
                await talking
                assert status == 200 or (how == "delete" and status == 404)
                # What was said while it was emptied may be answered after it, and then in full.
                await live.say(f"new-{number}")
                await ended(live, f"new-{number}")
                await live.until(lambda said: said.get("turn_complete"))
                lines = await stored(relay, session_id)
                assert lines is not None
                assert ("user", f"new-{number}") in lines
                rounds = {text.partition("-")[2].partition("-")[0] for who, text in lines if who == "user"}
                assert rounds <= {str(number)}, (number, lines)
            # The others have seen the same.
            last = "You said: new-49."
            await other.until(lambda said: said.get("data", "").endswith(" new-49."))
            assert words(other.frames[-len(last) :]).endswith(last)
            for who in (live, other):
                epoch = 0
                for said in who.frames:
                    if said.get("type") in ("cleared", "deleted"):
                        epoch = 0
                    elif "seq" in said:
                        assert said["seq"] > epoch
                        epoch = said["seq"]
    errors = [record for record in caplog.get_records("call") if record.levelno >= logging.ERROR]
    assert errors == []
