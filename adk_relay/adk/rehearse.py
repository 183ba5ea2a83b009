"""Lets one's own agent be tried without a key: its models become the rehearsal model."""

from __future__ import annotations

from google.adk.agents import BaseAgent, LlmAgent
from google.adk.code_executors import BuiltInCodeExecutor
from google.adk.tools.agent_tool import AgentTool

from adk_relay.adk.rehearsal import Rehearsal

_OF_GEMINI = {
    "EnterpriseWebSearchTool",
    "GoogleMapsGroundingTool",
    "GoogleSearchTool",
    "UrlContextTool",
    "VertexAiSearchTool",
}
"""ADK's tools that run inside Gemini. With any other model they raise ValueError."""


def rehearse(agent: BaseAgent, *, words_per_second: float = 3.0, pace: float = 1.0) -> None:
    """Gives an agent, its sub-agents and the agents among its tools the rehearsal model.

    Their own tools stay and can be called. Those that run inside Gemini are removed.

    Args:
        agent: is changed. `Relay` makes a copy of its agent, so this has to come before it.
        words_per_second, pace: see `Rehearsal`.
    """
    pending, seen = [agent], set[int]()
    while pending:
        each = pending.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        pending += each.sub_agents
        if isinstance(each, LlmAgent):
            each.model = Rehearsal(words_per_second=words_per_second, pace=pace)
            each.tools = [tool for tool in each.tools if not _is_geminis(tool)]
            if isinstance(each.code_executor, BuiltInCodeExecutor):
                each.code_executor = None
            pending += [tool.agent for tool in each.tools if isinstance(tool, AgentTool)]


def _is_geminis(tool: object) -> bool:
    return any(base.__name__ in _OF_GEMINI for base in type(tool).__mro__)
