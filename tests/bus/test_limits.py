"""The census, and limits that count in all processes."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from adk_relay.bus.census import Census
from adk_relay.bus.limits import Limits
from adk_relay.bus.server import Server
from adk_relay.core.messages import UserAudio
from adk_relay.core.shared import Bucket, Use
from adk_relay.core.visitor import Visitor
from adk_relay.core.whole import About, Agent, Counts, Role, total
from adk_relay.wire.quotas import OverQuotaError, Quotas, RateLimitedError
from adk_relay.wire.sharing import Sharing
from support.redis_server import RedisServer, running, until

ALICE = Visitor("alice")


class Process:
    """What a web process or a worker has of the bus, for its limits."""

    def __init__(self, server: Server, name: str, role: Role = "web", **quotas: Any) -> None:
        self.counts = Counts(sockets=1, seconds=0.5)
        self.agent = None if role == "web" else Agent("app", "model")
        self.census = Census(server, name, lambda: About(role, self.counts, self.agent))
        self.limits = Limits(server, name, self.census)
        self.quotas = Quotas(**quotas)
        self.sharing = Sharing(self.quotas, self.limits)
        self.scopes: list[dict[str, Any]] = []

    async def enter(self, address: str = "192.0.2.1", visitor: Visitor = ALICE) -> dict[str, Any]:
        """A new socket."""
        self.scopes.append(scope := {"type": "websocket", "client": (address, 1)})
        self.quotas.enter(scope, visitor, address)
        try:
            await self.sharing.enter(visitor, address)
        except OverQuotaError:
            self.quotas.leave(scope)
            raise
        finally:
            self.sharing.check()
            self.quotas.check()
        return scope


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes tell of themselves more often, so that the tests take less time."""
    monkeypatch.setattr("adk_relay.bus.limits._NEW_SECONDS", 0.5)
    monkeypatch.setattr("adk_relay.bus.census._EVERY", 0.1)
    monkeypatch.setattr("adk_relay.wire.sharing._EVERY", 0.1)


@asynccontextmanager
async def processes(server: Server, count: int = 2, **quotas: Any) -> AsyncIterator[list[Process]]:
    """Processes that know of each other."""
    made = [Process(server, f"p{number}", **quotas) for number in range(count)]
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(running(*(each.census.run() for each in made)))
        for each in made:
            each.sharing.start()
            stack.push_async_callback(each.sharing.aclose)
        await until(lambda: all(len(each.census.living) == count for each in made))
        yield made


async def fits(process: Process) -> bool:
    """Whether one more socket of alice has a place, from another address. It leaves at once."""
    try:
        process.quotas.leave(await process.enter("192.0.2.9"))
    except OverQuotaError:
        return False
    return True


# ---- the census ----------------------------------------------------------------------------------


async def test_processes_know_of_each_other(server: Server, redis: RedisServer) -> None:
    web, worker = Process(server, "web"), Process(server, "worker", "worker")
    async with running(web.census.run()):
        await until(lambda: web.census.generation == 1)
        assert not web.census.agent
        async with running(worker.census.run()):
            await until(lambda: web.census.agent is not None)
            assert [each.agent for each in web.census.processes] == [None, Agent("app", "model")]
            worker.counts = Counts(conversations=3, seconds=1.5)
            await until(lambda: total(web.census.processes).seconds == 2.0)
            assert total(web.census.processes) == Counts(conversations=3, sockets=1, seconds=2.0)
            web.census.check()
            # Who was forgotten has to tell all again.
            await redis.ask("FLUSHALL")
            await until(lambda: web.census.generation == 2)
            await worker.census.leave()
        await until(lambda: not web.census.agent)


