"""Sound takes the long way if somebody in ADK wants to see it: they get every byte, and the log says who."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from google.adk.agents import LlmAgent, SequentialAgent
from google.adk.agents.callback_context import CallbackContext
from google.adk.agents.invocation_context import InvocationContext
from google.adk.agents.live_request_queue import LiveRequestQueue
from google.adk.agents.readonly_context import ReadonlyContext
from google.adk.artifacts import InMemoryArtifactService
from google.adk.code_executors import BaseCodeExecutor
from google.adk.code_executors.code_execution_utils import CodeExecutionInput, CodeExecutionResult
from google.adk.events import Event
from google.adk.models import BaseLlm, Gemini
from google.adk.models.llm_request import LlmRequest
from google.adk.models.llm_response import LlmResponse
from google.adk.planners import BuiltInPlanner
from google.adk.plugins.base_plugin import BasePlugin
from google.adk.tools.base_tool import BaseTool
from google.adk.tools.base_toolset import BaseToolset
from google.adk.tools.function_tool import FunctionTool
from google.genai import types

from adk_relay.adk.models import run_config
from adk_relay.adk.rehearsal import Rehearsal
from relay import Relay
from support.gemini import Connection, GeminiLive, UserTurn, silence
from support.sound import GEMINI_3, Seen, attending, reasons, relay_of
from support.taps import SEERS, Tap, an_agent, own_live_loop

SPOKEN = bytes(number % 251 if number % 2 else 0 for number in range(1, 12_801))
"""What the user says: ten chunks, too quiet to be speech."""


async def answer(connection: Connection, turn: UserTurn) -> None:
    """A model that hands the conversation over if it is asked to, and speaks otherwise."""
    if turn.text == "hand over" and connection.number == 1:
        await connection.call_tool("transfer_to_agent", {"agent_name": "other"})
        return
    await connection.send_audio(5)
    await connection.turn_complete()


async def talk(gemini: GeminiLive, relay: Relay, text: str = "hello") -> bytes:
    """Ten chunks of sound go up and five come down; returns these."""
    gemini.answer = answer
    async with attending(relay) as alice:
        first = await gemini.connection()
        alice.speak(SPOKEN)
        await gemini.wait_for(lambda: first.audio == SPOKEN)
        alice.ask(text)
        await alice.turn()
        assert alice.sound == gemini.connections[-1].sound
        return alice.sound


# ---- those who see it ----


@pytest.mark.filterwarnings("ignore:SequentialAgent is deprecated")
@pytest.mark.parametrize("name", SEERS)
async def test_an_agent_that_sees_sound(
    gemini: GeminiLive, seen: Seen, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    caplog.set_level(logging.INFO, "relay.agent")
    make, reason = SEERS[name]
    tap = Tap()
    relay = relay_of("short", agent=make(tap))
    assert tap.down == await talk(gemini, relay)
    if name in ("connect", "no Gemini"):
        assert tap.up == SPOKEN
    assert b"".join(seen.up) == SPOKEN
    assert reasons(caplog) == [f"INFO: sound takes the long way through ADK: {reason}"]


async def test_a_sub_agent_that_sees_sound(
    gemini: GeminiLive, seen: Seen, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "relay.agent")
    tap = Tap()
    agent = an_agent(sub_agents=[own_live_loop(tap, "other")])
    assert tap.down == await talk(gemini, relay_of("short", agent=agent), "hand over")
    assert len(reasons(caplog)) == 1
    assert "the agent other is a WithLoop" in reasons(caplog)[0]


async def test_a_sub_agent_that_finds_its_model_itself(
    gemini: GeminiLive, caplog: pytest.LogCaptureFixture
) -> None:
    """Its connection is not watched, so sound must not go on into the one before."""

    class WithModel(LlmAgent):
        async def canonical_live_model_async(self, ctx: ReadonlyContext) -> BaseLlm:
            return Gemini(model=GEMINI_3)

    caplog.set_level(logging.INFO, "relay.agent")
    gemini.answer = answer
    agent = an_agent(sub_agents=[an_agent(WithModel, name="other")])
    async with attending(relay_of("short", agent=agent)) as alice:
        first = await gemini.connection()
        alice.speak(SPOKEN)
        await gemini.wait_for(lambda: first.audio == SPOKEN)
        alice.ask("hand over")
        second = await gemini.connection(1)
        alice.speak(SPOKEN)
        await gemini.wait_for(lambda: second.audio == SPOKEN)
    assert len(reasons(caplog)) == 1
    assert "the agent other is a WithModel, which has a flow or a model of its own" in reasons(caplog)[0]


@pytest.mark.filterwarnings("ignore:SequentialAgent is deprecated")
async def test_a_sequence_of_agents(
    gemini: GeminiLive, monkeypatch: pytest.MonkeyPatch, seen: Seen, caplog: pytest.LogCaptureFixture
) -> None:
    """Each has a connection of its own, also if its model is ADK's default; all take the short way."""

    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.send_audio(2)
        if connection.number == 1:
            await connection.call_tool("task_completed", {})

    monkeypatch.setattr(LlmAgent, "_default_live_model", GEMINI_3)
    caplog.set_level(logging.INFO, "relay.agent")
    gemini.answer = answer
    agent = SequentialAgent(name="tester", sub_agents=[an_agent(name="a"), an_agent(name="b", model="")])
    async with attending(relay_of("short", agent=agent)) as alice:
        first = await gemini.connection()
        alice.speak(SPOKEN)
        await gemini.wait_for(lambda: first.audio == SPOKEN)
        alice.ask("next")
        second = await gemini.connection(1)
        alice.speak(SPOKEN)
        await gemini.wait_for(lambda: second.audio == SPOKEN)
        alice.ask("hello")
        await alice.heard(bytes(first.sound) + bytes(first.sound))
    assert (len(seen.down), len(seen.up)) == (0, 2)
    assert reasons(caplog) == []


