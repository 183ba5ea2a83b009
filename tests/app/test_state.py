"""State that a client sets with a text: `state_delta`, on real sockets and over HTTP."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from google.adk.agents import LlmAgent
from google.adk.tools.tool_context import ToolContext
from websockets.asyncio.client import connect

from support.chat import asking, chat, created, end, guest, http
from support.client import Client, Json, client, words
from support.gemini import Connection, GeminiLive, UserTurn
from support.process import HANGS
from support.server import a_relay, serving

pytestmark = [pytest.mark.usefixtures("no_errors"), pytest.mark.bus]

_STORED = "SELECT count(*) FROM events WHERE event_data LIKE '%You said: Count.%'"
ANN, BOB = {"name": "Ann", "age": 7, "vip": True}, {"name": "Bob"}


def rename(name: str, tool_context: ToolContext) -> str:
    """Gives the user another name."""
    tool_context.state["name"] = name
    tool_context.state["secret"] = "of the agent"
    return "done"


def agent(instruction: Any = "The user is called {name?}.") -> LlmAgent:
    return LlmAgent(name="tester", model="gemini-3.8-live", instruction=instruction, tools=[rename])


def instruction(connection: Connection) -> str:
    """What the model was told of the user in its instruction."""
    parts = connection.setup["systemInstruction"]["parts"]
    lines: list[str] = [line for part in parts for line in part["text"].splitlines()]
    return next(line for line in lines if "is called" in line)


async def state(port: int, session_id: str) -> Any:
    async with http(port) as web:
        return (await web.get(f"/sessions/{session_id}")).json()["state"]


async def test_the_instruction_sees_it_in_that_very_turn(gemini: GeminiLive) -> None:
    async with serving(a_relay(agent())) as port:
        name = await created(port)
        async with guest(port, name) as who:
            await who.ask("Hello.")
            await who.send(mime_type="text/plain", data="I am Ann.", state_delta=ANN, id="a")
            await who.turn()
            first, second = gemini.connections
            assert instruction(first) == "The user is called ."
            assert instruction(second) == "The user is called Ann."
            assert second.texts == ["I am Ann."]
            assert second.context[:2] == [("user", "Hello."), ("model", first.said)]
            # The same state, and another key that the instruction does not have: no new connection.
            for delta in ({"name": "Ann"}, {"city": "Rome"}):
                await who.send(mime_type="text/plain", data="More.", state_delta=delta)
                await who.turn()
            assert len(gemini.connections) == 2
            assert second.texts == ["I am Ann.", "More.", "More."]
            assert await state(port, name) == {**ANN, "city": "Rome"}
            # Sent again with the same id: it is stored once.
            await who.send(mime_type="text/plain", data="I am Bob.", state_delta=BOB, id="b")
            await who.turn()
            await who.send(mime_type="text/plain", data="I am Ann.", state_delta=ANN, id="a")
            await who.until(lambda said: said.get("type") == "ack" and said["id"] == "a")
            assert await state(port, name) == {**ANN, "city": "Rome", **BOB}
            assert instruction(gemini.connections[2]) == "The user is called Bob."
    assert gemini.violations == []


async def test_in_the_chat_and_the_turn_dialect_and_over_http(gemini: GeminiLive) -> None:
    async with serving(a_relay(agent())) as port, chat(port) as who:
        await who.chat("I am Ann.", state_delta=ANN)
        name = (await who.get("session_created"))["session_id"]
        await who.get("response_complete")
        async with asking(port, name, "I am Bob.", state_delta=BOB) as one:
            frames, code = await end(one)
            assert (code, frames[-1]["type"]) == (1000, "done")
        async with http(port) as web:
            request = {"session_id": name, "message": "I am Eve.", "state_delta": {"name": "Eve"}}
            answer = (await web.post("/api/v1/chat", json=request)).json()
            assert answer["content"] == "You said: I am Eve.."
        assert [*map(instruction, gemini.connections)] == [
            f"The user is called {name}." for name in ("Ann", "Bob", "Eve")
        ]
        assert [connection.texts for connection in gemini.connections] == [
            ["I am Ann."],
            ["I am Bob."],
            ["I am Eve."],
        ]
        assert await state(port, name) == {**ANN, "name": "Eve"}
        assert gemini.violations == []


async def test_a_text_that_changes_the_instruction_interrupts_the_answer(gemini: GeminiLive) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text == "Count.":
            await connection.say("One,", complete=False)
            await asyncio.Event().wait()
        await connection.say(f"You said: {turn.text}")

    gemini.answer = answer
    async with serving(a_relay(agent())) as port:
        name = await created(port)
        async with guest(port, name) as who:
            await who.say("Count.")
            await who.until(lambda said: said.get("data") == "One,")
            await who.send(mime_type="image/png", data="iVBORw0KGgo=")
            await gemini.wait_for(lambda: gemini.connections[0].images)
            await who.send(mime_type="text/plain", data="I am Ann.", state_delta=ANN)
            cut = await who.turn()
            assert cut[-1]["interrupted"]
            assert words(await who.turn()) == "You said: I am Ann."
            second = gemini.connections[1]
            assert instruction(second) == "The user is called Ann."
            assert second.context[:2] == [("user", "Count."), ("model", "One,")]
            assert len(second.images) == 1  # that it has not seen
        async with http(port) as web:
            history = (await web.get(f"/sessions/{name}")).json()["history"]
    assert [line["text"] for line in history] == ["Count.", "One,", "I am Ann.", "You said: I am Ann."]


async def test_what_the_agent_has_set_is_told_only_under_the_clients_keys(gemini: GeminiLive) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text == "Rename me.":
            await connection.call_tool("rename", {"name": "Zoe"}, "call-1")
        await connection.say("Yes.")

    gemini.answer = answer
    provided: list[str] = []

    def provider(context: Any) -> str:
        provided.append(context.state.get("name", ""))
        return f"The user is called {context.state.get('name')}.\nYou were told {len(provided)} times."

    async with serving(a_relay(agent(provider))) as port:
        name = await created(port)
        async with guest(port, name) as who:
            await who.send(mime_type="text/plain", data="Rename me.", state_delta=ANN)
            await who.turn()
            assert await state(port, name) == {**ANN, "name": "Zoe"}
            # The model was told Ann: it is told Zoe only now.
            for _ in range(2):  # the second one changes nothing, though the instruction would be another one
                await who.send(mime_type="text/plain", data="Who am I?", state_delta={"city": "Rome"})
                await who.turn()
        assert [*map(instruction, gemini.connections)] == [
            "The user is called Ann.",
            "The user is called Zoe.",
        ]
        assert await state(port, name) == {**ANN, "name": "Zoe", "city": "Rome"}
    assert provided[0] == "Ann"


async def test_it_survives_a_restart(gemini: GeminiLive, tmp_path: Any) -> None:
    sessions = f"sqlite:///{tmp_path}/sessions.db"
    async with serving(a_relay(agent(), sessions=sessions)) as port:
        name = await created(port)
        async with guest(port, name) as who:
            await who.send(mime_type="text/plain", data="I am Ann.", state_delta=ANN)
            await who.turn()
    async with serving(a_relay(agent(), sessions=sessions)) as port:
        assert await state(port, name) == ANN
        async with guest(port, name) as who:
            await who.ask("Who am I?")
    assert instruction(gemini.connections[-1]) == "The user is called Ann."


WRONG: list[tuple[Any, str]] = [
    ("name", "must be a JSON object"),
    ({"a": {"b": 1}}, "must be flat"),
    ({"a": [1]}, "must be flat"),
    ({"temp:a": 1}, "temp:"),
    ({"relay_waiting": 1}, "relay's own"),
    ({"user:relay_x": 1}, "relay's own"),
    ({"": 1}, "1 to 128"),
    ({"a": 1e300}, "at most 2^53"),
    ({"a": "\0"}, "not valid Unicode"),
    ({"a": "x" * 16384}, "at most 16384"),
    ({"app:a": 1}, "can't be set here"),
    ({"user:a": 1}, "can't be set here"),
]


async def test_a_wrong_one_is_told_in_the_dialects_own_form(gemini: GeminiLive) -> None:
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(serving(a_relay(agent())))
        live = await stack.enter_async_context(client(port, "ann"))
        room = await stack.enter_async_context(chat(port))
        web = await stack.enter_async_context(http(port))
        for number, (delta, why) in enumerate(WRONG):
            text_id = f"text-{number}"
            await live.send(mime_type="text/plain", data="x", state_delta=delta, id=text_id)
            [*_, told] = await live.until(lambda said: said.get("type") == "error")
            assert why in told["message"]
            assert told["id"] == text_id
            expected = {"can't be set here": "not_allowed", "at most 16384": "too_large"}
            assert told["code"] == expected.get(why, "bad_data")
            await room.chat("x", state_delta=delta, id=text_id)
            told = await room.get("error")
            assert (why in told["message"], told["id"]) == (True, text_id)
            if number % 8 == 7:
                await live.say("fine")  # else twenty in a row would close the socket
                await live.turn()
                await room.ask("fine")
            request: Json = {"session_id": "a", "message": "x", "state_delta": delta}
            response = await web.post("/api/v1/chat", json=request)
            assert response.status_code == 400
            assert why in response.json()["detail"]
        async with connect(f"ws://127.0.0.1:{port}/api/v1/chat/stream", proxy=None) as socket:
            await (one := Client(socket, {})).send(session_id="a", message="x", state_delta={"app:a": 1})
            frames, code = await end(one)
            assert (frames[-1]["type"], code) == ("error", 1008)


async def test_what_the_operator_allows(gemini: GeminiLive) -> None:
    async with serving(a_relay(agent("The user is called {user:name?}."), state_delta="all")) as port:
        async with client(port, "ann") as who:
            await who.send(mime_type="text/plain", data="hello", state_delta={"user:name": "Ann"})
            await who.turn()
        async with client(port, "ann", query="&session_id=another") as who:
            await who.ask("hello")
        assert [*map(instruction, gemini.connections)] == ["The user is called Ann."] * 2
    async with serving(a_relay(agent(), state_delta="off")) as port, client(port, "ann") as who:
        await who.send(mime_type="text/plain", data="hello", state_delta={"a": 1})
        assert (await who.until(lambda said: said.get("type") == "error"))[-1]["code"] == "not_allowed"


async def test_there_is_no_room_for_any_amount(gemini: GeminiLive) -> None:
    async with serving(a_relay(agent())) as port, client(port, "ann") as who:
        for number in range(5):
            delta = {f"key-{number}": "x" * 16000}
            await who.send(mime_type="text/plain", data="more", state_delta=delta, id=f"{number}")
            if number < 4:
                await who.turn()
        told = (await who.until(lambda said: said.get("type") == "error"))[-1]
        assert (told["code"], told["id"]) == ("busy", "4")
        await who.send(mime_type="text/plain", data="less", state_delta={"key-0": None})
        await who.turn()


async def test_an_answer_that_nobody_heard_is_not_taken_for_the_text(
    gemini: GeminiLive, tmp_path: Path
) -> None:
    """An answer that was stopped before its first word has the place of what is told next."""
    begin = asyncio.Event()

    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text == "Count.":
            await begin.wait()
        await connection.say(f"You said: {turn.text}")

    gemini.answer = answer
    async with serving(a_relay(agent(), sessions=f"sqlite:///{tmp_path}/s.db")) as port:
        name = await created(port)
        async with guest(port, name) as who:
            await who.say("Count.")
            await gemini.wait_for(lambda: gemini.connections and gemini.connections[0].texts)
            await who.send(type="interrupt")
            await who.turn()
            begin.set()
            with closing(sqlite3.connect(tmp_path / "s.db")) as database:
                async with asyncio.timeout(HANGS):
                    while not database.execute(_STORED).fetchone()[0]:
                        await asyncio.sleep(0.01)
            await who.send(mime_type="text/plain", data="I am Ann.", state_delta=ANN)
            await who.turn()
            assert await state(port, name) == ANN
            assert instruction(gemini.connections[-1]) == "The user is called Ann."
