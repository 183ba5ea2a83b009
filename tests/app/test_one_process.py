"""Without a bus, one process serves the sessions of a store: a second one is refused, and so are workers."""

from __future__ import annotations

import asyncio
import logging
import math
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from google.adk.sessions import DatabaseSessionService
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool
from websockets.exceptions import ConnectionClosed

from adk_relay.core.interfaces import StoreInUseError
from adk_relay.from_environment import STARTUP_FAILURE
from relay import Relay
from support.api import rehearsal
from support.client import client
from support.databases import Server, database
from support.gemini import Connection, GeminiLive, UserTurn
from support.process import HANGS, SERVE, UVICORN, Process, process, serving_warm, warm_relay
from support.redis_server import redis_server
from support.server import ROOT, a_relay, serving

REFUSED = r"ERROR.* relay: another process has the sessions in .*: stop it, or set another RELAY_SESSIONS "

AT_ONCE = {"RELAY_DRAIN": "0"}
"""A second process waits for five seconds."""


async def ends_with(relay: Process, line: str) -> int:
    """The exit code of a process that says one line like this, and has no traceback."""
    code = await relay.ended()
    assert len([said for said in relay.log if "ERROR" in said and " relay: " in said]) == 1, relay.log
    await relay.says(line)
    assert not [said for said in relay.log if "Traceback" in said], relay.log
    return code


def ready(relay: Relay) -> Any:
    return relay.conversations.is_ready()


async def until_ready(relay: Relay, is_ready: bool = True) -> None:
    async with asyncio.timeout(HANGS):
        while await ready(relay) is not is_ready:
            await asyncio.sleep(0)


async def test_a_second_process_on_a_sqlite_file(gemini: GeminiLive, tmp_path: Path) -> None:
    """It is refused. The first one may be killed at any time, and leaves no lock behind."""
    settings = {**gemini.env, **AT_ONCE}
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(serving_warm(SERVE, tmp_path, **settings))
        second = await stack.enter_async_context(warm_relay(UVICORN, tmp_path, **settings))
        assert await ends_with(second, REFUSED + ".*RELAY_SHARED_STORE=true") == STARTUP_FAILURE
        async with client(first.port) as alice:
            assert await alice.ask("hello") == "You said: hello."
        await first.stop(signal.SIGKILL)
        third = await stack.enter_async_context(serving_warm(SERVE, tmp_path, **settings))
        assert not [*(tmp_path / ".adk").glob("*.lock?*")]
        assert not [line for line in third.log if "another process" in line]


async def test_a_process_that_starts_while_another_drains(gemini: GeminiLive, tmp_path: Path) -> None:
    gate = asyncio.Event()

    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.say("One", complete=False)
        await gate.wait()
        await connection.say(" two.")

    gemini.answer = answer
    settings = {**gemini.env, "RELAY_DRAIN": "60"}
    async with (
        serving_warm(SERVE, tmp_path, **settings) as old,
        client(old.port) as alice,
        warm_relay(SERVE, tmp_path, **settings) as new,
    ):
        await alice.say("count")
        await alice.until(lambda said: said.get("mime_type"))
        await new.says("another process has the sessions in .*waiting for its end, 65 s at most")
        stopping = asyncio.create_task(old.stop())
        await alice.until(lambda said: said.get("type") == "going_away")
        gate.set()
        assert await stopping == 0
        await new.started()
        assert new.problems() == []
        # While it waits, it ends at once if it is told to.
        async with warm_relay(SERVE, tmp_path, **settings) as third:
            await third.says("another process has the sessions")
            assert await third.stop() == 0


WORKERS = {
    "uvicorn --workers": ("uvicorn relay:app --port 0 --workers 2", {}, "--workers", 0),
    "uvicorn": ("uvicorn relay:app --port 0", {"WEB_CONCURRENCY": "2"}, "WEB_CONCURRENCY", 0),
    "serve": ("adk_relay serve --port 0", {"WEB_CONCURRENCY": "2"}, "WEB_CONCURRENCY", 3),
    "hypercorn": ("hypercorn relay:app --bind 127.0.0.1:0 -w 2", {}, "-w", None),
}
"""A command, its environment, what asks for the workers, and the exit code: uvicorn's own is 0, and that of
hypercorn depends on how soon its second worker ends."""


