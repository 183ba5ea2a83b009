"""ADK's App with plugins, its services, the threads of tools, and the name under which sessions are kept."""

from __future__ import annotations

import asyncio
import logging
import threading
from pathlib import Path
from typing import Any

import pytest
from google.adk.agents import LlmAgent
from google.adk.apps import App, ResumabilityConfig
from google.adk.auth.auth_tool import AuthConfig
from google.adk.events import Event
from google.adk.models.llm_request import LlmRequest
from google.adk.models.llm_response import LlmResponse
from google.adk.plugins.base_plugin import BasePlugin
from google.adk.sessions import InMemorySessionService, Session
from google.adk.tools.agent_tool import AgentTool
from google.adk.tools.base_tool import BaseTool
from google.adk.tools.load_artifacts_tool import load_artifacts_tool as load_artifacts
from google.adk.tools.load_memory_tool import load_memory_tool as load_memory
from google.adk.tools.tool_context import ToolContext
from google.genai import types

from adk_relay.adk import services
from adk_relay.adk.rehearsal import Rehearsal
from adk_relay.adk.services import Artifacts, Memories
from support.client import client, words
from support.gemini import Connection, GeminiLive, UserTurn, tone
from support.server import a_relay, serving

LIVE = "gemini-3.8-live"


def calling(*calls: tuple[str, dict[str, Any]]) -> Any:
    """An answer of the model: it calls these tools, one after the other, and says their results."""

    async def answer(connection: Connection, turn: UserTurn) -> None:
        for name, arguments in calls:
            result = await connection.call_tool(name, arguments)
            await connection.say(str(result), complete=False)
        await connection.turn_complete()

    return answer


# ---- an App ----


class Noting(BasePlugin):
    """Notes what it is asked."""

    def __init__(self, name: str, notes: list[str]) -> None:
        super().__init__(name)
        self.notes = notes

    async def before_agent_callback(self, **named: Any) -> None:
        self.notes.append(f"{self.name}: agent")

    async def before_tool_callback(self, **named: Any) -> None:
        self.notes.append(f"{self.name}: tool")

    async def on_tool_error_callback(self, **named: Any) -> None:
        self.notes.append(f"{self.name}: error")

    async def close(self) -> None:
        self.notes.append(f"{self.name}: closed")


class Selfish(BasePlugin):
    """Returns something wherever it can: ADK asks no later plugin then."""

    async def after_tool_callback(self, *, result: Any, **named: Any) -> Any:
        return {"by the plugin": object()}

    async def on_event_callback(self, *, event: Event, **named: Any) -> Event:
        return event


def broken() -> str:
    """Fails."""
    raise RuntimeError("It is broken.")


@pytest.mark.filterwarnings("ignore:.EXPERIMENTAL. ResumabilityConfig:UserWarning")
async def test_the_plugins_of_an_app_run_in_their_order(gemini: GeminiLive) -> None:
    notes: list[str] = []
    agent = LlmAgent(name="tester", model=LIVE, tools=[broken])
    app = App(
        name="shop",
        root_agent=agent,
        plugins=[Noting("one", notes), Noting("two", notes)],
        resumability_config=ResumabilityConfig(is_resumable=True),
    )
    gemini.answer = calling(("broken", {}))
    relay = a_relay(app)
    async with serving(relay) as port, client(port) as alice:
        assert "The tool broken failed." in await alice.ask("try it")
        assert gemini.connections[0].open
    runner = relay.conversations.runner
    assert runner.resumability_config == app.resumability_config
    assert notes == [
        f"{name}: {what}" for what in ("agent", "tool", "error", "closed") for name in ("one", "two")
    ]


@pytest.mark.voice
async def test_relay_does_not_depend_on_what_plugins_return(gemini: GeminiLive) -> None:
    def number() -> int:
        """A number."""
        return 21

    async def answer(connection: Connection, turn: UserTurn) -> None:
        result = await connection.call_tool("number", {})
        await connection.say(str(result))
        await connection.send_audio(3)

    gemini.answer = answer
    agent = LlmAgent(name="tester", model=LIVE, tools=[number])
    relay = a_relay(App(name="shop", root_agent=agent, plugins=[Selfish("selfish")]))
    async with serving(relay) as port, client(port, audio=True) as alice:
        await alice.say("which?")
        frames = await alice.turn()
    result = next(said["result"] for said in frames if said.get("type") == "tool_complete")
    assert result["by the plugin"].startswith("<object object at ")
    assert "by the plugin" in words(frames)


