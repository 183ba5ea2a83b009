"""Conversations in PostgreSQL and in MariaDB."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from google.adk.errors import StaleSessionError
from google.adk.events import Event
from google.genai import types

from adk_relay.adk.archive import Archive
from adk_relay.adk.database import DatabaseReader
from adk_relay.adk.reading import Key
from adk_relay.adk.store import reader_of, session_service
from support.api import rehearsal
from support.chat import http
from support.databases import Server, database
from support.server import a_relay, serving


@pytest.fixture(params=["postgresql", "mariadb"])
async def server(request: pytest.FixtureRequest) -> AsyncIterator[Server]:
    async with database(request.param) as server:
        yield server


async def test_a_conversation_in_a_database(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """History, listing, a restart of relay and of the database, clear, and delete."""
    monkeypatch.setattr("adk_relay.adk.probe._KNOWN_FOR", 0.0)
    hello = {"session_id": "kitchen", "message": "Hello."}
    async with serving(a_relay(rehearsal(), sessions=server.uri)) as port, http(port) as web:
        assert (await web.get("/sessions")).json()["sessions"] == []
        assert (await web.get("/sessions/kitchen")).status_code == 404
        (await web.post("/api/v1/chat", json=hello)).raise_for_status()
    async with serving(a_relay(rehearsal(), sessions=server.uri)) as port, http(port) as web:
        history = (await web.get("/sessions/kitchen")).json()["history"]
        assert [line["role"] for line in history] == ["user", "agent"]
        (listed,) = (await web.get("/sessions")).json()["sessions"]
        assert (listed["session_id"], listed["message_count"]) == ("kitchen", 2)
        assert (await web.get("/ready")).status_code == 200
        await server.stop()
        assert (await web.get("/ready")).status_code == 503
        assert (await web.get("/sessions")).status_code == 500
        await server.start()
        async with asyncio.timeout(60):
            while (await web.get("/sessions")).status_code != 200:
                await asyncio.sleep(0.1)
        assert (await web.get("/ready")).status_code == 200
        (await web.post("/api/v1/chat", json=hello)).raise_for_status()
        assert (await web.get("/sessions/kitchen")).json()["message_count"] == 4
        (await web.post("/sessions/kitchen/clear")).raise_for_status()
        assert (await web.get("/sessions/kitchen")).json()["history"] == []
        (await web.post("/api/v1/chat", json=hello)).raise_for_status()
        (await web.delete("/sessions/kitchen")).raise_for_status()
        assert (await web.get("/sessions/kitchen")).status_code == 404


async def test_a_long_conversation_in_a_database_is_read_in_pages(server: Server) -> None:
    service = session_service(server.uri)
    reader = reader_of(service)
    assert isinstance(reader, DatabaseReader)
    key = Key("app", "alice", "s")
    session = await service.create_session(**key._asdict())
    begun = time.time() - 3600
    for number in range(1, 601):
        role = "user" if number % 2 else "model"
        content = types.Content(role=role, parts=[types.Part(text=f"message {number}")])
        event = Event(author=role, timestamp=begun + number, content=content)
        await service.append_event(session, event)
    archive = Archive(reader, key)
    assert await archive.count() == (600, 300, "message 1")
    assert [line.text for line in await archive.before(300)] == [f"message {n}" for n in range(100, 300)]
    found = await reader.session(key, 300)
    assert found
    assert [event.id for event in found.events] == [event.id for event in session.events[-300:]]
    await service.append_event(found, Event(author="user"))
    assert await reader.owner("app", "s", "bob") == "alice"
    assert await reader.owner("app", "t", "alice") is None
    await service.close()  # type: ignore[attr-defined]


async def test_relays_that_start_at_once_with_an_empty_database(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """Each makes the tables, and asks whether the store works, while the others do."""
    relays = [a_relay(rehearsal(), sessions=server.uri, shared_store="true") for _ in range(4)]
    await asyncio.gather(*(relay.__aenter__() for relay in relays))
    ready = await asyncio.gather(*(relay.conversations.is_ready() for relay in relays))
    await asyncio.gather(*(relay.aclose() for relay in relays))
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []
    assert ready == [True] * 4


async def test_who_has_read_a_session_before_another_has_taken_it_over_is_refused(server: Server) -> None:
    service = session_service(server.uri)
    reader = reader_of(service)
    key = Key("app", "alice", "s")
    old = await service.create_session(**key._asdict())
    await service.append_event(old, Event(author="user"))
    found = await reader.session(key, 0)
    assert found
    assert await reader.outdate(key, found)
    with pytest.raises(StaleSessionError):
        await service.append_event(old, Event(author="model"))
    assert not await reader.outdate(key, found)  # somebody has taken it over meanwhile
    assert not await reader.outdate(Key("app", "alice", "t"), found)
    new = await reader.session(key, 10)
    assert new and len(new.events) == 1
    await service.append_event(new, Event(author="model"))
    with pytest.raises(StaleSessionError):
        await service.append_event(old, Event(author="model"))
    await service.close()  # type: ignore[attr-defined]
