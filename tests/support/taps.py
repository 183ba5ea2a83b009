"""Agents that see the sound that passes through ADK, each in another way."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from google.adk.agents import BaseAgent, LlmAgent, SequentialAgent
from google.adk.agents.callback_context import CallbackContext
from google.adk.agents.invocation_context import InvocationContext
from google.adk.agents.readonly_context import ReadonlyContext
from google.adk.events import Event
from google.adk.flows.llm_flows.auto_flow import AutoFlow
from google.adk.models import BaseLlm, Gemini
from google.adk.models.base_llm_connection import BaseLlmConnection
from google.adk.models.llm_request import LlmRequest
from google.adk.models.llm_response import LlmResponse
from google.adk.planners import BasePlanner
from google.genai import types

from support.sound import GEMINI_3


@dataclass
class Tap:
    """The sound that somebody in ADK has seen."""

    down: bytearray = field(default_factory=bytearray)
    up: bytearray = field(default_factory=bytearray)

    def see(self, seen: Event | LlmResponse) -> None:
        self.see_parts((seen.content and seen.content.parts) or [])

    def see_parts(self, parts: list[types.Part]) -> None:
        for part in parts:
            if part.inline_data:
                self.down += part.inline_data.data or b""


def an_agent(kind: type[LlmAgent] = LlmAgent, **options: Any) -> LlmAgent:
    return kind(**({"name": "tester", "model": GEMINI_3} | options))


def own_flow(tap: Tap) -> BaseAgent:
    class Flow(AutoFlow):
        async def run_live(self, invocation_context: InvocationContext) -> AsyncGenerator[Event, None]:
            async with aclosing(super().run_live(invocation_context)) as events:
                async for event in events:
                    tap.see(event)
                    yield event

    class WithFlow(LlmAgent):
        @property
        def _llm_flow(self) -> AutoFlow:
            return Flow()

    return an_agent(WithFlow)


def own_live_loop(tap: Tap, name: str = "tester") -> BaseAgent:
    class WithLoop(LlmAgent):
        async def _run_live_impl(self, ctx: InvocationContext) -> AsyncGenerator[Event, None]:
            async with aclosing(super()._run_live_impl(ctx)) as events:
                async for event in events:
                    tap.see(event)
                    yield event

    return an_agent(WithLoop, name=name)


def own_run_live(tap: Tap) -> BaseAgent:
    class WithRun(LlmAgent):
        async def run_live(  # type: ignore[misc]  # it is final, but nothing enforces this
            self, parent_context: InvocationContext
        ) -> AsyncGenerator[Event, None]:
            async with aclosing(super().run_live(parent_context)) as events:
                async for event in events:
                    tap.see(event)
                    yield event

    return an_agent(WithRun)


def no_llm_agent(tap: Tap) -> BaseAgent:
    class Wrapper(BaseAgent):
        async def _run_live_impl(self, ctx: InvocationContext) -> AsyncGenerator[Event, None]:
            async with aclosing(self.sub_agents[0].run_live(ctx)) as events:
                async for event in events:
                    tap.see(event)
                    yield event

    return Wrapper(name="tester", sub_agents=[an_agent(name="inner")])


def own_sequence(tap: Tap) -> BaseAgent:
    class Sequence(SequentialAgent):
        async def _run_live_impl(self, ctx: InvocationContext) -> AsyncGenerator[Event, None]:
            async with aclosing(super()._run_live_impl(ctx)) as events:
                async for event in events:
                    tap.see(event)
                    yield event

    return Sequence(name="tester", sub_agents=[an_agent(name="inner")])


def planner(tap: Tap) -> BaseAgent:
    class Planner(BasePlanner):
        def build_planning_instruction(self, context: ReadonlyContext, request: LlmRequest) -> str:
            return ""

        def process_planning_response(
            self, context: CallbackContext, parts: list[types.Part]
        ) -> list[types.Part] | None:
            tap.see_parts(parts)
            return None

    return an_agent(planner=Planner())


class Connected(BaseLlmConnection):
    """A connection that a model has put around another one."""

    def __init__(self, inner: BaseLlmConnection, tap: Tap) -> None:
        self._inner = inner
        self._tap = tap

    async def send_history(self, history: list[types.Content]) -> None:
        await self._inner.send_history(history)

    async def send_content(self, content: types.Content) -> None:
        await self._inner.send_content(content)

    async def send_realtime(self, blob: Any) -> None:
        self._tap.up += blob.data
        await self._inner.send_realtime(blob)

    async def receive(self) -> AsyncGenerator[LlmResponse, None]:
        async with aclosing(self._inner.receive()) as responses:
            async for response in responses:
                self._tap.see(response)
                yield response

    async def close(self) -> None:
        await self._inner.close()


def gemini_with_its_own_connect(tap: Tap) -> BaseAgent:
    class Tapped(Gemini):
        @asynccontextmanager
        async def connect(self, llm_request: LlmRequest) -> AsyncIterator[BaseLlmConnection]:
            async with super().connect(llm_request) as connection:
                yield Connected(connection, tap)

    return an_agent(model=Tapped(model=GEMINI_3))


def no_gemini(tap: Tap) -> BaseAgent:
    class Own(BaseLlm):
        def generate_content_async(
            self, llm_request: LlmRequest, stream: bool = False
        ) -> AsyncGenerator[LlmResponse, None]:
            raise NotImplementedError

        @asynccontextmanager
        async def connect(self, llm_request: LlmRequest) -> AsyncIterator[BaseLlmConnection]:
            async with Gemini(model=self.model).connect(llm_request) as connection:
                yield Connected(connection, tap)

    return an_agent(model=Own(model=GEMINI_3))


SEERS: dict[str, tuple[Callable[[Tap], BaseAgent], str]] = {
    "a flow": (own_flow, "the agent tester is a WithFlow, which has a flow or a model of its own"),
    "a live loop": (own_live_loop, "the agent tester is a WithLoop, which has a live loop of its own"),
    "run_live": (own_run_live, "the agent tester is a WithRun, which has a live loop of its own"),
    "no LlmAgent": (no_llm_agent, "the agent tester is a Wrapper, which has a live loop of its own"),
    "a sequence": (own_sequence, "the agent tester is a Sequence, which has a live loop of its own"),
    "a planner": (planner, "the agent tester has a planner or a code executor, which sees each answer"),
    "connect": (gemini_with_its_own_connect, "the model Tapped has a connection of its own"),
    "no Gemini": (no_gemini, "the model Own has a connection of its own"),
}