@pytest.mark.voice
async def test_a_plugin_that_does_not_look_at_events_leaves_sound_as_it_is(
    gemini: GeminiLive, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "relay")

    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.call_tool("helper", {"request": "help"})
        await connection.send_audio(20)
        await connection.say("Done.")

    gemini.answer = answer
    # The events of a helper's own run never come out of this one.
    helper = AgentTool(LlmAgent(name="helper", description="Helps.", model=Rehearsal(words_per_second=100)))
    agent = LlmAgent(name="tester", model=LIVE, tools=[helper])
    app = App(name="shop", root_agent=agent, plugins=[Noting("one", [])])
    async with serving(a_relay(app)) as port, client(port, audio=True) as alice:
        for _ in range(2):
            await alice.say("help")
            await alice.turn()
        assert alice.audio == bytes(gemini.connections[0].sound)
        assert tone(3) in alice.audio
    assert not any("sound takes the long way" in line for line in caplog.messages)


class Refusing(BasePlugin):
    """Refuses one text."""

    async def before_model_callback(self, *, llm_request: LlmRequest, **_: Any) -> LlmResponse | None:
        if "secret" not in str(llm_request.contents[-1:]):
            return None
        return LlmResponse(content=types.Content(role="model", parts=[types.Part(text="No.")]))


async def test_what_a_plugin_refuses_reaches_no_model(gemini: GeminiLive) -> None:
    app = App(name="shop", root_agent=LlmAgent(name="tester", model=LIVE), plugins=[Refusing("refusing")])
    async with serving(a_relay(app)) as port, client(port) as alice:
        assert await alice.ask("hello") == "You said: hello."
        assert await alice.ask("the secret") == "No."
        await gemini.connections[0].die(1011)
        assert await alice.ask("hello again") == "You said: hello again."
    assert "hello" in str(gemini.connections[1].history)
    assert not any("secret" in str(connection.context) for connection in gemini.connections)


async def test_an_agents_own_callbacks_of_tools_are_asked(gemini: GeminiLive) -> None:
    def after(tool: BaseTool, args: dict[str, Any], tool_context: ToolContext, tool_response: Any) -> Any:
        endless: dict[str, Any] = {}
        endless["and"] = endless
        return {"price": 42} if tool.name == "price" else endless if tool.name == "more" else None

    def on_error(tool: BaseTool, args: dict[str, Any], tool_context: ToolContext, error: Exception) -> Any:
        return {"sorry": str(error)}

    def price() -> dict[str, int]:
        """A price."""
        return {"price": 1}

    def more() -> str:
        """More."""
        return "more"

    gemini.answer = calling(("price", {}), ("broken", {}), ("more", {}))
    agent = LlmAgent(
        name="tester",
        model=LIVE,
        tools=[price, broken, more],
        after_tool_callback=after,
        on_tool_error_callback=on_error,
    )
    async with serving(a_relay(agent)) as port, client(port) as alice:
        assert await alice.ask("how much?") == ("{'price': 42}{'sorry': 'It is broken.'}{'result': '<dict>'}")


# ---- services ----


async def save(tool_context: ToolContext) -> str:
    """Saves a note."""
    await tool_context.save_artifact("note.txt", types.Part(text="Buy milk."))
    return "saved"


async def remember(tool_context: ToolContext) -> str:
    """Remembers this conversation."""
    await tool_context.add_session_to_memory()
    return "remembered"


async def sign_in(tool_context: ToolContext) -> str:
    """Keeps a credential."""
    config = AuthConfig.model_validate(
        {
            "authScheme": {"type": "apiKey", "in": "header", "name": "X-Key"},
            "rawAuthCredential": {"authType": "apiKey", "apiKey": "abc"},
            "exchangedAuthCredential": {"authType": "apiKey", "apiKey": "abc"},
            "credentialKey": "abc",
        }
    )
    await tool_context.save_credential(config)
    credential = await tool_context.load_credential(config)
    return str(credential and credential.api_key)


async def test_artifacts_memories_and_credentials_are_in_memory(gemini: GeminiLive) -> None:
    gemini.answer = calling(
        ("save", {}),
        ("load_artifacts", {"artifact_names": ["note.txt"]}),
        ("remember", {}),
        ("load_memory", {"query": "umbrella"}),
        ("sign_in", {}),
    )
    tools: list[Any] = [save, load_artifacts, remember, load_memory, sign_in]
    agent = LlmAgent(name="tester", model=LIVE, tools=tools)
    async with serving(a_relay(agent)) as port, client(port) as alice:
        said = await alice.ask("Where is my umbrella?")
    assert "{'result': 'saved'}" in said
    assert "note.txt" in said
    assert "{'result': 'remembered'}" in said
    assert said.count("Where is my umbrella?") == 1
    assert said.endswith("{'result': 'abc'}")


async def test_artifacts_are_kept_where_the_uri_says(gemini: GeminiLive, tmp_path: Path) -> None:
    gemini.answer = calling(("save", {}))
    agent = LlmAgent(name="tester", model=LIVE, tools=[save])
    async with serving(a_relay(agent, artifacts=f"file://{tmp_path}")) as port, client(port) as alice:
        assert "saved" in await alice.ask("note it")
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.read_bytes() == b"Buy milk."]


