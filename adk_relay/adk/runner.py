"""The ADK runner of an agent: with relay's plugins, watched models, and a session that was just read."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from google.adk.agents import BaseAgent
from google.adk.agents.run_config import RunConfig
from google.adk.apps import App
from google.adk.runners import Runner
from google.adk.sessions import BaseSessionService, Session

from adk_relay.adk.connection import observer, watched_agent
from adk_relay.adk.screening import ScreeningPlugin
from adk_relay.adk.session import APP_NAME
from adk_relay.adk.sound import ShortWay
from adk_relay.adk.tools import Tools
from adk_relay.adk.waiting import Began


def runner(agent: BaseAgent, sessions: BaseSessionService, config: RunConfig, *, short_way: bool) -> Runner:
    """An ADK runner for `agent`, whose connections can be watched by a `Run`.

    Args:
        config: the run configuration that the runs will have.
        short_way: whether sound may go past ADK.
    """
    watched = watched_agent(agent)
    sound = ShortWay(agent, config, observer.get, is_wanted=short_way)
    began = Began(lambda: observer.get().answers)
    plugins = [sound, Tools("tools"), ScreeningPlugin(observer.get), began]
    app = App(name=APP_NAME, root_agent=watched, plugins=plugins)
    return _Runner(app=app, session_service=sessions)


at_hand: ContextVar[list[Session]] = ContextVar("at_hand")
"""The session of the run that begins in this context, if it was just read; it is taken once."""


class _Runner(Runner):
    """A runner that does not read a session which relay has just read: a long one takes milliseconds."""

    # A private name of ADK. Without it there, this method is never called, and ADK reads the session.
    async def _get_or_create_session(self, **named: Any) -> Session:
        if found := at_hand.get([]):
            return found.pop()
        return await super()._get_or_create_session(**named)
