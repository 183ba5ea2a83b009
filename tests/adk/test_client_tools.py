"""Clients' tools and instructions, whatever the agent is made of."""

from __future__ import annotations

from typing import Any

import pytest
from adk.test_several import LIVE, agent_of, by_agent, family, sequence
from google.adk.agents import LlmAgent
from google.adk.agents.readonly_context import ReadonlyContext
from google.adk.tools.base_tool import BaseTool
from google.adk.tools.base_toolset import BaseToolset
from google.adk.tools.function_tool import FunctionTool
from google.adk.workflow import Workflow

from support.client import client, words
from support.gemini import Connection, GeminiLive, UserTurn, speech
from support.server import a_relay, serving

pytestmark = pytest.mark.filterwarnings("ignore:(Sequential|Parallel)Agent is deprecated:DeprecationWarning")

BRIEF = "Be brief."
SHAPE = {"instructions": BRIEF, "tools": [{"name": "paint"}]}


def names(connection: Connection) -> list[str]:
    listed = connection.setup.get("tools", [])
    return [each["name"] for tool in listed for each in tool["functionDeclarations"]]


def is_shaped(connection: Connection) -> bool:
    told = str(connection.setup["systemInstruction"]["parts"][0]["text"])
    return names(connection).count("paint") == 1 and told.endswith(BRIEF) and told.count(BRIEF) == 1


@pytest.mark.parametrize("agent", [family, sequence])
async def test_the_agent_that_takes_over_has_them_too(gemini: GeminiLive, agent: Any) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text == "go":
            result = await connection.call_tool("paint", {})
            await connection.say(f"{agent_of(connection)}: {result['result']}")
        else:
            await by_agent(connection, turn)

    gemini.answer = answer
    root = agent()
    first = root if isinstance(root, LlmAgent) else root.sub_agents[0]
    async with serving(a_relay(root)) as port, client(port) as alice, client(port, "bob") as bob:
        await alice.send(type="configure", **SHAPE)
        await alice.say("hand over")
        await alice.turn()
        await alice.say("go")
        call = (await alice.until(lambda said: said.get("pending")))[-1]
        await alice.turn()
        await alice.send(type="tool_result", tool_id=call["tool_id"], result="red")
        assert words(await alice.turn()) == "second: red"
        assert [agent_of(each) for each in gemini.connections] == ["first", "second"]
        assert all(map(is_shaped, gemini.connections))
        await bob.ask("hello")
        assert "paint" not in names(gemini.connections[-1])
    assert not any(getattr(tool, "name", "") == "paint" for tool in first.tools)


async def test_a_new_connection_within_a_run_of_a_workflow(gemini: GeminiLive) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text == "hand over":
            await connection.call_tool("finish_task", {"result": "done"})
        else:
            await connection.say(f"{agent_of(connection)}: {turn.text}")

    gemini.answer = answer
    nodes = [LlmAgent(name=name, model=LIVE, mode="task") for name in ("first", "second")]
    async with (
        serving(a_relay(Workflow(name="flow", edges=[("START", *nodes)]))) as port,
        client(port) as alice,
    ):
        await alice.send(type="configure", **SHAPE)
        await alice.say("hand over")
        await alice.turn()
        assert await alice.ask("one") == "second: one"
        await gemini.wait_for(lambda: len(gemini.handles) == 2)
        await gemini.connections[1].go_away(10)
        await gemini.connection(2)
        assert await alice.ask("two") == "second: two"
    assert len(gemini.connections) == 3
    assert all(map(is_shaped, gemini.connections))


class Painters(BaseToolset):
    """The names of its tools are known only in a run."""

    async def get_tools(self, readonly_context: ReadonlyContext | None = None) -> list[BaseTool]:
        return [FunctionTool(paint)]


def paint() -> str:
    """The agent's own."""
    return "by the agent"


async def test_the_agents_own_tool_of_a_toolset_wins(
    gemini: GeminiLive, caplog: pytest.LogCaptureFixture
) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.say((await connection.call_tool("paint", {}))["result"])

    gemini.answer = answer
    agent = LlmAgent(name="tester", model=LIVE, tools=[Painters()])
    async with serving(a_relay(agent)) as port, client(port) as alice:
        await alice.send(type="configure", tools=[{"name": "paint"}, {"name": "other"}])
        assert await alice.ask("go") == "by the agent"
    assert names(gemini.connections[0]) == ["paint", "other"]
    assert "a client's tool is left out: the agent has one that is named paint" in caplog.text


@pytest.mark.voice
async def test_a_client_that_sets_them_while_the_model_is_being_connected(gemini: GeminiLive) -> None:
    async with serving(a_relay()) as port, client(port, audio=True) as alice:
        await alice.send(type="configure", push_to_talk=True, **SHAPE)
        await alice.send(type="activity_start")
        await alice.socket.send(speech(200))
        await alice.send(type="activity_end")
        assert words(await alice.turn()) == "I heard you."
        last = gemini.connections[-1]
        assert is_shaped(last)
        assert last.activities == [speech(200)]
        assert not any(said.get("type") in ("error", "status") for said in alice.frames)
