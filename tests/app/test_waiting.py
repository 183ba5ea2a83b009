"""Tool calls that wait for a user: told, kept, and answered by any client."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.openapi.models import APIKey, APIKeyIn
from google.adk.agents import LlmAgent
from google.adk.auth.auth_credential import AuthCredential, AuthCredentialTypes
from google.adk.auth.auth_tool import AuthConfig
from google.adk.tools.function_tool import FunctionTool
from google.adk.tools.long_running_tool import LongRunningFunctionTool
from google.adk.tools.tool_context import ToolContext
from google.genai import types
from websockets.exceptions import ConnectionClosed

from support.chat import chat, created, guest, http, turn
from support.client import Client, Json, client, words
from support.gemini import NATIVE_AUDIO_2, Connection, GeminiLive, UserTurn
from support.server import a_relay, serving

GEMINI_3 = "gemini-3.8-live"
models = pytest.mark.parametrize("model", [GEMINI_3, NATIVE_AUDIO_2])

deleted: list[str] = []


def ask_manager(amount: int) -> None:
    """Asks the manager, who answers some day."""


def clock() -> str:
    """Tells the time."""
    return "noon"


def ask_office(amount: int) -> dict[str, Any]:
    """Asks the office, which gives a ticket first."""
    return {"status": "pending", "ticket": amount}


def delete_file(name: str) -> str:
    """Deletes a file."""
    deleted.append(name)
    return f"{name} is gone"


def book(seats: int, tool_context: ToolContext) -> dict[str, Any]:
    """Books seats, if the user agrees."""
    if tool_context.tool_confirmation is None:
        tool_context.request_confirmation(hint=f"Book {seats} seats?", payload={"seats": seats})
        return {"status": "asked"}
    payload: Any = tool_context.tool_confirmation.payload
    return {"booked": payload["seats"]}


KEY = AuthConfig(
    auth_scheme=APIKey.model_validate({"name": "key", "in": APIKeyIn.header}),
    raw_auth_credential=AuthCredential(auth_type=AuthCredentialTypes.API_KEY),
    credential_key="the-key",
)


def read_mail(tool_context: ToolContext) -> dict[str, Any] | None:
    """Reads the mail, with the user's key."""
    credential = tool_context.get_auth_response(KEY)
    if credential is None:
        tool_context.request_credential(KEY)
        return None
    return {"read with": credential.api_key}


def agent(model: str = GEMINI_3) -> LlmAgent:
    tools: list[Any] = [
        LongRunningFunctionTool(ask_manager),
        LongRunningFunctionTool(ask_office),
        FunctionTool(delete_file, require_confirmation=True),
        book,
        read_mail,
        clock,
    ]
    return LlmAgent(name="tester", model=model, tools=tools)


def calling(name: str, arguments: Json) -> Callable[[Connection, UserTurn], Any]:
    """A model that calls a tool when it hears "go", and says what it returned."""

    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text == "go":
            result = await connection.call_tool(name, arguments, "call-1")
            await connection.say(f"Returned {sorted(result)}.")
        else:
            await connection.say(f"You said: {turn.text}.")

    return answer


@pytest.fixture(autouse=True)
def nothing_deleted() -> None:
    deleted.clear()


async def pending(who: Client) -> Json:
    return (await who.until(lambda said: said.get("pending")))[-1]


async def answered(who: Client, tool_id: str) -> Json:
    return (await who.until(lambda said: said.get("type") == "tool_complete" and said["tool_id"] == tool_id))[
        -1
    ]


@models
async def test_a_long_running_tool_waits_for_a_user(gemini: GeminiLive, model: str) -> None:
    gemini.answer = calling("ask_manager", {"amount": 5})
    async with serving(a_relay(agent(model))) as port, client(port) as alice, client(port) as bob:
        await alice.say("go")
        frames = await alice.turn()  # the turn ends: everybody can go on
        start = next(said for said in frames if said.get("type") == "tool_start")
        assert (start["tool_id"], start["tool_name"]) == ("call-1", "ask_manager")
        assert start["arguments"] == {"amount": 5}
        assert start["pending"] is True
        assert gemini.connections[0].tool_responses == []
        await bob.send(type="tool_result", tool_id="call-1", result={"approved": True})
        assert (await answered(alice, "call-1"))["result"] == {"approved": True}
        assert words(await alice.turn()) == "Returned ['approved']."
    assert [one["response"] for one in gemini.connections[0].tool_responses] == [{"approved": True}]
    assert gemini.connects == 1