@pytest.mark.parametrize(("setting", "kind"), [("artifacts", "artifact"), ("memory", "memory")])
def test_a_service_that_adk_does_not_know_is_refused(setting: str, kind: str) -> None:
    with pytest.raises(ValueError, match=f"ADK knows no {kind} service 'nowhere'"):
        a_relay(**{setting: "nowhere://"})


async def test_artifacts_in_memory_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "_ARTIFACTS", 10_000)
    kept = Artifacts()

    async def save(filename: str, size: int) -> int:
        which = {"app_name": "app", "user_id": "alice", "session_id": "one", "filename": filename}
        part = types.Part(inline_data=types.Blob(data=bytes(size), mime_type="image/png"))
        return await kept.save_artifact(**which, artifact=part)

    async def files() -> list[str]:
        return await kept.list_artifact_keys(app_name="app", user_id="alice", session_id="one")

    assert [await save(name, 2000) for name in "abcda"] == [0, 0, 0, 0, 0]
    assert await files() == ["a", "c", "d"]
    assert [await save("a", 2000) for _ in range(3)] == [1, 2, 0]
    assert await files() == ["a"]
    with pytest.raises(ValueError, match="at most 10000 bytes"):
        await save("z", 10_000)
    await kept.delete_artifact(app_name="app", user_id="alice", session_id="one", filename="a")
    assert await files() == []
    assert [await save(name, 8000) for name in "xy"] == [0, 0]
    assert await files() == ["y"]


async def test_memories_in_memory_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "_EVENTS", 10)
    kept = Memories()
    content = types.Content(role="user", parts=[types.Part(text="umbrella")])
    for number in range(5):
        events = [Event(author="user", content=content) for _ in range(4)]
        session = Session(id=f"s{number}", app_name="app", user_id="alice", events=events)
        await kept.add_session_to_memory(session)
    found = await kept.search_memory(app_name="app", user_id="alice", query="umbrella")
    assert len(found.memories) == 8


# ---- tools and event loops ----


async def test_asynchronous_tools_run_in_the_loop_that_they_belong_to(gemini: GeminiLive) -> None:
    shared = asyncio.Lock()  # it belongs to the first loop in which somebody waits for it
    threads: dict[str, threading.Thread] = {}

    async def asynchronous() -> str:
        """Waits for its turn."""
        threads["asynchronous"] = threading.current_thread()
        async with shared:
            return f"{asyncio.get_running_loop() is loop}"

    def synchronous() -> str:
        """Blocks."""
        threads["synchronous"] = threading.current_thread()
        return "done"

    loop = asyncio.get_running_loop()
    gemini.answer = calling(("asynchronous", {}), ("synchronous", {}), ("asynchronous", {}))
    agent = LlmAgent(name="tester", model=LIVE, tools=[asynchronous, synchronous])
    async with serving(a_relay(agent)) as port, client(port) as alice:
        said = await alice.ask("go on")
    assert said == "{'result': 'True'}{'result': 'done'}{'result': 'True'}"
    assert threads["asynchronous"] is threading.main_thread()
    assert threads["synchronous"] is not threading.main_thread()


# ---- the name under which sessions are kept ----


async def test_two_agents_in_one_store_have_conversations_of_their_own(gemini: GeminiLive) -> None:
    service = InMemorySessionService()
    shop = a_relay(LlmAgent(name="shop", model=LIVE), sessions=service)
    bank = a_relay(App(name="bank", root_agent=LlmAgent(name="clerk", model=LIVE)), sessions=service)
    async with serving(shop) as port, client(port) as alice:
        await alice.ask("I am at the shop")
    async with serving(bank) as port, client(port) as alice:
        await alice.ask("I am at the bank")
        assert not gemini.connections[1].history
    stored = {name: (await service.list_sessions(app_name=name)).sessions for name in ("shop", "bank")}
    assert {name: len(sessions) for name, sessions in stored.items()} == {"shop": 1, "bank": 1}


async def test_conversations_of_an_earlier_relay_are_found_by_its_name(
    gemini: GeminiLive, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    uri = f"sqlite:///{tmp_path}/sessions.db"
    async with serving(a_relay(app_name="relay", sessions=uri)) as port, client(port) as alice:
        await alice.ask("remember me")  # as before there was a setting
    assert not caplog.messages
    async with serving(a_relay(sessions=uri)) as port, client(port) as alice:
        assert not alice.frames
    assert [line for line in caplog.messages if "RELAY_APP_NAME=relay" in line]
    caplog.clear()
    async with serving(a_relay(app_name="relay", sessions=uri)) as port, client(port) as alice:
        await alice.ask("do you?")
        assert "remember me" in str(gemini.connections[-1].history)
    assert not caplog.messages
