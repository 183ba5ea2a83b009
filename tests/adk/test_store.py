"""ADK's sqlite service over one connection that stays open."""

from __future__ import annotations

import asyncio
import re
import resource
import sqlite3
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from google.adk.events import Event, EventActions
from google.adk.sessions import BaseSessionService
from google.adk.sessions.sqlite_session_service import SqliteSessionService

from adk_relay.adk.store import reader_of, session_service
from support.server import need

WHO: dict[str, Any] = {"app_name": "app", "user_id": "alice"}


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Any]:
    service: Any = session_service(f"sqlite:///{tmp_path}/s.db")
    yield service
    await service.close()


def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Where the connections that are opened from now on go."""
    paths: list[str] = []
    connect = sqlite3.connect

    def counted(path: str, *args: Any, **named: Any) -> sqlite3.Connection:
        paths.append(str(path))
        connection: sqlite3.Connection = connect(path, *args, **named)
        return connection

    monkeypatch.setattr("sqlite3.connect", counted)
    return paths


async def test_operations_share_a_connection(
    service: BaseSessionService, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = opened(monkeypatch)
    await asyncio.gather(
        *(service.create_session(**WHO, session_id=f"s{number}") for number in range(10)),
        service.get_user_state(**WHO),
    )
    assert len((await service.list_sessions(**WHO)).sessions) == 10
    assert len(paths) == 1


async def test_an_operation_that_fails_leaves_nothing_behind(service: BaseSessionService) -> None:
    session = await service.create_session(**WHO, session_id="s")
    first, second = (EventActions(state_delta={"user:number": number}) for number in (1, 2))
    await service.append_event(session, Event(id="same", author="alice", actions=first))
    with pytest.raises(sqlite3.IntegrityError):  # after the user's state was written
        await service.append_event(session, Event(id="same", author="alice", actions=second))
    await service.create_session(**WHO, session_id="t")
    assert await service.get_user_state(**WHO) == {"number": 1}
    assert (await service.list_sessions(**WHO)).sessions[-1].id == "t"


async def test_a_connection_stays_open_when_no_file_can_be_opened(service: BaseSessionService) -> None:
    session = await service.create_session(**WHO, session_id="s")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        await service.append_event(session, Event(author="alice"))
        found = await service.get_session(**WHO, session_id="s")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert found
    assert len(found.events) == 1


async def test_an_event_waits_for_the_disk_twice_at_most(tmp_path: Path) -> None:
    """In write-ahead logging, a commit syncs the log; what a connection that is closed syncs comes on top."""
    strace = need("strace", "strace")
    one, four = await asyncio.gather(*(_syncs(strace, tmp_path, events) for events in (1, 4)))
    assert 3 <= four - one <= 6


async def _syncs(strace: str, tmp_path: Path, events: int) -> int:
    """How often a process that stores events waits for the disk."""
    log = tmp_path / f"{events}.log"
    script = f"""
import asyncio
from google.adk.events import Event
from adk_relay.adk.store import session_service
async def main():
    service = session_service("sqlite:///{tmp_path}/{events}.db")
    session = await service.create_session(app_name="app", user_id="alice", session_id="s")
    for _ in range({events}):
        await service.append_event(session, Event(author="alice"))
        await asyncio.sleep(1.2)  # a connection that is kept for a moment only is closed
    await service.close()
asyncio.run(main())
"""
    process = await asyncio.create_subprocess_exec(
        *(strace, "-f", "-e", "trace=fsync,fdatasync", "-o", str(log), sys.executable, "-c", script)
    )
    assert await process.wait() == 0
    return len(re.findall(r"fsync|fdatasync", log.read_text()))


async def test_a_file_that_was_replaced_is_noticed(service: Any, tmp_path: Path) -> None:
    reader = reader_of(service)
    await service.create_session(**WHO, session_id="s")
    assert await reader.owner("app", "s", "") == "alice"
    for file in tmp_path.glob("s.db*"):
        file.unlink()
    assert await reader.owner("app", "s", "") is None
    assert await service.get_session(**WHO, session_id="s") is None
    await service.create_session(**WHO, session_id="t")
    assert await reader.owner("app", "t", "") == "alice"
    await reader.close()


async def test_closing_the_service_closes_the_connection(tmp_path: Path) -> None:
    before = {*threading.enumerate()}
    service: Any = session_service(f"sqlite:///{tmp_path}/s.db")
    await service.create_session(**WHO, session_id="s")
    (worker,) = {*threading.enumerate()} - before
    await service.close()
    await asyncio.to_thread(worker.join, 60)
    assert not worker.is_alive()


def test_each_event_loop_has_a_connection_of_its_own(tmp_path: Path) -> None:
    before = {*threading.enumerate()}
    service = session_service(f"sqlite:///{tmp_path}/s.db")
    asyncio.run(service.create_session(**WHO, session_id="s"))
    assert asyncio.run(service.get_session(**WHO, session_id="s"))
    for thread in {*threading.enumerate()} - before:  # they would hold the process back from its end
        thread.join(60)
        assert not thread.is_alive()


async def test_without_the_private_name_each_operation_opens_a_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if another version of ADK had another name for it."""
    source = SqliteSessionService._get_db_connection
    monkeypatch.delattr(SqliteSessionService, "_get_db_connection")
    monkeypatch.delattr("adk_relay.adk.sqlite.Sqlite._get_db_connection")
    monkeypatch.setattr(SqliteSessionService, "_connected", source, raising=False)
    for name in ("create_session", "get_session", "list_sessions"):
        inside = getattr(SqliteSessionService, name)
        monkeypatch.setattr(SqliteSessionService, name, _renamed(inside))
    service: Any = session_service(f"sqlite:///{tmp_path}/s.db")
    paths = opened(monkeypatch)
    await service.create_session(**WHO, session_id="s")
    assert await service.get_session(**WHO, session_id="s")
    assert len(paths) == 2
    await service.close()


def _renamed(function: Any) -> Any:
    """The function, with another name for what it calls."""
    names = tuple("_connected" if n == "_get_db_connection" else n for n in function.__code__.co_names)
    code = function.__code__.replace(co_names=names)
    copy = type(function)(code, function.__globals__, function.__name__, function.__defaults__)
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy
