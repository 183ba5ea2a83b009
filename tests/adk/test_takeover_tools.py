"""Another process goes on with an answer that has used tools."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from google.adk.agents import LlmAgent

from adk_relay.core.messages import Text, UserText
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
