"""Tools over OpenAI's Realtime API: the agent's own, and functions that the client has."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.adk.agents import LlmAgent
from google.adk.tools.long_running_tool import LongRunningFunctionTool

from support.gemini import Connection, GeminiLive, UserTurn
from support.openai_realtime import Client, realtime, types, words
from support.server import a_relay, serving

pytestmark = [pytest.mark.usefixtures("no_errors"), pytest.mark.bus]

PAINT: Any = {
    "type": "function",
    "name": "paint",
    "description": "Paints the wall.",
    "parameters": {"type": "object", "properties": {"color": {"type": "string"}}},
}


def clock() -> str:
    """Tells the time."""
    return "noon"


def boss() -> None:
    """Asks somebody else."""


async def answer(connection: Connection, turn: UserTurn) -> None:
    if turn.text in ("clock", "paint", "boss"):
        arguments = {"color": "red"} if turn.text == "paint" else {}
        result = await connection.call_tool(turn.text, arguments)
        await connection.say(f"It is {result['result']}.")
    elif turn.text == "both":
        one, two = await connection.call_tools(
            ("paint", {"color": "red"}, None), ("paint", {"color": "blue"}, None)
        )
        await connection.say(f"{one['result']} and {two['result']}.")
    else:
        await connection.say(f"You said: {turn.text}.")


def calls(events: list[Any]) -> list[Any]:
    done = [each.item for each in events if each.type == "response.output_item.done"]
    return [item for item in done if item.type == "function_call"]


async def give(client: Client, call_id: str, output: str) -> None:
    item: Any = {"type": "function_call_output", "call_id": call_id, "output": output}
    await client.connection.conversation.item.create(item=item)


async def test_tools_of_the_agent_and_of_the_client(gemini: GeminiLive) -> None:
    gemini.answer = answer
    agent = LlmAgent(name="tester", model="gemini-3.8-live", tools=[clock, LongRunningFunctionTool(boss)])
    async with serving(a_relay(agent)) as port, realtime(port) as client:
        session = await client.update(tools=[PAINT], instructions="Be brief.", tool_choice="auto")
        assert [tool.name for tool in session.tools] == ["paint"]
        assert session.instructions == "Be brief."
        # The agent's own tool is its own affair.
        events = await client.ask("clock")
        assert (words(events), calls(events)) == ("It is noon.", [])
        assert len(gemini.connections) == 1  # the model was not connected before it was told of the tools
        # Also one that waits for somebody: the client has no such function.
        assert (await client.ask("boss"))[-1].response.output == []

        events = await client.ask("paint")
        (call,) = calls(events)
        assert (call.name, json.loads(call.arguments)) == ("paint", {"color": "red"})
        assert types(events)[2:] == [
            "response.created",
            "response.output_item.added",
            "conversation.item.added",
            "response.function_call_arguments.delta",
            "response.function_call_arguments.done",
            "conversation.item.done",
            "response.output_item.done",
            "response.done",
        ]
        assert events[-1].response.status == "completed"
        # The model goes on by itself: the response.create of the client asks for the same answer.
        await give(client, call.call_id, '"done"')
        await client.connection.response.create()
        events = await client.response()
        assert words(events) == "It is done."
        assert types(events)[:3] == ["conversation.item.added", "conversation.item.done", "response.created"]
        assert types(events).count("response.done") == 1

        # Two calls at once; the client asks for an answer after each output, as the SDK for agents does.
        events = await client.ask("both")
        one, two = calls(events)
        await give(client, one.call_id, "ONE")
        await client.connection.response.create()
        await give(client, two.call_id, "TWO")
        await client.connection.response.create()
        assert words(await client.response()) == "ONE and TWO."

        # A client that comes late gets an answer without words, and its next question is no error.
        events = await client.ask("paint")
        await give(client, calls(events)[0].call_id, "late")
        assert words(await client.response()) == "It is late."
        await client.connection.response.create()
        response = (await client.response())[-1].response
        assert (response.status, response.output) == ("completed", [])
        events = await client.ask("paint")
        await give(client, calls(events)[0].call_id, "late")
        assert words(await client.response()) == "It is late."
        assert words(await client.ask("bye")) == "You said: bye."

        # What is no output of a call.
        for call_id, why in (("call_x", "is known here"), (one.call_id, "has its output already")):
            item: Any = {"type": "function_call_output", "call_id": call_id, "output": ""}
            await client.connection.conversation.item.create(item=item, event_id="mine")
            error = (await client.until("error")).error
            assert (error.param, error.event_id) == ("item.call_id", "mine")
            assert why in error.message
    outputs = [each["response"] for each in gemini.connections[-1].tool_responses]
    assert [each["result"] for each in outputs] == ["noon", "done", "ONE", "TWO", "late", "late"]


async def test_an_operator_forbids_tools(gemini: GeminiLive) -> None:
    async with serving(a_relay(client_tools="off")) as port, realtime(port) as client:
        session: Any = {
            "type": "realtime",
            "tools": [PAINT],
            "instructions": "Be brief.",
            "audio": {"input": {"turn_detection": None}},
        }
        await client.connection.session.update(session=session, event_id="mine")
        error = (await client.until("error")).error
        assert (error.code, error.event_id) == ("not_allowed", "mine")
        now = (await client.until("session.updated")).session
        # The rest holds.
        assert (now.tools, now.instructions, now.audio.input.turn_detection) == ([], "", None)
        assert words(await client.ask("hello")) == "You said: hello."


async def test_a_client_that_comes_back_gets_the_call_again(gemini: GeminiLive) -> None:
    gemini.answer = answer
    async with serving(a_relay(grace=60)) as port:
        async with realtime(port) as client:
            session_id = client.events[0].session.id
            await client.update(tools=[PAINT])
            (call,) = calls(await client.ask("paint"))
        async with realtime(port, session_id=session_id) as client:
            assert client.events[0].session.id == session_id
            assert [tool.name for tool in client.events[0].session.tools] == ["paint"]
            events = await client.response()
            assert [each.call_id for each in calls(events)] == [call.call_id]
            before = next(each for each in events if each.type == "conversation.item.added").item
            assert before.content[0].text == "paint"
            await give(client, call.call_id, "done")
            await client.connection.response.create()
            assert words(await client.response()) == "It is done."
