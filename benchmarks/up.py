"""Speech on its way from a client to the model."""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial

from websockets.asyncio.client import ClientConnection

from benchmarks.load import FLOOR, LONG, RELAY, SETTLE, Answer, Kind, ask, crowd, measure, speak
from benchmarks.processes import Lab
from benchmarks.report import Row
from benchmarks.sound import MIC_BYTES_PER_MS

COUNT = 16
"""Conversations in real time: their frames come 2.5 ms apart, so that each is handled by itself."""

FED = FLOOR._replace(is_fed=True)
SHORT_FRAMES = RELAY._replace(ms=8)
KINDS = [RELAY, RELAY._replace(base64=True), SHORT_FRAMES, LONG, FLOOR, FED]


async def up(lab: Lab) -> list[Row]:
    """CPU time for 40 ms of speech on their way to the model."""
    rounds, seconds = (4, 0.4) if lab.quick else (11, 1.0)
    kinds = [kind for kind in KINDS if lab.builds(kind.build)]
    used: dict[Kind, list[float]] = {kind: [] for kind in kinds}
    spoken = 0.0  # seconds
    async with AsyncExitStack() as stack:
        crowds = {
            kind: await stack.enter_async_context(crowd(lab.server(kind.build), kind, COUNT))
            for kind in kinds
        }
        for number in range(1 + rounds):
            window_seconds = seconds if number else 0.1
            for kind, clients in crowds.items():
                server = lab.server(kind.build)
                window = await measure(lab, server, clients, window_seconds, partial(_talk, kind=kind))
                if number:  # the first round warms it up
                    used[kind].append(window.cpu / COUNT / 25 * 1e6)
            spoken += window_seconds + 2 * SETTLE
        for kind, clients in crowds.items():
            came = int((await ask(clients[0], count=True)).texts[0])
            sent = round(spoken * 1000 * MIC_BYTES_PER_MS)
            if abs(sent - came) > 40 * MIC_BYTES_PER_MS * (1 + rounds):  # rounds are whole frames
                raise AssertionError(f"{kind}: {came} of {sent} bytes of sound came to the model")

    def row(what: str, kind: Kind, against: str, other: Kind, aim: float | None = None) -> Row:
        long = used.get(kind._replace(build="long"))
        return Row(f"up: 40 ms of speech, {what}", used[kind], against, used[other], "{:.0f} µs", aim, long)

    alone = "`send_realtime` through `run_live` alone"
    return [
        row("binary", RELAY, alone, FED, 0.45),
        row("base64", RELAY._replace(base64=True), alone, FED),
        row("`run_live` fed by a client", FLOOR, alone, FED),
        row("in frames of 8 ms", SHORT_FRAMES, "in one frame", RELAY),
    ]


async def _talk(client: ClientConnection, length: float, *, kind: Kind) -> Answer:
    if kind.is_fed:
        return await ask(client, feed=round(length * 1000 / kind.ms), ms=kind.ms)
    await speak(client, kind.ms, length, pace=1, base64_=kind.base64)
    return Answer()
