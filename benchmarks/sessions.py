"""Voice sessions at the same time: CPU, latency, memory; and sockets on which nothing happens."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from websockets.asyncio.client import ClientConnection

from benchmarks.load import Answer, ask, open_client, speak
from benchmarks.processes import Server, run_server
from benchmarks.report import Row, percentile
from benchmarks.sound import CHUNKS_PER_S


@dataclass
class Crowd:
    """What a number of voice sessions took; a value for each round."""

    cpu: list[float] = field(default_factory=list)  # of one core, for each session
    p50: list[float] = field(default_factory=list)  # ms
    p99: list[float] = field(default_factory=list)
    kib: float = 0  # for each session, in the first round: a process keeps the memory it has had


async def sessions(env: dict[str, str], quick: bool) -> list[Row]:
    """10 and 40 voice sessions in real time, and idle sockets."""
    rounds, seconds, counts, idle = (1, 1.5, (10, 40), 50) if quick else (3, 4.0, (10, 40), 200)
    crowds = {(app, count): Crowd() for count in counts for app in ("relay", "direct")}
    # A process for each, so that the memory is its own.
    with run_server(env) as relay, run_server(env) as direct, run_server(env) as bare:
        servers = {"relay": relay, "direct": direct}
        idle_relay, idle_bare = await _idle(relay, "relay", idle), await _idle(bare, "bare", idle)
        for app, server in servers.items():
            await _speak_and_listen(server, app, 3, 0.2, Crowd())  # warms it up
        for _ in range(rounds):
            for (app, count), crowd in reversed(crowds.items()):  # the large one first, for its memory
                await _speak_and_listen(servers[app], app, count, seconds, crowd)
    rows = []
    for count in counts:
        ours, others = crowds["relay", count], crowds["direct", count]
        rows += [
            Row(f"{count} sessions, CPU", ours.cpu, "direct", others.cpu, "{:.2%} of a core each"),
            Row(f"{count} sessions, latency p50", ours.p50, "direct", others.p50, "{:.2f} ms"),
            Row(f"{count} sessions, latency p99", ours.p99, "direct", others.p99, "{:.2f} ms"),
        ]
    most = max(counts)
    ours, others = crowds["relay", most], crowds["direct", most]
    return [
        *rows,
        Row(f"memory of a session, of {most}", [ours.kib], "direct", [others.kib], "{:.0f} KiB"),
        Row(f"memory of an idle socket, of {idle}", [idle_relay], "bare", [idle_bare], "{:.0f} KiB"),
    ]


async def _speak_and_listen(server: Server, app: str, count: int, seconds: float, crowd: Crowd) -> None:
    """So many voice sessions that speak and listen at the pace of real sound."""
    settle = 0.5
    empty = server.uss()
    length = seconds + settle + 0.5
    chunks = round(length * CHUNKS_PER_S)

    async def talk(number: int, client: ClientConnection) -> Answer:
        await asyncio.sleep(number / count / CHUNKS_PER_S)  # not all at the same moment
        speaking = asyncio.create_task(speak(client, 40, length, pace=1, base64_=False))
        answer = await ask(client, stamps=True, chunks=chunks, every=1 / CHUNKS_PER_S)
        await speaking
        return answer

    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(open_client(server, app, f"{app}-{number}"))
            for number in range(count)
        ]
        await asyncio.sleep(0.5)  # the model's connections are opened meanwhile
        talks = [asyncio.create_task(talk(number, client)) for number, client in enumerate(clients)]
        await asyncio.sleep(settle)
        begin, before = time.monotonic(), server.cpu()
        await asyncio.sleep(seconds)
        end, after = time.monotonic(), server.cpu()
        crowd.kib = crowd.kib or (server.uss() - empty) / 1024 / count
        answers = await asyncio.gather(*talks)
    delays = [delay for answer in answers for delay in answer.delays_between(begin, end)]
    crowd.cpu.append((after - before) / (end - begin) / count)
    crowd.p50.append(percentile(delays, 50))
    crowd.p99.append(percentile(delays, 99))
    await asyncio.sleep(0.5)


async def _idle(server: Server, app: str, count: int) -> float:
    """KiB that an idle socket takes."""
    async with AsyncExitStack() as stack:

        async def open_clients(some: int) -> None:
            for number in range(some):
                opening = open_client(server, app, f"idle-{some}-{number}", audio=False)
                await stack.enter_async_context(opening)

        await open_clients(10)
        await asyncio.sleep(0.2)
        empty = server.uss()
        await open_clients(count)
        await asyncio.sleep(0.5)
        return (server.uss() - empty) / 1024 / count
