"""Ownership and logs: one owner at a time, and nobody else writes."""

from __future__ import annotations

import asyncio
import time

import pytest

from adk_relay.bus import ownership as ownership_module
from adk_relay.bus.log import FencedError, Log, write_all
from adk_relay.bus.ownership import Owner, Ownership
from adk_relay.bus.server import Server
from support.redis_server import RedisServer, running, until


class Worker:
    """A process that owns conversations."""

    def __init__(self, server: Server, name: str) -> None:
        self.name = name
        self.lost: list[tuple[str, Owner]] = []
        self.ownership = Ownership(server, name, lambda *lost: self.lost.append(lost))

    def log(self, conversation: str = "c", *, max_bytes: int = 10**6, max_age: float = 60.0) -> Log:
        token = self.ownership.held[conversation]
        return Log(conversation, token, self.name, max_bytes=max_bytes, max_age=max_age)


async def test_one_of_many_that_saw_the_same_takes_it(redis: RedisServer, server: Server) -> None:
    workers = [Worker(server, f"worker {number}") for number in range(20)]
    for seen in (0, None):
        before = await workers[0].ownership.find("c")
        if seen is None:
            assert before
            seen = before.token
        for worker in workers:
            worker.ownership.held.clear()
        found = await asyncio.gather(*(worker.ownership.take("c", seen) for worker in workers))
        assert len({*found}) == 1
        assert [worker.name for worker in workers if worker.ownership.held] == [found[0].process]
        assert await workers[0].ownership.find("c") == found[0]
        assert abs(found[0].token / 1000 - time.time()) < 60
        assert not before or found[0].token > before.token


async def test_a_token_rises_also_if_the_clock_goes_back(redis: RedisServer, server: Server) -> None:
    future = 2 * 10**12
    await redis.ask("SET", "relay:c:{c}:owner", f"{future} other", "PX", 60_000)
    a = Worker(server, "a")
    assert await a.ownership.take("c", 0) == (future, "other")
    assert a.ownership.held == {}
    assert await a.ownership.take("c", future) == (future + 1, "a")
    assert await a.ownership.take("c", future) == (future + 1, "a")  # the same again
    await a.ownership.release("c")
    assert await a.ownership.find("c") == (future + 1, "")
    b = Worker(server, "b")
    assert await b.ownership.take("c", 0) == (future + 2, "b")
    assert await a.ownership.is_held("c") is False


async def test_entries_are_there_once_in_order_and_only_of_the_owner(
    redis: RedisServer, server: Server
) -> None:
    a, b = Worker(server, "a"), Worker(server, "b")
    await a.ownership.take("c", 0)
    log = a.log()
    entries = [log.entry(b"%d" % number) for number in range(5)]
    assert await write_all(server, entries[:3]) == []
    assert await write_all(server, entries) == []  # nobody knew whether it had been done
    await b.ownership.take("c", a.ownership.held["c"])
    new = b.log()
    with pytest.raises(FencedError, match="b owns the conversation now") as fenced:
        await log.write(server, b"late")
    a.ownership.lose("c", fenced.value.owner)
    assert a.lost == [("c", fenced.value.owner)] and a.ownership.held == {}
    assert await new.read(server) == [b"%d" % number for number in range(5)]
    await new.write(server, b"5")
    assert await b.log().read(server) == [b"%d" % number for number in range(6)]
    await b.ownership.release("c")
    with pytest.raises(FencedError, match="nobody owns the conversation now"):
        await new.write(server, b"late")


async def test_logs_of_many_conversations_are_written_at_once(redis: RedisServer, server: Server) -> None:
    a, b = Worker(server, "a"), Worker(server, "b")
    names = [f"user/{number}}}{{" for number in range(10)]
    for name in names:
        await a.ownership.take(name, 0)
    await b.ownership.take(names[3], a.ownership.held[names[3]])
    logs = [a.log(name) for name in names]
    fenced = await write_all(server, [log.entry(b"x") for log in logs for _ in range(2)])
    assert fenced == [(logs[3], (b.ownership.held[names[3]], "b"))]
    for name, log in zip(names, logs, strict=True):
        assert await log.read(server) == ([] if name == names[3] else [b"x", b"x"])
    assert await write_all(server, []) == []


async def test_a_log_is_bounded_in_bytes_and_in_age(redis: RedisServer, server: Server) -> None:
    a = Worker(server, "a")
    await a.ownership.take("c", 0)
    log = a.log(max_bytes=10 * (64 + 100))
    for number in range(600):
        await log.write(server, (b"%d" % number).ljust(100))
    kept = [int(each) for each in await a.log().read(server)]
    assert kept == [*range(590, 600)]
    short = a.log(max_age=0.3)
    assert len(await short.read(server)) == 10
    await asyncio.sleep(0.3)
    assert await a.log(max_age=0.3).read(server) == []
    left = await redis.ask("PTTL", "relay:c:{c}:log")
    assert isinstance(left, int) and left > 0


@pytest.mark.parametrize("ahead", [-3600, 3600])
async def test_a_log_is_read_by_the_clock_of_redis(
    redis: RedisServer, server: Server, monkeypatch: pytest.MonkeyPatch, ahead: int
) -> None:
    worker = Worker(server, "a")
    await worker.ownership.take("c", 0)
    await worker.log().write(server, b"1")
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + ahead)
    log = worker.log()
    assert await log.read(server) == [b"1"]
    assert abs(log._kept[0].written_at - time.monotonic()) < 10


async def test_redis_was_emptied_and_two_think_that_they_own_it(redis: RedisServer, server: Server) -> None:
    """The higher token decides, whoever is first to write again."""
    for first in ("old", "new"):
        old, new = Worker(server, "old"), Worker(server, "new")
        await old.ownership.take("c", 0)
        await new.ownership.take("c", old.ownership.held["c"])
        logs = {"old": old.log(), "new": new.log()}
        await redis.ask("FLUSHALL")
        await logs[first].write(server, b"1")
        await logs["new"].write(server, b"2")
        with pytest.raises(FencedError):
            await logs["old"].write(server, b"3")
        assert await new.ownership.is_held("c") and not await old.ownership.is_held("c")
        assert old.lost == [("c", (new.ownership.held["c"], "new"))]
        await redis.ask("FLUSHALL")


async def test_what_is_owned_does_not_expire_and_what_was_lost_is_noticed(
    redis: RedisServer, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ownership_module, "_RENEW_SECONDS", 0.2)
    monkeypatch.setattr(ownership_module, "EXPIRY_MS", 1000)
    monkeypatch.setattr(ownership_module, "_AT_ONCE", 2)
    a, b = Worker(server, "a"), Worker(server, "b")
    for number in range(5):
        await a.ownership.take(f"{number}", 0)
    async with running(a.ownership.run()):
        await asyncio.sleep(1.2)
        assert [await b.ownership.take(f"{number}", 0) for number in range(5)] == [
            (token, "a") for token in a.ownership.held.values()
        ]
    await b.ownership.take("3", a.ownership.held["3"])
    monkeypatch.setattr(ownership_module, "_RENEW_SECONDS", 600)
    async with running(a.ownership.run()):
        a.ownership.renew()
        await until(lambda: "3" not in a.ownership.held)
    assert a.lost == [("3", (b.ownership.held["3"], "b"))]
