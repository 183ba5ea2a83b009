"""Which session service a URI names, and what is said where there is none."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from google.adk.sessions import InMemorySessionService, Session

from adk_relay.adk.store import session_service
from support.api import rehearsal
from support.chat import http
from support.databases import needs_modules
from support.server import a_relay, serving


@pytest.mark.parametrize(
    ("uri", "url"),
    [
        ("postgresql+asyncpg://user:pass@host/name", "postgresql+asyncpg://user:***@host/name"),
        ("postgresql://host/name", "postgresql+asyncpg://host/name"),
        ("mysql+aiomysql://host/name", "mysql+aiomysql://host/name"),
        ("mysql://host/name", "mysql+aiomysql://host/name"),
        ("mariadb://host/name", "mariadb+aiomysql://host/name"),
    ],
)
def test_a_database(uri: str, url: str) -> None:
    needs_modules("sqlalchemy", "asyncpg", "aiomysql")
    service: Any = session_service(uri)
    assert str(service.db_engine.url) == url


@pytest.mark.parametrize(
    ("uri", "missing", "told"),
    [
        ("postgresql+asyncpg://host/name", "sqlalchemy", "pip install 'google-adk[db]' asyncpg"),
        ("mysql+aiomysql://host/name", "sqlalchemy", "pip install 'google-adk[db]' aiomysql"),
        ("mysql://host/name", "sqlalchemy", "pip install 'google-adk[db]' aiomysql"),
        ("postgresql+psycopg://host/name", "sqlalchemy", "pip install 'google-adk[db]' psycopg"),
        ("nonsense://host/name", "sqlalchemy", "ADK knows no session service 'nonsense'"),
    ],
)
def test_without_the_extra(uri: str, missing: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == missing]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.delitem(sys.modules, "google.adk.sessions.database_session_service", raising=False)
    with pytest.raises(ValueError, match=r"session service|needs") as error:
        session_service(uri)
    assert told in str(error.value)


def test_without_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    needs_modules("sqlalchemy")
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    with pytest.raises(ValueError, match="needs the driver asyncpg: pip install asyncpg"):
        session_service("postgresql+asyncpg://host/name")


class Failing(InMemorySessionService):
    """A store that can be read, and for a while not written."""

    fails = False

    async def create_session(self, **which: Any) -> Session:
        if self.fails:
            raise OSError("No space left on device")
        return await super().create_session(**which)


async def test_ready_says_whether_conversations_can_be_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adk_relay.adk.probe._KNOWN_FOR", 0.0)
    store = Failing()
    async with serving(a_relay(rehearsal(), sessions=store)) as port, http(port) as web:
        assert (await web.get("/ready")).json() == {"status": "ready"}
        store.fails = True
        assert (await web.get("/ready")).status_code == 503
        assert (await web.get("/health")).status_code == 200
        store.fails = False
        assert (await web.get("/ready")).status_code == 200
        assert (await web.get("/sessions")).json()["sessions"] == []
        assert not any(user for users in store.sessions.values() for user in users.values())


async def test_ready_is_false_while_the_file_of_the_sessions_is_out_of_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adk_relay.adk.probe._KNOWN_FOR", 0.0)
    folder, elsewhere = tmp_path / "disk", tmp_path / "unmounted"
    folder.mkdir()
    relay = a_relay(rehearsal(), sessions=f"sqlite:///{folder}/sessions.db")
    async with serving(relay) as port, http(port) as web:
        (await web.post("/sessions/new")).raise_for_status()
        for _ in range(2):
            assert (await web.get("/ready")).status_code == 200
            folder.rename(elsewhere)
            assert (await web.get("/ready")).status_code == 503
            assert (await web.get("/health")).status_code == 200
            elsewhere.rename(folder)
        assert (await web.get("/ready")).status_code == 200


async def test_a_request_whose_store_fails_counts_as_failed(tmp_path: Path) -> None:
    class Unreadable(InMemorySessionService):
        async def get_session(self, **which: Any) -> Session | None:
            raise OSError("No space left on device")

    async with serving(a_relay(rehearsal(), sessions=Unreadable())) as port, http(port) as web:
        response = await web.post("/api/v1/chat", json={"session_id": "s", "message": "Hello."})
        assert response.status_code == 500
        stats = (await web.get("/stats")).json()
        assert (stats["total_requests"], stats["failed_requests"]) == (1, 1)
