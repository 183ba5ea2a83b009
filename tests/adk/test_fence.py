"""The fence: a process that does not own a conversation any more stores nothing of it, and says nothing."""

from __future__ import annotations

import asyncio
import logging

import pytest
from google.adk.agents import LlmAgent
from google.adk.sessions import InMemorySessionService

from adk_relay.adk.conversations import Conversations
from adk_relay.adk.lines import lines_of
from adk_relay.core.interfaces import StoreError
from adk_relay.core.messages import Ended, Error, Status, Text, TurnEnd
from support.gemini import Connection, GeminiLive, UserTurn
from support.process import HANGS
from support.sound import Attendee

FIXED = {"grace": 0, "idle_timeout": 0, "mic_ms": 40, "replay_bytes": 0, "replay_seconds": 60}


class Owner:
    """Whether a process owns all conversations."""

    is_it = True

    async def may_write(self, session_id: str) -> bool:
        return self.is_it


def conversations(service: InMemorySessionService, owner: Owner) -> Conversations:
    agent = LlmAgent(name="tester", model="gemini-3.8-live")
    fixed: dict[str, float] = {**FIXED}
    return Conversations(
        agent,
        sessions=service,
        sound="long",
        may_write=owner.may_write,
        **fixed,  # type: ignore[arg-type]
    )


async def attend(process: Conversations) -> Attendee:
    conversation = await process.open("alice")
    conversation.attach(attendee := Attendee(conversation, is_audio=False))
    return attendee


async def ended(process: Conversations) -> None:
    async with asyncio.timeout(HANGS):
        while process.active:
            await asyncio.sleep(0.01)


async def stored(service: InMemorySessionService) -> list[str]:
    """What is in alice's session."""
    session = await service.get_session(app_name="tester", user_id="alice", session_id="live-alice")
    assert session
    return [line.text for line in lines_of(session.events)]


@pytest.mark.parametrize("what", ["answer", "text", "clear"])
async def test_a_late_writer(gemini: GeminiLive, caplog: pytest.LogCaptureFixture, what: str) -> None:
    """It has lost the conversation in the middle of an answer, or before a text, or before it is emptied."""
    gate = asyncio.Event()

    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text == "late":
            await connection.say("half", complete=False)
            await gate.wait()
        await connection.say(f"You said: {turn.text}.")

    gemini.answer = answer
    service, owner = InMemorySessionService(), Owner()
    process = conversations(service, owner)
    alice = await attend(process)
    alice.ask("one")
    await alice.turn()
    before = await stored(service)
    assert before == ["one", "You said: one."]
    with caplog.at_level(logging.INFO, "relay"):
        if what == "answer":
            alice.ask("late")
            await alice.until(lambda message: isinstance(message, Text) and message.text == "half")
            before = await stored(service)
        told = len(alice.messages)
        owner.is_it = False
        if what == "answer":
            gate.set()
        elif what == "text":
            alice.ask("two")
        else:
            with pytest.raises(StoreError):
                await process.reset("alice", "live-alice", delete=False)
        await ended(process)
    assert await stored(service) == before
    # What the model says is told until the first write, and then only that the conversation is elsewhere.
    ends = [each for each in alice.messages[told:] if isinstance(each, Ended | Error | Status | TurnEnd)]
    assert ends == [Ended("moved")]
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []
    assert not gemini.open_connections or await gemini.wait_for(lambda: not gemini.open_connections) is None

    # The owner goes on.
    other = conversations(service, Owner())
    bob = await attend(other)
    bob.ask("three")
    await bob.turn()
    assert (await stored(service))[-2:] == ["three", "You said: three."]
    alice.conversation.detach(alice)
    await other.aclose()
    await process.aclose()


async def test_what_is_lost_from_outside(gemini: GeminiLive) -> None:
    """The bus knows it before anything is written."""
    service, owner = InMemorySessionService(), Owner()
    process = conversations(service, owner)
    alice = await attend(process)
    alice.ask("one")
    await alice.turn()
    owner.is_it = False
    told = len(alice.messages)
    process.lose("live-alice")
    process.lose("nobody's")
    await ended(process)
    assert alice.messages[told:] == [Ended("moved")]
    assert await stored(service) == ["one", "You said: one."]
    await process.aclose()
