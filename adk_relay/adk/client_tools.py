"""What clients add to an agent: tools that they have themselves, instructions, and a temperature.

The agent is never changed. Each run works on a copy of it (`plugins.Plugins`), and the copy gets them: so
each conversation has its own.
"""

from __future__ import annotations

import logging
from typing import Any

from google.adk.agents import LlmAgent
from google.adk.models.llm_request import LlmRequest
from google.adk.tools.base_tool import BaseTool
from google.adk.tools.base_toolset import BaseToolset
from google.adk.tools.tool_context import ToolContext
from google.adk.workflow import BaseNode
from google.genai import types

from adk_relay.adk.tree import agents_of
from adk_relay.core.shape import ClientTool, Shape

log = logging.getLogger("relay.agent")


class _Tool(BaseTool):
    """A client's tool. ADK takes it for a long-running one, which waits for the answer of a user."""

    def __init__(self, tool: ClientTool) -> None:
        super().__init__(name=tool.name, description=tool.description, is_long_running=True)
        self._parameters = tool.parameters

    def _get_declaration(self) -> types.FunctionDeclaration:
        return types.FunctionDeclaration(
            name=self.name, description=self.description, parameters_json_schema=self._parameters
        )

    async def process_llm_request(self, *, tool_context: ToolContext, llm_request: LlmRequest) -> None:
        # The names in a toolset are known only here. The agent's own tool has been added before.
        if self.name in llm_request.tools_dict:
            log.warning("a client's tool is left out: the agent has one that is named %s", self.name)
            return
        await super().process_llm_request(tool_context=tool_context, llm_request=llm_request)

    async def run_async(self, *, args: dict[str, Any], tool_context: ToolContext) -> None:
        """The client runs it: nothing is returned here."""


def shaped(agent: LlmAgent, shape: Shape) -> dict[str, Any]:
    """What a copy of an agent has besides, with the tools and the temperature that clients have set."""
    update: dict[str, Any] = {}
    if shape.tools:
        update["tools"] = [*agent.tools, *map(_Tool, shape.tools)]
    if shape.temperature is not None:
        config = agent.generate_content_config or types.GenerateContentConfig()
        change = {"temperature": shape.temperature}
        update["generate_content_config"] = config.model_copy(update=change)
    return update


def instructed(request: LlmRequest, shape: Shape) -> LlmRequest:
    """A copy of a request for a connection, with the clients' instructions after those of the agent.

    They are added here, and not in the agent: there ADK would fill in values of the session's state.
    """
    if not shape.instructions:
        return request
    # A copy, because ADK uses the same request for the next connection.
    copy = request.model_copy(update={"config": request.config.model_copy()})
    copy.append_instructions([shape.instructions])
    return copy


def tool_names(root: BaseNode) -> frozenset[str]:
    """The names of the tools of all agents, without those in toolsets: these are known in a run only."""
    tools = [tool for agent in agents_of(root) if isinstance(agent, LlmAgent) for tool in agent.tools]
    return frozenset(_name(tool) for tool in tools if not isinstance(tool, BaseToolset)) - {""}


def _name(tool: object) -> str:
    name = tool.name if isinstance(tool, BaseTool) else getattr(tool, "__name__", "")
    return name if isinstance(name, str) else ""
