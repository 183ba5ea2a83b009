"""An owner stands still in the middle of a write, and another process takes its conversation meanwhile."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from adk.test_takeover import an_owner, is_text, lines, text_of, the_next
from google.adk.events import Event

from adk_relay.adk.lines import said_by
from adk_relay.core.messages import TurnEnd
from support.gemini import Connection, GeminiLive, Plan, UserTurn
from support.process import HANGS

pytestmark = pytest.mark.usefixtures("quick_retries")


def is_locked(file: Path) -> bool:
    """Whether nobody can write into a sqlite file now."""
    with closing(sqlite3.connect(file, timeout=0)) as database:
        try:
            database.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return True
    return False


@pytest.mark.parametrize("where", ["looked", "written"])
async def test_an_answer_that_is_just_being_stored_is_stored_once(
    gemini: GeminiLive, tmp_path: Path, where: str
) -> None:
    """Whoever reads the session does not see it yet, and does not wait."""

    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.say("one two." if connection.number == 1 else " three.")

    gemini.answer = answer
    async with an_owner(tmp_path) as first:
        alice = first.attend()
        stands, goes_on = first.stop_when(lambda event: "two" in said_by(event).spoken, where)
        alice.ask("Count.")
        await alice.until(is_text("two."))
        async with asyncio.timeout(HANGS):
            await stands.wait()
        assert not any(isinstance(message, TurnEnd) for message in alice.messages)
        heir = first.heir()
        taking = asyncio.create_task(heir.take())
        async with asyncio.timeout(HANGS):
            await (heir.service.writes.wait() if is_locked(first.file) else asyncio.wait({taking}))
        goes_on.set()
        await taking
        new = heir.attend(after=alice)
        await new.until(lambda message: isinstance(message, TurnEnd) and not message.interrupted)
        assert await heir.stored() == lines("Count.", "one two. three.")
        assert text_of(alice, new) == "one two. three."
        await heir.aclose()


async def test_what_was_about_to_be_stored_never_is(
    gemini: GeminiLive, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The new owner says the text again. The old one ends as any that is replaced."""
    gate = asyncio.Event()
    gemini.on_connect = {2: Plan(gate=gate)}.get

    def is_asked(event: Event) -> bool:
        return "Count." in said_by(event).text

    async with an_owner(tmp_path) as first:
        alice = first.attend()
        stands, goes_on = first.stop_when(is_asked, "before")
        alice.ask("Count.")
        async with asyncio.timeout(HANGS):
            await stands.wait()
        async with the_next(first) as second:
            new = second.attend(after=alice)
            goes_on.set()
            assert first.conversation
            async with asyncio.timeout(HANGS):
                await asyncio.wait({first.conversation._task})
            assert await second.stored() == []
            gate.set()
            await new.turn()
            assert await second.stored() == lines("Count.", "You said: Count..")
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
