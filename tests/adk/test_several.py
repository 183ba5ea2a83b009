"""Several agents in one conversation, whatever they are made of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from google.adk.agents import BaseAgent, LlmAgent, ParallelAgent, SequentialAgent
from google.adk.agents.callback_context import CallbackContext
from google.adk.agents.invocation_context import InvocationContext
from google.adk.apps import App
from google.adk.events import Event
from google.adk.models import BaseLlm, Gemini
from google.adk.models.llm_request import LlmRequest
from google.adk.models.llm_response import LlmResponse
from google.adk.workflow import Workflow
from google.genai import types

from adk_relay.adk.tree import needs_credentials
from support.client import client, words
from support.gemini import NATIVE_AUDIO_2, Connection, GeminiLive, Plan, UserTurn, speech
from support.server import a_relay, serving

pytestmark = pytest.mark.filterwarnings("ignore:(Sequential|Parallel)Agent is deprecated:DeprecationWarning")

LIVE = "gemini-3.8-live"


def has_tool(connection: Connection, name: str) -> bool:
    """Whether the connection's agent has a tool of this name."""
    tools = connection.setup.get("tools") or []
    return any(
        declared["name"] == name for tool in tools for declared in tool.get("functionDeclarations", ())
    )


def agent_of(connection: Connection) -> str:
    """The name of the connection's agent, which ADK writes into the instruction."""
    return str(connection.setup["systemInstruction"]["parts"][0]["text"]).split('"')[1]


async def by_agent(connection: Connection, turn: UserTurn) -> None:
    """The first agent hands over when it is asked to; each says who it is."""
    name = agent_of(connection)
    if turn.text == "hand over":
        tool = "transfer_to_agent" if has_tool(connection, "transfer_to_agent") else "task_completed"
        arguments = {"agent_name": "second"} if tool == "transfer_to_agent" else {}
        await connection.call_tool(tool, arguments)
    else:
        # ADK tells an agent that takes over what was said before; a model answers that.
        await connection.say(f"{name}: {'hello' if turn.text.startswith('For context') else turn.text}")


def sequence() -> SequentialAgent:
    return SequentialAgent(
        name="all", sub_agents=[LlmAgent(name=name, model=LIVE) for name in ("first", "second", "third")]
    )


def family(model: str = LIVE, **of_the_second: Any) -> LlmAgent:
    second = LlmAgent(name="second", description="Knows more.", model=model, **of_the_second)
    return LlmAgent(name="first", model=LIVE, sub_agents=[second])


# ---- constants of the agent that speaks ----


async def test_a_child_of_an_earlier_generation_ends_its_turn_after_its_tool(gemini: GeminiLive) -> None:
    def double(number: int) -> int:
        """Twice a number."""
        return 2 * number

    async def answer(connection: Connection, turn: UserTurn) -> None:
        if agent_of(connection) == "first":
            await connection.call_tool("transfer_to_agent", {"agent_name": "second"})
        elif not connection.tool_responses:
            result = await connection.call_tool("double", {"number": 21})
            await connection.say(f"It is {result['result']}.")

    gemini.answer = answer
    async with (
        serving(a_relay(family(NATIVE_AUDIO_2, tools=[double]))) as port,
        client(port) as alice,
    ):
        await alice.say("double 21")
        frames = await alice.turn()
    assert words(frames) == "It is 42."
    assert [said["tool_name"] for said in frames if said.get("type") == "tool_complete"] == [
        "transfer_to_agent",
        "double",
    ]


async def test_an_unknown_model_of_a_child_is_told_by_its_own_name(gemini: GeminiLive) -> None:
    async with serving(a_relay(family("gemini-9-live"))) as port, client(port) as alice:
        gemini.answer = by_agent
        await alice.say("hand over")
        told = (await alice.until(lambda said: said.get("type") == "error"))[-1]
    assert told["code"] == "model_refused"
    assert "'gemini-9-live'" in told["message"]


def test_credentials_are_needed_if_any_agent_needs_them() -> None:
    own = Gemini(model=LIVE, client_kwargs={"api_key": "abc"})
    agent = family()
    agent.model = own
    assert needs_credentials(agent)
    agent.sub_agents[0].model = own  # type: ignore[attr-defined]
    assert not needs_credentials(agent)
    assert not needs_credentials(App(name="shop", root_agent=agent))


# ---- a handover ----


@pytest.mark.voice
@pytest.mark.parametrize("agent", [family, sequence])
async def test_speech_during_a_handover_is_for_the_new_agent(gemini: GeminiLive, agent: Any) -> None:
    gemini.answer = by_agent
    said = speech(800)
    async with serving(a_relay(agent())) as port, client(port, audio=True) as alice:
        await alice.say("hand over")
        await alice.until(lambda frame: frame.get("type") == "tool_complete")
        for start in range(0, len(said), 3200):  # in 100 ms, in real time
            await alice.socket.send(said[start : start + 3200])
            await asyncio.sleep(0.1)
        second = await gemini.connection(1)
        await gemini.wait_for(lambda: len(second.audio) == len(said))
        assert bytes(second.audio) == said
    assert not gemini.connections[0].audio


