"""The numbers of stored messages, whatever store they are in, and however its events are cut into pages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
from google.adk.events import Event
from google.adk.events.event_actions import EventActions
from google.adk.sessions import InMemorySessionService
from google.genai import types

from adk_relay.adk.archive import Archive, Counts
from adk_relay.adk.lines import lines_of, said_by, said_in
from adk_relay.adk.marks import GOES_ON, NAME, PLACE
from adk_relay.adk.reading import AnyReader, Key, Reader
from adk_relay.adk.store import reader_of, session_service
from adk_relay.core.titles import beginning

KEY = Key("app", "alice", "s")


def an_event(random: Random, number: int) -> Event:
    """An event with all that matters for the messages, or with nothing of it."""
    kind = random.choice(["user", "user", "agent", "agent", "heard", "spoken", "both", "empty", "thought"])
    said = types.Transcription(text=f"{number} said", finished=True)
    content = {"user": "user", "agent": "model", "thought": "model"}.get(kind)
    place = ["epoch" if number % 10 else "another", number + random.randrange(-4, 5)]
    marks: dict[str, Any] = {GOES_ON: True} if random.random() < 0.2 else {}
    marks |= {PLACE: place} if random.random() < 0.5 else {}
    marks |= {NAME: f"name {number}"} if random.random() < 0.3 else {}
    parts = [types.Part(text=f"{number} ", thought=kind == "thought" or None), types.Part(text="more")]
    return Event(
        author="user" if kind in ("user", "heard") else "agent",
        timestamp=1000.0 + number // 3,  # several have the same
        id=f"e{number:06}",
        content=types.Content(role=content, parts=parts[: random.choice([1, 2])]) if content else None,
        input_transcription=said if kind in ("heard", "both") else None,
        output_transcription=said if kind in ("spoken", "both") else None,
        interrupted=random.choice([None, None, True]),
        custom_metadata=marks or None,
        actions=EventActions(state_delta={PLACE: place, NAME: "Ann"} if random.random() < 0.3 else {}),
    )


@asynccontextmanager
async def reading(kind: str, tmp_path: Path) -> AsyncIterator[tuple[Any, Reader]]:
    uri = f"sqlite:///{tmp_path}/s.db" if kind == "sqlite" else "memory://"
    service: Any = session_service(uri)
    reader = AnyReader(service) if kind == "any" else reader_of(service)
    yield service, reader
    await reader.close()
    if kind == "sqlite":
        await service.close()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", ["memory", "sqlite", "any"])
async def test_pages_have_the_messages_of_the_whole(
    kind: str, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("reading", "sqlite", "memory", "archive"):
        monkeypatch.setattr(f"adk_relay.adk.{module}.PAGE", 7)
    random = Random(seed)
    async with reading(kind, tmp_path) as (service, reader):
        session = await service.create_session(**KEY._asdict())
        events = []
        archive = Archive(reader, KEY)
        for number in range(150):
            events.append(an_event(random, number))
            await service.append_event(session, events[-1])
            if number % 40 == 0:
                lines = lines_of(events)
                by_user = [line.text for line in lines if line.role == "user"]
                first_text = beginning(by_user[0]) if by_user else ""
                assert await archive.count() == Counts(len(lines), len(by_user), first_text)
        lines = lines_of(events)
        for number in range(1, len(lines) + 2):
            limit = random.randrange(1, 30)
            assert await archive.before(number, limit) == lines[max(number - 1 - limit, 0) : number - 1]
        found = await reader.session(KEY, 10)
        assert found
        assert [event.id for event in found.events] == [event.id for event in events[-10:]]
        found = await reader.session(KEY, 0)
        assert found
        assert found.events == []
        assert await reader.owner("app", "s", "bob") == "alice"
        assert await reader.owner("app", "t", "bob") is None
        (brief,) = await reader.newest("app", "alice", 5)
        assert brief.session_id == "s"
        assert brief.last_used == events[-1].timestamp


def test_an_event_and_its_json_say_the_same() -> None:
    random = Random(1)
    for number in range(200):
        event = an_event(random, number)
        assert said_in(event.model_dump(mode="json", exclude_none=True)) == said_by(event)


async def test_naming_a_conversation_copies_no_session(monkeypatch: pytest.MonkeyPatch) -> None:
    service = InMemorySessionService()
    for number in range(100):
        await service.create_session(app_name="app", user_id=f"user {number}", session_id=f"s{number}")
    monkeypatch.setattr("google.adk.sessions.in_memory_session_service._copy_session", None)
    reader = reader_of(service)
    assert await reader.owner("app", "s99", "alice") == "user 99"
    assert await reader.owner("app", "new", "alice") is None
    assert [brief.session_id for brief in await reader.newest("app", "user 7", 10)] == ["s7"]
