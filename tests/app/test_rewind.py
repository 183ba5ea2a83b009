"""What a user has written or said last is taken back, to be answered again or edited."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from google.adk.agents import LlmAgent
from google.adk.tools.long_running_tool import LongRunningFunctionTool
from google.adk.tools.tool_context import ToolContext

from support.chat import chat, created, guest, http
from support.client import Client, Json, words
from support.gemini import Connection, GeminiLive, Plan, UserTurn, silence, speech
from support.server import a_relay, serving

pytestmark = [pytest.mark.usefixtures("no_errors"), pytest.mark.bus]


def note(what: str, tool_context: ToolContext) -> str:
    """Notes something."""
    tool_context.state["noted"] = what
    return "noted"


def ask_manager(amount: int) -> None:
    """Asks the manager, who answers some day."""


def agent() -> LlmAgent:
    tools: list[Any] = [note, LongRunningFunctionTool(ask_manager)]
    told = "The user is called {name?}. Noted: {noted?}."
    return LlmAgent(name="tester", model="gemini-3.8-live", instruction=told, tools=tools)


async def rewound(who: Client) -> Json:
    return (await who.until(lambda said: said.get("type") == "rewound"))[-1]


async def history(port: int, session_id: str) -> list[str]:
    async with http(port) as web:
        found = (await web.get(f"/sessions/{session_id}")).json()
    assert found["message_count"] == len(found["history"])
    assert found["user_messages"] == sum(line["role"] == "user" for line in found["history"])
    return [line["text"] for line in found["history"]]


def asked(gemini: GeminiLive) -> list[str]:
    """What the model knows of users."""
    return [text for role, text in gemini.connections[-1].context if role == "user"]


async def write(who: Client, text: str, **more: Any) -> None:
    await who.send(mime_type="text/plain", data=text, **more)


async def test_a_text_is_edited(gemini: GeminiLive) -> None:
    async with serving(a_relay(agent())) as port:
        name = await created(port)
        async with guest(port, name) as who, guest(port, name) as other, chat(port, name) as room:
            await who.ask("one")
            await write(who, "two", id="2")
            await who.turn()
            await who.send(type="rewind", id="2")
            await write(who, "three", id="3")
            for each in (who, other):
                told = await rewound(each)
                assert (told["messages"], told["id"]) == (2, "2")
            assert words(await who.turn()) == "You said: three."
            told = await room.get("session_rewound")
            assert (told["messages"], told["message_count"], told["id"]) == (2, 2, "2")
            await room.get("response_complete")
            expected = ["one", "You said: one.", "three", "You said: three."]
            assert await history(port, name) == expected
            assert asked(gemini) == [
                "one",
                "three",
            ]
            # Who comes later, and who comes back after what was taken back, sees the same.
            async with guest(port, name, query="&after=0.0") as late:
                gap = (await late.until(lambda said: said.get("type") == "gap"))[-1]
                lines = [await late.next() for _ in range(gap["messages"])]
                assert [line["text"] for line in lines] == expected
            # Again and again.
            for text_id in ("3", ""):
                await who.send(type="rewind", **({"id": text_id} if text_id else {}))
                await rewound(who)
            assert await history(port, name) == []
            await who.send(type="rewind")
            assert (await who.until(lambda said: said.get("type") == "error"))[-1]["code"] == "bad_data"
            await who.ask("four")
            assert await history(port, name) == ["four", "You said: four."]
            assert asked(gemini) == ["four"]
    assert gemini.violations == []


async def test_an_answer_under_way_is_given_again(gemini: GeminiLive) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        if connection.number == 1:
            await connection.say("Well,", complete=False)
            await asyncio.Event().wait()
        await connection.say(f"You said: {turn.text}.")

    gemini.answer = answer
    async with serving(a_relay(agent())) as port:
        name = await created(port)
        async with guest(port, name) as who:
            await write(who, "one", id="1")
            await who.until(lambda said: said.get("data") == "Well,")
            await who.send(type="rewind", id="1")
            await write(who, "one", id="1 again")
            assert (await who.turn())[-1]["interrupted"]
            assert (await rewound(who))["messages"] == 2
            assert words(await who.turn()) == "You said: one."
            assert await history(port, name) == ["one", "You said: one."]
            assert gemini.connections[1].context[0] == ("user", "one")


async def test_a_text_that_no_model_was_given(gemini: GeminiLive) -> None:
    gate = asyncio.Event()
    gemini.on_connect = {1: Plan(gate=gate)}.get
    async with serving(a_relay(agent())) as port:
        name = await created(port)
        async with guest(port, name) as who:
            await write(who, "one", id="1")
            await gemini.wait_for(lambda: gemini.connects == 1)
            await who.send(type="rewind", id="1")
            await who.until(lambda said: said.get("type") == "ack")
            await rewound(who)
            gate.set()
            await who.ask("two")
            assert await history(port, name) == ["two", "You said: two."]
            assert all("one" not in connection.texts for connection in gemini.connections)


async def test_the_state_is_that_of_before(gemini: GeminiLive, tmp_path: Any) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text == "note":
            await connection.call_tool("note", {"what": "milk"}, "call-1")
        if turn.text == "ask":
            await connection.call_tools(("ask_manager", {"amount": 5}, "call-2"))
        await connection.say("Yes.")

    gemini.answer = answer
    sessions = f"sqlite:///{tmp_path}/sessions.db"
    async with serving(a_relay(agent(), sessions=sessions)) as port:
        name = await created(port)
        async with guest(port, name) as who, http(port) as web:
            await write(who, "I am Ann.", state_delta={"name": "Ann"})
            await who.turn()
            await write(who, "note", state_delta={"name": "Bob", "city": "Rome"})
            await who.turn()
            assert (await web.get(f"/sessions/{name}")).json()["state"] == {"name": "Bob", "city": "Rome"}
            await who.send(type="rewind")
            await rewound(who)
            assert (await web.get(f"/sessions/{name}")).json()["state"] == {"name": "Ann"}
            await who.ask("Who am I?")
            told = str(gemini.connections[-1].setup["systemInstruction"])
            assert "called Ann. Noted: ." in told
            # A call that waits is taken back with its text.
            await write(who, "ask")
            await who.until(lambda said: said.get("pending"))
            await who.send(type="rewind")
            await rewound(who)
            assert (await web.get(f"/sessions/{name}")).json()["pending"] == []
    async with serving(a_relay(agent(), sessions=sessions)) as port:
        assert await history(port, name) == ["I am Ann.", "Yes.", "Who am I?", "Yes."]
        async with guest(port, name) as who:
            await who.send(type="rewind")  # it was loaded
            assert (await rewound(who))["messages"] == 2
            await who.ask("And now?")
        assert await history(port, name) == ["I am Ann.", "Yes.", "And now?", "Yes."]
        contexts = asked(gemini)
        assert contexts == ["I am Ann.", "And now?"]


async def test_speech_is_taken_back(gemini: GeminiLive) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.audio:
            await connection.heard("Hello there.")
        await connection.say("Well.")

    gemini.answer = answer
    async with serving(a_relay(agent())) as port:
        name = await created(port)
        async with guest(port, name) as who:
            await who.ask("one")
            await who.socket.send(speech(400) + silence(600))
            await who.turn()
            assert await history(port, name) == ["one", "Well.", "Hello there.", "Well."]
            await who.send(type="rewind")
            assert (await rewound(who))["messages"] == 2
            await who.ask("two")
            assert await history(port, name) == ["one", "Well.", "two", "Well."]
            assert asked(gemini) == ["one", "two"]


async def test_only_the_last_one_and_in_the_chat_dialect(gemini: GeminiLive) -> None:
    async with serving(a_relay(agent())) as port, chat(port) as room:
        await room.chat("one", id="1")
        name = (await room.get("session_created"))["session_id"]
        await room.get("response_complete")
        await room.chat("two", id="2")
        await room.get("response_complete")
        await room.send(type="rewind", id="1")
        error = await room.get("error")
        assert (error["code"], error["id"]) == ("bad_data", "1")
        await room.send(type="rewind", id="2")
        await room.chat("three", id="3")
        await room.get("session_rewound")
        assert (await room.get("response_complete"))["full_response"] == "You said: three."
        assert await history(port, name) == ["one", "You said: one.", "three", "You said: three."]
