"""What begins a turn ends it: every answer that was told of, or asked for, ends within a bound."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from google.adk.agents import LlmAgent
from google.adk.agents.run_config import RunConfig
from google.adk.tools.function_tool import FunctionTool
from google.genai import types

from support.chat import chat, created, guest, http
from support.client import Json, client, words
from support.gemini import (
    HALF_CASCADE_2,
    NATIVE_AUDIO_2,
    Connection,
    GeminiLive,
    Plan,
    UserTurn,
    silence,
    speech,
)
from support.server import a_relay, serving

pytestmark = [pytest.mark.usefixtures("quick_retries")]


def is_end(said: Json) -> bool:
    return bool(said.get("turn_complete"))


@pytest.mark.parametrize("model", ["gemini-3.8-live", NATIVE_AUDIO_2])
async def test_a_tool_in_the_background_holds_no_turn_open(gemini: GeminiLive, model: str) -> None:
    may_answer = threading.Event()  # relay runs tools in threads

    def search(what: str) -> str:
        """Searches."""
        may_answer.wait(60)
        return "found"

    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text != "search":
            await connection.say(f"You said: {turn.text}.")
            return
        call = {"id": "call-1", "name": "search", "args": {"what": "it"}}
        connection._calls["call-1"] = asyncio.get_running_loop().create_future()
        await connection.say("One moment.", complete=False)
        await connection.send({"toolCall": {"functionCalls": [call]}})
        connection.turn_open = False
        await connection.send({"serverContent": {"turnComplete": True}})

    gemini.answer = answer
    tool = FunctionTool(search)
    tool.behavior = types.Behavior.NON_BLOCKING
    agent = LlmAgent(name="tester", model=model, tools=[tool])
    async with serving(a_relay(agent)) as port:
        session_id = await created(port)
        async with chat(port, session_id) as asking, guest(port, session_id) as live:
            assert await asking.ask("search") == "One moment."
            for text in ("one", "two"):
                assert await asking.ask(text) == f"You said: {text}."
            may_answer.set()
            await gemini.wait_for(lambda: gemini.connections[0].tool_responses)
            await live.until(lambda said: said.get("type") == "tool_complete")
            assert await asking.ask("three") == "You said: three."


@pytest.mark.parametrize("rest", ["", "It is noon."])
async def test_only_the_first_end_of_a_turn_with_a_tool_is_early(gemini: GeminiLive, rest: str) -> None:
    def clock() -> str:
        """Tells the time."""
        return "noon"

    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text == "time":
            await connection.call_tool("clock", {})
            await (connection.say(rest) if rest else connection.turn_complete())
        else:
            await connection.say(f"You said: {turn.text}.")

    gemini.answer = answer
    agent = LlmAgent(name="tester", model=NATIVE_AUDIO_2, tools=[clock])
    async with serving(a_relay(agent)) as port, chat(port, await created(port)) as asking:
        assert await asking.ask("time") == rest
        assert await asking.ask("one") == "You said: one."


@pytest.mark.voice
async def test_a_transcript_that_comes_after_the_turn_asks_nothing(gemini: GeminiLive) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.audio:
            await connection.say("I heard you.")
            await connection.heard("Hello there.")
        else:
            await connection.say(f"You said: {turn.text}.")

    gemini.answer = answer
    async with serving(a_relay()) as port:
        session_id = await created(port)
        async with guest(port, session_id, query="&is_audio=true") as live, chat(port, session_id) as asking:
            await live.socket.send(speech(400) + silence(600))
            await live.until(lambda said: "Hello there." in str(said))
            await asking.get("response_complete")
            assert await asyncio.wait_for(asking.ask("one"), 5) == "You said: one."
            await gemini.connections[0].die(1011)
            await live.until(lambda said: said.get("state") == "live")
            assert await asking.ask("two") == "You said: two."
    assert "before you answered" not in str(gemini.connections[-1].history)


@pytest.mark.voice
async def test_words_that_come_after_the_turn_end(
    gemini: GeminiLive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adk_relay.adk.pulse._LATE_WORDS", 0.2)
    monkeypatch.setattr("adk_relay.adk.runs._LOOK_EVERY", 0.1)

    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.say("You said:")
        await connection.send({"serverContent": {"outputTranscription": {"text": f" {turn.text}."}}})

    gemini.answer = answer
    async with serving(a_relay()) as port, client(port) as alice:
        for text in ("one", "two"):
            await alice.say(text)
            first = await alice.until(is_end)
            assert words(first + await alice.until(is_end)) == f"You said: {text}."


async def test_speech_that_the_model_does_not_answer_lets_requests_go_on(
    gemini: GeminiLive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adk_relay.adk.turn._UNDERSTOOD", 0.3)
    monkeypatch.setattr("adk_relay.adk.runs._LOOK_EVERY", 0.1)

    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.audio:
            await connection.heard("Somebody else was meant.")
        else:
            await connection.say(f"You said: {turn.text}.")

    gemini.answer = answer
    async with serving(a_relay(grace=30)) as port:
        session_id = await created(port)
        async with guest(port, session_id, query="&is_audio=true") as live, chat(port, session_id) as asking:
            await live.socket.send(speech(400) + silence(600))
            await live.until(lambda said: "Somebody else" in str(said))
            assert await asking.ask("one") == "You said: one."


@pytest.mark.parametrize("ends_with", ["turnComplete", "toolCall"])
async def test_text_in_the_frame_that_ends_the_turn_is_told(gemini: GeminiLive, ends_with: str) -> None:
    def clock() -> str:
        """Tells the time."""
        return "noon"

    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.send_text_parts("Hello ")
        last: dict[str, Any] = {"modelTurn": {"role": "model", "parts": [{"text": "world."}]}}
        if ends_with == "turnComplete":
            connection.turn_open = False
            await connection.send({"serverContent": last | {"turnComplete": True}})
            return
        call = {"id": "call-1", "name": "clock", "args": {}}
        connection._calls["call-1"] = asyncio.get_running_loop().create_future()
        await connection.send({"serverContent": last, "toolCall": {"functionCalls": [call]}})
        await connection.turn_complete()
        await connection._calls["call-1"]
        await connection.turn_complete()

    gemini.answer = answer
    agent = LlmAgent(name="tester", model=HALF_CASCADE_2, tools=[clock])
    config = RunConfig(response_modalities=[types.Modality.TEXT])
    async with serving(a_relay(agent, run_config=config)) as port, client(port) as alice:
        assert await alice.ask("one") == "Hello world."


async def test_the_client_is_told_why_there_is_no_answer(
    gemini: GeminiLive, caplog: pytest.LogCaptureFixture
) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        connection.turn_open = False
        end = {"turnComplete": True, "turnCompleteReason": "RESPONSE_REJECTED"}
        await connection.send({"serverContent": end})

    gemini.answer = answer
    async with serving(a_relay()) as port, client(port) as alice:
        await alice.say("one")
        frames = await alice.until(is_end)
        (error,) = [said for said in frames if said.get("type") == "error"]
        assert error["code"] == "model_error"
        assert "rejected" in error["message"]
    assert "RESPONSE_REJECTED" in caplog.text


@pytest.mark.parametrize("delete", [False, True])
async def test_a_text_that_waits_while_the_conversation_is_emptied_gets_an_error(
    gemini: GeminiLive, delete: bool
) -> None:
    gate = asyncio.Event()
    gemini.on_connect = {1: Plan(gate=gate)}.get
    async with serving(a_relay()) as port:
        session_id = await created(port)
        async with http(port) as web, guest(port, session_id) as live:
            await live.send(mime_type="text/plain", data="one", id="the-id")
            await gemini.wait_for(lambda: gemini.connects)
            path = f"/sessions/{session_id}"
            emptied = await (web.delete(path) if delete else web.post(f"{path}/clear"))
            assert emptied.status_code == 200
            refused = (await live.until(lambda said: said.get("id") == "the-id"))[-1]
            assert (refused["type"], refused["code"]) == ("error", "busy")
            gate.set()


async def test_a_question_that_the_model_never_answers_is_asked_anew(
    gemini: GeminiLive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adk_relay.adk.pulse._SILENT_AFTER", 0.5)
    monkeypatch.setattr("adk_relay.adk.runs._LOOK_EVERY", 0.1)

    async def answer(connection: Connection, turn: UserTurn) -> None:
        if connection.number == 1:
            await asyncio.sleep(60)
        await connection.say("An answer.")

    gemini.answer = answer
    async with serving(a_relay()) as port, chat(port, await created(port)) as asking:
        assert await asking.ask("one") == "An answer."
    assert [connection.texts for connection in gemini.connections] == [["one"], []]


async def test_what_is_said_slowly_or_played_for_long_is_not_silence(
    gemini: GeminiLive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adk_relay.adk.pulse._SILENT_AFTER", 0.5)
    monkeypatch.setattr("adk_relay.adk.runs._LOOK_EVERY", 0.1)

    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.say("word " * 20, complete=False)  # 1.6 s of sound
        await asyncio.sleep(1.5)
        await connection.turn_complete()

    gemini.answer = answer
    async with serving(a_relay()) as port, client(port) as alice:
        await alice.ask("one")
    assert len(gemini.connections) == 1