async def test_workers_are_refused_in_one_line(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        started = []
        for arguments, variables, _, _ in WORKERS.values():
            command = [sys.executable, "-m", *arguments.split()]
            running = warm_relay(command, tmp_path, RELAY_SESSIONS="memory://", **variables)
            started.append(await stack.enter_async_context(running))
        codes = await asyncio.gather(
            *(
                ends_with(relay, f"relay: {what} asks for 2 processes, .*: set it to 1")
                for relay, (_, _, what, _) in zip(started, WORKERS.values(), strict=True)
            )
        )
        for code, (_, _, _, expected) in zip(codes, WORKERS.values(), strict=True):
            assert expected in (code, None)


async def test_workers_on_a_bus(gemini: GeminiLive, tmp_path: Path) -> None:
    """They share conversations, so it does not matter which of them a connection reaches."""
    command = [*UVICORN, "--workers", "2"]
    async with (
        redis_server() as redis,
        warm_relay(command, tmp_path, RELAY_BUS=redis.url, **gemini.env) as relay,
    ):
        await relay.started()
        async with asyncio.timeout(HANGS):
            while len([line for line in relay.log if "Application startup complete" in line]) < 2:
                await asyncio.sleep(0.05)
        async with AsyncExitStack() as stack:
            alices = [await stack.enter_async_context(client(relay.port)) for _ in range(6)]
            for alice in alices:
                await alice.ask("hello")
            assert len(gemini.connections) == 1
        assert await relay.stop() == 0


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_a_process_without_a_bus_beside_those_that_have_one(kind: str, tmp_path: Path) -> None:
    """It is refused, and so are they while it runs."""
    async with AsyncExitStack() as stack:
        uri = f"sqlite:///{tmp_path}/s.db"
        if kind == "postgresql":
            uri = (await stack.enter_async_context(database(kind))).uri
        redis = await stack.enter_async_context(redis_server())
        one, other = (a_relay(rehearsal(), sessions=uri, bus=redis.url, drain=0) for _ in range(2))
        alone = a_relay(rehearsal(), sessions=uri, drain=0)
        async with one, other:
            await until_ready(one)
            await until_ready(other)
            with pytest.raises(StoreInUseError, match="RELAY_BUS"):
                await alone.__aenter__()
        async with alone:
            with pytest.raises(StoreInUseError):
                await one.__aenter__()
        await one.aclose()


async def test_a_reload(gemini: GeminiLive, tmp_path: Path) -> None:
    """uvicorn then has one process at a time, also if a variable asks for more."""
    command = [*UVICORN, "--reload", "--reload-dir", str(tmp_path)]
    environment = {"PYTHONPATH": str(ROOT), "WEB_CONCURRENCY": "2", **gemini.env}
    async with process(command, tmp_path, environment) as relay:
        await relay.says("Application startup complete")
        (tmp_path / "edited.py").write_text("")
        await relay.says("Reloading")
        async with asyncio.timeout(HANGS):
            while len([line for line in relay.log if "Application startup complete" in line]) < 2:
                await asyncio.sleep(0.05)
        assert not [line for line in relay.log if "another process" in line]


# ---- in the process of a host --------------------------------------------------------------------


async def test_relays_of_one_process(tmp_path: Path) -> None:
    """Two with the same sessions would also have a conversation twice."""
    uri = f"sqlite:///{tmp_path}/s.db"
    one, other = (a_relay(rehearsal(), sessions=uri, drain=0) for _ in range(2))
    named = a_relay(rehearsal(), sessions=uri, app_name="../named")
    sharing = a_relay(rehearsal(), sessions=uri, shared_store="true")
    adks = a_relay(rehearsal(), sessions=DatabaseSessionService(f"sqlite+aiosqlite:///{tmp_path}/s.db"))
    async with one, named, sharing:
        assert [await ready(relay) for relay in (one, other, named, sharing, adks)] == [
            True,
            False,
            True,
            True,
            False,
        ]
        # A host without a lifespan: nobody can refuse the start, but conversations can't be opened.
        transport = httpx.ASGITransport(other)
        asked = {"session_id": "s", "message": "hi"}
        async with httpx.AsyncClient(transport=transport, base_url="http://relay") as http:
            assert (await http.post("/api/v1/chat", json=asked)).status_code == 500
        await one.aclose()
        async with httpx.AsyncClient(transport=transport, base_url="http://relay") as http:
            assert (await http.post("/api/v1/chat", json=asked)).status_code == 200
        assert not await ready(adks)
        await other.aclose()
        assert await ready(adks)
        await adks.aclose()
    assert {file.name for file in tmp_path.glob("*.lock")} == {"s.db.tester.lock", "s.db...%2Fnamed.lock"}


async def test_a_store_that_cannot_be_locked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is told, and tried again: the database may come back."""
    (blocking := tmp_path / "s.db.tester.lock").mkdir()
    relay = a_relay(rehearsal(), sessions=f"sqlite:///{tmp_path}/s.db")
    async with relay:
        [warning] = [line for line in caplog.messages if "can't be locked" in line]
        assert "tried again: OperationalError: unable to open database file" in warning
        blocking.rmdir()
        with caplog.at_level(logging.INFO, "relay.agent"):
            async with asyncio.timeout(HANGS):
                while not [line for line in caplog.messages if "is locked again" in line]:
                    await asyncio.sleep(0.05)


# ---- databases -----------------------------------------------------------------------------------


@pytest.fixture(params=["postgresql", "mariadb"])
async def server(request: pytest.FixtureRequest) -> AsyncIterator[Server]:
    async with database(request.param) as server:
        yield server


async def cut_connections(server: Server) -> None:
    """Ends all connections to a database but the one that does it."""
    engine = create_async_engine(make_url(server.uri), poolclass=NullPool)
    async with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            others = "SELECT pid FROM pg_stat_activity WHERE datname = 'relay' AND pid <> pg_backend_pid()"
            end = "SELECT pg_terminate_backend({})"
        else:
            others = (
                "SELECT id FROM information_schema.processlist WHERE user = 'relay' AND id <> connection_id()"
            )
            end = "KILL {}"
        for number in (await connection.execute(text(others))).scalars().all():
            await connection.execute(text(end.format(number)))
    await engine.dispose()


async def test_a_lock_in_a_database(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    one, other = (a_relay(rehearsal(), sessions=server.uri) for _ in range(2))
    async with serving(one) as port, client(port) as alice:
        assert await alice.ask("hello")
        assert await ready(one)
        assert not await ready(other)

        # The connection breaks, and the lock is taken again. Conversations go on.
        with caplog.at_level(logging.INFO, "relay.agent"):
            await cut_connections(server)
            async with asyncio.timeout(HANGS):
                while not [line for line in caplog.messages if "is locked again" in line]:
                    await asyncio.sleep(0.05)
        assert [line for line in caplog.messages if "can't be locked, which is tried again" in line]
        assert not await ready(other)
        assert await alice.ask("hello")

        # Another relay is faster, after a minute in which the database has not heard of this one.
        monkeypatch.setattr("adk_relay.adk.lock._MARGIN", -math.inf)
        await cut_connections(server)
        await until_ready(other)
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                await alice.next()
        assert closed.value.rcvd
        assert closed.value.rcvd.code == 1001
        assert not await ready(one)
        assert [line for line in caplog.messages if line.endswith("all conversations are ended here")]
        await other.aclose()
        await until_ready(one)


async def test_a_second_process_on_postgresql(tmp_path: Path) -> None:
    """It is refused, and may start as soon as the first one is killed."""
    async with (
        database("postgresql") as server,
        serving_warm(SERVE, tmp_path, RELAY_SESSIONS=server.uri) as first,
    ):
        second = a_relay(rehearsal(), app_name="assistant", sessions=server.uri, drain=0)
        with pytest.raises(StoreInUseError, match=r"the sessions in the database relay at 127\.0\.0\.1, "):
            await second.__aenter__()
        await first.stop(signal.SIGKILL)
        async with second:
            assert await ready(second)
