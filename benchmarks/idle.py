"""Many conversations through a bus: the memory of idle ones, and how the cost grows with their number."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from websockets.asyncio.client import ClientConnection

from benchmarks.load import open_client, order
from benchmarks.processes import Lab
from benchmarks.report import Row
from benchmarks.spread import Spread, spread

CONVERSATIONS, SOCKETS = 1000, 2000

LIMIT = 12.0
"""KiB of a web process for a conversation, beyond what its sockets take in any process."""

FEW = 100
"""Conversations that 1,000 are compared with."""

RATE = 300
"""Chunks a second, of all conversations together."""

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
    """CPU time for a chunk of sound, with 100 conversations and with 1,000, at the same rate of chunks.

    Both are measured at the same time. What idle conversations take is subtracted, and has rows of its own.
    """
    seconds, rounds = (4.0, 3) if lab.quick else (10.0, 5)
    setups = lab.model.setups()
    async with AsyncExitStack() as stack:
        crowds = {
            count: await stack.enter_async_context(_crowd(lab, count)) for count in (FEW, CONVERSATIONS)
        }
        await lab.set_up(setups + FEW + CONVERSATIONS)
        await asyncio.sleep(5)  # until all that begins has begun
        at_rest = await _windows(crowds, seconds, rounds)
        talking = [asyncio.create_task(crowd.talk()) for crowd in crowds.values()]
        while not all(crowd.has_begun for crowd in crowds.values()):
            await asyncio.sleep(0.1)
        busy = await _windows(crowds, seconds, rounds)
        for task in talking:
            task.cancel()
        await asyncio.gather(*talking, return_exceptions=True)
    rows = []
    for name in ("web", "redis", "worker"):
        each = {
            count: [
                (window.cpu[name] - rest.cpu[name]) / window.chunks * 1e6
                for window, rest in zip(busy[count], at_rest[count], strict=True)
            ]
            for count in crowds
        }
        what = f"growth: a chunk with {CONVERSATIONS:,} conversations, {name}"
        rows.append(Row(what, each[CONVERSATIONS], f"with {FEW}", each[FEW], "{:.0f} µs", 1.25))
        idle = {count: [window.cpu[name] / seconds * 1000 for window in at_rest[count]] for count in crowds}
        what = f"growth: {CONVERSATIONS:,} idle conversations, {name}"
        rows.append(Row(what, idle[CONVERSATIONS], f"{FEW}", idle[FEW], "{:.1f} ms a second"))
    return rows


@dataclass
class _Window:
    """What was used in some seconds."""

    cpu: dict[str, float]  # seconds, by the kind of process
    chunks: int  # that came


@dataclass
class _Crowd:
    """Conversations that get chunks all the time, one after another."""

    server: Spread
    clients: list[ClientConnection]
    chunks: int = 0
    begun: int = 0

    @property
    def has_begun(self) -> bool:
        return self.begun == len(self.clients)

    async def talk(self) -> None:
        """Each gets chunks until this is cancelled."""
        await asyncio.gather(*(self._listen(*numbered) for numbered in enumerate(self.clients)))

    async def _listen(self, number: int, client: ClientConnection) -> None:
        every = len(self.clients) / RATE
        await asyncio.sleep(number * 0.02)  # each begins with a turn, which takes some milliseconds
        await client.send(order(chunks=100_000, every=every))
        has_begun = False
        async for frame in client:
            if isinstance(frame, bytes):
                self.chunks += 1
                self.begun += not has_begun
                has_begun = True

    def used(self) -> dict[str, float]:
        return {name.partition("-")[0]: cpu for name, cpu in self.server.cpu_by_part().items()}


@asynccontextmanager
async def _crowd(lab: Lab, count: int) -> AsyncIterator[_Crowd]:
    with spread(lab, RELAY_MAX_CONVERSATIONS="0") as server:
        async with _sockets(server, count, count, audio=True) as clients:
            yield _Crowd(server, clients)


async def _windows(crowds: dict[int, _Crowd], seconds: float, rounds: int) -> dict[int, list[_Window]]:
    found: dict[int, list[_Window]] = {count: [] for count in crowds}
    for _ in range(rounds):
        before = {count: (crowd.used(), crowd.chunks) for count, crowd in crowds.items()}
        await asyncio.sleep(seconds)
        for count, crowd in crowds.items():
            used, chunks = before[count]
            cpu = {name: after - used[name] for name, after in crowd.used().items()}
            found[count].append(_Window(cpu, crowd.chunks - chunks))
    return found


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
