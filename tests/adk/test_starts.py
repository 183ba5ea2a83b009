"""What a conversation's start costs: how often its session is read, and who waits for it."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
from typing import Any

import pytest
from google.adk.agents import LlmAgent
from google.adk.agents.run_config import RunConfig
from google.adk.errors.already_exists_error import AlreadyExistsError
from google.adk.events import Event
from google.adk.runners import Runner
from google.adk.sessions import BaseSessionService, InMemorySessionService, Session
from google.adk.sessions.base_session_service import GetSessionConfig
from google.adk.telemetry import ContentCapturingMode
from google.genai import types

from adk_relay.adk.fence import Fence
from adk_relay.adk.models import telemetry
from adk_relay.adk.reading import AnyReader
from adk_relay.adk.rehearsal import Rehearsal
from adk_relay.adk.session import StoredSession
from adk_relay.adk.starts import Starts
from adk_relay.core.history import History
from adk_relay.core.requests import Stats
from support.client import client
from support.gemini import GeminiLive
from support.server import ROOT, a_relay, serving


class Counting(InMemorySessionService):
    """A session service that writes down what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    async def get_session(self, **named: Any) -> Session | None:
        self.asked.append("get")
        return await super().get_session(**named)

    async def create_session(self, **named: Any) -> Session:
        self.asked.append("create")
        return await super().create_session(**named)


async def with_history(service: InMemorySessionService, user: str = "alice") -> None:
    session = await service.create_session(app_name="tester", user_id=user, session_id=f"live-{user}")
    said = types.Content(role="user", parts=[types.Part(text="Do you remember me?")])
    await service.append_event(session, Event(author="user", content=said))


async def test_a_start_reads_its_session_once(gemini: GeminiLive) -> None:
    service = Counting()
    await with_history(service)
    service.asked.clear()
    async with serving(a_relay(sessions=service)) as port, client(port, "alice", audio=True):
        connection = await gemini.connection()
        await gemini.wait_for(lambda: connection.history)
        assert service.asked == ["get"]


async def test_a_new_conversation_is_looked_for_once(gemini: GeminiLive) -> None:
    service = Counting()
    async with serving(a_relay(sessions=service)) as port, client(port, "alice", audio=True):
        await gemini.connection()
        assert service.asked == ["get", "create"]


async def test_without_the_private_name_adk_reads_the_session(
    gemini: GeminiLive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if another version of ADK had another name for it."""
    inside = Runner._get_or_create_session

    async def renamed(runner: Runner, **named: Any) -> Session:
        return await inside(runner, **named)

    monkeypatch.setattr("adk_relay.adk.runner.WatchedRunner._get_or_create_session", renamed)
    service = Counting()
    await with_history(service)
    service.asked.clear()
    async with serving(a_relay(sessions=service)) as port, client(port, "alice", audio=True):
        connection = await gemini.connection()
        await gemini.wait_for(lambda: connection.history)
        assert service.asked == ["get", "get"]


async def test_a_configuration_that_limits_what_is_read_is_obeyed(gemini: GeminiLive) -> None:
    service = Counting()
    await with_history(service)
    config = RunConfig(get_session_config=GetSessionConfig(num_recent_events=0))
    relay = a_relay(sessions=service, run_config=config)
    async with serving(relay) as port, client(port, "alice", audio=True):
        connection = await gemini.connection()
        await gemini.wait_for(lambda: connection.ready)
        assert "historyConfig" not in connection.setup


def alices(service: BaseSessionService) -> StoredSession:
    fence = Fence(service, None, lambda _: None)
    return StoredSession(fence, AnyReader(service), Stats(), "tester", "alice", "live-alice")


async def test_a_session_that_another_process_has_just_made_is_used() -> None:
    service = InMemorySessionService()
    stored = alices(service)
    await stored.load(history := History())
    assert history.lines() == []
    await with_history(service)
    session = await stored.find()
    assert len(session.events) == 1


async def test_a_session_that_cannot_be_made_is_a_failure() -> None:
    class Never(InMemorySessionService):
        async def create_session(self, **named: Any) -> Session:
            raise AlreadyExistsError

    stored = alices(Never())
    await stored.load(history := History())
    assert history.lines() == []
    with pytest.raises(AlreadyExistsError):
        await stored.find()


async def test_what_was_read_is_at_hand_only_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adk_relay.adk.session._AT_HAND_FOR", 0.0)
    service = Counting()
    await with_history(service)
    stored = alices(service)
    await stored.load(History())
    async with asyncio.timeout(60):
        while stored._at_hand:
            await asyncio.sleep(0)
    service.asked.clear()
    await stored.find()
    assert service.asked == ["get"]


async def test_what_was_read_is_not_at_hand_after_a_deletion() -> None:
    service = Counting()
    await with_history(service)
    stored = alices(service)
    await stored.load(History())
    await stored.delete()
    assert (await stored.find()).events == []


async def test_starts_are_turns_of_the_event_loop_apart() -> None:
    starts = Starts()
    turn, begun = 0, []

    async def start() -> None:
        await starts.wait()
        begun.append(turn)

    tasks = [asyncio.create_task(start()) for _ in range(5)]
    while not all(task.done() for task in tasks):
        turn += 1
        await asyncio.sleep(0)
    assert len(set(begun)) == 5


async def test_the_first_conversation_imports_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """What ADK imports in its first run takes a fifth of a second without the event loop."""
    code = """
import asyncio, sys
from support.client import client
from support.server import a_relay, serving
from google.adk.agents import LlmAgent
from adk_relay.adk.rehearsal import Rehearsal

async def main():
    async with serving(a_relay(LlmAgent(name="tester", model=Rehearsal()))) as port:
        before = {name for name in sys.modules if name.startswith(("google.", "fastapi"))}
        async with client(port, "alice", audio=True) as alice:
            await alice.ask("hello")
        return sorted({name for name in sys.modules if name.startswith(("google.", "fastapi"))} - before)

print(asyncio.run(main()))
"""
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT}/tests", "PATH": "/usr/bin:/bin", "RELAY_SOUND": "short"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.usefixtures("no_errors")
async def test_a_server_starts_without_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOOGLE_API_KEY", raising=False)
    monkeypatch.delenv("GEMINI_API_KEY", raising=False)
    agent = LlmAgent(name="tester", model="gemini-3.8-live")
    async with serving(a_relay(agent)):
        gc.collect()  # a client that could not be made leaves a task that fails
        await asyncio.sleep(0.01)


async def test_a_preparation_that_fails_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail() -> None:
        raise RuntimeError

    monkeypatch.setattr("adk_relay.adk.starts._rehearse", fail)
    relay = a_relay(LlmAgent(name="tester", model=Rehearsal()))
    async with serving(relay) as port, client(port, "alice") as alice:
        assert alice.hello["rehearsal"]


@pytest.mark.parametrize("mode", ["SPAN_ONLY", "SPAN_AND_EVENT"])
def test_the_environment_decides_what_adk_records(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    assert not telemetry().should_add_content_to_legacy_spans  # nobody records any
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", mode)
    assert telemetry().resolved_content_capturing_mode is ContentCapturingMode[mode]


def test_who_records_spans_gets_their_content(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("opentelemetry.trace.get_tracer_provider", object)
    assert telemetry().should_add_content_to_legacy_spans
