"""Tool calls that wait while much is said: only the last events of a session are in memory."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from app.test_waiting import agent, answered, calling, deleted, pending
from google.adk.agents.invocation_context import InvocationContext
from google.adk.apps import App
from google.adk.events import Event, EventActions
from google.adk.plugins.base_plugin import BasePlugin
from google.adk.sessions import InMemorySessionService

from adk_relay.adk.calls import MOST
from support.chat import created, guest, http, turn
from support.client import Json, client
from support.gemini import Connection, GeminiLive, UserTurn
from support.server import a_relay, serving

CASES: dict[str, tuple[Json, Any, Any]] = {
    "ask_manager": ({"amount": 5}, {"approved": True}, None),
    "ask_office": ({"amount": 5}, {"status": "approved"}, None),
    "delete_file": ({"name": "a.txt"}, {"confirmed": True}, {"result": "a.txt is gone"}),
    "book": ({"seats": 2}, {"confirmed": True, "payload": {"seats": 3}}, {"booked": 3}),
    "read_mail": ({}, None, {"read with": "secret"}),
}
"""By the name of a tool: its arguments, a user's answer, and what the tool returns then."""


@pytest.fixture
def few_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six events, in place of 300."""
    monkeypatch.setattr("adk_relay.adk.session._RECENT", 6)
    deleted.clear()


@pytest.mark.parametrize("name", CASES)
async def test_a_call_can_be_answered_after_much_was_said(
    gemini: GeminiLive, sessions: str, few_in_memory: None, name: str
) -> None:
    arguments, result, returned = CASES[name]
    gemini.answer = calling(name, arguments)
    service: Any = InMemorySessionService() if sessions == "memory://" else sessions
    async with serving(a_relay(agent(), sessions=service)) as port, client(port) as alice:
        await alice.say("go")
        asked = await pending(alice)
        await alice.turn()
        for number in range(6):
            await alice.ask(f"text {number}")
    async with serving(a_relay(agent(), sessions=service)) as port, client(port) as alice:
        again = await pending(alice)
        assert again["tool_id"] == asked["tool_id"]
        assert again["arguments"] == asked["arguments"]
        assert again.get("interim") == ({"status": "pending", "ticket": 5} if name == "ask_office" else None)
        if name == "read_mail":
            result = asked["arguments"]["authConfig"]
            result["exchangedAuthCredential"] = {"authType": "apiKey", "apiKey": "secret"}
        await alice.send(type="tool_result", tool_id=asked["tool_id"], result=result)
        await answered(alice, asked["tool_id"])
        if returned:
            assert (await answered(alice, "call-1"))["result"] == returned
        await alice.turn()
        assert str(returned or result) in str(gemini.connections[-1].history[-1])
        for number in range(6):
            await alice.ask(f"text {number}")
    async with serving(a_relay(agent(), sessions=service)) as port, client(port) as alice:
        assert await alice.ask("again") == "You said: again."
        assert not any(said.get("pending") for said in alice.frames)
        assert name not in str(gemini.connections[-1].history), "it is as old as the rest"


async def test_a_session_lists_the_calls_that_wait(
    gemini: GeminiLive, sessions: str, few_in_memory: None
) -> None:
    gemini.answer = calling("ask_office", {"amount": 5})
    relay = a_relay(agent(), sessions=sessions)
    async with serving(relay) as port, http(port) as web:
        session_id = await created(port)
        path = f"/sessions/{session_id}"

        async def listed() -> list[Json]:
            calls: list[Json] = (await web.get(path)).json()["pending"]
            return calls

        assert await listed() == []
        async with guest(port, session_id) as live:
            await turn(port, session_id, "go")
            for number in range(6):
                await turn(port, session_id, f"text {number}")
            [call] = in_memory = await listed()
            assert call.pop("timestamp")
            interim = {"status": "pending", "ticket": 5}
            expected = {"tool_id": "call-1", "tool_name": "ask_office", "arguments": {"amount": 5}}
            assert call == expected | {"interim": interim}
            await live.until(lambda said: said.get("interim"))
        while relay.conversations.active:
            await asyncio.sleep(0.01)
        [call] = stored = await listed()
        assert call.pop("timestamp")
        assert stored == in_memory
        assert relay.conversations.active == 0
        body = {"tool_id": "call-1", "result": "yes"}
        assert (await web.post(f"{path}/tool_result", json=body)).status_code == 200
        assert await listed() == []


async def test_a_plugin_that_replaces_events_changes_nothing(
    gemini: GeminiLive, sessions: str, few_in_memory: None
) -> None:
    in_memory: list[int] = []

    class Replacing(BasePlugin):
        async def on_event_callback(
            self, *, invocation_context: InvocationContext, event: Event, **_: Any
        ) -> Event:
            in_memory.append(len(invocation_context.session.events))
            return event.model_copy(update={"actions": EventActions()})

    app = App(name="shop", root_agent=agent(), plugins=[Replacing("replacing")])
    gemini.answer = calling("ask_manager", {"amount": 5})
    async with serving(a_relay(app, sessions=sessions, grace=30)) as port, client(port) as alice:
        await alice.say("go")
        await pending(alice)
        await alice.turn()
        for number in range(6):
            await alice.ask(f"text {number}")
        await alice.send(type="tool_result", tool_id="call-1", result="yes")
        await answered(alice, "call-1")
        await alice.turn()
        assert str({"result": "yes"}) in str(gemini.connections[-1].history[-1])
        # One run has had all of this, and is given no more events than a new one, and as many again.
        assert 6 < max(in_memory) < 12 + 2


async def test_a_conversation_keeps_its_last_calls(gemini: GeminiLive, sessions: str) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        for number in range(MOST + 2):
            await connection.call_tool("ask_office", {"amount": number}, f"call-{number}")
        await connection.say("Done.")

    gemini.answer = answer
    relay = a_relay(agent(), sessions=sessions)
    async with serving(relay) as port, http(port) as web:
        session_id = await created(port)
        await turn(port, session_id, "go")
        while relay.conversations.active:
            await asyncio.sleep(0.01)
        listed = (await web.get(f"/sessions/{session_id}")).json()["pending"]
        assert [call["tool_id"] for call in listed] == [f"call-{number}" for number in range(2, MOST + 2)]
