"""A plugin or a callback of the agent's blocks what a user asks, or what the agent answers."""

from __future__ import annotations

from typing import Any

import pytest
from google.adk.agents import LlmAgent
from google.adk.apps import App
from google.adk.models.llm_request import LlmRequest
from google.adk.models.llm_response import LlmResponse
from google.adk.plugins.base_plugin import BasePlugin
from google.genai import types

from support.chat import chat, created, guest, http, turn
from support.client import words as words_of
from support.gemini import Connection, GeminiLive, UserTurn, silence, speech
from support.server import a_relay, serving

pytestmark = pytest.mark.usefixtures("no_errors")

LIVE = "gemini-3.8-live"
INPUT, ANSWER = "We do not talk about that here.", "I should not have said that."
CUT = f"Well,{ANSWER}"


def words(text: str) -> LlmResponse:
    return LlmResponse(content=types.Content(role="model", parts=[types.Part(text=text)]))


def before_model(llm_request: LlmRequest) -> LlmResponse | None:
    return words(INPUT) if "bad" in str(llm_request.contents[-1:]) else None


def after_model(llm_response: LlmResponse) -> LlmResponse | None:
    spoken = llm_response.output_transcription
    text = (spoken.text if spoken else "") or str(llm_response.content)
    return words(ANSWER) if "odd" in text else None


class Blocking(BasePlugin):
    async def before_model_callback(self, *, llm_request: LlmRequest, **_: Any) -> LlmResponse | None:
        return before_model(llm_request)

    async def after_model_callback(self, *, llm_response: LlmResponse, **_: Any) -> LlmResponse | None:
        return after_model(llm_response)


def by_plugin() -> App:
    return App(name="shop", root_agent=LlmAgent(name="tester", model=LIVE), plugins=[Blocking("blocking")])


def by_callback() -> LlmAgent:
    return LlmAgent(
        name="tester",
        model=LIVE,
        before_model_callback=lambda callback_context, llm_request: before_model(llm_request),
        after_model_callback=lambda callback_context, llm_response: after_model(llm_response),
    )


@pytest.mark.parametrize("blocking", [by_plugin, by_callback])
async def test_what_is_blocked_ends_its_turn_only(gemini: GeminiLive, blocking: Any) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.say("Well, odd things happen." if turn.text == "odd" else f"You said: {turn.text}.")

    gemini.answer = answer
    async with serving(a_relay(blocking())) as port, http(port) as web:
        session_id = await created(port)
        async with guest(port, session_id) as live, chat(port, session_id) as room:

            async def by_http(text: str) -> str:
                answer = await web.post("/api/v1/chat", json={"session_id": session_id, "message": text})
                assert answer.status_code == 200, answer.text
                return str(answer.json()["content"])

            async def by_turn(text: str) -> str:
                return str((await turn(port, session_id, text))["content"])

            for ask in (live.ask, room.ask, by_turn, by_http):
                assert await ask("bad") == INPUT
                assert await ask("odd") == CUT
                assert await ask("good") == "You said: good."
            summary = (await web.get(f"/sessions/{session_id}")).json()
            said = [message["text"] for message in summary["history"]]
            assert said == ["bad", INPUT, "odd", CUT, "good", "You said: good."] * 4
            assert summary["message_count"] == 24
            stats = (await web.get("/stats")).json()
            asked = ("total_requests", "successful_requests", "failed_requests")
            assert [stats[name] for name in asked] == [9, 9, 0]
    # ADK itself makes a new connection to the model, so that the rest of what was blocked is not heard.
    texts = [connection.texts for connection in gemini.connections]
    assert texts == [["odd"], *[["good", "odd"]] * 3, ["good"]]


async def test_what_is_said_aloud_is_blocked(gemini: GeminiLive) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.audio:
            await connection.heard("something bad")
        await connection.say("You said it.")

    gemini.answer = answer
    async with serving(a_relay(by_plugin())) as port:
        session_id = await created(port)
        async with guest(port, session_id, audio=True) as live, chat(port, session_id) as room:
            await live.socket.send(speech(400) + silence(1000))
            assert words_of(await live.turn()) == INPUT
            assert (await room.get("response_complete"))["full_response"] == INPUT
            assert await room.ask("good") == await live.ask("good") == "You said it."