@models
async def test_the_conversation_goes_on_meanwhile(gemini: GeminiLive, model: str) -> None:
    """The service cancels the call when the user goes on. The answer then comes with the history."""
    gemini.answer = calling("ask_manager", {"amount": 5})
    async with serving(a_relay(agent(model))) as port:
        session_id = await created(port)
        async with chat(port, session_id) as room, guest(port, session_id) as live:
            await room.chat("go")
            assert (await room.get("tool_start"))["pending"] is True
            assert (await room.get("response_complete"))["full_response"] == ""
            assert await room.ask("hello") == "You said: hello."
            await room.send(type="tool_result", tool_id="call-1", result="yes")
            assert (await room.get("tool_complete"))["result"] == "yes"
            assert (await room.get("response_complete"))["full_response"]
            await live.until(lambda said: said.get("type") == "tool_complete")
            last = await gemini.connection(1)
            assert str({"result": "yes"}) in str(last.history[-1])
            assert await room.ask("again") == "You said: again."


@models
@pytest.mark.parametrize("order", [("clock", "ask_manager"), ("ask_manager", "clock")])
async def test_a_call_waits_beside_a_tool_that_answers(
    gemini: GeminiLive, model: str, order: tuple[str, str]
) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text != "go":
            await connection.say(f"You said: {turn.text}.")
            return
        arguments = {"clock": {}, "ask_manager": {"amount": 5}}
        await connection.call_tools(*((name, arguments[name], name) for name in order))
        await connection.say("Both returned.")

    gemini.answer = answer
    async with serving(a_relay(agent(model))) as port:
        session_id = await created(port)
        async with chat(port, session_id) as room, guest(port, session_id) as live:
            assert await room.ask("go") == ""
            await live.turn()
            await live.send(type="tool_result", tool_id="ask_manager", result="yes")
            assert words(await live.turn()) == "Both returned."
            await room.get("response_complete")
            assert await room.ask("hello") == "You said: hello."
    assert gemini.connects == 1


@pytest.mark.parametrize("behavior", [None, types.Behavior.NON_BLOCKING])
async def test_what_the_model_says_while_a_call_waits_is_one_turn(
    gemini: GeminiLive, behavior: types.Behavior | None
) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text != "go":
            await connection.say(f"You said: {turn.text}.")
            return
        connection._calls["call-1"] = asyncio.get_running_loop().create_future()
        call = {"id": "call-1", "name": "ask_manager", "args": {"amount": 5}}
        await connection.send({"toolCall": {"functionCalls": [call]}})
        await connection.say("I have asked the manager.", delay=0.05)
        await connection._calls["call-1"]
        await connection.say("They agree.")

    gemini.answer = answer
    tool = LongRunningFunctionTool(ask_manager)
    tool.behavior = behavior
    async with serving(a_relay(LlmAgent(name="tester", model=GEMINI_3, tools=[tool]))) as port:
        session_id = await created(port)
        async with chat(port, session_id) as room, guest(port, session_id) as live:
            await live.say("go")
            if not behavior:  # the model was thought to wait
                assert words(await live.turn()) == ""
            assert words(await live.turn()) == "I have asked the manager."
            await live.send(type="tool_result", tool_id="call-1", result="yes")
            assert words(await live.turn()) == "They agree."
            while room.of("response_complete")[-1:] == [] or "agree" not in str(room.frames[-1]):
                await room.get("response_complete")
            assert await room.ask("hello") == "You said: hello."
    assert gemini.connects == 1


