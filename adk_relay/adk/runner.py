"""ADK's runner, with what relay adds to it."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from google.adk.agents import BaseAgent, LlmAgent
from google.adk.agents.run_config import RunConfig
from google.adk.apps import App
from google.adk.runners import Runner
from google.adk.sessions import Session

from adk_relay.adk.client_tools import tool_names
from adk_relay.adk.connection import observer
from adk_relay.adk.plugins import Plugins
from adk_relay.adk.services import Services
from adk_relay.adk.sound import ShortWay
from adk_relay.adk.tree import is_a

at_hand: ContextVar[list[Session]] = ContextVar("at_hand")
"""The session of the run that begins in this context, if it was just read; it is taken once."""

begin_with: ContextVar[str] = ContextVar("begin_with", default="")
"""The name of the agent that the run of this context begins with; "": ADK decides."""


class WatchedRunner(Runner):
    """An ADK runner whose runs can be watched by a `Run`.

    Args:
        app: what is run, with the host's plugins.
        name: the name under which the sessions are kept.
        services: where sessions, artifacts, memories and credentials are kept.
        config: the run configuration that the runs will have.
        short_way: whether sound may go past ADK.
    """

    plugin_manager: Plugins

    def __init__(
        self, app: App, name: str, services: Services, config: RunConfig, *, short_way: bool
    ) -> None:
        super().__init__(app=app, app_name=name, **services._asdict())
        sound = ShortWay(self.agent, config, observer.get, is_wanted=short_way)
        self.tool_names = tool_names(self.agent)
        """Those of the agent's own tools, without those in toolsets."""
        self.plugin_manager = Plugins(self.agent, app.plugins, sound, observer.get)

    def can_begin_with(self, name: str) -> bool:
        """Whether a run can begin with this agent, and go on from there. Programs of other kinds cannot."""
        agent = self.agent.find_agent(name) if isinstance(self.agent, BaseAgent) else None
        while agent and (isinstance(agent, LlmAgent) or is_a("SequentialAgent", agent)):
            if not agent.parent_agent:
                return True
            agent = agent.parent_agent
        return False

    # Two private names of ADK. Without them there, these methods are never called. ADK then reads a session
    # that relay has just read, and each run of a sequence begins with its first agent.

    async def _get_or_create_session(self, **named: Any) -> Session:
        if sessions := at_hand.get([]):
            return sessions.pop()
        return await super()._get_or_create_session(**named)

    def _find_agent_to_run(self, session: Session, root_agent: BaseAgent) -> BaseAgent:
        if self.can_begin_with(name := begin_with.get()) and (agent := root_agent.find_agent(name)):
            return _from_here_on(agent)
        return super()._find_agent_to_run(session, root_agent)


def _from_here_on(agent: BaseAgent) -> BaseAgent:
    """What is left to run from an agent on: of a sequence, the agent itself and those that follow it."""
    left, child = agent, agent
    while parent := child.parent_agent:
        if is_a("SequentialAgent", parent):
            index = next(i for i, each in enumerate(parent.sub_agents) if each is child)
            left = parent.model_copy(update={"sub_agents": [left, *parent.sub_agents[index + 1 :]]})
        child = parent
    return left
