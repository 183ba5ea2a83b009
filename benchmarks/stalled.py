"""A client that stops reading: what it costs the others, and the server's memory."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from statistics import median
from typing import Any

from websockets.exceptions import ConnectionClosed

from benchmarks.load import ask, open_client
from benchmarks.processes import SEND_BUFFER, Lab, Server
from benchmarks.report import Row, percentile
from benchmarks.sound import CHUNKS_PER_S

MIB = 1024 * 1024


@dataclass
class Outcome:
    """What happened while the ninth client stopped reading; or while it read, for comparison."""

    p99: float = 0  # latency of the eight others, ms
    growth: float = 0  # of the server's memory, MiB
    closed: float = float("inf")  # seconds from when the client stopped reading until relay closed its socket


async def stalled(lab: Lab) -> list[Row]:
    """One client of nine stops reading."""
    slow_timeout, bound = (2.0, MIB) if lab.quick else (10.0, 4 * MIB)
    settings: dict[str, Any] = {"slow_timeout": slow_timeout, "queue_bytes": bound}
    settings["replay_bytes"] = 0  # what is kept for sockets that come back takes memory even if all read
    reads: list[Outcome] = []
    stalls: list[Outcome] = []
    for number in range(1 if lab.quick else 2):
        # A new process each time: what memory it has had, a process does not ask for again.
        for is_stalled, outcomes in ((False, reads), (True, stalls)):
            with lab.new_server("relay", send_buffer=SEND_BUFFER, **settings) as server:
                user = f"{number}-{is_stalled}"
                outcomes.append(await _nine(server, user, stalls=is_stalled, seconds=slow_timeout + 0.5))
    rounds = len(stalls)
    read = median(outcome.growth for outcome in reads)
    return [
        Row(
            "stalled: one of nine stalled: the others' p99",
            [outcome.p99 for outcome in stalls],
            "it reads",
            [outcome.p99 for outcome in reads],
            "{:.2f} ms",
            1.2,
        ),
        Row(
            "stalled: memory growth meanwhile",
            [outcome.growth for outcome in stalls],
            f"(it reads: {read:.1f} MiB) bound + 1 MiB",
            [bound / MIB + 1] * rounds,
            "{:.1f} MiB",
            1.0,
        ),
        Row(
            "stalled: until its socket is closed",
            [outcome.closed for outcome in stalls],
            "slow_timeout",
            [slow_timeout] * rounds,
            "{:.1f} s",
        ),
    ]


async def _nine(server: Server, user: str, *, stalls: bool, seconds: float) -> Outcome:
    """Eight clients at the pace of real sound, and a ninth that gets it twenty times as fast."""
    outcome = Outcome()
    async with AsyncExitStack() as stack:
        others = [
            await stack.enter_async_context(open_client(server, "relay", f"{user}-{number}"))
            for number in range(8)
        ]
        ninth = await stack.enter_async_context(open_client(server, "relay", f"{user}-ninth", narrow=stalls))
        await asyncio.sleep(0.5)
        chunks = round((seconds + 4) * CHUNKS_PER_S)
        fast = CHUNKS_PER_S * 20
        asking = [
            asyncio.create_task(ask(client, stamps=True, chunks=chunks, every=1 / CHUNKS_PER_S))
            for client in others
        ]
        await ask(ninth, chunks=fast, every=1 / fast)  # a second, in which the process gets its usual memory
        begin, rss = time.monotonic(), server.rss()
        if stalls:
            ninth.transport.pause_reading()
        flooded = asyncio.create_task(ask(ninth, chunks=round((seconds + 1) * fast), every=1 / fast))
        while time.monotonic() - begin < seconds + 1.5:
            await asyncio.sleep(0.05)
            outcome.growth = max(outcome.growth, (server.rss() - rss) / MIB)
            # Asked whether the client stalls or not, or the latencies could not be compared.
            health = await asyncio.to_thread(server.get, "/health")
            if health["websocket_connections"] == len(others) and outcome.closed == float("inf"):
                outcome.closed = time.monotonic() - begin
        answers = await asyncio.gather(*asking)
        end = begin + seconds
        delays = [delay for answer in answers for delay in answer.delays_between(begin, end)]
        outcome.p99 = percentile(delays, 99)
        ninth.transport.abort()
        with suppress(ConnectionClosed):
            await flooded
    return outcome