@pytest.mark.bus
@models
async def test_everybodys_requests_are_answered_while_a_call_waits(gemini: GeminiLive, model: str) -> None:
    gemini.answer = calling("ask_manager", {"amount": 5})
    async with serving(a_relay(agent(model))) as port:
        session_id = await created(port)
        async with chat(port, session_id) as alice, chat(port, session_id) as bob:
            asked = [
                (who, f"{who.hello['connection_id']} {number}") for number in (1, 2) for who in (alice, bob)
            ]
            await alice.chat("go", id="go")
            for who, text in asked:
                await who.chat(text, id=text)
            for who, text in [(alice, "go"), *asked]:
                response = await who.get("response_complete")
                while response.get("id") != text:
                    response = await who.get("response_complete")
                assert response["full_response"] == ("" if text == "go" else f"You said: {text}.")


@models
async def test_what_a_tool_returns_meanwhile_is_told(gemini: GeminiLive, model: str) -> None:
    gemini.answer = calling("ask_office", {"amount": 5})
    async with serving(a_relay(agent(model))) as port, client(port) as alice:
        await alice.say("go")
        frames = await alice.turn()
        assert words(frames) == "Returned ['status', 'ticket']."
        starts = [said for said in frames if said.get("type") == "tool_start"]
        assert [said.get("interim") for said in starts] == [None, {"status": "pending", "ticket": 5}]
        assert not any(said.get("type") == "tool_complete" for said in frames)
        await alice.send(type="tool_result", tool_id="call-1", result={"status": "approved"})
        await answered(alice, "call-1")
        await alice.turn()
        last = await gemini.connection(1)
        assert "approved" in str(last.history)


@models
@pytest.mark.parametrize("confirmed", [True, False])
async def test_a_confirmation(gemini: GeminiLive, model: str, confirmed: bool) -> None:
    gemini.answer = calling("delete_file", {"name": "a.txt"})
    async with serving(a_relay(agent(model))) as port, client(port) as alice:
        await alice.say("go")
        asked = await pending(alice)
        assert asked["tool_name"] == "adk_request_confirmation"
        assert asked["arguments"]["originalFunctionCall"]["name"] == "delete_file"
        assert asked["arguments"]["originalFunctionCall"]["args"] == {"name": "a.txt"}
        await alice.turn()
        assert deleted == []
        await alice.send(type="tool_result", tool_id=asked["tool_id"], result={"confirmed": confirmed})
        await answered(alice, asked["tool_id"])
        result = (await answered(alice, "call-1"))["result"]
        assert deleted == ["a.txt"] * confirmed
        expected = {"result": "a.txt is gone"} if confirmed else {"error": "This tool call is rejected."}
        assert result == expected
        assert words(await alice.turn())
        assert str(result) in str(gemini.connections[1].history[-1])  # the model knows
        assert await alice.ask("again") == "You said: again."
        # A connection that is lost afterwards asks for nothing again, and runs nothing again.
        gemini.connections[-1].abort()
        await alice.until(lambda said: said.get("state") == "live")
        assert await alice.ask("and again") == "You said: and again."
    assert deleted == ["a.txt"] * confirmed


async def test_a_confirmation_with_a_payload(gemini: GeminiLive) -> None:
    gemini.answer = calling("book", {"seats": 2})
    async with serving(a_relay(agent())) as port, client(port) as alice:
        await alice.say("go")
        asked = await pending(alice)
        assert asked["arguments"]["toolConfirmation"] == {
            "hint": "Book 2 seats?",
            "confirmed": False,
            "payload": {"seats": 2},
        }
        await alice.turn()
        result = {"confirmed": True, "payload": {"seats": 3}}
        await alice.send(type="tool_result", tool_id=asked["tool_id"], result=result)
        assert (await answered(alice, "call-1"))["result"] == {"booked": 3}


