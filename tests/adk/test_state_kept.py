"""State that is set with a text: stored once, whenever the process that has the conversation dies."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from adk.test_takeover import an_owner, lines, the_next, told
from core.test_writing import Client
from google.adk.agents import LlmAgent
from google.adk.events import Event
from google.adk.sessions import Session

from adk_relay.adk.lines import said_by
from adk_relay.adk.state import KEYS, MAX_BYTES, SetState, StateFullError, delta_of, shown
from adk_relay.core.inbox import Inbox, InboxFullError
from adk_relay.core.messages import Ack, UserImage, UserText
from adk_relay.core.requests import Requests, Stats
from adk_relay.core.room import Room
from adk_relay.core.writing import Writing
from support.gemini import GeminiLive, Plan
from support.owners import Owner
from support.process import HANGS

ANN = UserText("I am Ann.", id="a", state_delta={"name": "Ann"})
AGENT = LlmAgent(name="tester", model="gemini-3.8-live", instruction="Talk with {name?}.")


async def state_of(owner: Owner) -> dict[str, object]:
    assert owner.conversation
    return await owner.conversation.session.state()


@pytest.mark.parametrize("at", ["stored", "waiting"])
async def test_the_next_owner_knows_it(gemini: GeminiLive, tmp_path: Path, at: str) -> None:
    gate = asyncio.Event()
    gemini.on_connect = {1: Plan(gate=gate)}.get
    async with an_owner(tmp_path, AGENT) as first:
        alice = first.attend()
        if at == "stored":  # and nothing was recorded of that
            dead = first.cut_when(lambda event: said_by(event).text == ANN.text)
            alice.say(ANN)
            async with asyncio.timeout(HANGS):
                await dead.wait()
        else:
            alice.say(UserText("one", id="1"))
            await gemini.wait_for(lambda: gemini.connects == 1)
            alice.say(ANN)
        await first.kill()
        gate.set()
        async with the_next(first) as second:
            new = second.attend(after=alice)
            new.say(ANN)
            before = ["one", "You said: one."] if at == "waiting" else []
            await new.turn(1 + len(before) // 2)
            stored = [line.text for line in await second.stored()]
            assert sorted(stored) == sorted([*before, ANN.text, "You said: I am Ann.."])
            assert Ack("a") in told(new, Ack)
            assert await state_of(second) == {"name": "Ann"}
            assert "Talk with Ann." in str(gemini.connections[-1].setup["systemInstruction"])
            if at == "stored":
                assert await second.stored() == lines(ANN.text, "You said: I am Ann..")


async def test_a_store_that_fails_after_it_has_stored(gemini: GeminiLive, tmp_path: Path) -> None:
    async with an_owner(tmp_path, AGENT) as owner:
        alice = owner.attend()
        alice.say(UserText("one", id="1"))
        await alice.turn()
        append, failed = owner.service.append_event, asyncio.Event()

        async def append_event(session: Session, event: Event) -> Event:
            stored = await append(session, event)
            if said_by(event).text == ANN.text and not failed.is_set():
                failed.set()
                raise OSError("the answer of the database is lost")
            return stored

        owner.service.append_event = append_event  # type: ignore[method-assign]
        alice.say(ANN)
        await alice.turn(2)
        assert failed.is_set()
        assert await owner.stored() == lines("one", "You said: one.", ANN.text, "You said: I am Ann..")


def test_what_is_stored_and_shown() -> None:
    first = delta_of(ANN, {})
    assert first == {"name": "Ann", KEYS: ["name"]}
    state = {**first, "agents": 1}
    second = delta_of(UserText("x", state_delta={"age": 7, "name": None}), state)
    assert second == {"age": 7, "name": None, KEYS: ["name", "age"]}
    assert shown({**state, **second}) == {"name": None, "age": 7}
    assert delta_of(UserText("x"), state) == {}
    assert shown({KEYS: "nonsense"}) == shown({}) == {}


def test_there_is_room_for_so_much() -> None:
    kept = SetState()

    def add(**delta: str) -> None:
        with kept.added(delta):
            pass

    add(a="x" * (MAX_BYTES - 100))
    with pytest.raises(StateFullError, match="use fewer keys"):
        add(b="x" * 100)
    add(a="y")
    add(b="x" * 100)
    kept.load({"a": "z" * 2 * MAX_BYTES, KEYS: ["a"]})  # an agent has made it longer
    add(a="shorter")


def test_a_text_that_is_refused_takes_no_room() -> None:
    kept, requests = SetState(), Requests(Stats())
    room = Room(requests, replay_bytes=0, replay_seconds=0.0)
    writing = Writing(
        room,
        requests,
        inbox := Inbox(on_dropped=lambda _: None),
        is_owed=lambda: True,
        would_cut_in=lambda: False,
        want=lambda: None,
        sets_state=kept.added,
    )
    inbox.add(UserImage(b"x" * (8 * 1024 * 1024 - 1024), "image/png"))
    alice = Client("alice")
    for number in range(8):
        with pytest.raises(InboxFullError, match="waits for the model"):
            writing.say(UserText("x", state_delta={f"{number}": "x" * 16_000}), alice)
    kept.check()
    with kept.added({"a": "x" * (MAX_BYTES - 100)}):
        pass
