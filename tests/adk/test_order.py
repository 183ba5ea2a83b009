"""After a restart the messages stand in the order in which the listeners were told them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from google.adk.agents import LlmAgent

from support.chat import created, guest, http, taken
from support.client import Client, Json, words
from support.gemini import Connection, GeminiLive, UserTurn, silence, speech
from support.latency import slow_network
from support.server import a_relay, serving

pytestmark = [pytest.mark.usefixtures("quick_retries")]


def is_end(said: Json) -> bool:
    return bool(said.get("turn_complete"))


def is_cut(said: Json) -> bool:
    return bool(said.get("interrupted"))


def clock() -> str:
    """Tells the time."""
    return "noon"


async def lines(port: int, session_id: str) -> list[tuple[str, str]]:
    """The messages of a conversation, as (role, text)."""
    async with http(port) as web:
        history = (await web.get(f"/sessions/{session_id}")).json()["history"]
    return [(line["role"], line["text"]) for line in history]


class Script:
    """What happens in a conversation. `relay` serves it; `gemini` is told what to answer."""

    def __init__(self, gemini: GeminiLive) -> None:
        self.gemini = gemini
        self.go_on = asyncio.Event()
        gemini.answer = self.answer

    async def answer(self, connection: Connection, turn: UserTurn) -> None:
        if turn.audio:
            await self.go_on.wait()
            await connection.heard("I have spoken.")
            await connection.say("You spoke.")
        elif turn.text == "time":
            await connection.say("Let me see.", complete=False)
            await connection.call_tool("clock", {})
            await connection.say("It is noon.", delay=0.05)
        elif turn.text.startswith("long"):
            await connection.say(f"You said: {turn.text}. " + "And so on. " * 10, delay=0.05)
        elif connection.number > 1 and not turn.text:
            await connection.say("the rest.")
        else:
            await connection.say(f"You said: {turn.text}.")

    async def texts_at_once(self, alice: Client) -> None:
        for text in ("one", "two", "three"):
            await alice.say(text)
        await alice.until(lambda said: is_end(said) and "three" in words(alice.frames))

    async def texts_that_cut_in(self, alice: Client) -> None:
        for text in ("long one", "long two", "three"):
            await alice.say(text)
            await alice.until(lambda said: said.get("mime_type") == "text/plain")
        await alice.until(lambda said: is_end(said) and "three" in words(alice.frames))

    async def a_text_before_a_transcript(self, alice: Client) -> None:
        await alice.ask("zero")
        connection = self.gemini.connections[0]
        await alice.socket.send(speech(400) + silence(600))
        await self.gemini.wait_for(lambda: connection.audio)
        await alice.say("one")
        await taken(alice)
        self.go_on.set()
        await alice.until(lambda said: is_end(said) and "one" in words(alice.frames))

    async def speech_that_cuts_in(self, alice: Client) -> None:
        self.go_on.set()
        await alice.say("long one")
        await alice.until(lambda said: said.get("mime_type") == "text/plain")
        await alice.socket.send(speech(400) + silence(600))
        await alice.until(lambda said: is_end(said) and "You spoke." in words(alice.frames))

    async def a_text_while_the_connection_is_lost(self, alice: Client) -> None:
        await alice.say("long one")
        await alice.until(lambda said: said.get("mime_type") == "text/plain")
        await self.gemini.connections[0].die(1011)
        await alice.until(lambda said: said.get("state") == "reconnecting")
        await alice.say("two")
        await alice.until(lambda said: is_end(said) and "two" in words(alice.frames))

    async def a_text_after_a_stop(self, alice: Client) -> None:
        await alice.say("long one")
        await alice.until(lambda said: said.get("mime_type") == "text/plain")
        await alice.send(type="interrupt")
        await alice.until(is_cut)
        await alice.say("two")
        await alice.until(lambda said: is_end(said) and "two" in words(alice.frames))

    async def a_tool_in_an_answer(self, alice: Client) -> None:
        await alice.say("time")
        await alice.until(lambda said: said.get("type") == "tool_complete")
        await alice.until(lambda said: said.get("mime_type") == "text/plain")
        await alice.say("two")
        await alice.until(lambda said: is_end(said) and "two" in words(alice.frames))


SCRIPTS = [
    Script.texts_at_once,
    Script.texts_that_cut_in,
    Script.a_text_before_a_transcript,
    Script.speech_that_cuts_in,
    Script.a_text_while_the_connection_is_lost,
    Script.a_text_after_a_stop,
    Script.a_tool_in_an_answer,
]


@pytest.mark.parametrize("delay", [0.0, 0.05], ids=["near", "far"])
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
async def test_messages_are_in_the_order_in_which_they_were_told(
    gemini: GeminiLive,
    monkeypatch: pytest.MonkeyPatch,
    sessions: str,
    script: Callable[[Script, Client], Awaitable[None]],
    delay: float,
) -> None:
    agent = LlmAgent(name="tester", model="gemini-3.8-live", tools=[clock])
    async with slow_network(gemini.port, lambda: delay) as slow:
        if delay:
            monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", f"https://127.0.0.1:{slow}")
        relay = a_relay(agent, sessions=sessions, grace=30)
        async with serving(relay) as port:
            session_id = await created(port)
            async with guest(port, session_id, query="&is_audio=true") as alice:
                await script(Script(gemini), alice)
                told = await lines(port, session_id)
    kept: Any = relay.conversations.service if sessions == "memory://" else sessions
    async with serving(a_relay(agent, sessions=kept)) as port:
        again = await lines(port, session_id)
    assert [role for role, _ in again] == [role for role, _ in told], (told, again)
    for (_, now), (_, before) in zip(again, told, strict=True):
        assert now.startswith(before.rstrip()), (told, again)