# ---- goAway, and losses, in a sequence ----


@pytest.mark.parametrize("how", ["goAway", "normally", "lost"])
async def test_a_sequence_goes_on_where_it_was(gemini: GeminiLive, how: str) -> None:
    gemini.answer = by_agent
    async with serving(a_relay(sequence())) as port, client(port) as alice:
        await alice.say("hand over")
        assert words(await alice.turn()) == "second: hello"
        second = gemini.connections[1]
        assert await alice.ask("one") == "second: one"
        await gemini.wait_for(lambda: gemini.handles)
        if how == "goAway":
            await second.go_away(10)
        else:
            await second.die(1000 if how == "normally" else 1011)
        await gemini.wait_for(lambda: not second.open)
        assert await alice.ask("two") == "second: two"
        assert [agent_of(connection) for connection in gemini.connections] == ["first", "second", "second"]
        assert gemini.connections[2].context[:2] != [("user", "two")], "it knows nothing of what was before"
        await alice.say("hand over")
        assert words(await alice.turn()) == "third: hello"
        assert not gemini.connections[3].handle


async def test_a_loss_in_mid_answer_of_the_second_agent(gemini: GeminiLive) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        if agent_of(connection) == "second" and connection.number == 2:
            await connection.say("The answer is", complete=False)
            await connection.die(1011)
        else:
            await by_agent(connection, turn)

    gemini.answer = answer
    async with serving(a_relay(sequence())) as port, client(port) as alice:
        await alice.say("hand over")
        frames = await alice.until(lambda said: said.get("turn_complete") and not said.get("interrupted"))
        assert {"type": "status", "state": "reconnecting"}.items() <= next(
            said for said in frames if said.get("type") == "status"
        ).items()
    assert [agent_of(connection) for connection in gemini.connections] == ["first", "second", "second"]


@pytest.mark.parametrize("is_speaking", [False, True])
async def test_a_workflow_goes_on_where_it_was_after_a_renewal(gemini: GeminiLive, is_speaking: bool) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text == "hand over":
            await connection.call_tool("finish_task", {"result": "done"})
            return
        if turn.text == "one" and is_speaking:
            await connection.go_away(10)
        await connection.say(f"{agent_of(connection)}: {turn.text}")

    gemini.answer = answer
    nodes = [LlmAgent(name=name, model=LIVE, mode="task") for name in ("first", "second")]
    relay = a_relay(Workflow(name="flow", edges=[("START", *nodes)]))
    async with serving(relay) as port, client(port) as alice:
        await alice.say("hand over")
        await alice.turn()
        second = gemini.connections[1]
        assert await alice.ask("one") == "second: one"
        if not is_speaking:
            await gemini.wait_for(lambda: len(gemini.handles) == 2)
            await second.go_away(10)
        await gemini.wait_for(lambda: not second.open)
        assert await alice.ask("two") == "second: two"
        assert await alice.ask("three") == "second: three"
        assert not any(said.get("type") == "status" for said in alice.frames)
    assert [agent_of(connection) for connection in gemini.connections] == ["first", "second", "second"]
    assert gemini.connections[2].handle
    known = [text for role, text in gemini.connections[2].context if role == "user"]
    assert known[1:] == ["one", "two", "three"]


@pytest.mark.voice
async def test_speech_during_a_renewal_is_for_the_new_connection(gemini: GeminiLive) -> None:
    nodes = [LlmAgent(name=name, model=LIVE, mode="task") for name in ("first", "second")]
    said = speech(400)
    relay = a_relay(Workflow(name="flow", edges=[("START", *nodes)]))
    async with serving(relay) as port, client(port, audio=True) as alice:
        await alice.ask("one")
        await gemini.wait_for(lambda: gemini.handles)
        first = gemini.connections[0]
        await first.go_away(10)
        first.deafen()  # so that the end of the connection takes its time
        for start in range(0, len(said), 3200):  # in 100 ms, in real time
            await alice.socket.send(said[start : start + 3200])
            await asyncio.sleep(0.1)
        second = await gemini.connection(1)
        assert second.handle
        await gemini.wait_for(lambda: len(second.audio) == len(said))
        assert not first.audio
        assert not any(frame.get("type") == "status" for frame in alice.frames)


# ---- agents that are not as usual: each is watched, or it is said that it is not ----


class Router(BaseAgent):
    """It has its agent in a field, where ADK's own `clone` leaves it alone."""

    inner: LlmAgent

    async def _run_live_impl(self, ctx: InvocationContext) -> AsyncGenerator[Event, None]:
        async for event in self.inner.run_live(ctx):
            yield event


