"""The kinds of Redis that a URL can name, and what its commands do when they are cut short."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path

import pytest
import trustme

from adk_relay.bus import keys
from adk_relay.bus.inbox import Inbox
from adk_relay.bus.link import Link
from adk_relay.bus.log import Log, write_all
from adk_relay.bus.ownership import Ownership
from adk_relay.bus.packs import Item
from adk_relay.bus.server import AwayError, Script, Server
from adk_relay.bus.tasks import Tasks, put
from support.ports import free_port
from support.redis_many import sentinel
from support.redis_server import RedisServer, redis_server, running, until


async def all_works(server: Server) -> None:
    """Each part of the bus does its work on this server."""
    items: list[Item] = []
    handled: list[bytes] = []

    async def handle(data: bytes) -> None:
        handled.append(data)

    inbox = Inbox(server, "web", lambda _, some: items.extend(some), lambda _: None)
    link = Link(server, "worker", "web")
    ownership = Ownership(server, "worker", lambda *_: None)
    async with running(inbox.run(), link.run(), Tasks(server, keys.CLAIMS, "worker", handle).run()):
        await inbox.is_made.wait()
        link.send("c", 1, "", b"hello")
        await put(server, keys.CLAIMS, b"claim")
        logs: list[Log] = []
        for number in range(20):  # of a cluster, they are in several slots
            owner = await ownership.take(f"{number}", 0)
            logs.append(Log(f"{number}", owner.token, "worker", max_bytes=10**6, max_age=60))
        assert await write_all(server, [log.entry(b"1") for log in logs]) == []
        assert [await log.read(server) for log in logs] == [[b"1"]] * 20
        await until(lambda: len(items) == len(handled) == 1)
    await inbox.close()
    for number in range(20):
        await ownership.release(f"{number}")


async def test_a_cluster() -> None:
    async with redis_server("--cluster-enabled", "yes") as redis:
        await redis.ask("CLUSTER", "ADDSLOTSRANGE", 0, 16383)

        async def is_ready() -> bool:
            return b"cluster_state:ok" in bytes(str(await redis.ask("CLUSTER", "INFO")), "ascii")

        await until(is_ready)
        changes: list[bool] = []
        server = Server(f"redis+cluster://127.0.0.1:{free_port()},127.0.0.1:{redis.port}", changes.append)
        await all_works(server)
        assert await redis.stays() == []
        assert await redis.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        assert await server.attempt(lambda: server.run("GET", "x")) is None
        assert server.is_away is False
        changes.clear()
        await redis.kill()
        with pytest.raises(AwayError):
            await server.run("GET", "x")
        assert changes == [True]
        await server.close()


async def test_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    port = free_port()
    async with redis_server(
        *("--tls-port", str(port), "--tls-auth-clients", "no"),
        *("--tls-cert-file", str(tmp_path / "cert.pem"), "--tls-key-file", str(tmp_path / "key.pem")),
    ):
        server = Server(f"rediss://127.0.0.1:{port}/3?ssl_ca_certs={tmp_path / 'ca.pem'}")
        await all_works(server)
        await server.close()
        stranger = Server(f"rediss://127.0.0.1:{port}")
        with pytest.raises(AwayError, match="certificate"):
            await stranger.run("PING")
        await stranger.close()


async def test_sentinels_name_the_master_and_a_failover_loses_nothing(tmp_path: Path) -> None:
    async with sentinel(tmp_path, "p@ss") as servers:
        await no_cancellation_is_lost(servers.url)
        server = Server(servers.url)
        await all_works(server)
        numbers: list[int] = []
        inbox = Inbox(
            server,
            "web",
            lambda _, items: numbers.extend(int(item.content) for item in items),
            lambda _: None,
        )
        link = Link(server, "worker", "web")
        async with running(inbox.run(), link.run()):
            await inbox.is_made.wait()
            await servers.master.kill()
            for number in range(10):
                link.send("c", 1, "", b"%d" % number)
                await asyncio.sleep(0.02)
            await until(lambda: len(numbers) == 10)
        assert numbers == [*range(10)]
        await server.close()
        assert await servers.replica.stays() == []


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://127.0.0.1", "a bus begins with redis://"),
        ("redis", "a bus begins with redis://"),
        ("redis+sentinel://a,b", "a bus with sentinels is redis"),
        ("redis+sentinel://a,b/service/x", "a bus with sentinels is redis"),
        ("redis+cluster://a,,b", "'' is no host"),
        ("redis://127.0.0.1:port", "port"),
        ("redis://127.0.0.1/0?socket_timeout=x", "socket_timeout"),
    ],
)
async def test_urls_that_cant_be_used(url: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Server(url)


async def test_more_commands_than_connections(redis: RedisServer, server: Server) -> None:
    assert await asyncio.gather(*(server.run("ECHO", f"{n}") for n in range(500))) == [
        b"%d" % n for n in range(500)
    ]


@pytest.mark.parametrize("is_connected", [True, False])
async def test_a_command_that_is_cancelled_anywhere_leaves_no_broken_connection(
    redis: RedisServer, is_connected: bool
) -> None:
    cancelled = 0
    for steps in range(30):
        server = Server(redis.url)
        if is_connected:
            await server.run("PING")
        task = asyncio.create_task(server.run("ECHO", "cancelled"))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        cancelled += task.cancelled()
        assert await server.run("ECHO", "hello") == b"hello"
        await server.close()
    assert cancelled > 3
    gc.collect()  # connections that were not closed are warned of


async def no_cancellation_is_lost(url: str) -> None:
    """In Python 3.11 `asyncio.wait_for`, which redis-py uses, loses one that comes when it is done."""

    async def for_ever(server: Server) -> None:
        while True:
            await server.attempt(lambda: server.run("ECHO", "hello"))

    for steps in range(40):
        server = Server(url)
        task = asyncio.create_task(for_ever(server))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        async with asyncio.timeout(20):
            await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
        await server.close()


async def test_a_cancellation_is_not_lost(redis: RedisServer) -> None:
    await no_cancellation_is_lost(redis.url)


async def test_a_server_that_can_t_work_now_is_away(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    changes: list[bool] = []
    server = Server(redis.url, changes.append)
    await redis.ask("CONFIG", "SET", "maxmemory", 1)
    with pytest.raises(AwayError, match="OutOfMemory"):
        await server.run("SET", "x", "1", "PX", 1000)
    with pytest.raises(AwayError):
        await Ownership(server, "a", lambda *_: None).take("c", 0)
    await redis.ask("CONFIG", "SET", "maxmemory", 0)
    await redis.ask("CONFIG", "SET", "min-replicas-to-write", 1)
    with pytest.raises(AwayError):
        await server.run("SET", "x", "1", "PX", 1000)
    await redis.ask("CONFIG", "SET", "min-replicas-to-write", 0)
    await server.run("SET", "x", "1", "PX", 1000)
    await redis.ask("CONFIG", "SET", "busy-reply-threshold", 50)
    # A script of somebody else takes long.
    script = "local t = redis.call('TIME')[1] while redis.call('TIME')[1] - t < 2 do end"
    long = asyncio.create_task(redis.ask("EVAL", script, 0))
    await asyncio.sleep(0.3)
    with pytest.raises(AwayError, match="BUSY"):
        await server.run("PING")
    await long
    async with server.reader() as read:  # the master becomes a replica
        reading = asyncio.ensure_future(read("XREAD", "BLOCK", 10_000, "STREAMS", "y", "0"))
        await asyncio.sleep(0.3)
        await redis.ask("REPLICAOF", "127.0.0.1", free_port())
        with pytest.raises(AwayError, match="UNBLOCKED"):
            await reading
    await redis.ask("REPLICAOF", "NO", "ONE")
    await server.run("PING")
    assert changes[0] and not changes[-1]
    assert caplog.messages[0].startswith("Redis is away: OutOfMemoryError: command not allowed")
    await server.close()


async def test_connections_that_were_closed_meanwhile_are_not_used(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Redis is back, and all commands work at once: also those that get a connection from before."""
    changes: list[bool] = []
    server = Server(redis.url, changes.append)

    async def many() -> None:
        await asyncio.gather(*(server.run("ECHO", f"{number}") for number in range(20)))

    await many()
    await redis.kill()
    await redis.start()
    await many()
    await many()
    assert changes == []
    await server.close()


async def test_scripts_in_one_round_trip(redis: RedisServer, server: Server) -> None:
    script = Script("return {KEYS[1], ARGV[1]}")
    for _ in range(2):  # the first time, the server does not know it
        found = await server.scripts(script, [([f"k{n}"], [n]) for n in range(3)])
        assert found == [[b"k%d" % n, b"%d" % n] for n in range(3)]
    await redis.ask("SCRIPT", "FLUSH")
    assert await server.scripts(script, [(["k"], [1])]) == [[b"k", b"1"]]
    with pytest.raises(Exception, match="wrong"):
        await server.scripts(Script("return redis.error_reply('wrong')"), [(["k"], [])] * 2)
