"""Callbacks and the session service may take their time, and what is refused stays refused."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from google.adk.agents import LlmAgent
from google.adk.agents.callback_context import CallbackContext
from google.adk.events import Event
from google.adk.models.llm_request import LlmRequest
from google.adk.models.llm_response import LlmResponse
from google.adk.sessions import InMemorySessionService, Session
from google.genai import types
from websockets.asyncio.client import connect

from support.chat import chat, created, end, guest, http, stored
from support.client import Client, Json, client, words
from support.gemini import Connection, GeminiLive, Plan, UserTurn, silence, speech
from support.server import a_relay, serving

pytestmark = [pytest.mark.usefixtures("quick_retries")]

MODEL = "gemini-3.8-live"


def is_end(said: Json) -> bool:
    return bool(said.get("turn_complete"))


def said_by_agent(text: str) -> types.Content:
    return types.Content(role="model", parts=[types.Part(text=text)])


class Moderation:
    """A `before_model_callback` that takes its time, and refuses what has "bad" in it."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.has_begun = asyncio.Event()

    async def __call__(
        self, callback_context: CallbackContext, llm_request: LlmRequest
    ) -> LlmResponse | None:
        parts = llm_request.contents[-1].parts or []
        text = parts[0].text or ""
        self.asked.append(text)
        self.has_begun.set()
        await self.gate.wait()
        return LlmResponse(content=said_by_agent("I do not talk about that.")) if "bad" in text else None

    @property
    def agent(self) -> LlmAgent:
        return LlmAgent(name="tester", model=MODEL, before_model_callback=self)


def all_that_models_know(gemini: GeminiLive) -> str:
    """All that was sent to any model."""
    return str([(each.history, each.texts, each.context) for each in gemini.connections])