class Dynamic(BaseAgent):
    """It makes its agent when it is run."""

    async def _run_live_impl(self, ctx: InvocationContext) -> AsyncGenerator[Event, None]:
        async for event in LlmAgent(name="inner", model=LIVE).run_live(ctx):
            yield event


class Chooser(LlmAgent):
    """It chooses a model for each run."""

    async def canonical_live_model_async(self, ctx: Any) -> BaseLlm:
        return Gemini(model=LIVE)


def without_a_model() -> SequentialAgent:
    return SequentialAgent(name="all", sub_agents=[LlmAgent(name="inner")])


def workflow() -> Workflow:
    return Workflow(name="flow", edges=[("START", LlmAgent(name="inner", model=LIVE, mode="chat"))])


@pytest.mark.parametrize(
    "agent",
    [
        pytest.param(lambda: Router(name="router", inner=LlmAgent(name="inner", model=LIVE)), id="field"),
        pytest.param(
            lambda: Router(
                name="router",
                inner=(inner := LlmAgent(name="inner", model=LIVE)),
                sub_agents=[inner],
            ),
            id="field and sub-agent",
        ),
        pytest.param(lambda: Chooser(name="chooser", model=LIVE), id="chooses its model"),
        pytest.param(lambda: Dynamic(name="dynamic"), id="made when it runs"),
        pytest.param(without_a_model, id="without a model"),
        pytest.param(workflow, id="workflow"),
    ],
)
async def test_a_loss_in_mid_answer_is_told_and_mended(
    gemini: GeminiLive, agent: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LlmAgent, "_default_live_model", LIVE)
    gemini.on_connect = {1: None, 2: Plan()}.get

    async def answer(connection: Connection, turn: UserTurn) -> None:
        if connection.number == 1:
            await connection.say("The answer is", complete=False)
            await connection.die(1011)
        else:
            await connection.say(" 42.")

    gemini.answer = answer
    async with serving(a_relay(agent())) as port, client(port) as alice:
        await alice.say("what is it?")
        frames = await alice.until(lambda said: said.get("turn_complete") and not said.get("interrupted"))
    states = [said["state"] for said in frames if said.get("type") == "status"]
    assert states == ["reconnecting", "live"]
    assert words(frames) == "The answer is 42."


async def test_an_agent_that_cannot_be_watched_is_named(
    gemini: GeminiLive, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    relay = a_relay()
    monkeypatch.delattr(LlmAgent, "canonical_on_tool_error_callbacks")
    async with serving(relay) as port, client(port) as alice:
        await alice.ask("hello")
    told = [line for line in caplog.messages if "tester" in line]
    assert len(told) == 1
    assert told[0].startswith("the connections of the agent tester are not watched: ADK has changed (")


def test_what_is_not_watched_is_told_at_the_start(caplog: pytest.LogCaptureFixture) -> None:
    silent = ParallelAgent(name="both", sub_agents=[LlmAgent(name="one", model=LIVE)])
    router = Router(name="router", inner=LlmAgent(name="inner", model=LIVE))
    a_relay(SequentialAgent(name="all", sub_agents=[router, silent]))
    assert [line.split(".")[0] for line in caplog.messages] == [
        "The agent router is a Router, which has a live loop of its own",
        "ADK has no live mode for a ParallelAgent such as both: use an LlmAgent or a SequentialAgent",
    ]


@pytest.mark.parametrize(
    ("agent", "why"),
    [
        (lambda: ParallelAgent(name="both"), "ADK has no live mode for a ParallelAgent such as both"),
        (
            lambda: Workflow(name="flow", edges=[("START", LlmAgent(name="inner", model=LIVE))]),
            "nobody speaks in the workflow flow: .* mode='chat' or mode='task'",
        ),
        (lambda: "agent", "agent must be an ADK agent or App, not str"),
    ],
)
def test_what_cannot_be_run_live_is_refused_in_words(agent: Any, why: str) -> None:
    with pytest.raises(TypeError, match=why):
        a_relay(agent())


async def test_what_a_hidden_agent_refuses_reaches_no_model(gemini: GeminiLive) -> None:
    def screen(callback_context: CallbackContext, llm_request: LlmRequest) -> LlmResponse | None:
        if "secret" not in str(llm_request.contents[-1:]):
            return None
        return LlmResponse(content=types.Content(role="model", parts=[types.Part(text="No.")]))

    router = Router(name="router", inner=LlmAgent(name="inner", model=LIVE, before_model_callback=screen))
    async with serving(a_relay(router)) as port, client(port) as alice:
        assert await alice.ask("hello") == "You said: hello."
        assert await alice.ask("the secret") == "No."
        await gemini.connections[0].die(1011)
        assert await alice.ask("hello again") == "You said: hello again."
    assert "hello" in str(gemini.connections[1].history)
    assert not any("secret" in str(connection.context) for connection in gemini.connections)
