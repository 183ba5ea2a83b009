"""Sound on its way from the model to a client."""

from __future__ import annotations

from contextlib import AsyncExitStack
from statistics import median

from websockets.asyncio.client import ClientConnection

from benchmarks.load import DIRECT, FLOOR, LONG, RELAY, Answer, Kind, ask, crowd, measure
from benchmarks.processes import Lab
from benchmarks.report import Row
from benchmarks.sound import CHUNK, CHUNKS_PER_S, REAL_TIME

COUNT = 16
"""Conversations in real time: their chunks come 2.5 ms apart, so that each is handled by itself."""

BURST = 500
"""Chunks in a burst: so many that the question and the end of the answer do not count."""

LOOP = Kind("plain", "loop")
RELAY_64, LONG_64 = RELAY._replace(base64=True), LONG._replace(base64=True)


async def down(lab: Lab) -> list[Row]:
    """CPU time for a chunk of sound on its way to the client, in real time and in a burst."""
    # Many short rounds, because what else the machine does comes and goes by the second.
    rounds, seconds = (4, 0.4) if lab.quick else (15, 1.0)
    kinds = [
        FLOOR,
        DIRECT,
        LOOP,
        *(kind for kind in (RELAY, RELAY_64, LONG, LONG_64) if lab.builds(kind.build)),
    ]
    paced: dict[Kind, list[float]] = {kind: [] for kind in kinds}
    burst: dict[Kind, list[float]] = {kind: [] for kind in kinds}
    merged: list[float] = []  # chunks a frame, in relay's bursts

    async def talk(client: ClientConnection, length: float) -> Answer:
        chunks = round(length * CHUNKS_PER_S)
        answer = await ask(client, chunks=chunks, every=REAL_TIME)
        _check(answer, chunks, client)
        return answer

    async with AsyncExitStack() as stack:
        crowds = {
            kind: await stack.enter_async_context(crowd(lab.server(kind.build), kind, COUNT))
            for kind in kinds
        }
        for number in range(1 + rounds):
            for kind, clients in crowds.items():
                server = lab.server(kind.build)
                window = await measure(lab, server, clients, seconds if number else 0.1, talk)
                before = server.cpu()
                answer = await ask(clients[0], chunks=BURST)
                in_burst = server.cpu() - before
                _check(answer, BURST, clients[0])
                if number:  # the first round warms it up
                    paced[kind].append(window.cpu / COUNT / CHUNKS_PER_S * 1e6)
                    burst[kind].append(in_burst / BURST * 1e6)
                    if kind == RELAY:
                        merged.append(BURST / answer.frames)

    def row(what: str, used: dict[Kind, list[float]], kind: Kind, aim: float | None = None) -> Row:
        long = used.get(kind._replace(build="long"))
        return Row(f"down: a chunk, {what}", used[kind], "floor", used[FLOOR], "{:.0f} µs", aim, long)

    return [
        row("in real time, binary", paced, RELAY, 0.45),
        row("in real time, base64", paced, RELAY_64, 0.5),
        row("in real time, direct", paced, DIRECT),
        row("in real time, only `send`, without a model", paced, LOOP),
        row(f"in a burst, binary ({median(merged):.1f} in a frame)", burst, RELAY, 0.28),
        row("in a burst, base64", burst, RELAY_64, 0.33),
        row("in a burst, direct", burst, DIRECT),
    ]


def _check(answer: Answer, chunks: int, client: ClientConnection) -> None:
    path = client.request.path if client.request else ""
    if "/floor/" not in path and answer.size != chunks * CHUNK:
        raise AssertionError(f"{path}: {answer.size} of {chunks * CHUNK} bytes came")
