"""Texts with an id: each is said once, however often it is sent, and acked when it is stored."""

from __future__ import annotations

import asyncio
import gc
import logging
from typing import Any

import pytest
from google.adk.events import Event
from google.adk.sessions import InMemorySessionService, Session
from websockets.exceptions import ConnectionClosed

from support.chat import chat, created
from support.client import client, words
from support.gemini import Connection, GeminiLive, Plan, UserTurn
from support.proxy import Proxy
from support.server import a_relay, serving
from support.traveler import Traveler, gone, is_ack, is_end, is_type

pytestmark = [pytest.mark.usefixtures("no_errors"), pytest.mark.bus]


# ---- texts with an id ------------------------------------------------------------------------


class Gated(InMemorySessionService):
    """A store that stores a user's text only when it is allowed to."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = asyncio.Event()
        self.gate = asyncio.Event()

    async def append_event(self, session: Session, event: Event) -> Event:
        if event.author == "user":
            self.asked.set()
            await self.gate.wait()
        return await super().append_event(session, event)

    async def stored(self) -> list[str]:
        """The user's texts in alice's session."""
        session = await self.get_session(app_name="tester", user_id="alice", session_id="live-alice")
        events = session.events if session else []
        return [_text(event) for event in events if event.author == "user"]


def _text(event: Event) -> str:
    parts = event.content.parts if event.content else None
    return (parts and parts[0].text) or ""


async def test_a_text_is_acked_when_it_is_stored_and_no_sooner(gemini: GeminiLive) -> None:
    sessions = Gated()
    async with serving(a_relay(sessions=sessions)) as port, Traveler(port) as one:
        await one.greeted()
        await one.say("hello", "q")
        await asyncio.wait_for(sessions.asked.wait(), 60)
        await one.send(type="nothing that there is")
        await one.until(lambda said: said.get("code") == "bad_message")
        assert one.acks == []
        assert await sessions.stored() == []
        sessions.gate.set()
        await one.until(is_type("ack"))
        assert await sessions.stored() == ["hello"]
        if not one.count("turn_complete"):
            await one.until(is_end)
        assert one.acks == ["q"]


async def test_a_text_that_comes_again_is_said_once_and_acked_each_time(gemini: GeminiLive) -> None:
    async with serving(a_relay()) as port, Traveler(port) as one, client(port) as other:
        await one.greeted()
        for again in range(3):
            await one.say("hello", "q")
            await one.until(is_type("ack"))
            assert one.acks == ["q"] * (again + 1)
        # Only the id counts, whoever sends it. Another text with that id is neither said nor acked.
        await other.send(mime_type="text/plain", data="hello", id="q")
        await other.until(is_ack("q"))
        await other.send(mime_type="text/plain", data="something else", id="q")
        (error,) = [said for said in await other.until(is_type("error")) if said.get("type") == "error"]
        assert (error["code"], error["id"]) == ("bad_data", "q")
        await one.say("bye", "r")
        await one.until(lambda said: is_end(said) and one.words.endswith("bye."))
        assert gemini.connections[0].texts == ["hello", "bye"]
        await other.until(is_end)
        told_ = [said for said in other.frames if said.get("type") == "message"]
        assert [(said["id"], said["text"]) for said in told_] == [("q", "hello"), ("r", "bye")]


@pytest.mark.parametrize("stored", ["before it comes back", "after it has come back"])
async def test_a_text_whose_ack_was_lost_is_said_once(gemini: GeminiLive, stored: str) -> None:
    sessions = Gated()
    async with (
        serving(a_relay(sessions=sessions, grace=30)) as port,
        Proxy(port) as network,
        Traveler(network.port) as one,
    ):
        await one.greeted()
        await one.say("hello", "q")
        await asyncio.wait_for(sessions.asked.wait(), 60)
        network.lines[0].cut()
        if stored == "before it comes back":
            sessions.gate.set()
            await gemini.wait_for(lambda: gemini.connections and gemini.connections[0].texts)
        await one.greeted()  # the client sends its text again
        sessions.gate.set()
        await one.until(is_ack("q"))
        if not one.count("turn_complete"):
            await one.until(is_end)
        assert one.words == "You said: hello."
        assert gemini.connections[0].texts == await sessions.stored() == ["hello"]
        # It gets its own text, because it can't know that it had arrived, and recognizes it by the id.
        assert [said["id"] for said in one.said if said.get("type") == "message"] == ["q"]


async def test_a_text_that_never_arrived_is_said_when_it_is_sent_again(gemini: GeminiLive) -> None:
    async with serving(a_relay(grace=30)) as port, Proxy(port) as network, Traveler(network.port) as one:
        await one.greeted()
        network.lines[0].cut()
        await one.say("hello", "q")
        await one.until(is_end)
        assert one.acks == ["q"]
        assert gemini.connections[0].texts == ["hello"]


async def test_in_a_new_epoch_an_id_is_new(gemini: GeminiLive) -> None:
    relay = a_relay(grace=0)
    async with serving(relay) as port, Traveler(port) as one:
        for _ in range(2):
            await one.greeted()
            await one.say("hello", "q")
            await one.until(is_end)
            await one.leave()
            await gone(relay)
        assert [said for connection in gemini.connections for said in connection.texts] == ["hello"] * 2


@pytest.mark.parametrize("name", ["x" * 65, 5, None, ["q"], {}, True, "a\nb", "\ud800"])
async def test_an_id_that_is_none_is_refused(gemini: GeminiLive, name: Any) -> None:
    async with serving(a_relay()) as port, client(port) as alice:
        await alice.send(mime_type="text/plain", data="no", id=name)
        error = await alice.next()
        assert (error["type"], error["code"]) == ("error", "bad_data")
        assert "id" in error["message"]
        await alice.send(mime_type="text/plain", data="yes", id="x" * 64)
        await alice.until(is_ack("x" * 64))
        await alice.until(is_end)
        assert gemini.connections[0].texts == ["yes"]


async def test_many_texts_at_once_are_each_said_once_and_in_order(gemini: GeminiLive) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.turn_complete()

    gemini.answer = answer
    names = [f"name {n}" for n in range(150)]
    async with serving(a_relay(grace=30)) as port, Proxy(port) as network:
        async with Traveler(network.port) as one:
            await one.greeted()
            for name in names:
                await one.say(f"text of {name}", name)
            await one.until(lambda said: len(one.acks) == 40)
            network.lines[0].cut()
            while one.owed:
                await one.next()
            assert len(one.hellos) == 2
            # An ack is sent as soon as the text is stored.
            await gemini.wait_for(lambda: len(gemini.connections[0].texts) == len(names))
            assert gemini.connections[0].texts == [f"text of {name}" for name in names]
            # Sends all of them again, as a client does that has lost every ack.
            one.acks.clear()
            for name in names:
                await one.say(f"text of {name}", name)
            while one.owed:
                await one.next()
            assert one.acks == names
        assert len(gemini.connections[0].texts) == len(names)


async def test_a_text_that_waited_while_the_model_was_out_of_reach_is_said_when_it_comes_again(
    gemini: GeminiLive, quick_retries: None, caplog: pytest.LogCaptureFixture
) -> None:
    gemini.on_connect = lambda number: Plan(http_status=503) if number <= 5 else None
    async with serving(a_relay(grace=30)) as port, Traveler(port, audio=False) as one:
        await one.greeted()
        await one.say("hello", "q")
        with pytest.raises(ConnectionClosed) as closed:
            await one.until(is_end)
        assert closed.value.rcvd and closed.value.rcvd.code == 1011
        caplog.clear()  # the failure is an error in the log, as it should be
        await one.until(is_end)
        assert one.acks == ["q"]
        assert one.words == "You said: hello."
        assert gemini.connections[-1].texts == ["hello"]


class Full(InMemorySessionService):
    """A store that fails so many times to store a user's text; `storing` is set when it first does."""

    def __init__(self, failures: int) -> None:
        super().__init__()
        self.storing = asyncio.Event()
        self.may = asyncio.Event()
        self.failures = failures

    async def append_event(self, session: Session, event: Event) -> Event:
        if event.author == "user":
            self.storing.set()
            await self.may.wait()
            if self.failures:
                self.failures -= 1
                raise OSError("the disk is full")
        return await super().append_event(session, event)