async def test_a_callback_that_takes_long_and_refuses_is_no_outage(
    gemini: GeminiLive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adk_relay.adk.pulse._STALLED_AFTER", 0.2)
    monkeypatch.setattr("adk_relay.adk.pulse._SILENT_AFTER", 0.2)
    monkeypatch.setattr("adk_relay.adk.runs._LOOK_EVERY", 0.1)
    moderation = Moderation()
    async with serving(a_relay(moderation.agent, grace=30)) as port, client(port) as alice:
        assert await alice.ask("one") == "You said: one."
        moderation.gate.clear()
        moderation.has_begun.clear()
        await alice.say("something bad")
        await moderation.has_begun.wait()
        await alice.say("two")
        await asyncio.sleep(1)  # longer than any limit above
        moderation.gate.set()
        assert words(await alice.until(is_end)) == "I do not talk about that."
        assert words(await alice.until(is_end)) == "You said: two."
        assert len(gemini.connections) == 1
        assert "reconnecting" not in str(alice.frames)
        # The refused text is stored, and a later connection gets the history without it.
        await gemini.connections[0].die(1011)
        await alice.until(lambda said: said.get("state") == "live")
        gemini.handles.clear()
        await gemini.connections[-1].die(1011)
        await alice.until(lambda said: said.get("state") == "live")
        assert await alice.ask("three") == "You said: three."
    assert "something bad" not in all_that_models_know(gemini)
    assert gemini.connections[-1].history


@pytest.mark.parametrize("is_refused", [True, False])
async def test_a_text_that_is_undecided_when_the_connection_is_lost_is_decided_on_again(
    gemini: GeminiLive, is_refused: bool
) -> None:
    moderation = Moderation()
    text = "something bad" if is_refused else "something good"
    relay = a_relay(moderation.agent, grace=30)
    async with serving(relay) as port:
        session_id = await created(port)
        async with guest(port, session_id) as alice:
            assert await alice.ask("one") == "You said: one."
            moderation.gate.clear()
            moderation.has_begun.clear()
            await alice.say(text)
            await moderation.has_begun.wait()
            moderation.has_begun.clear()
            await gemini.connections[0].die(1011)
            await moderation.has_begun.wait()
            assert text not in all_that_models_know(gemini)
            moderation.gate.set()
            answer = "I do not talk about that." if is_refused else f"You said: {text}."
            assert words(await alice.until(is_end)).endswith(answer)
        assert moderation.asked == ["one", text, text]
        lines = await stored(relay, session_id)
        assert lines
        assert [line for author, line in lines if author == "user"] == ["one", text]
    assert (text in all_that_models_know(gemini)) is not is_refused


async def test_what_was_refused_or_undecided_in_another_life_reaches_no_model(gemini: GeminiLive) -> None:
    moderation = Moderation()
    sessions = InMemorySessionService()
    async with serving(a_relay(moderation.agent, sessions=sessions)) as port, client(port) as alice:
        assert await alice.ask("one") == "You said: one."
        await alice.say("something bad")
        await alice.until(is_end)
        moderation.gate.clear()
        moderation.has_begun.clear()
        await alice.say("never decided")
        await moderation.has_begun.wait()
    moderation.gate.set()
    async with serving(a_relay(moderation.agent, sessions=sessions)) as port, client(port) as alice:
        assert await alice.ask("two") == "You said: two."
    known = all_that_models_know(gemini)
    assert "something bad" not in known
    assert "never decided" not in known
    assert "one" in str(gemini.connections[-1].history)


async def test_texts_that_were_stored_without_a_model_are_undecided(gemini: GeminiLive) -> None:
    gemini.on_connect = {1: Plan(hang="handshake")}.get
    moderation = Moderation()
    relay = a_relay(moderation.agent)
    async with serving(relay) as port:
        session_id = await created(port)
        async with guest(port, session_id) as alice:
            for text in ("bad one", "bad two", "bad three"):
                await alice.say(text)
            await gemini.wait_for(lambda: gemini.connects)
        while relay.conversations._open:
            await asyncio.sleep(0.05)  # nothing tells of it
        async with guest(port, session_id) as alice:
            assert await alice.ask("two") == "You said: two."
        lines = await stored(relay, session_id)
        assert lines
        assert [text for author, text in lines if author == "user"] == [
            "bad one",
            "bad two",
            "bad three",
            "two",
        ]
    assert "bad" not in all_that_models_know(gemini)


@pytest.mark.voice
async def test_speech_that_was_refused_reaches_no_other_model(gemini: GeminiLive) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.audio:
            await connection.heard("Something bad.")
        await connection.say(f"You said: {turn.text}.")

    gemini.answer = answer
    moderation = Moderation()
    async with serving(a_relay(moderation.agent, grace=30)) as port, client(port, audio=True) as alice:
        assert await alice.ask("one") == "You said: one."
        await alice.socket.send(speech(400) + silence(600))
        frames = await alice.until(is_end)
        assert "I do not talk about that." in words(frames)
        await gemini.wait_for(lambda: len(gemini.connections) > 1)
        assert await alice.ask("two") == "You said: two."
    assert "Something bad." not in str([connection.history for connection in gemini.connections])


# ---- an agent that answers without a model ---------------------------------------------------


async def closed(callback_context: CallbackContext) -> types.Content:
    return said_by_agent("We are closed.")


def closed_agent() -> LlmAgent:
    return LlmAgent(name="tester", model=MODEL, before_agent_callback=closed)


async def test_an_agent_that_answers_without_a_model_has_given_a_whole_answer(gemini: GeminiLive) -> None:
    relay = a_relay(closed_agent(), grace=30)
    async with serving(relay) as port:
        session_id = await created(port)
        async with guest(port, session_id) as live, chat(port, session_id) as asking:
            for text in ("one", "two"):
                assert await live.ask(text) == "We are closed."
            for text in ("three", "four"):
                await asking.chat(text, id=text)
            for text in ("three", "four"):
                response = await asking.get("response_complete")
                while not response["connection_id"]:
                    response = await asking.get("response_complete")
                assert (response["full_response"], response["id"]) == ("We are closed.", text)
                assert "interrupted" not in response
        lines = await stored(relay, session_id)
        assert lines
        assert [line for author, line in lines if author == "user"] == ["one", "two", "three", "four"]
    assert gemini.connects == 0


async def test_sound_does_not_make_it_say_so_again_and_again(gemini: GeminiLive) -> None:
    async with serving(a_relay(closed_agent(), grace=30)) as port, client(port, audio=True) as alice:
        assert words(await alice.until(is_end)) == "We are closed."
        for _ in range(20):
            await alice.socket.send(speech(100))
        await alice.send(type="ping")
        frames = await alice.until(lambda said: said.get("type") == "pong")
        assert words(frames) == ""


# ---- the session service ---------------------------------------------------------------------


class Failing(InMemorySessionService):
    """Fails as long as it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.is_full = False

    async def create_session(self, **which: Any) -> Session:
        if self.is_full:
            raise OSError("the disk is full")
        return await super().create_session(**which)

    async def append_event(self, session: Session, event: Event) -> Event:
        if self.is_full:
            raise OSError("the disk is full")
        return await super().append_event(session, event)

    async def get_session(self, **which: Any) -> Session | None:
        if self.is_full:
            raise OSError("the disk is full")
        return await super().get_session(**which)


async def test_a_request_that_failed_with_the_store_is_not_asked_later(gemini: GeminiLive) -> None:
    sessions = Failing()
    relay = a_relay(sessions=sessions, grace=30)
    async with serving(relay) as port:
        session_id = await created(port)

        async def ask(web: httpx.AsyncClient, text: str) -> httpx.Response:
            return await web.post("/api/v1/chat", json={"session_id": session_id, "message": text})

        async with http(port) as web, guest(port, session_id):
            assert (await ask(web, "one")).json()["content"] == "You said: one."
            sessions.is_full = True
            assert (await ask(web, "two")).status_code >= 500
            sessions.is_full = False
            again = await ask(web, "three")
            assert (again.status_code, again.json()["content"]) == (200, "You said: three.")
            stats = relay.conversations.stats
            assert (stats.successful, stats.failed) == (2, 1)
    assert "two" not in all_that_models_know(gemini)


async def test_requests_whose_conversation_cannot_be_opened_count_as_failed(gemini: GeminiLive) -> None:
    sessions = Failing()
    relay = a_relay(sessions=sessions)
    async with serving(relay) as port, chat(port) as new, chat(port) as old, http(port) as web:
        session_id = await created(port)
        sessions.is_full = True
        await new.chat("one", session_id="")  # in a new conversation
        await old.chat("two", session_id=session_id)
        async with connect(f"ws://127.0.0.1:{port}/api/v1/chat/stream", proxy=None) as socket:
            turn = Client(socket, {})
            await turn.send(session_id=session_id, message="three")
            for who in (new, old, turn):
                frames, code = await end(who)
                assert (frames[-1]["type"], code) == ("error", 1011)
        assert (await web.post("/sessions/new")).status_code >= 500  # is no request for an answer
        stats = relay.conversations.stats
        assert (stats.requests, stats.successful, stats.failed) == (3, 0, 3)
    assert gemini.connects == 0


async def test_a_slow_store_is_no_outage(gemini: GeminiLive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adk_relay.adk.pulse._STALLED_AFTER", 0.1)
    monkeypatch.setattr("adk_relay.adk.runs._LOOK_EVERY", 0.05)

    class Slow(InMemorySessionService):
        async def append_event(self, session: Session, event: Event) -> Event:
            await asyncio.sleep(0.7)
            return await super().append_event(session, event)

    async with serving(a_relay(sessions=Slow(), grace=30)) as port, client(port) as alice:
        for text in ("one", "two"):
            assert await alice.ask(text) == f"You said: {text}."
    assert [connection.texts for connection in gemini.connections] == [["one", "two"]]


async def test_requests_back_to_back_without_grace_all_get_their_answers(gemini: GeminiLive) -> None:
    relay = a_relay(grace=0)
    transport = httpx.ASGITransport(relay)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as web:
        session_id = (await web.post("/sessions/new")).json()["session_id"]
        for number in range(8):
            response = await web.post(
                "/api/v1/chat", json={"session_id": session_id, "message": f"text {number}"}
            )
            assert response.status_code == 200
            assert response.json()["content"] == f"You said: text {number}."
    await relay.aclose()