async def test_a_process_that_has_died(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adk_relay.bus.census._GONE_MS", 500)
    one, other = Process(server, "one"), Process(server, "other")
    async with running(one.census.run()):
        async with running(other.census.run()):
            await until(lambda: one.census.living == ["one", "other"])
        await until(lambda: one.census.living == ["one"])


async def test_a_process_that_tells_something_else(server: Server, redis: RedisServer) -> None:
    one = Process(server, "one")
    async with running(one.census.run()):
        await until(lambda: one.census.generation == 1)
        await redis.ask("HSET", "relay:census", "newer", f'{time.time() * 1000:.0f} {{"role": "web"}}')
        told = one.counts = Counts(sockets=7)
        await until(lambda: total(one.census.processes) == told)
        await asyncio.sleep(0)
        assert one.census.living == ["one"]


async def test_a_process_of_another_version(server: Server, redis: RedisServer) -> None:
    """During an update there are two versions. What both know of is understood."""
    one = Process(server, "one")
    told = {
        "role": "worker",
        "counts": {"sockets": 5, "more": 1},
        "agent": {"app_name": "app", "model": "new", "more": ""},
    }
    async with running(one.census.run()):
        await until(lambda: one.census.generation == 1)
        await redis.ask("HSET", "relay:census", "newer", f"{time.time() * 1000:.0f} {json.dumps(told)}")
        await until(lambda: one.census.agent is not None)
        assert one.census.processes[1] == About("worker", Counts(sockets=5), Agent("app", "new"))


async def test_two_apps_on_one_bus(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """They would take each other's conversations. Each process says so once."""
    one, other, web = (
        Process(server, "one", "worker"),
        Process(server, "other", "worker"),
        Process(server, "web"),
    )
    other.agent = Agent("else", "model")
    async with running(*(each.census.run() for each in (one, other, web))):
        await until(lambda: caplog.text.count("give each app") == 2)
        await until(lambda: one.census.generation == 1)
    assert "the app 'else' are on the bus of 'app'" in caplog.text
    assert caplog.text.count("give each app") == 2


# ---- limits --------------------------------------------------------------------------------------


async def test_sockets_count_in_all_processes(server: Server, redis: RedisServer) -> None:
    async with processes(server, user_sockets=3, address_sockets=4) as (one, other):
        first = await one.enter()
        await one.enter()
        third = await other.enter()
        for process in (one, other):
            with pytest.raises(OverQuotaError, match="You have too many connections already"):
                await process.enter("192.0.2.2")
        await other.enter(visitor=Visitor("bob"))
        with pytest.raises(OverQuotaError, match="from your address") as full:
            await one.enter(visitor=Visitor("bob"))
        assert full.value.status == 429
        one.quotas.leave(first)
        other.quotas.leave(third)
        await until(lambda: fits(one))
        # Forgotten: each process tells it again.
        await redis.ask("FLUSHALL")
        await until(lambda: one.census.generation == other.census.generation == 2)
        await other.enter()
        await other.enter("192.0.2.2")

        async def is_full() -> bool:
            return not await fits(other)

        await until(is_full)
    assert {each.decode()[:12] for each in await redis.ask("KEYS", "*")} <= {"relay:limits", "relay:census"}  # type: ignore[attr-defined]


async def test_the_sockets_of_a_process_that_has_died_do_not_count(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adk_relay.bus.census._GONE_MS", 500)
    one, other = (Process(server, name, user_sockets=1) for name in ("one", "other"))
    async with running(one.census.run()):
        async with running(other.census.run()):
            await until(lambda: one.census.living == ["one", "other"])
            await other.enter()
            with pytest.raises(OverQuotaError):
                await one.enter()
        await until(lambda: fits(one))
        assert one.census.living == ["one"]


async def test_a_process_that_stops(server: Server) -> None:
    """Its clients come back to another one at once, also while it closes their sockets."""
    async with processes(server, user_sockets=1) as (one, other):
        await other.enter()
        assert not await fits(one)
        await other.sharing.aclose()
        await one.enter()


async def test_rates_count_in_all_processes(server: Server) -> None:
    rates: dict[str, Any] = {"user_message_rate": 2, "user_sound_rate": 0.5, "user_sound_day": 100}
    async with processes(server, **rates) as (one, other):
        here, there = [each.quotas.rates(ALICE) for each in (one, other) if await each.enter()]
        for _ in range(19):  # 20 may come at once
            here.take_message()
        here.take_sound(UserAudio(bytes(32_000 * 40), 16_000))  # of 30 s that may come at once
        # The other process learns it when it tells what it has taken itself.
        there.take_message()
        assert there.sound_wait() == 0
        await until(lambda: there.sound_wait() > 10)
        with pytest.raises(RateLimitedError, match="You send too many messages"):
            for _ in range(5):
                there.take_message()
        # A new process knows what was taken, as soon as a socket comes.
        third = Process(server, "third", **rates)
        await third.enter()
        rest = third.quotas.rates(ALICE)
        assert rest.sound_wait() > 10
        assert rest.limits["sound_seconds_today"] == 60
        rest.take_sound(UserAudio(bytes(32_000 * 60), 16_000))
        third.sharing.start()
        await third.sharing.aclose()
        here.take_sound(UserAudio(bytes(32_000), 16_000))
        await until(lambda: here.limits["sound_seconds_today"] == 0)
        with pytest.raises(RateLimitedError, match="as much as you may today"):
            here.take_sound(UserAudio(bytes(32_000), 16_000))


async def test_while_redis_is_away_a_process_counts_alone(server: Server, redis: RedisServer) -> None:
    async with processes(server, user_sockets=2, user_sound_day=100) as (one, other):
        await one.enter()
        await other.enter()
        await redis.kill()
        await other.enter()
        with pytest.raises(OverQuotaError):
            await other.enter()
        assert await one.limits.take_once("a token", 60) is None
        other.quotas.rates(ALICE).take_sound(UserAudio(bytes(32_000 * 5), 16_000))
        await redis.start()

        async def is_known() -> bool:
            return not await fits(one) and one.quotas.users["alice"].sound_today == 5

        await until(is_known)


async def test_what_can_be_taken_once(server: Server) -> None:
    one, other = Process(server, "one").limits, Process(server, "other").limits
    assert [await each.take_once(name, 60) for each in (one, other) for name in "ab"] == [
        True,
        True,
        False,
        False,
    ]
    assert await one.take_once("c", 0.01)
    await until(lambda: other_takes(other))


async def other_takes(limits: Limits) -> bool:
    return bool(await limits.take_once("c", 60))


async def test_an_allowance_is_full_again(server: Server) -> None:
    limits = Process(server, "one").limits

    async def left(taken: float) -> float:
        [found] = await limits.tell([Use("alice", 0, 0, buckets=(Bucket(100, 50, taken),))]) or []
        return found.buckets[0]

    assert await left(10) == 40
    assert 40 <= await left(0) < 50
    assert await left(200) < -150
    await until(lambda: is_full(left))


async def is_full(left: Any) -> bool:
    return bool(await left(0) == 50)