async def test_a_code_executor(gemini: GeminiLive, seen: Seen, caplog: pytest.LogCaptureFixture) -> None:
    """ADK looks for code in each answer, sound included."""

    class Executor(BaseCodeExecutor):
        def execute_code(self, context: InvocationContext, code: CodeExecutionInput) -> CodeExecutionResult:
            raise NotImplementedError

    caplog.set_level(logging.INFO, "relay.agent")
    told = await talk(gemini, relay_of("short", agent=an_agent(code_executor=Executor())))
    assert b"".join(seen.down) == told
    assert len(reasons(caplog)) == 1
    assert "a planner or a code executor" in reasons(caplog)[0]


@pytest.mark.parametrize("is_method", [True, False])
async def test_a_plugin_that_sees_each_event(
    gemini: GeminiLive, seen: Seen, caplog: pytest.LogCaptureFixture, is_method: bool
) -> None:
    tap = Tap()

    async def see(*, invocation_context: InvocationContext, event: Event) -> None:
        tap.see(event)

    class Watcher(BasePlugin):
        async def on_event_callback(self, *, invocation_context: InvocationContext, event: Event) -> None:
            tap.see(event)

    caplog.set_level(logging.INFO, "relay.agent")
    relay = relay_of("short")
    if is_method:
        plugin: Any = Watcher("watcher")
    else:
        plugin = BasePlugin("watcher")
        plugin.on_event_callback = see
    relay.conversations.runner.plugin_manager.register_plugin(plugin)
    assert tap.down == await talk(gemini, relay)
    assert b"".join(seen.up) == SPOKEN
    assert reasons(caplog) == [
        "INFO: sound takes the long way through ADK: the plugin watcher sees each event"
    ]


async def test_sound_that_is_stored(gemini: GeminiLive, seen: Seen, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "relay.agent")
    config = run_config().model_copy(update={"save_live_blob": True})
    relay = relay_of("short", run_config=config)
    artifacts = relay.conversations.runner.artifact_service = InMemoryArtifactService()
    told = await talk(gemini, relay)
    stored = {}
    for [versions] in [[value] for value in artifacts.artifacts.values()]:
        blob = versions[-1].data.inline_data
        assert blob
        stored[blob.mime_type] = blob.data
    assert stored == {"audio/pcm;rate=16000": SPOKEN, "audio/pcm;rate=24000": told}
    assert reasons(caplog) == [
        "INFO: sound takes the long way through ADK: the run configuration stores it (save_live_blob)"
    ]


