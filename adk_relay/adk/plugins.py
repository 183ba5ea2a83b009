"""What relay does inside ADK's runs: it watches each agent that begins, and sees each event and each tool.

ADK asks plugins in their order, and stops at the first that returns something. relay's own steps must not
depend on what the host's plugins return. So they are no plugins: they are in the manager that calls them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from google.adk.agents import BaseAgent, LlmAgent
from google.adk.agents.callback_context import CallbackContext
from google.adk.agents.invocation_context import InvocationContext
from google.adk.events import Event
from google.adk.models import BaseLlm, Gemini
from google.adk.models.llm_request import LlmRequest
from google.adk.models.llm_response import LlmResponse
from google.adk.plugins.base_plugin import BasePlugin
from google.adk.plugins.plugin_manager import PluginManager
from google.adk.tools.base_tool import BaseTool
from google.adk.tools.tool_context import ToolContext
from google.adk.workflow import BaseNode
from google.genai import types

from adk_relay.adk.calls import keep, keep_change
from adk_relay.adk.client_tools import shaped
from adk_relay.adk.connection import Observer, watched
from adk_relay.adk.queue import RequestQueue
from adk_relay.adk.rewound import rewound
from adk_relay.adk.screening import text_of
from adk_relay.adk.session import shorten_if_long
from adk_relay.adk.sound import ShortWay
from adk_relay.adk.tools import after_tool, jsonable, made_plain, on_tool_error, plain
from adk_relay.adk.tree import agents_of

log = logging.getLogger("relay.agent")

_MOST_MODELS = 256
"""Models whose watched copies are kept. Only an agent that makes a new model for each run reaches this."""


class Plugins(PluginManager):
    """The host's plugins, in their order, and then relay's own steps. One for each runner.

    Args:
        root: what the runner runs.
        plugins: the host's.
        sound: the short way.
        run: returns the run of the present context.
    """

    def __init__(
        self,
        root: BaseNode,
        plugins: Sequence[BasePlugin],
        sound: ShortWay,
        run: Callable[[], Observer],
    ) -> None:
        super().__init__([*plugins])
        self.sound = sound
        self._run = run
        self._told: set[str] = set()
        self._watched: dict[int, tuple[BaseLlm, BaseLlm]] = {}  # by the id of the model, which is kept alive
        for agent in agents_of(root):
            if isinstance(agent, LlmAgent):
                self._watched_model(agent.canonical_live_model)  # now, so that an unknown model is told now

    def models(self) -> list[Gemini]:
        """The watched models that are known before any run."""
        return [copy for _, copy in self._watched.values() if isinstance(copy, Gemini)]

    async def run_before_agent_callback(
        self, *, agent: BaseAgent, callback_context: CallbackContext
    ) -> types.Content | None:
        content = await super().run_before_agent_callback(agent=agent, callback_context=callback_context)
        if content is None:
            try:
                context = callback_context._invocation_context
                queue = context.live_request_queue
                if isinstance(queue, RequestQueue):
                    await self._begin(agent, context, queue, callback_context)
            except AttributeError as error:
                self._tell(agent, f"ADK has changed ({error})")
        return content

    async def run_before_run_callback(self, *, invocation_context: InvocationContext) -> types.Content | None:
        self._run().answers.began(invocation_context)
        content = await super().run_before_run_callback(invocation_context=invocation_context)
        session = invocation_context.session
        kept = self._run().screening.screened(session.events)
        if len(kept) < len(session.events):
            # A copy: the session may be the one that the session service itself keeps.
            invocation_context.session = session.model_copy(update={"events": kept})
        return content

    async def run_before_model_callback(
        self, *, callback_context: CallbackContext, llm_request: LlmRequest
    ) -> LlmResponse | None:
        run, contents = self._run(), llm_request.contents
        if len(contents) == 1 and (text := text_of(contents[0])):
            run.screening.ask(text)
            run.stored(text)
        return await super().run_before_model_callback(
            callback_context=callback_context, llm_request=llm_request
        )

    async def run_on_event_callback(
        self, *, invocation_context: InvocationContext, event: Event
    ) -> Event | None:
        for answer in event.get_function_responses():
            # ADK and google-genai can neither store nor send a result that is not JSON.
            answer.response = jsonable(answer.response)
        self._run().entered(event)
        shorten_if_long(invocation_context.session)
        keep(event, invocation_context.session)
        changed = await super().run_on_event_callback(invocation_context=invocation_context, event=event)
        if changed:
            keep_change(changed, event)
            if event.custom_metadata:
                changed.custom_metadata = {**(changed.custom_metadata or {}), **event.custom_metadata}
        return changed

    async def run_before_tool_callback(
        self, *, tool: BaseTool, tool_args: dict[str, Any], tool_context: ToolContext
    ) -> dict[str, Any] | None:
        self._run().meter.trace_tool()
        result = await super().run_before_tool_callback(
            tool=tool, tool_args=tool_args, tool_context=tool_context
        )
        if result is None:
            self.sound.tool_begins(tool)
        return result

    async def run_after_tool_callback(
        self, *, tool: BaseTool, tool_args: dict[str, Any], tool_context: ToolContext, result: dict[str, Any]
    ) -> dict[str, Any] | None:
        changed = await super().run_after_tool_callback(
            tool=tool, tool_args=tool_args, tool_context=tool_context, result=result
        )
        return changed if changed is None else plain(changed) or changed

    async def _begin(
        self, agent: BaseAgent, context: InvocationContext, queue: RequestQueue, where: CallbackContext
    ) -> None:
        """Puts a copy of the agent in its place, for this run only, whose model is watched."""
        if queue.closed:
            # The run is to end. A sequence would take that for the end of one agent, and begin the next.
            context.end_invocation = True
            return
        queue.end_handover()
        if not isinstance(agent, LlmAgent):
            return
        copy = agent.model_copy(
            update={
                "model": self._watched_model(await agent.canonical_live_model_async(where)),
                "after_tool_callback": [*map(made_plain, agent.canonical_after_tool_callbacks), after_tool],
                "on_tool_error_callback": [*agent.canonical_on_tool_error_callbacks, on_tool_error],
                **shaped(agent, self._run().shape),
            }
        )
        if unheard := self._run().leaving.unheard:
            context.session.events = rewound([*context.session.events, *unheard])
        resumes = self._run().begins(agent.name)
        if await copy.canonical_live_model_async(where) is not copy.model:  # its class chooses the model

            async def chosen(_: object) -> str | BaseLlm:
                return copy.model

            vars(copy)["canonical_live_model_async"] = chosen
        context.agent = copy
        self._run().answers.began(context)
        self._run().instruction.began(context)
        config = context.run_config
        if config and (resumption := config.session_resumption) and resumption.handle and not resumes:
            # A handle is one agent's. ADK would let the next agent of a sequence resume with it, too.
            fresh = resumption.model_copy(update={"handle": None})
            context.run_config = config.model_copy(update={"session_resumption": fresh})

    def _watched_model(self, model: BaseLlm) -> BaseLlm:
        if id(model) not in self._watched:
            while len(self._watched) >= _MOST_MODELS:
                del self._watched[next(iter(self._watched))]
            self._watched[id(model)] = model, watched(model)
        return self._watched[id(model)][1]

    def _tell(self, agent: BaseAgent, why: str) -> None:
        if agent.name not in self._told:
            self._told.add(agent.name)
            log.warning("the connections of the agent %s are not watched: %s", agent.name, why)