@pytest.mark.bus
@pytest.mark.parametrize("name", ["ask_manager", "delete_file"])
async def test_a_call_waits_over_reconnects_and_a_restart(
    gemini: GeminiLive, sessions: str, name: str, quick_retries: None
) -> None:
    arguments = {"amount": 5} if name == "ask_manager" else {"name": "a.txt"}
    gemini.answer = calling(name, arguments)
    async with serving(a_relay(agent(), sessions=sessions, grace=30)) as port:
        async with client(port) as alice:
            await alice.say("go")
            asked = await pending(alice)
            await alice.turn()
            gemini.connections[-1].abort()
            await alice.until(lambda said: said.get("state") == "live")
        async with client(port, query="&after=0.0") as alice:
            again = await pending(alice)
            assert again == {key: value for key, value in asked.items() if key != "seq"}
    if sessions == "memory://":
        return
    async with serving(a_relay(agent(), sessions=sessions)) as port, client(port) as alice:
        again = await pending(alice)
        assert again["tool_id"] == asked["tool_id"]
        assert again["arguments"] == asked["arguments"]
        result = {"confirmed": True}
        await alice.send(type="tool_result", tool_id=asked["tool_id"], result=result)
        await answered(alice, asked["tool_id"])
        assert words(await alice.turn())
        assert deleted == ["a.txt"] * (name == "delete_file")
        async with client(port) as bob:
            assert await bob.ask("again") == "You said: again."
            assert not any(said.get("pending") for said in bob.frames)


@pytest.mark.bus
async def test_an_answer_over_http(gemini: GeminiLive) -> None:
    gemini.answer = calling("ask_manager", {"amount": 5})
    async with serving(a_relay(agent())) as port, http(port) as web:
        session_id = await created(port)
        path = f"/sessions/{session_id}/tool_result"
        async with guest(port, session_id) as live:
            response = await turn(port, session_id, "go")
            (call,) = response["tool_calls"]
            assert (call["tool_id"], call["pending"], call["result"]) == ("call-1", True, None)
            for body, status in (
                ({"tool_id": "call-1"}, 400),
                ({"tool_id": "", "result": 1}, 400),
                ({"tool_id": "call-2", "result": 1}, 404),
                ({"tool_id": "call-1", "result": {"approved": True}}, 200),
                ({"tool_id": "call-1", "result": {"approved": True}}, 404),
            ):
                assert (await web.post(path, json=body)).status_code == status, body
            await answered(live, "call-1")
            assert words(await live.turn()) == "Returned ['approved']."
        assert (await web.post("/sessions/unknown/tool_result", json=body)).status_code == 404


async def test_an_answer_over_http_when_nobody_attends_is_stored(gemini: GeminiLive, sessions: str) -> None:
    gemini.answer = calling("ask_manager", {"amount": 5})
    async with serving(a_relay(agent(), sessions=sessions)) as port, http(port) as web:
        session_id = await created(port)
        await turn(port, session_id, "go")
        path = f"/sessions/{session_id}/tool_result"
        body = {"tool_id": "call-1", "result": {"approved": True}}
        assert (await web.post(path, json=body)).status_code == 200
        assert (await turn(port, session_id, "hello"))["content"]
        assert (await web.post(path, json=body)).status_code == 404
        assert "approved" in str([connection.history for connection in gemini.connections])


@pytest.mark.bus
async def test_answers_that_cannot_be_used(gemini: GeminiLive) -> None:
    gemini.answer = calling("delete_file", {"name": "a.txt"})
    async with serving(a_relay(agent())) as port, client(port) as alice:
        await alice.say("go")
        asked = await pending(alice)
        await alice.turn()
        for more, code in (
            ({"tool_id": "nothing", "result": 1}, "unknown_tool"),
            ({"tool_id": 5, "result": 1}, "bad_data"),
            ({"tool_id": asked["tool_id"]}, "bad_data"),
            ({"tool_id": asked["tool_id"], "result": "yes"}, "bad_data"),
            ({"tool_id": asked["tool_id"], "result": {"confirmed": "yes"}}, "bad_data"),
            ({"tool_id": asked["tool_id"], "result": "x" * 70_000}, "too_large"),
        ):
            await alice.send(type="tool_result", **more)
            refusal = (await alice.until(lambda said: said.get("type") == "error"))[-1]
            assert refusal["code"] == code, more
            assert refusal.get("tool_id", 5) == more["tool_id"], more
        assert await alice.ask("again") == "You said: again."
        async with client(port) as bob:
            await pending(bob)  # it still waits


