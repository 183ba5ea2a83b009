"""An App whose plugins return something at each callback, and an App with every other setting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from google.adk.agents import LlmAgent
from google.adk.apps import App, ResumabilityConfig
from google.adk.apps.app import EventsCompactionConfig
from google.adk.events import Event
from google.adk.models.llm_request import LlmRequest
from google.adk.models.llm_response import LlmResponse
from google.adk.plugins.base_plugin import BasePlugin
from google.adk.tools.base_tool import BaseTool
from google.genai import types

from support.client import client
from support.gemini import Connection, GeminiLive, UserTurn
from support.server import a_relay, serving

LIVE = "gemini-3.8-live"


def content(text: str) -> types.Content:
    return types.Content(role="model", parts=[types.Part(text=text)])


class Answering(BasePlugin):
    """Returns something at one of its callbacks, and a second time nothing."""

    def __init__(self, where: str) -> None:
        super().__init__("answering")
        self.where = where
        self.count = 0

    def now(self, where: str) -> bool:
        if where != self.where:
            return False
        self.count += 1
        return self.count == 1

    async def on_user_message_callback(self, **_: Any) -> types.Content | None:
        return content("changed") if self.now("on_user_message") else None

    async def before_run_callback(self, **_: Any) -> types.Content | None:
        return content("We are closed.") if self.now("before_run") else None

    async def before_agent_callback(self, **_: Any) -> types.Content | None:
        return content("We are closed.") if self.now("before_agent") else None

    async def after_agent_callback(self, **_: Any) -> types.Content | None:
        return content("Goodbye.") if self.now("after_agent") else None

    async def before_model_callback(self, *, llm_request: LlmRequest, **_: Any) -> LlmResponse | None:
        return LlmResponse(content=content("No.")) if self.now("before_model") else None

    async def after_model_callback(self, *, llm_response: LlmResponse, **_: Any) -> LlmResponse | None:
        if self.now("after_model"):
            return LlmResponse(content=content("Better not."))
        return None

    async def on_event_callback(self, *, event: Event, **_: Any) -> Event | None:
        return Event(author=event.author) if self.where == "on_event" else None

    async def before_tool_callback(self, *, tool: BaseTool, **_: Any) -> dict[str, Any] | None:
        return {"cached": 7} if self.now("before_tool") else None

    async def after_tool_callback(self, *, tool: BaseTool, **_: Any) -> dict[str, Any] | None:
        return {"rounded": 40} if self.now("after_tool") else None

    async def on_tool_error_callback(self, *, error: Exception, **_: Any) -> dict[str, Any] | None:
        return {"sorry": str(error)} if self.now("on_tool_error") else None


def double(number: int) -> dict[str, int]:
    """Twice a number."""
    if number < 0:
        raise ValueError("negative")
    return {"double": 2 * number}


async def by_tool(connection: Connection, turn: UserTurn) -> None:
    if turn.text.startswith("double"):
        result = await connection.call_tool("double", {"number": int(turn.text.split()[1])})
        await connection.say(f"{result}")
    else:
        await connection.say(f"You said: {turn.text}.")


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("on_user_message", ["You said: hello.", "{'double': 42}"]),
        ("before_run", ["We are closed.", "{'double': 42}"]),
        ("before_agent", ["We are closed.", "{'double': 42}"]),
        ("after_agent", ["You said: hello.", "{'double': 42}"]),
        ("before_model", ["No.", "{'double': 42}"]),
        ("after_model", ["Better not.", "{'double': 42}"]),
        ("on_event", ["You said: hello.", "{'double': 42}"]),
        ("before_tool", ["You said: hello.", "{'cached': 7}"]),
        ("after_tool", ["You said: hello.", "{'rounded': 40}"]),
        ("on_tool_error", ["You said: hello.", "{'sorry': 'negative'}"]),
    ],
)
async def test_what_a_plugin_returns_counts(gemini: GeminiLive, where: str, expected: list[str]) -> None:
    gemini.answer = by_tool
    agent = LlmAgent(name="tester", model=LIVE, tools=[double])
    app = App(name="shop", root_agent=agent, plugins=[Answering(where)])
    async with serving(a_relay(app)) as port, client(port) as alice:
        number = -1 if where == "on_tool_error" else 21
        assert [await alice.ask("hello"), await alice.ask(f"double {number}")] == expected
        assert await alice.ask("goodbye") == "You said: goodbye."


@pytest.mark.filterwarnings("ignore:.EXPERIMENTAL.:UserWarning")
async def test_an_app_that_can_be_resumed_and_is_compacted(gemini: GeminiLive, tmp_path: Path) -> None:
    """In live mode ADK compacts nothing: it does so at the end of an invocation of another kind."""
    gemini.answer = by_tool
    agent = LlmAgent(name="tester", model=LIVE, tools=[double])
    app = App(
        name="shop",
        root_agent=agent,
        resumability_config=ResumabilityConfig(is_resumable=True),
        events_compaction_config=EventsCompactionConfig(compaction_interval=2, overlap_size=1),
    )
    relay = a_relay(app, sessions=f"sqlite:///{tmp_path}/sessions.db")
    async with serving(relay) as port:
        for _ in range(3):
            async with client(port) as alice:
                assert await alice.ask("hello") == "You said: hello."
                assert await alice.ask("double 21") == "{'double': 42}"
                gemini.connections[-1].abort()
                await alice.until(lambda said: said.get("state") == "live")
                assert await alice.ask("goodbye") == "You said: goodbye."
                assert ("user", "double 21") in gemini.connections[-1].context
