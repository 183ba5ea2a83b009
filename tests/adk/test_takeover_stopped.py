"""The process ends that has a conversation, after a user has stopped the agent."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from adk.test_takeover import an_owner, text_of, the_next

from adk_relay.adk.lines import said_by
from adk_relay.core.messages import Interrupt, UserText
from support.gemini import Connection, GeminiLive, UserTurn
from support.process import HANGS

pytestmark = pytest.mark.usefixtures("quick_retries")


async def test_an_answer_that_was_stopped_before_its_first_word_is_never_told(
    gemini: GeminiLive, tmp_path: Path
) -> None:
    begin = asyncio.Event()

    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text == "Count.":
            await begin.wait()
            await connection.say("one two three")
        else:
            await connection.say(f"You said: {turn.text}.")

    gemini.answer = answer
    async with an_owner(tmp_path) as first:
        alice = first.attend()
        alice.say(UserText("Count.", id="1"))
        await gemini.wait_for(lambda: gemini.connections and gemini.connections[0].texts)
        alice.say(Interrupt())
        await alice.turn()
        dead = first.cut_when(lambda event: said_by(event).spoken != "")
        begin.set()
        async with asyncio.timeout(HANGS):
            await dead.wait()
        await first.kill()
        async with the_next(first) as second:
            new = second.attend(after=alice)
            new.say(UserText("And now?", id="2"))
            await new.turn()
            assert text_of(alice, new) == "You said: And now?."
