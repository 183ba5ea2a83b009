"""Voice sessions through a web process, Redis and a worker, against the same in one process."""

from __future__ import annotations

import asyncio
import json
import time
from collections import defaultdict
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from websockets.asyncio.client import ClientConnection

from benchmarks.load import RELAY, Answer, ask, crowd, measure, speak
from benchmarks.processes import Lab
from benchmarks.report import Row, percentile
from benchmarks.sessions import CPU
from benchmarks.sound import CHUNKS_PER_S, REAL_TIME
from benchmarks.spread import spread

COUNT = 20
"""Sessions: in one process they take about a quarter of a core."""

OTHER_COUNTS = (5, 30)

TEXTS = 3
"""Of each session, in each round."""

APART = 0.04
"""Seconds between two texts: each is some 10 ms of work, and is not to wait for the one before."""

P50, P99 = 5.0, 25.0
"""The aims: milliseconds that the bus may add to what something is on its way."""


@dataclass
class _Used:
    """A value for each round."""

    cpu: list[float] = field(default_factory=list)  # of one core, for each session
    parts: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))  # the same, of each part
    delays: dict[str, list[list[float]]] = field(default_factory=lambda: defaultdict(list))  # ms, by way


async def bus(lab: Lab) -> list[Row]:
    """CPU time of all processes together, and what the bus adds to the latency."""
    one, many = await _converse(lab, COUNT, *((2.0, 4) if lab.quick else (4.0, 10)))
    rows = [_cpu(COUNT, one, many)]
    for name, values in many.parts.items():
        rows.append(Row(f"bus: of that, {name}", values, "all", many.cpu, CPU))
    for way in many.delays:
        for percent, aim in ((50, P50), (99, P99)):
            added = [
                percentile(theirs, percent) - percentile(ours, percent)
                for theirs, ours in zip(many.delays[way], one.delays[way], strict=True)
            ]
            what = f"bus: {way}, added latency p{percent}"
            rows.append(Row(what, added, "limit", [aim] * len(added), "{:.1f} ms", 1.0))
    for count in () if lab.quick else OTHER_COUNTS:
        rows.append(_cpu(count, *await _converse(lab, count, 3.0, 5)))
    return rows


def _cpu(count: int, one: _Used, many: _Used) -> Row:
    what = f"bus: {count} voice sessions, CPU of web, Redis and worker"
    return Row(what, many.cpu, "one process", one.cpu, CPU, 2.2 if count == COUNT else None)


async def _converse(lab: Lab, count: int, seconds: float, rounds: int) -> tuple[_Used, _Used]:
    """What so many sessions take in one process, and through a bus."""
    used = {"one": _Used(), "many": _Used()}
    async with AsyncExitStack() as stack:
        servers = {
            "one": stack.enter_context(spread(lab, workers=0)),
            "many": stack.enter_context(spread(lab)),
        }
        crowds = {
            name: await stack.enter_async_context(crowd(server, RELAY, count))
            for name, server in servers.items()
        }
        for number in range(1 + rounds):
            for name in ("one", "many") if number % 2 else ("many", "one"):
                server, clients = servers[name], crowds[name]
                window = await measure(lab, server, clients, seconds if number else 0.5, talk)
                if not number:  # the first round warms it up
                    continue
                arrived = window.arrived() / (window.end - window.begin)
                used[name].cpu.append(window.cpu / arrived * CHUNKS_PER_S)
                for part, cpu in window.parts.items():
                    used[name].parts[part.partition("-")[0]].append(cpu / arrived * CHUNKS_PER_S)
                up = [delay / 1000 for answer in window.answers for delay in json.loads(answer.texts[-1])]
                delays = used[name].delays
                delays["a chunk down"].append(window.delays())
                delays["a chunk up"].append(up)
                delays["a text"].append(await _write(clients))
    return used["one"], used["many"]


async def talk(client: ClientConnection, length: float) -> Answer:
    """A client that speaks and listens at the same time; the answer's last text tells of its speech."""
    asking = asyncio.create_task(
        ask(client, stamps=True, arrivals=True, chunks=round(length * CHUNKS_PER_S), every=REAL_TIME)
    )
    await asyncio.sleep(0.05)  # until the model listens
    await speak(client, 40, length - 0.3, pace=1, base64_=False, stamps=True)
    return await asking


async def _write(clients: list[ClientConnection]) -> list[float]:
    """Each writes a few texts, one after another; milliseconds that they are on their way to the model."""

    async def write(number: int, client: ClientConnection) -> list[float]:
        begin = time.monotonic()
        delays = []
        for text in range(TEXTS):
            await asyncio.sleep(begin + (text * len(clients) + number) * APART - time.monotonic())
            answer = await ask(client, sent=time.monotonic_ns())
            delays.append(int(answer.texts[0]) / 1e6)
        return delays

    found = await asyncio.gather(*(write(*numbered) for numbered in enumerate(clients)))
    return [delay for delays in found for delay in delays]
