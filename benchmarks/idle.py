"""Many conversations through a bus: the memory of idle ones, and how the cost grows with their number."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from websockets.asyncio.client import ClientConnection

from benchmarks.load import ask, open_client
from benchmarks.processes import Lab
from benchmarks.report import Row
from benchmarks.spread import Spread, spread

CONVERSATIONS, SOCKETS = 1000, 2000

LIMIT = 12.0
"""KiB of a web process for a conversation, beyond what its sockets take in any process."""

RATE = 400
"""Chunks a second, of all conversations together: so many that the processes have enough to do."""

_AT_ONCE = 25


async def idle(lab: Lab) -> list[Row]:
    """What a conversation takes in a web process, when it is idle and has two sockets.

    The same number of sockets without a bus, all in one conversation, says what a socket takes.
    """
    web: list[float] = []
    sockets: list[float] = []
    for _ in range(1 if lab.quick else 3):
        sockets.append(await _memory(lab, "alone", conversations=1))
        web.append(await _memory(lab, "web-0", conversations=CONVERSATIONS))
    beyond = [all_of_it - of_sockets for all_of_it, of_sockets in zip(web, sockets, strict=True)]
    what, unit = "idle: a conversation with two sockets, of 1,000 in a web process", "{:.1f} KiB"
    return [
        Row(what, web, "two sockets in a process without a bus", sockets, unit),
        Row("idle: the same, beyond its sockets", beyond, "limit", [LIMIT] * len(beyond), unit, 1.0),
    ]


async def _memory(lab: Lab, name: str, conversations: int) -> float:
    """KiB that the sockets take, for each conversation of `CONVERSATIONS`."""
    with spread(lab, workers=int(name != "alone"), RELAY_MAX_CONVERSATIONS="0") as server:
        part = server.part(name)
        async with _sockets(server, 50, 25):  # what the first ones load is not theirs
            pass
        await asyncio.sleep(1)
        empty = part.uss()
        async with _sockets(server, SOCKETS, conversations):
            await asyncio.sleep(3)
            return (part.uss() - empty) / 1024 / CONVERSATIONS


async def growth(lab: Lab) -> list[Row]:
    """CPU time for a chunk of sound, with 100 conversations and with 1,000, at the same rate of chunks."""
    used: dict[int, dict[str, list[float]]] = {}
    seconds, rounds = (5.0, 2) if lab.quick else (10.0, 5)
    async with AsyncExitStack() as stack:
        # Both at once, in turns: what else the machine does is then the same.
        crowds: dict[int, tuple[Spread, list[ClientConnection]]] = {}
        for count in (100, 1000):
            server = stack.enter_context(spread(lab, RELAY_MAX_CONVERSATIONS="0"))
            clients = await stack.enter_async_context(_sockets(server, count, count, audio=True))
            crowds[count] = server, clients
            used[count] = {}
        for number in range(1 + rounds):
            for count, (server, clients) in crowds.items():
                before = server.cpu_by_part()
                chunks = await _talk(clients, seconds if number else 1.0)
                for name, cpu in server.cpu_by_part().items() if number else ():
                    values = used[count].setdefault(name.partition("-")[0], [])
                    values.append((cpu - before[name]) / chunks * 1e6)
    return [
        Row(
            f"growth: a chunk with 1,000 conversations, {name}",
            used[1000][name],
            "with 100",
            used[100][name],
            "{:.0f} µs",
            1.25,
        )
        for name in used[100]
    ]


async def _talk(clients: list[ClientConnection], seconds: float) -> int:
    """All get chunks at the same time, one after another; returns how many."""
    every = len(clients) / RATE
    chunks = max(1, round(seconds / every))

    async def listen(number: int, client: ClientConnection) -> None:
        await asyncio.sleep(number / len(clients) * every)
        await ask(client, chunks=chunks, every=every)

    await asyncio.gather(*(listen(*numbered) for numbered in enumerate(clients)))
    return chunks * len(clients)


@asynccontextmanager
async def _sockets(
    server: Spread, count: int, conversations: int, *, audio: bool = False
) -> AsyncIterator[list[ClientConnection]]:
    """So many sockets, evenly in so many conversations."""
    clients: list[ClientConnection] = []
    async with AsyncExitStack() as stack:
        for start in range(0, count, _AT_ONCE):
            numbers = range(start, min(start + _AT_ONCE, count))
            opening = [
                open_client(server, "relay", f"idle-{number % conversations}", audio=audio)
                for number in numbers
            ]
            opened = await asyncio.gather(*map(stack.enter_async_context, opening))
            clients += opened
            for client in opened:
                stack.callback(client.transport.abort)  # quicker than so many closes
        yield clients
