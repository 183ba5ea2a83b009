"""The client and what is more than words: tool calls that wait for the user, and sources."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from google.adk.agents import LlmAgent
from google.adk.tools.function_tool import FunctionTool
from google.adk.tools.long_running_tool import LongRunningFunctionTool
from google.adk.tools.tool_context import ToolContext

from adk_relay.client.calls import Call, Calls
from adk_relay.client.transcript import sources
from adk_relay.client.view import Problem
from relay import Relay
from support.chat import http
from support.gemini import Connection, GeminiLive, UserTurn
from support.linked import Reports
from support.proxy import network
from support.server import a_relay, serving
from support.terminal import at_terminal, connected, piped, without_websockets

deleted: list[str] = []


def ask_manager(amount: int) -> None:
    """Asks the manager, who answers some day."""


def ask_office(amount: int) -> dict[str, Any]:
    """Asks the office, which gives a ticket first."""
    return {"ticket": amount}


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


def asking(gemini: GeminiLive, **settings: Any) -> Relay:
    """A relay whose agent calls the tool that it is told, such as "ask_manager amount 5"."""

    async def answer(connection: Connection, turn: UserTurn) -> None:
        name, *argument = turn.text.split()
        if not argument:
            await connection.say(f"You said: {turn.text}.")
            return
        value = int(argument[1]) if argument[1].isdigit() else argument[1]
        result = await connection.call_tool(name, {argument[0]: value}, f"{name}-{argument[1]}")
        await connection.say(f"Returned {result}.")

    gemini.answer = answer
    deleted.clear()
    tools: list[Any] = [
        *(LongRunningFunctionTool(ask_manager), LongRunningFunctionTool(ask_office), book),
        FunctionTool(delete_file, require_confirmation=True),
    ]
    agent = LlmAgent(name="tester", model="gemini-3.8-live", tools=tools)
    return a_relay(agent, **{"grace": 30} | settings)


MAY_DELETE = r"May the agent use delete_file\(name=\"a.txt\"\)\?"


async def test_a_call_that_waits_is_shown_and_answered(gemini: GeminiLive, tmp_path: Path) -> None:
    async with serving(asking(gemini)) as port, connected(port, tmp_path) as person:
        await person.says("/answer yes")
        await person.sees("No tool call waits for an answer")
        await person.says("delete_file name a.txt")
        await person.sees(rf"(?m)^ +{MAY_DELETE}\n +/answer yes or /answer no\n")
        await person.says("/answer perhaps")
        await person.sees("An answer is yes, no or JSON .a text in quotes., not perhaps")
        await person.says("/answer 5")
        await person.sees(r'The result must be \{"confirmed": true\}')
        assert deleted == []
        await person.says("/answer yes")
        await person.sees(r'(?m)^ +delete_file\(name="a.txt"\): allowed\.\n')
        async with asyncio.timeout(60):
            while not deleted:
                await asyncio.sleep(0.01)
        assert deleted == ["a.txt"]
        await person.says("/answer")
        await person.sees("(?s)No tool call waits.*No tool call waits")
        await person.says("book seats 3")
        await person.sees(r"May the agent use book\(seats=3\)\? Book 3 seats\? Details: \{\"seats\": 3\}")
        await person.says("/answer no")
        await person.sees(r"book\(seats=3\): not allowed\.")
        assert await person.leaves() == 0


async def test_several_wait(gemini: GeminiLive, tmp_path: Path) -> None:
    async with serving(asking(gemini)) as port, connected(port, tmp_path) as person:
        await person.says("ask_manager amount 5")
        await person.sees(r"ask_manager\(amount=5\) waits for your answer\.\n +/answer JSON\n")
        await person.says("ask_manager amount 6")
        await person.sees(r"ask_manager\(amount=6\) waits for your answer\.\n")
        await person.sees(r"The oldest of 2 gets it; /answer lists them\.")
        await person.says("/answer")
        await person.sees(r"(?m)^ask_manager-5 +ask_manager\(amount=5\) waits")
        await person.sees(r"(?m)^ask_manager-6 +ask_manager\(amount=6\) waits")
        await person.says("/answer ask yes")
        await person.sees("2 calls begin with ask")
        await person.says('/answer ask_manager-6 {"approved": true}')
        await person.sees(r'ask_manager\(amount=6\): answered with \{"approved": true\}')
        await person.says("/answer no")
        await person.sees(r"ask_manager\(amount=5\): answered with false")
        await person.says("/clear")
        await person.sees("The conversation was cleared")
        await person.says("ask_manager amount 7")
        await person.sees(r"ask_manager\(amount=7\) waits")
        await person.says("/clear")
        await person.sees("(?s)The conversation was cleared.*The conversation was cleared")
        await person.says("/answer yes")
        await person.sees("No tool call waits")


async def test_after_a_reconnect_a_call_is_shown_once_and_can_be_answered(
    gemini: GeminiLive, tmp_path: Path
) -> None:
    relay = asking(gemini)
    async with (
        serving(relay) as port,
        http(port) as web,
        network(port) as (between, there),
        connected(there, tmp_path) as person,
    ):
        await person.says("ask_office amount 5")
        await person.sees(r"ask_office\(amount=5\) waits for your answer\.\n")
        await person.sees(r"waits for your answer\. It has returned so far: \{\"ticket\": 5\}")
        await person.says("ask_manager amount 6")
        await person.sees(r"ask_manager\(amount=6\) waits")
        between.cut()
        await person.sees("Trying again")
        [session_id] = relay.conversations._open
        body = {"tool_id": "ask_manager-6", "result": 1}
        assert (await web.post(f"/sessions/{session_id}/tool_result", json=body)).is_success
        between.mend()
        await person.sees("Connected again")
        await person.says("/answer yes")
        await person.sees(r"ask_office\(amount=5\): answered with true")
        await person.says("/answer yes")  # somebody else has answered the other one
        await person.sees("No call with this tool_id waits|No tool call waits")
        await person.says("/answer")
        await person.sees("No tool call waits for an answer")
        assert len(re.findall("It has returned so far", person.sight)) == 1
        assert len(re.findall(r"ask_manager\(amount=6\) waits", person.sight)) == 1


async def test_who_joins_is_shown_what_waits_and_what_others_answer(
    gemini: GeminiLive, tmp_path: Path
) -> None:
    async with serving(asking(gemini)) as port, http(port) as web:
        asked = {"session_id": "room", "message": "ask_manager amount 5"}
        assert (await web.post("/api/v1/chat", json=asked)).is_success
        async with connected(port, tmp_path, "--session", "room") as person:
            await person.sees(r"(?s)user +ask_manager amount 5.*ask_manager\(amount=5\) waits")
            body = {"tool_id": "ask_manager-5", "result": {"approved": False}}
            assert (await web.post("/sessions/room/tool_result", json=body)).is_success
            await person.sees(r'ask_manager\(amount=5\): answered with \{"approved": false\}')


async def test_a_pipe_says_that_a_call_waits(gemini: GeminiLive) -> None:
    async with serving(asking(gemini)) as port:
        url = f"http://127.0.0.1:{port}"
        here = rf"Answer at a terminal: relay-client --url {url} --session [\w-]+\n"
        code, out, err = await piped("--url", url, text="ask_manager amount 5")
        assert (code, out) == (1, "")
        assert re.fullmatch(rf"relay-client: ask_manager\(amount=5\) waits for your answer\. {here}", err), (
            err
        )
        code, out, err = await piped("--url", url, text="delete_file name a.txt")
        assert code == 0
        assert out.startswith("Returned ")  # ADK tells the model that it needs a confirmation
        assert re.fullmatch(rf"relay-client: {MAY_DELETE} {here}", err), err


async def test_over_plain_http(gemini: GeminiLive, tmp_path: Path) -> None:
    async with (
        serving(without_websockets(asking(gemini))) as port,
        at_terminal(port, tmp_path) as person,
    ):
        await person.sees("Going on over plain HTTP")
        await person.says("ask_manager amount 5")
        await person.sees(r"ask_manager\(amount=5\) waits for your answer")
        await person.says("/answer yes")
        await person.sees(r"ask_manager\(amount=5\): answered with true")
        await person.sees("is not shown without a WebSocket: /join")


async def test_sources_are_lines_under_the_answer(gemini: GeminiLive, tmp_path: Path) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.say("Noon.", complete=False)
        found = ("One\nagent \x1b[31mclock", "https://one.example/"), ("Two", "javascript:alert(2)")
        await connection.ground(*found, searches=("what is one", "and two"))
        await connection.turn_complete()

    gemini.answer = answer
    async with serving(a_relay()) as port:
        async with connected(port, tmp_path) as person:
            await person.says("What time is it?")
            lines = (
                r"source: One agent \[31mclock https://one\.example/",
                r"source: Two",
                r"searched for: what is one, and two",
            )
            await person.sees(r"(?m)^agent +Noon\.\n" + "".join(rf" +{line}\n" for line in lines))
        code, out, err = await piped("--url", f"http://127.0.0.1:{port}")
        assert (code, out, err) == (0, "Noon.\n", "")


# ---- what is made of a frame ----

CONFIRMATION = "adk_request_confirmation"


@pytest.mark.parametrize(
    ("call", "question"),
    [
        (Call("1", "ask", {}), "ask() waits for your answer."),
        (Call("1", "ask", {"a": "b\nc", "d": [1]}), r'ask(a="b\nc", d=[1]) waits for your answer.'),
        (Call("1", "ask\nagent  Yes", None), "ask agent Yes() waits for your answer."),
        (Call("1", "ask", '{"a": "bbb'), 'ask({"a": "bbb…) waits for your answer.'),
        (Call("1", CONFIRMATION, {}), f"May the agent use {CONFIRMATION}()?"),
        (
            Call("1", CONFIRMATION, {"originalFunctionCall": 5, "toolConfirmation": [1]}),
            f"May the agent use {CONFIRMATION}(originalFunctionCall=5, toolConfirmation=[1])?",
        ),
        (
            Call("1", "adk_request_credential", {"authConfig": {"key": 1}}),
            'The agent needs you to sign in: {"key": 1}',
        ),
    ],
)
def test_what_a_call_asks(call: Call, question: str) -> None:
    assert call.question == question


@pytest.mark.parametrize(
    ("confirmation", "typed", "result"),
    [
        (None, "Yes", True),
        (None, "no", False),
        (None, '"no"', "no"),
        (None, '{"a": 1}', {"a": 1}),
        ({}, "yes", {"confirmed": True}),
        ({"payload": {"seats": 3}}, "yes", {"confirmed": True, "payload": {"seats": 3}}),
        ({"payload": {"seats": 3}}, "no", {"confirmed": False, "payload": {"seats": 3}}),
        ({"payload": 1}, '{"confirmed": true, "payload": 2}', {"confirmed": True, "payload": 2}),
    ],
)
def test_what_an_answer_becomes(confirmation: Any, typed: str, result: Any) -> None:
    is_long_running = confirmation is None
    call = Call("1", "ask" if is_long_running else CONFIRMATION, {"toolConfirmation": confirmation})
    assert call.result(typed) == result


@pytest.mark.parametrize("typed", ["perhaps", "", '{"a": ', "[" * 100_000])
def test_what_is_no_answer(typed: str) -> None:
    with pytest.raises(Problem, match="yes, no or JSON"):
        Call("1", "ask", {}).result(typed)


def test_the_calls_of_a_conversation() -> None:
    seen = Reports()
    calls = Calls(seen)
    for call_id in ("a1", "a2", "b"):
        calls.start({"tool_id": call_id, "tool_name": "ask"})
    assert [call.id for call in calls] == ["a1", "a2", "b"]
    assert len(seen.calls) == 3
    found = calls.find("b")
    assert found
    assert found.id == "b"
    assert calls.find("c") is None
    with pytest.raises(Problem):
        calls.find("a")
    calls.refused(found)
    assert [call.id for call in calls] == ["a1", "a2", "b"]
    calls.joined()
    calls.refused(found)  # somebody else has answered it meanwhile
    assert [call.id for call in calls] == ["a1", "a2"]
    calls.start({"tool_id": "a2", "tool_name": "ask"})
    assert [call.id for call in calls] == ["a2"]
    assert len(seen.calls) == 3
    calls.start({"tool_id": "a2", "tool_name": "ask", "interim": 1})
    assert len(seen.calls) == 4
    calls.complete("a2", 5)
    calls.complete("a2", 5)
    assert seen.notices == ["ask(): answered with 5"]
    calls.check()
    calls.forget()
    calls.start({"tool_id": "a2", "tool_name": "ask", "interim": 1})
    assert len(seen.calls) == 5
    calls.check()


@pytest.mark.parametrize(
    "grounding", [None, 5, {"sources": 1, "searches": []}, {"sources": [None, {}], "searches": []}]
)
def test_no_sources(grounding: Any) -> None:
    assert sources({"grounding": grounding}) == []
