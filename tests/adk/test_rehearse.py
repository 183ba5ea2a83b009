"""One's own agent with the rehearsal model: its tools can be called, and what only Gemini has is left out."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
from google.adk.agents import BaseAgent, LlmAgent, SequentialAgent
from google.adk.apps import App
from google.adk.code_executors import BuiltInCodeExecutor
from google.adk.tools.agent_tool import AgentTool
from google.adk.tools.google_search_tool import google_search
from google.adk.workflow import Workflow

from adk_relay.adk.rehearsal import Rehearsal
from adk_relay.adk.rehearse import rehearse
from adk_relay.adk.tree import agents_of
from support.client import client
from support.process import SERVE, UVICORN, serving_warm

OWN_AGENT = """
from google.adk.agents import LlmAgent
from google.adk.tools.google_search_tool import google_search
from google.adk.workflow import Workflow

def order_status(number: int) -> dict:
    "Where an order is."
    return {"message": f"order {number} is on its way"}

root_agent = LlmAgent(
    name="shop",
    model="gemini-3.8-live",
    tools=[order_status, google_search],
    sub_agents=[LlmAgent(name="billing", model="gemini-3.8-live")],
)
"""


async def test_ones_own_agent_is_tried_without_a_key(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(OWN_AGENT)
    environment = {"RELAY_AGENT": "shop:root_agent", "RELAY_MODEL": "rehearsal"}
    async with serving_warm(UVICORN, tmp_path, **environment) as relay:
        async with client(relay.port) as alice:
            assert alice.hello["rehearsal"] is True
            assert "You said: hello" in await alice.ask("hello")
            await alice.say('order_status {"number": 7}')
            frames = await alice.turn()
            [called] = [frame for frame in frames if frame.get("type") == "tool_start"]
            assert (called["tool_name"], called["arguments"]) == ("order_status", {"number": 7})
            words = "".join(frame["data"] for frame in frames if frame.get("mime_type") == "text/plain")
            assert "The tool says: order 7 is on its way" in words
            assert "You said: order_status of" in await alice.ask("order_status of 7")  # no call
        await relay.stop()
        [line] = relay.problems()
        assert line.endswith("RELAY_MODEL selects it.")


OWN_APP = (
    OWN_AGENT
    + """
from google.adk.apps import App
from google.adk.plugins.base_plugin import BasePlugin

class Noting(BasePlugin):
    async def before_tool_callback(self, *, tool, tool_args, tool_context):
        print("the plugin sees", tool.name, flush=True)

app = App(name="shop", root_agent=root_agent, plugins=[Noting("noting")])
"""
)

OWN_WORKFLOW = (
    OWN_AGENT
    + """
from google.adk.workflow import Workflow

root_agent.mode = "chat"
flow = Workflow(name="flow", edges=[("START", root_agent)])
"""
)


@pytest.mark.parametrize(("program", "name"), [(OWN_APP, "app"), (OWN_WORKFLOW, "flow")])
async def test_ones_own_app_or_workflow_is_tried_without_a_key(
    tmp_path: Path, program: str, name: str
) -> None:
    (tmp_path / "shop.py").write_text(program)
    environment = {"RELAY_AGENT": f"shop:{name}", "RELAY_MODEL": "rehearsal"}
    async with serving_warm(SERVE, tmp_path, **environment) as relay:
        async with client(relay.port) as alice:
            assert alice.hello["rehearsal"] is True
            assert "The tool says: order 7 is on its way" in await alice.ask('order_status {"number": 7}')
        await relay.stop()
        assert ("the plugin sees order_status" in relay.log) == (name == "app")


def test_the_agents_of_an_app_and_of_a_workflow_get_the_rehearsal_model() -> None:
    nodes = [LlmAgent(name=name, model="gemini-3.8-live", mode="task") for name in ("one", "two")]
    flow = Workflow(name="flow", edges=[("START", *nodes)])
    rehearse(App(name="shop", root_agent=flow))
    assert [type(each.model) for each in agents_of(flow) if isinstance(each, LlmAgent)] == [Rehearsal] * 2
    rehearse("no agent")  # `Relay` refuses it


def test_every_agent_gets_the_rehearsal_model() -> None:
    def agent(name: str, **fields: object) -> LlmAgent:
        return LlmAgent.model_validate({"name": name, "model": "gemini-3.8-live", **fields})

    helper, leaf = agent("helper"), agent("leaf", code_executor=BuiltInCodeExecutor())
    root = agent("root", tools=[google_search, print, AgentTool(helper)], sub_agents=[leaf])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated, and still there
        outer: BaseAgent = SequentialAgent(name="outer", sub_agents=[root])
    rehearse(outer)
    assert [type(each.model) for each in (root, leaf, helper)] == [Rehearsal] * 3
    assert root.tools[0] is print and len(root.tools) == 2
    assert leaf.code_executor is None


@pytest.mark.parametrize("text", ["order_status [7]", "order_status {", "no_tool", "order_status{}"])
def test_what_is_no_call_is_repeated(text: str) -> None:
    from adk_relay.adk.rehearsal import _reply

    assert isinstance(_reply(text, frozenset({"order_status"})), str)