async def test_a_text_that_could_not_be_stored_at_the_end_is_said_when_it_comes_again(
    gemini: GeminiLive,
    quick_retries: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A client comes back meanwhile, so the conversation goes on; then the next run fails, too."""
    monkeypatch.setattr("adk_relay.adk.runs._END_WAIT", 0.1)
    monkeypatch.setattr("adk_relay.adk.runs._LOOK_EVERY", 0.05)
    monkeypatch.setattr("adk_relay.adk.pulse._STALLED_AFTER", 0.5)
    gemini.on_connect = {1: Plan(hang="setup")}.get
    store = Full(failures=2)
    async with serving(a_relay(sessions=store)) as port:
        async with client(port) as alice:
            await alice.send(mime_type="text/plain", data="hello", id="q")
            await gemini.wait_for(lambda: gemini.connections and gemini.connections[0].setup)
            epoch = alice.hello["epoch"]
        await asyncio.wait_for(store.storing.wait(), 60)
        async with client(port) as alice:
            assert alice.hello["epoch"] == epoch
            store.may.set()
            await alice.send(mime_type="text/plain", data="hello", id="q")
            await alice.until(is_ack("q"))
            await alice.until(is_end)
            assert words(alice.frames) == "You said: hello."
            await alice.send(mime_type="text/plain", data="hello", id="q")
            await alice.until(is_ack("q"))
    assert [text for one in gemini.connections for text in one.texts] == ["hello"]
    gc.collect()  # asyncio logs an exception that nobody has looked at when its task is collected
    errors = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert errors == ["alice: 1 texts could not be stored: the disk is full"]
    caplog.clear()


# ---- chat messages with an id ----------------------------------------------------------------


async def test_a_chat_message_is_acked_when_it_is_stored_and_no_sooner(gemini: GeminiLive) -> None:
    sessions = Gated()
    async with serving(a_relay(sessions=sessions)) as port:
        session_id = await created(port)
        async with chat(port, session_id) as one:
            await one.chat("hello", id="q")
            await asyncio.wait_for(sessions.asked.wait(), 60)
            await one.send(type="ping")
            await one.get("pong")
            assert [said["id"] for said in one.of("status")] == ["q"]
            assert not one.of("ack")
            sessions.gate.set()
            assert (await one.get("ack"))["id"] == "q"
            complete = await one.get("response_complete")
            assert (complete["id"], complete["full_response"]) == ("q", "You said: hello.")
            assert [said["id"] for said in one.of("response_start")] == ["q"]
            assert len(one.of("ack")) == 1


@pytest.mark.parametrize("when", ["while it waits", "before its first word", "in mid answer", "afterwards"])
async def test_a_chat_message_that_comes_again_through_another_socket_is_said_once(
    gemini: GeminiLive, when: str
) -> None:
    begin, go_on = asyncio.Event(), asyncio.Event()

    async def answer(connection: Connection, turn: UserTurn) -> None:
        await begin.wait()
        await connection.say("You", complete=False)
        await go_on.wait()
        await connection.say(f" said: {turn.text}.")

    gemini.answer = answer
    relay = a_relay(grace=30)
    async with serving(relay) as port:
        session_id = await created(port)
        async with chat(port, session_id) as first, chat(port, session_id) as second:
            if when == "while it waits":
                await first.chat("before")
                await first.get("status")
            await first.chat("hello", id="q")
            assert (await first.get("status"))["id"] == "q"
            if when != "while it waits":
                await first.get("ack")
            if when in ("in mid answer", "afterwards"):
                begin.set()
                await second.until(lambda said: said.get("text") == "You")
            if when == "afterwards":
                go_on.set()
                assert (await second.get("response_complete"))["id"] == "q"

            at = len(second.frames)
            await second.chat("hello", id="q")
            if when == "while it waits":
                waits = await second.get("status")
                assert (waits["id"], "1 before" in waits["message"]) == ("q", True)
            else:
                assert (await second.get("ack"))["id"] == "q"
            await first.socket.close()
            await second.get("user_disconnected")
            begin.set()
            go_on.set()
            if when == "while it waits":
                assert "id" not in await second.get("response_complete")
                assert (await second.get("ack"))["id"] == "q"
            if when != "afterwards":
                complete = await second.get("response_complete")
                assert (complete["id"], complete["full_response"]) == ("q", "You said: hello.")
                assert second.of("response_start")[-1]["id"] == "q"
            if when in ("while it waits", "before its first word"):
                assert complete["connection_id"] == second.hello["connection_id"]
            await second.chat("bye", id="r")
            assert (await second.get("response_complete"))["full_response"] == "You said: bye."
            told_ = [said for said in second.frames[at:] if said["type"] == "response_complete"]
            assert [said.get("id") for said in told_] == {
                "while it waits": [None, "q", "r"],
                "afterwards": ["r"],
            }.get(when, ["q", "r"])
            before = ["before"] if when == "while it waits" else []
            assert gemini.connections[0].texts == [*before, "hello", "bye"]
