"""Tool calls that wait for a user, of agents that do not stand alone."""

from __future__ import annotations

from typing import Any

import pytest
from adk.test_several import LIVE, agent_of, by_agent, has_tool
from app.test_waiting import agent as with_tools
from app.test_waiting import answered, deleted, pending
from google.adk.agents import LlmAgent, SequentialAgent
from google.adk.workflow import Workflow

from support.client import Json, client, words
from support.gemini import Connection, GeminiLive, UserTurn
from support.server import a_relay, serving

pytestmark = pytest.mark.filterwarnings("ignore:SequentialAgent is deprecated:DeprecationWarning")

CASES: dict[str, tuple[Json, Any, Json]] = {
    "ask_manager": ({"amount": 5}, {"approved": True}, {"approved": True}),
    "delete_file": ({"name": "a.txt"}, {"confirmed": True}, {"result": "a.txt is gone"}),
    "read_mail": ({}, None, {"read with": "secret"}),
}
"""By the name of a tool: its arguments, a user's answer, and what the model gets."""


def an_agent(name: str, **fields: Any) -> LlmAgent:
    return LlmAgent(name=name, description="Helps.", model=LIVE, **fields)


def family() -> LlmAgent:
    return an_agent("first", sub_agents=[an_agent("second", tools=with_tools().tools)])


def sequence() -> SequentialAgent:
    second = an_agent("second", tools=with_tools().tools)
    return SequentialAgent(name="all", sub_agents=[an_agent("first"), second, an_agent("third")])


def workflow() -> Workflow:
    second = an_agent("second", mode="chat", tools=with_tools().tools)
    return Workflow(name="flow", edges=[("START", second)])


@pytest.mark.parametrize("agent", [family, sequence, workflow])
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("meanwhile", [False, True])
async def test_a_call_waits_wherever_its_agent_is(
    gemini: GeminiLive, agent: Any, name: str, meanwhile: bool
) -> None:
    arguments, result, returned = CASES[name]

    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text == "go":
            got = await connection.call_tool(name, arguments, "the-call")
            await connection.say(f"{agent_of(connection)}: {sorted(got)}")
        else:
            await by_agent(connection, turn)

    gemini.answer = answer
    deleted.clear()
    async with serving(a_relay(agent())) as port, client(port) as alice:
        if agent is not workflow:
            await alice.say("hand over")
            assert words(await alice.turn()) == "second: hello"
        await alice.say("go")
        asked = await pending(alice)
        await alice.turn()
        if meanwhile:
            assert await alice.ask("meanwhile") == "second: meanwhile"
        if name == "read_mail":
            result = asked["arguments"]["authConfig"]
            result["exchangedAuthCredential"] = {"authType": "apiKey", "apiKey": "secret"}
        await alice.send(type="tool_result", tool_id=asked["tool_id"], result=result)
        assert (await answered(alice, "the-call"))["result"] == returned
        assert words(await alice.turn()).startswith("second: ")
        last = gemini.connections[-1]
        assert str(returned) in str([*last.history, *(each["response"] for each in last.tool_responses)])
        assert await alice.ask("again") == "second: again"
    assert deleted == (["a.txt"] if name == "delete_file" else [])
    assert has_tool(gemini.connections[-1], name)
