"""Leases: a death is noticed within 3 s, and a Redis that was away is none."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from adk_relay.bus import keys
from adk_relay.bus import lease as lease_module
from adk_relay.bus.lease import Lease, Watcher
from adk_relay.bus.log import Log
from adk_relay.bus.ownership import Ownership
from adk_relay.bus.server import Server
from support.process import Process, process
from support.proxy import network
from support.redis_server import RedisServer, running, until
from support.server import ROOT

PROGRAM = Path(__file__).with_name("owner_program.py")


@asynccontextmanager
async def owner_process(redis: RedisServer, folder: Path, name: str) -> AsyncIterator[Process]:
    command = [sys.executable, str(PROGRAM), redis.url, name]
    async with process(command, folder, {"PYTHONPATH": str(ROOT)}) as owner:
        await owner.says("owns True")
        await owner.says("writes")
        yield owner


class Watching:
    """A process that watches others, and keeps when they died."""

    def __init__(self, server: Server) -> None:
        self.deaths: dict[str, float] = {}
        self.planned: list[str] = []
        """Those that were stopped by plan."""
        self.lost = 0
        self.lease = Lease(server, "watching", self._lose)
        self.watcher = Watcher(server, self.lease, self._note)

    def _note(self, process: str, is_planned: bool) -> None:
        assert process not in self.deaths
        if is_planned:
            self.planned.append(process)
        self.deaths[process] = time.monotonic()

    def _lose(self) -> None:
        self.lost += 1


async def test_a_killed_process_is_noticed_within_3_s_and_a_stopped_owner_that_comes_back_writes_nothing(
    redis: RedisServer, server: Server, tmp_path: Path
) -> None:
    me = Watching(server)
    ownership = Ownership(server, "watching", lambda *_: None)
    async with (
        owner_process(redis, tmp_path, "stopped") as stopped,
        process(
            [sys.executable, PROGRAM, redis.url, "killed"], tmp_path, {"PYTHONPATH": str(ROOT)}
        ) as killed,
        running(me.lease.run(), me.watcher.run()),
    ):
        await killed.says("fenced by stopped")  # it found the owner that is there
        seen = await ownership.find("c")
        assert seen and seen.process == "stopped"
        me.watcher.watch("stopped")
        await until(lambda: me.lease.is_undisturbed)
        assert me.deaths == {}
        began = time.monotonic()
        stopped.pause()
        await until(lambda: "stopped" in me.deaths)
        assert me.deaths["stopped"] - began < 3.0
        assert me.planned == []

        owner = await ownership.take("c", seen.token)
        assert owner.process == "watching" and owner.token > seen.token
        log = Log("c", owner.token, "watching", max_bytes=10**6, max_age=60)
        before = await log.read(server)
        assert before == [b"%d" % (n + 1) for n in range(len(before))] and len(before) >= 10
        stopped.go_on()
        await stopped.says("fenced by watching")
        await stopped.says("ownership lost")
        await stopped.says("holds False")
        await log.write(server, b"mine")
        assert await log.read(server) == [*before, b"mine"]
        await ownership.release("c")
    await me.lease.release()


@pytest.fixture
def quick_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases that run out sooner."""
    monkeypatch.setattr(lease_module, "_LEASE_MS", 500)
    monkeypatch.setattr(lease_module, "_EXTEND_SECONDS", 0.2)
    monkeypatch.setattr(lease_module, "_DOUBT_SECONDS", 0.6)


@pytest.mark.usefixtures("quick_leases")
async def test_a_process_that_stays_or_leaves(redis: RedisServer, server: Server) -> None:
    me = Watching(server)
    stays, leaves = Lease(server, "stays"), Lease(server, "leaves")
    async with running(me.lease.run(), me.watcher.run(), stays.run()):
        async with running(leaves.run()):
            await leaves.is_taken.wait()
            me.watcher.watch("leaves")
            me.watcher.watch("stays")
            await until(lambda: me.lease.is_undisturbed)
        await leaves.release()
        await until(lambda: "leaves" in me.deaths)
        assert [*me.deaths] == me.planned == ["leaves"]
    await me.lease.release()


async def test_a_process_that_comes_back_while_it_is_looked_at_is_not_dead(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lease had run out. It extends it, and sends something, before the look at it has ended."""
    me = Watching(server)
    run, late, heard = server.run, Lease(server, "late"), asyncio.Event()

    async def run_and_hear(*command: Any, **options: Any) -> Any:
        if command[0] == "EXISTS" and not heard.is_set():
            await late._extend()
            me.watcher.heard("late")
            heard.set()
        return await run(*command, **options)

    async with running(me.lease.run()):
        await until(lambda: me.lease.is_undisturbed)
        monkeypatch.setattr(server, "run", run_and_hear)
        async with running(me.watcher.run()):
            me.watcher.watch("late")
            await heard.wait()
            await late.release()  # it is still watched
            await until(lambda: "late" in me.deaths)
            assert me.planned == ["late"]
    await me.lease.release()


@pytest.mark.usefixtures("quick_leases")
async def test_redis_away_or_emptied_is_no_death(redis: RedisServer, server: Server) -> None:
    """All leases run out at once, and each process extends its own when it can."""
    me = Watching(server)
    others = [Lease(server, f"other {number}") for number in range(3)]
    async with running(me.lease.run(), me.watcher.run(), *(each.run() for each in others)):
        for other in others:
            me.watcher.watch(other.process)
        await until(lambda: me.lease.is_undisturbed)

        for happens in ("emptied", "paused", "killed"):
            lost = me.lost
            if happens == "emptied":
                await redis.ask("FLUSHALL")
            elif happens == "paused":
                redis.pause()
                await asyncio.sleep(1.0)
                redis.go_on()
            else:
                await redis.kill()
                await asyncio.sleep(0.6)
                await redis.start(with_data=False)
            await until(lambda lost=lost: me.lost > lost)  # type: ignore[misc]
            await until(lambda: me.lease.is_undisturbed)
            assert me.deaths == {}, happens

        # One that is slower than this process to extend its lease.
        key = keys.lease("slow")
        await redis.ask("SET", key, "1", "PX", 300)
        me.watcher.watch("slow")
        await until(lambda: me.watcher._due["slow"] > time.monotonic())
        lost = me.lost
        await redis.ask("FLUSHALL")
        await until(lambda: me.lost > lost)
        await asyncio.sleep(0.4)
        await redis.ask("SET", key, "1", "PX", 300)
        assert me.deaths == {}
        await until(lambda: "slow" in me.deaths)
    for each in (me.lease, *others):
        await each.release()


@pytest.mark.usefixtures("quick_leases")
async def test_who_is_cut_off_is_dead_to_the_others_and_learns_of_it(
    redis: RedisServer, server: Server
) -> None:
    me = Watching(server)
    async with network(redis.port, is_http=False) as (between, port):
        far = Server(f"redis://127.0.0.1:{port}")
        lost = asyncio.Event()
        lease = Lease(far, "far", lost.set)
        async with running(me.lease.run(), me.watcher.run(), lease.run()):
            me.watcher.watch("far")
            await until(lambda: me.lease.is_undisturbed)
            began = time.monotonic()
            between.cut()
            await until(lambda: "far" in me.deaths)
            assert me.deaths["far"] - began < 3.0
            assert not lost.is_set()
            between.mend()
            await lost.wait()
        await lease.release()
        await far.close()
    await me.lease.release()
    assert me.lost == 0