@pytest.mark.parametrize("is_in_a_set", [False, True])
async def test_a_tool_that_reads_the_users_sound(
    gemini: GeminiLive, seen: Seen, caplog: pytest.LogCaptureFixture, is_in_a_set: bool
) -> None:
    """It gets all sound from its call on, and only the user's: the model's goes on by the short way."""
    tap = Tap()

    async def listen(input_stream: LiveRequestQueue) -> AsyncGenerator[str, None]:
        """Listens to the user."""
        while True:
            request = await input_stream.get()
            if request.blob:
                tap.up += request.blob.data or b""
                gemini.changed()
            if not request:  # an async generator is what ADK takes for such a tool
                yield ""

    class Tools(BaseToolset):
        async def get_tools(self, readonly_context: ReadonlyContext | None = None) -> list[BaseTool]:
            return [FunctionTool(listen)]

    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.send_audio(2)
        await connection.call_tool("listen", {})
        await connection.send_audio(2)

    caplog.set_level(logging.INFO, "relay.agent")
    gemini.answer = answer
    relay = relay_of("short", agent=an_agent(tools=[Tools() if is_in_a_set else listen]))
    async with attending(relay) as alice:
        connection = await gemini.connection()
        alice.speak(silence(400))
        await gemini.wait_for(lambda: len(connection.audio) == 12_800)
        assert len(seen.up) == 1
        alice.ask("listen")
        await gemini.wait_for(lambda: len(connection.tool_responses) == 1)
        alice.speak(SPOKEN)
        await gemini.wait_for(lambda: len(tap.up) == len(SPOKEN))
        await gemini.wait_for(lambda: len(connection.audio) == 12_800 + len(SPOKEN))
        assert tap.up == SPOKEN
        assert connection.audio == silence(400) + SPOKEN
        await alice.heard(bytes(connection.sound))
    assert b"".join(seen.up[1:]) == SPOKEN
    assert seen.down == []
    assert reasons(caplog) == [
        "INFO: sound takes the long way through ADK: the tool listen reads the user's sound"
    ]


# ---- those who do not ----


async def test_model_callbacks_are_never_called_for_sound(
    gemini: GeminiLive, seen: Seen, caplog: pytest.LogCaptureFixture
) -> None:
    tap = Tap()
    asked: list[str] = []

    def before(callback_context: CallbackContext, llm_request: LlmRequest) -> None:
        asked.extend(part.text or "" for content in llm_request.contents for part in content.parts or [])

    def after(callback_context: CallbackContext, llm_response: LlmResponse) -> None:
        tap.see(llm_response)

    caplog.set_level(logging.INFO, "relay.agent")
    for way in ("long", "short"):
        agent = an_agent(before_model_callback=before, after_model_callback=after)
        await talk(gemini, relay_of(way, agent=agent))
        assert asked == ["hello"]
        asked.clear()
        gemini.connections.clear()
    assert tap == Tap()
    assert len(seen.down) == 5  # of the long way
    assert reasons(caplog) == []


async def test_a_built_in_planner_and_callbacks_of_agents_and_tools_see_no_sound(
    gemini: GeminiLive, seen: Seen, caplog: pytest.LogCaptureFixture
) -> None:
    def nothing(*arguments: Any, **options: Any) -> None:
        pass

    caplog.set_level(logging.INFO, "relay.agent")
    agent = an_agent(
        planner=BuiltInPlanner(thinking_config=types.ThinkingConfig()),
        before_agent_callback=nothing,
        after_agent_callback=nothing,
        before_tool_callback=nothing,
        after_tool_callback=nothing,
        sub_agents=[an_agent(name="other"), an_agent(name="third", model="")],
    )
    await talk(gemini, relay_of("short", agent=agent))
    assert (len(seen.down), len(seen.up)) == (0, 1)
    assert reasons(caplog) == []


async def test_the_log_says_nothing_of_the_rehearsal(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "relay.agent")
    async with attending(relay_of("short", agent=an_agent(model=Rehearsal()))) as alice:
        alice.ask("hello")
        await alice.turn()
        assert alice.sound
    assert reasons(caplog) == []


async def test_a_tool_whose_function_is_no_function(gemini: GeminiLive) -> None:
    """A tool of the host's own may have any attribute."""

    class Odd(BaseTool):
        func = "not a function"

        def _get_declaration(self) -> types.FunctionDeclaration:
            return types.FunctionDeclaration(name=self.name, description=self.description)

        async def run_async(self, *, args: dict[str, Any], tool_context: Any) -> Any:
            return {"it": "works"}

    async def answer(connection: Connection, turn: UserTurn) -> None:
        result = await connection.call_tool("odd", {})
        await connection.say(str(result["it"]))

    gemini.answer = answer
    async with attending(relay_of("short", agent=an_agent(tools=[Odd(name="odd", description="")]))) as alice:
        alice.ask("hello")
        await alice.turn()
        assert gemini.connections[0].said == "works"