@pytest.mark.bus
async def test_a_conversation_that_was_cleared_waits_for_nothing(gemini: GeminiLive) -> None:
    gemini.answer = calling("ask_manager", {"amount": 5})
    async with serving(a_relay(agent())) as port, http(port) as web:
        session_id = await created(port)
        async with guest(port, session_id) as live:
            await live.say("go")
            await pending(live)
            await web.post(f"/sessions/{session_id}/clear")
            await live.until(lambda said: said.get("type") == "cleared")
            await live.send(type="tool_result", tool_id="call-1", result=1)
            assert (await live.until(lambda said: said.get("type") == "error"))[-1]["code"] == "unknown_tool"
            assert await live.ask("hello") == "You said: hello."


async def test_credentials(gemini: GeminiLive) -> None:
    gemini.answer = calling("read_mail", {})
    async with serving(a_relay(agent())) as port, client(port) as alice:
        await alice.say("go")
        asked = await pending(alice)
        assert asked["tool_name"] == "adk_request_credential"
        config = asked["arguments"]["authConfig"]
        await alice.turn()
        config["exchangedAuthCredential"] = {"authType": "apiKey", "apiKey": "secret"}
        await alice.send(type="tool_result", tool_id=asked["tool_id"], result=config)
        assert (await answered(alice, asked["tool_id"]))["result"] == {"status": "answered"}  # a secret
        assert (await answered(alice, "call-1"))["result"] == {"read with": "secret"}
        assert words(await alice.turn())
        assert "secret" in str((await gemini.connection(1)).history[-1])


async def test_a_tool_that_is_gone_ends_nothing_for_good(
    gemini: GeminiLive, sessions: str, quick_retries: None
) -> None:
    """ADK raises an error when it is to run the tool, at each run that begins with the answer."""
    if sessions == "memory://":
        return
    gemini.answer = calling("delete_file", {"name": "a.txt"})
    async with serving(a_relay(agent(), sessions=sessions)) as port, client(port) as alice:
        await alice.say("go")
        asked = await pending(alice)
        await alice.turn()
    without = LlmAgent(name="tester", model=GEMINI_3)
    async with serving(a_relay(without, sessions=sessions)) as port:
        async with client(port) as alice:
            await pending(alice)
            await alice.send(type="tool_result", tool_id=asked["tool_id"], result={"confirmed": True})
            with pytest.raises(ConnectionClosed):
                await alice.until(lambda said: False)
            assert alice.frames[-1]["code"] == "agent_failed"
        async with client(port) as alice:
            assert await alice.ask("hello") == "You said: hello."


async def test_an_answer_is_forgotten_with_its_conversation(gemini: GeminiLive) -> None:
    """It waits for the end of what the agent is saying, and then the conversation is cleared."""
    speaking = asyncio.Event()

    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text == "go":
            await connection.call_tool("ask_manager", {"amount": 5}, "call-1")
        elif turn.text == "talk":
            speaking.set()
            await connection.say("word " * 10_000, delay=0.01)
        else:
            await connection.say(f"You said: {turn.text}.")

    gemini.answer = answer
    async with serving(a_relay(agent())) as port, http(port) as web:
        session_id = await created(port)
        async with chat(port, session_id) as room:
            await room.chat("go")
            await room.get("response_complete")
            await room.chat("talk")
            await asyncio.wait_for(speaking.wait(), 60)
            body = {"tool_id": "call-1", "result": "yes"}
            assert (await web.post(f"/sessions/{session_id}/tool_result", json=body)).is_success
            assert (await web.post(f"/sessions/{session_id}/clear")).is_success
            await room.get("session_cleared")
            assert await room.ask("hello") == "You said: hello."
        history = (await web.get(f"/sessions/{session_id}")).json()["history"]
        assert [line["text"] for line in history] == ["hello", "You said: hello."]
