"""Queues of the workers: exactly one gets each entry, and none is lost with its worker."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

import pytest

from adk_relay.bus import keys, tasks
from adk_relay.bus.codec import CodecError
from adk_relay.bus.server import Script, Server
from adk_relay.bus.tasks import Tasks, put
from support.redis_server import RedisServer, running, until


async def test_each_entry_goes_to_one_worker_and_a_full_one_gets_none(
    redis: RedisServer, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "_BLOCK_SECONDS", 0.2)
    handled: list[tuple[int, bytes]] = []

    def worker(number: int) -> Tasks:
        async def handle(data: bytes) -> None:
            await asyncio.sleep(0)
            handled.append((number, data))

        return Tasks(server, keys.CLAIMS, f"worker {number}", handle, at_once=1)

    workers = [worker(number) for number in range(4)]
    workers[3].may_read.clear()
    for number in range(20):  # before there is a worker
        await put(server, keys.CLAIMS, b"%d" % number)
    async with running(*(each.run() for each in workers)):
        for number in range(20, 100):
            await put(server, keys.CLAIMS, b"%d" % number)
        await until(lambda: len(handled) >= 100)
        await until(lambda: not any(each._under_way for each in workers))
        assert sorted(int(data) for _, data in handled) == [*range(100)]
        assert {number for number, _ in handled} == {0, 1, 2}
        workers[3].may_read.set()
        for each in workers[:3]:
            each.may_read.clear()
        await asyncio.sleep(0.4)  # until reads that are under way are over
        handled.clear()
        await put(server, keys.CLAIMS, b"100")
        await until(lambda: handled == [(3, b"100")] and not workers[3]._under_way)
    assert await redis.ask("XLEN", keys.CLAIMS) == 0
    for each in workers:
        await each.leave()
    assert await redis.ask("XINFO", "CONSUMERS", keys.CLAIMS, "workers") == []


async def test_who_has_less_to_do_gets_more(redis: RedisServer, server: Server) -> None:
    counts: Counter[str] = Counter()

    def worker(name: str, pause: float) -> Tasks:
        async def handle(_: bytes) -> None:
            counts[name] += 1

        return Tasks(server, keys.CLAIMS, name, handle, pause=lambda: pause)

    async with running(worker("idle", 0.0).run(), worker("busy", 0.2).run()):
        for _ in range(100):
            await put(server, keys.CLAIMS, b"")
            await asyncio.sleep(0.002)
        await until(lambda: counts.total() == 100)
    assert counts["idle"] > 3 * counts["busy"]


async def test_a_worker_that_becomes_full_before_it_reads(redis: RedisServer, server: Server) -> None:
    handled: list[bytes] = []
    paused = asyncio.Event()

    async def handle(data: bytes) -> None:
        handled.append(data)

    def pause() -> float:
        paused.set()
        return 0.2

    worker = Tasks(server, keys.CLAIMS, "a", handle, pause=pause)
    async with running(worker.run()):
        await paused.wait()
        worker.may_read.clear()
        await put(server, keys.CLAIMS, b"1")
        await asyncio.sleep(0.5)
        assert handled == []
        worker.may_read.set()
        await until(lambda: handled == [b"1"])
        await until(lambda: not worker._under_way)


async def test_another_worker_gets_what_one_has_left_undone(
    redis: RedisServer, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "_ABANDONED_MS", 600)
    monkeypatch.setattr(tasks, "_CARE_SECONDS", 0.2)
    log: list[str] = []

    def worker(name: str, seconds: float) -> Tasks:
        async def handle(data: bytes) -> None:
            log.append(f"{name} begins {data.decode()}")
            await asyncio.sleep(seconds)
            log.append(f"{name} ends {data.decode()}")

        return Tasks(server, keys.CALLS, name, handle)

    dies, slow, quick = worker("dies", 60), worker("slow", 1.5), worker("quick", 0)
    await put(server, keys.CALLS, b"1")
    async with running(dies.run()):
        await until(lambda: log == ["dies begins 1"])
    died_at = time.monotonic()
    await dies.leave()  # it stays, because its entry would be lost
    log.clear()
    async with running(slow.run()):
        await until(lambda: log == ["slow begins 1"])
        assert time.monotonic() - died_at > 0.3
        async with running(quick.run()):
            await put(server, keys.CALLS, b"2")
            await until(lambda: "quick ends 2" in log or "slow begins 2" in log)
            await until(lambda: "slow ends 1" in log)  # it works for longer than 600 ms, and says so
            await until(lambda: not slow._under_way)
    assert [line for line in log if line.endswith("1")] == ["slow begins 1", "slow ends 1"]


@pytest.mark.parametrize("happens", ["killed", "flushed", "expired"])
async def test_the_queue_is_there_again(redis: RedisServer, happens: str) -> None:
    server = Server(redis.url)
    handled: list[bytes] = []

    async def handle(data: bytes) -> None:
        handled.append(data)

    async with running(Tasks(server, keys.CALLS, "a", handle).run()):
        await put(server, keys.CALLS, b"1")
        await until(lambda: handled == [b"1"])
        if happens == "killed":
            await redis.kill()
            await until(lambda: server.is_away)
            await redis.start(with_data=False)
        elif happens == "flushed":
            await redis.ask("FLUSHALL")
        else:
            await redis.ask("DEL", keys.CALLS)
        await server.attempt(lambda: put(server, keys.CALLS, b"2"))
        await until(lambda: b"2" in handled)
    assert handled == [b"1", b"2"]
    await server.close()


async def test_the_queue_goes_as_soon_as_it_is_made(
    redis: RedisServer, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    handled = asyncio.Event()

    async def handle(_: bytes) -> None:
        handled.set()

    run = server.script
    made = 0

    async def emptying(script: Script, *arguments: Any) -> Any:
        nonlocal made
        answer = await run(script, *arguments)
        if script is tasks._MAKE:
            made += 1
            if made == 1:
                await redis.ask("FLUSHALL")
        return answer

    monkeypatch.setattr(server, "script", emptying)
    async with running(Tasks(server, keys.CALLS, "a", handle).run()):
        await until(lambda: made == 2)
        await put(server, keys.CALLS, b"1")
        await handled.wait()


async def test_an_entry_that_can_t_be_handled_is_told_and_passed_over(
    redis: RedisServer, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """It would end one worker after another, since each gets what the one before has left undone."""
    handled: list[bytes] = []

    async def handle(data: bytes) -> None:
        handled.append(data)
        if data == b"1":
            raise CodecError("this is nothing")
        assert data != b"2"

    for data in (b"1", b"2", b"3"):
        await put(server, keys.CALLS, data)
    worker = Tasks(server, keys.CALLS, "a", handle)
    async with running(worker.run()):
        await until(lambda: len(handled) == 3 and not worker._under_way)
    assert await redis.ask("XLEN", keys.CALLS) == 0
    told = [(record.getMessage(), bool(record.exc_info)) for record in caplog.records]
    assert sorted(told) == [
        ("an entry of relay:calls can't be dealt with", True),
        ("an entry of relay:calls can't be read: this is nothing", False),
    ]
