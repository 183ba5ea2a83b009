"""Voice sessions in real time: CPU, latency and memory."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from websockets.asyncio.client import ClientConnection

from benchmarks.load import LONG, RELAY, SAMPLE, SETTLE, TODAY, Answer, Kind, ask, crowd, measure, speak
from benchmarks.processes import Lab
from benchmarks.report import Row, percentile
from benchmarks.sound import CHUNK, CHUNKS_PER_S, REAL_TIME

RELAY_8 = RELAY._replace(base64=True, ms=8)  # with the frames of the sample's page

LATE = 20.0
"""Milliseconds of latency p50 from which chunks are not handled one by one."""

CPU, LATENCY = "{:.2%} of a core each", "{:.2f} ms"


@dataclass
class Used:
    """What the sessions took; a value for each round."""

    cpu: list[float] = field(default_factory=list)  # of one core, for each session
    p50: list[float] = field(default_factory=list)  # ms
    p99: list[float] = field(default_factory=list)


async def sessions(lab: Lab) -> list[Row]:
    """One voice session, 40, and 10 against the sample's, of which 40 would take more than a core."""
    seconds = 1.0 if lab.quick else 3.0
    rows = []
    if lab.builds("today"):
        many = await _converse(lab, [RELAY, LONG, TODAY], 40, seconds)
        ours, long, others = many[RELAY], many.get(LONG, Used()), many[TODAY]
        rows = [
            Row("sessions: 40, CPU", ours.cpu, "today", others.cpu, CPU, 0.4, long.cpu),
            Row("sessions: 40, latency p99", ours.p99, "today", others.p99, LATENCY, 1.0, long.p99),
            Row("sessions: 40, latency p50", ours.p50, "today", others.p50, LATENCY, None, long.p50),
        ]
        one = await _converse(lab, [RELAY, LONG, TODAY], 1, seconds)
        ours, long, others = one[RELAY], one.get(LONG, Used()), one[TODAY]
        rows.append(Row("sessions: one, CPU", ours.cpu, "today", others.cpu, CPU, None, long.cpu))
    ten = await _converse(lab, [RELAY, LONG, RELAY_8, SAMPLE], 10, seconds)
    ours, long, others = ten[RELAY], ten.get(LONG, Used()), ten[SAMPLE]
    what = "sessions: 10 with 8 ms frames in base64, CPU"
    return [
        *rows,
        Row("sessions: 10, CPU", ours.cpu, "sample, 8 ms frames", others.cpu, CPU, 0.25, long.cpu),
        Row(what, ten[RELAY_8].cpu, "sample, 8 ms frames", others.cpu, CPU),
    ]


async def memory(lab: Lab) -> list[Row]:
    """What a conversation takes in addition while it is a voice session.

    Most of it is the model's sound, which relay keeps to replay it: after a minute 2.7 MiB of it.
    """
    seconds = 2.0 if lab.quick else 5.0
    kinds = [kind for kind in (RELAY, LONG, TODAY) if lab.builds(kind.build)]
    idle: dict[Kind, list[float]] = {kind: [] for kind in kinds}
    voice: dict[Kind, list[float]] = {kind: [] for kind in kinds}
    without: dict[Kind, list[float]] = {kind: [] for kind in kinds}
    for _ in range(1 if lab.quick else 3):
        for kind in kinds:
            quiet, speaking = await _memory(lab, kind, seconds)
            idle[kind].append(quiet)
            voice[kind].append(speaking)
            if kind is not LONG:
                without[kind].append((await _memory(lab, kind, seconds, replay_bytes=0))[1])
    what, unit = "memory: a voice session, over an idle conversation", "{:.0f} KiB"
    rows = []
    if TODAY in kinds:
        ours, others, long = voice[RELAY], voice[TODAY], voice.get(LONG)
        rows.append(Row(what, ours, "today", others, unit, 0.6, long))
        rows.append(Row(f"{what}, without replay", without[RELAY], "today", without[TODAY], unit))
        ours, others, long = idle[RELAY], idle[TODAY], idle.get(LONG)
        rows.append(Row("memory: an idle conversation", ours, "today", others, unit, None, long))
    sound = [(seconds + 2 * SETTLE) * CHUNKS_PER_S * CHUNK / 1024] * len(voice[RELAY])
    return [*rows, Row(what, voice[RELAY], "the model's sound", sound, unit, None, voice.get(LONG))]


async def _memory(lab: Lab, kind: Kind, seconds: float, **settings: Any) -> tuple[float, float]:
    """KiB of a conversation: while it is idle, and what it takes in addition while it is a voice session."""
    count = 30
    # A new process each time: what memory it has had, a process does not give back.
    with lab.new_server(kind.build, **settings) as server:
        setups = lab.model.setups()
        async with crowd(server, kind, 5):  # what the first ones load is not theirs
            await lab.set_up(setups + 5)
            empty = server.uss()
            async with crowd(server, kind, count) as clients:
                await lab.set_up(setups + 5 + count)
                idle = server.uss()
                await measure(lab, server, clients, seconds, partial(talk, kind=kind))
                return (idle - empty) / 1024 / count, (server.uss() - idle) / 1024 / count


async def _converse(lab: Lab, wanted: Sequence[Kind], count: int, seconds: float) -> dict[Kind, Used]:
    used = {kind: Used() for kind in wanted if lab.builds(kind.build)}
    async with AsyncExitStack() as stack:
        crowds = {
            kind: await stack.enter_async_context(crowd(lab.server(kind.build), kind, count)) for kind in used
        }
        for number in range(1 + (3 if lab.quick else 5)):
            for kind, clients in crowds.items():
                server = lab.server(kind.build)
                window_seconds = seconds if number else 0.2
                window = await measure(lab, server, clients, window_seconds, partial(talk, kind=kind))
                if number:  # the first round warms it up
                    delays = window.delays()
                    # By the chunks that came: a server that is behind has not handled all that were sent.
                    arrived = window.arrived() / (window.end - window.begin)
                    used[kind].cpu.append(window.cpu / arrived * CHUNKS_PER_S)
                    used[kind].p50.append(percentile(delays, 50))
                    used[kind].p99.append(percentile(delays, 99))
                    if used[kind].p50[-1] > LATE:
                        # What waits is handled together, and so its CPU time is less.
                        lab.doubts.add(f"{count} sessions of {kind.build}: the server's core was too busy")
                await asyncio.sleep(0.1)
    return used


async def talk(client: ClientConnection, length: float, *, kind: Kind) -> Answer:
    """A client that speaks and listens at the same time."""
    speaking = asyncio.create_task(speak(client, kind.ms, length, pace=1, base64_=kind.base64))
    answer = await ask(client, stamps=True, chunks=round(length * CHUNKS_PER_S), every=REAL_TIME)
    await speaking
    return answer
