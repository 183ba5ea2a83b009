"""Processes that stop, die, fail, or are taken for dead: what the others, clients and operators are told."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import httpx
import pytest
from google.adk.sessions import InMemorySessionService
from google.adk.sessions.base_session_service import ListSessionsResponse

from adk_relay.bus import answering, keys
from adk_relay.bus.codec import encode
from adk_relay.bus.commands import Call, Leave
from adk_relay.bus.hub import Hub
from adk_relay.bus.owning import Owning
from adk_relay.bus.packs import Item
from adk_relay.core.messages import UserImage, UserText
from adk_relay.core.past import Past
from support.client import Client, client, words
from support.gemini import GeminiLive
from support.pods import pods
from support.process import HANGS
from support.redis_server import RedisServer, until


async def test_a_stop_by_plan_is_no_death(redis: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "relay")
    watching, stopped, killed = hubs = [Hub(redis.url) for _ in range(3)]
    for hub in hubs:
        hub.start()
        await hub.is_up.wait()
    for hub in (stopped, killed):
        watching.send_quietly(hub.process, "c", 1, "", encode(Leave()))
    await until(lambda: watching.lease.is_undisturbed)
    await stopped.aclose()
    assert killed._task
    killed._task.cancel()
    await until(lambda: f"{killed.process} has died" in caplog.text)
    await until(lambda: f"{stopped.process} has stopped" in caplog.text)
    assert f"{stopped.process} has died" not in caplog.text
    told = len(caplog.messages)
    for hub in (stopped, killed):  # a worker answers its claims, which are found later
        watching.send_quietly(hub.process, "c", 1, "", encode(Leave()))
    await until(lambda: not watching._links)
    assert len(caplog.messages) == told
    for hub in (watching, killed):
        await hub.aclose()


async def test_a_link_that_fails_is_told_and_goes_on(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    inbox = keys.inbox("other")
    await redis.ask("SET", keys.lease("other"), "1", "PX", 60_000)
    await redis.ask("SET", inbox, "not what is expected", "PX", 60_000)
    hub = Hub(redis.url)
    hub.start()
    hub.send_quietly("other", "c", 1, "", encode(Leave()))
    await until(lambda: "the link to other has failed" in caplog.text)
    await redis.ask("DEL", inbox)
    await redis.ask("XADD", inbox, "*", "made", "1")
    await redis.ask("PEXPIRE", inbox, 60_000)
    hub.send_quietly("other", "c", 1, "", encode(Leave()))

    async def has_arrived() -> bool:
        return await redis.ask("XLEN", inbox) == 2

    await until(has_arrived)
    await hub.aclose()


async def test_a_process_whose_bus_has_failed_is_not_healthy(
    redis: RedisServer, gemini: GeminiLive, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with pods(redis, tmp_path, "web", "worker") as both, httpx.AsyncClient() as http:

        async def statuses(path: str) -> list[int]:
            return [(await http.get(f"http://127.0.0.1:{pod.port}{path}")).status_code for pod in both]

        async def is_ready() -> bool:
            return await statuses("/ready") == [200, 200]

        async def has_failed() -> bool:
            return await statuses("/health") == [503, 503]

        async def is_unready() -> bool:
            return await statuses("/ready") == [503, 503]

        await until(is_ready)
        await redis.kill()  # that is no reason to start again
        await until(is_unready)
        assert await statuses("/health") == [200, 200]
        await redis.start(with_data=False)
        await redis.ask("SET", "relay:census", "not what is expected")
        await until(has_failed)
        assert caplog.text.count("this process has to be started again") == 2
        await redis.ask("DEL", "relay:census")


async def has_moved(client: Client) -> None:
    """Waits until the server closes the socket because the conversation is with another process."""
    async with asyncio.timeout(HANGS):
        await client.socket.wait_closed()
    assert client.socket.close_code == 1012
    assert client.socket.close_reason == "the conversation has moved"


async def test_sockets_in_the_process_of_an_owner_that_is_replaced(
    redis: RedisServer, gemini: GeminiLive, tmp_path: Path
) -> None:
    """They are told to come back. Those in other processes notice nothing."""
    async with pods(redis, tmp_path, "both", "both", grace=30) as (here, there):
        bus: tuple[Any, Any] = here.relay.served, there.relay.served
        async with client(here.port) as alice, client(there.port) as bob:
            assert (here.active, there.active) == (1, 0)
            name, epoch = alice.hello["session_id"], alice.hello["epoch"]
            assert await alice.ask("hello") == "You said: hello."
            last = (await bob.turn())[-1]["seq"]
            # It was taken for dead.
            owner = await bus[1]._hub.ownership.find(name)
            await bus[1]._owning.take(name, owner.token)
            await alice.say("again")
            await has_moved(alice)
            async with client(here.port, query=f"&after={epoch}.{last}") as alice:
                assert await alice.ask("once more") == "You said: once more."
                assert words(await bob.turn()) == "You said: once more."
                await until(lambda: (here.active, there.active) == (0, 1))
                # It is stopped by plan. The socket of bob is from a time when another process was the owner.
                async with client(there.port) as carol:
                    bus[1].drain()
                    await has_moved(carol)
                assert await alice.ask("and more") == "You said: and more."
                assert words(await bob.turn()) == "You said: and more."
                await until(lambda: (here.active, there.active) == (1, 0))
            for who in (alice, bob):
                assert not any(said.get("type") in ("status", "gap") for said in who.frames)


async def test_a_conversation_that_can_t_be_taken_over(
    redis: RedisServer,
    gemini: GeminiLive,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def unreadable(*_: object) -> Past:
        raise LookupError("this was never written")

    async with pods(redis, tmp_path, "web", "worker", "worker") as (web, *workers):
        async with client(web.port) as alice:
            await alice.ask("hello")
            monkeypatch.setattr(Owning, "_past", unreadable)
            [owner] = [each for each in workers if each.active]
            owner.relay.served.drain()
            async with asyncio.timeout(HANGS):
                await alice.socket.wait_closed()
            assert alice.socket.close_code == 1011
        assert "this was never written" in caplog.text


async def test_what_comes_while_a_conversation_is_opened_is_bounded(
    redis: RedisServer, gemini: GeminiLive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pods(redis, tmp_path, "worker") as (worker,):
        owning = worker.relay.served._owning  # type: ignore[attr-defined]
        token = (await owning.take("c", 0)).token
        picture = UserImage(bytes(1024 * 1024), "image/png")
        for _ in range(20):
            owning.receive("web", Item("c", token, ["1"], encode(picture)), picture)
        text = UserText("hello", "1")
        owning.receive("web", Item("c", token, ["1"], encode(text)), text)
        kinds = [type(content) for _, _, content in owning._owned["c"].waiting]
        assert kinds == [*[UserImage] * 8, UserText]


async def test_calls_of_others_are_bounded(
    redis: RedisServer, gemini: GeminiLive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answering, "_MAX_CALLS", 10)
    may_go_on = asyncio.Event()

    class Slow(InMemorySessionService):
        async def list_sessions(self, **options: Any) -> ListSessionsResponse:
            await may_go_on.wait()
            return await super().list_sessions(**options)

    async with pods(redis, tmp_path, "web", "worker", sessions=Slow()) as (web, worker):
        bus: tuple[Any, Any] = web.relay.served, worker.relay.served
        hub, process = bus[0]._hub, bus[1]._hub.process
        calls = [Call(f"{number}", hub.process, "list", "alice", "", {"limit": 1}) for number in range(15)]
        asking = [asyncio.create_task(hub.ask(process, 0, call)) for call in calls]
        await until(lambda: sum(task.done() for task in asking) == 5)
        may_go_on.set()
        errors = [reply.error for reply in await asyncio.gather(*asking)]
        assert sorted(errors) == [*[""] * 10, *["FullError"] * 5]
