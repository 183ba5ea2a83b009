"""Another process goes on with an answer that has used tools."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from google.adk.agents import LlmAgent

from adk_relay.core.messages import Error, Text, ToolComplete, ToolResult, ToolStart, UserText
from adk_relay.core.shape import ClientTool, Shape
from adk_relay.core.voice import Configure, Configured, Voice
from support.gemini import Connection, GeminiLive, UserTurn
from support.owners import Owner


@pytest.mark.usefixtures("quick_retries")
@pytest.mark.parametrize("first_words", ["", "Let me see."])
async def test_the_history_has_the_tools_of_the_answer_that_was_cut(
    gemini: GeminiLive, tmp_path: Path, first_words: str
) -> None:
    def clock() -> dict[str, Any]:
        """Tells the time."""
        return {"time": "noon"}

    async def answer(connection: Connection, turn: UserTurn) -> None:
        if connection.number == 1:
            if first_words:
                await connection.say(first_words, complete=False)
            await connection.call_tool("clock", {})
            await connection.say("one two", complete=False)
        else:
            await connection.say(" three.")

    gemini.answer = answer
    agent = LlmAgent(name="tester", model="gemini-3.8-live", tools=[clock])
    owner = Owner(tmp_path / "sessions.db", agent, settings={}, every_entry=True)
    await owner.take()
    try:
        alice = owner.attend()
        alice.say(UserText("Count.", id="a"))
        await alice.until(lambda message: isinstance(message, Text) and message.text.endswith("two"))
        await owner.kill()
        heir = owner.heir()
        await heir.take()
        try:
            again = heir.attend(after=alice)
            await again.turn(2)
            assert heir.conversation
            question, told = heir.conversation.room.history.lines()
            assert (question.text, told.text) == ("Count.", f"{first_words}one two three.")
            assert [(call.tool_name, call.result) for call in told.tools] == [("clock", {"time": "noon"})]
            (_, kept) = await heir.stored()
            assert (kept.text, kept.tools, kept.interrupted) == (told.text, told.tools, False)
        finally:
            await heir.aclose()
    finally:
        await owner.aclose()


@pytest.mark.usefixtures("quick_retries")
async def test_what_clients_have_set_goes_on_and_their_tools_can_be_answered(
    gemini: GeminiLive, tmp_path: Path
) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text == "go":
            await connection.call_tool("paint", {"color": "red"}, "call-1")
        await connection.say(f"You said: {turn.text}.")

    def declared(connection: Connection) -> list[str]:
        return [each["name"] for each in connection.setup["tools"][0]["functionDeclarations"]]

    gemini.answer = answer
    tools = (ClientTool("paint", "Paints.", {"type": "object"}),)
    shape = Shape("Be brief.", tools, push_to_talk=False, temperature=0.5)
    async with AsyncExitStack() as stack:
        owners = [Owner(tmp_path / "sessions.db")]
        stack.push_async_callback(owners[0].aclose)
        await owners[0].take()
        alice = owners[0].attend()
        alice.say(Configure(instructions="Be brief.", tools=tools, temperature=0.5))
        assert Configured(Voice(), shape, "alice") in alice.messages
        # It is not in the session yet; then a call waits; then both are in the log.
        for _ in range(2):
            await owners[-1].kill()
            owners.append(owners[-1].heir())
            stack.push_async_callback(owners[-1].aclose)
            conversation = await owners[-1].take()
            assert conversation.standing(None).shape == shape
            alice = owners[-1].attend(after=alice)
            if len(owners) == 2:
                alice.ask("go")
                await alice.until(lambda message: isinstance(message, ToolStart) and message.is_pending)
        assert declared(gemini.connections[-1]) == ["paint"]
        alice.say(ToolResult("call-1", "It is red."))
        await alice.until(lambda message: isinstance(message, ToolComplete))
        again = await gemini.connection(1)
        assert declared(again) == ["paint"]
        await gemini.wait_for(lambda: str({"result": "It is red."}) in str(again.history))
        # The next one has read it from the session, and the session is emptied.
        await conversation.aclose()
        for _ in range(2):
            owners.append(owners[-1].heir())
            stack.push_async_callback(owners[-1].aclose)
            conversation = await owners[-1].take()
            owners[-1].attend()
            assert conversation.standing(None).shape == shape
            if len(owners) == 4:
                await conversation.reset(delete=False)
                await owners[-1].kill()


async def test_a_worker_that_allows_no_tools_takes_none_from_another_process(tmp_path: Path) -> None:
    owner = Owner(tmp_path / "sessions.db", settings={"client_tools": False})
    conversation = await owner.take()
    alice = owner.attend()
    alice.say(Configure(instructions="Be brief.", id="c"))
    assert alice.messages[-1] == Error("not_allowed", "Instructions and tools can't be set here.", "c")
    alice.say(Configure(temperature=0.5))
    assert conversation.standing(None).shape == Shape(push_to_talk=False, temperature=0.5)
    await conversation.aclose()
