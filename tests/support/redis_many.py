"""Several Redis servers that belong together: a master with a replica and a sentinel, and a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from support.ports import free_port
from support.redis_server import RedisServer, redis_server, until

_SLOTS = 16384


@dataclass
class Watched:
    """A master, its replica, and a sentinel that knows both as the service `relay`."""

    master: RedisServer
    replica: RedisServer
    url: str
    """Of the sentinels. The first one is down."""


@asynccontextmanager
async def sentinel(folder: Path, password: str) -> AsyncIterator[Watched]:
    """A master that the replica follows within less than a second if it is killed."""
    at_once = "--repl-diskless-sync-delay", "0"
    async with (
        redis_server(*at_once, password=password) as master,
        redis_server(password=password) as replica,
    ):
        await replica.ask("REPLICAOF", "127.0.0.1", master.port)
        settings = folder / "sentinel.conf"
        settings.write_text(
            f"sentinel monitor relay 127.0.0.1 {master.port} 1\n"
            f"sentinel auth-pass relay {password}\n"
            "sentinel down-after-milliseconds relay 300\n"
            "sentinel failover-timeout relay 1000\n"
        )
        watcher = RedisServer(folder)
        await watcher.start(str(settings), "--sentinel")

        async def is_copied() -> bool:
            return "'state': 'online'" in str(await master.ask("INFO", "replication"))

        async def is_known() -> bool:
            return str(replica.port) in str(await watcher.ask("SENTINEL", "REPLICAS", "relay"))

        try:
            await until(is_copied)
            await until(is_known)
            secret = password.replace("@", "%40")
            hosts = f"127.0.0.1:{free_port()},127.0.0.1:{watcher.port}"
            yield Watched(master, replica, f"redis+sentinel://:{secret}@{hosts}/relay/0")
        finally:
            await watcher.kill()


class Cluster:
    """Three masters without replicas."""

    def __init__(self, nodes: list[RedisServer]) -> None:
        self.nodes = nodes

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    async def keys(self) -> list[tuple[int, int, bytes]]:
        """The keys of relay, with the node and the slot of each."""
        found: list[tuple[int, int, bytes]] = []
        for number, node in enumerate(self.nodes):
            keys = await node.ask("KEYS", "relay:*")
            assert isinstance(keys, list)
            for key in keys:
                slot = await node.ask("CLUSTER", "KEYSLOT", key)
                assert isinstance(slot, int)
                found.append((number, slot, key))
        return found

    async def move(self, slot: int, source: int) -> None:
        """Moves a slot to the next node, as `redis-cli --cluster reshard` does."""
        here, there = self.nodes[source], self.nodes[(source + 1) % len(self.nodes)]
        ids = [(await node.ask("CLUSTER", "MYID")) for node in (here, there)]
        here_id, there_id = (each.decode() if isinstance(each, bytes) else str(each) for each in ids)
        await there.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", here_id)
        await here.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", there_id)
        while keys := await here.ask("CLUSTER", "GETKEYSINSLOT", slot, 10):
            assert isinstance(keys, list)
            await here.ask("MIGRATE", "127.0.0.1", there.port, "", 0, 5000, "KEYS", *keys)
        for node in (there, here, *self.nodes):
            await node.ask("CLUSTER", "SETSLOT", slot, "NODE", there_id)


@asynccontextmanager
async def cluster() -> AsyncIterator[Cluster]:
    """Three masters that share the slots."""
    async with AsyncExitStack() as stack:
        # The port among themselves would be 10,000 higher: somebody may have that one.
        among = [free_port() for _ in range(3)]
        starting = (redis_server("--cluster-enabled", "yes", "--cluster-port", str(port)) for port in among)
        nodes = await asyncio.gather(*(stack.enter_async_context(each) for each in starting))
        for number, node in enumerate(nodes):
            first, last = _SLOTS * number // 3, _SLOTS * (number + 1) // 3 - 1
            await node.ask("CLUSTER", "ADDSLOTSRANGE", first, last)
            await node.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            await node.ask("CLUSTER", "MEET", "127.0.0.1", nodes[0].port, among[0])

        async def is_ready() -> bool:
            told = [str(await node.ask("CLUSTER", "INFO")) for node in nodes]
            return all("cluster_state:ok" in each and "cluster_known_nodes:3" in each for each in told)

        await until(is_ready)
        yield Cluster([*nodes])
