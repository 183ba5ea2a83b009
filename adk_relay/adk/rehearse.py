"""Lets one's own agent be tried without a key: its models become the rehearsal model."""

from __future__ import annotations

from typing import Any

from google.adk.agents import LlmAgent
from google.adk.code_executors import BuiltInCodeExecutor
from google.adk.tools.agent_tool import AgentTool

from adk_relay.adk.rehearsal import Rehearsal
from adk_relay.adk.tree import agents_of, root_of

_OF_GEMINI = {
    "EnterpriseWebSearchTool",
    "GoogleMapsGroundingTool",
    "GoogleSearchTool",
    "UrlContextTool",
    "VertexAiSearchTool",
}
"""ADK's tools that run inside Gemini. With any other model they raise ValueError."""


def rehearse(agent: Any, *, words_per_second: float = 3.0, pace: float = 1.0) -> None:
    """Gives an agent, an App's or a Workflow's agents, and the agents among their tools the rehearsal model.

    Their own tools stay and can be called. Those that run inside Gemini are removed.

    Args:
        agent: is changed. `Relay` makes a copy of its agent, so this has to come before it.
        words_per_second, pace: see `Rehearsal`.
    """
    root = root_of(agent)
    pending, seen = [root] if root else [], set[int]()
    while pending:
        for each in agents_of(pending.pop()):
            if id(each) in seen or not isinstance(each, LlmAgent):
                continue
            seen.add(id(each))
            each.model = Rehearsal(words_per_second=words_per_second, pace=pace)
            each.tools = [tool for tool in each.tools if not _is_geminis(tool)]
            if isinstance(each.code_executor, BuiltInCodeExecutor):
                each.code_executor = None
            pending += [tool.agent for tool in each.tools if isinstance(tool, AgentTool)]


def _is_geminis(tool: object) -> bool:
    return any(base.__name__ in _OF_GEMINI for base in type(tool).__mro__)
