"""A client that sends as much as it can: how long a quiet one waits for the echo of its pings."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from contextlib import suppress

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode

from benchmarks.load import open_client
from benchmarks.processes import Lab, Server
from benchmarks.report import Row, percentile

_EVERY = 0.01
"""Seconds between two pings. They are sent at this pace whether the answers come or not: a client that waits
for each answer would measure a long pause once only."""

_AT_ONCE = 256 * 1024
"""Bytes that the flood gives to the kernel at once."""

FLOODS = {
    "small frames": json.dumps({"type": "typing_start"}),
    "pictures of 4 MiB": json.dumps(
        {"mime_type": "image/png", "data": base64.b64encode(bytes(4 * 1024 * 1024)).decode()}
    ),
}


async def fair(lab: Lab) -> list[Row]:
    """One client sends without a pause, with the bounds of `relay serve`."""
    seconds, rounds = (8.0, 1) if lab.quick else (15.0, 3)
    rows = []
    for what, frame in FLOODS.items():
        measured, bound = [], []
        for number in range(rounds):
            with lab.new_server("relay", bounded=True) as server:
                await _p99(server, f"quiet-{number}", 1)  # the first answers take longer
                alone = await _p99(server, f"quiet-{number}", seconds)
                flooding = asyncio.create_task(_flood(server, frame))
                await asyncio.sleep(1)
                measured.append(await _p99(server, f"quiet-{number}", seconds))
                flooding.cancel()
                with suppress(asyncio.CancelledError, ConnectionClosed):
                    await flooding
                bound.append(max(1.5 * alone, alone + 20))
        against = "1.5 times what it is alone, or 20 ms more"
        rows.append(Row(f"fair: p99 of an echo during {what}", measured, against, bound, "{:.1f} ms", 1.0))
    return rows


async def _flood(server: Server, frame: str) -> None:
    one = Frame(Opcode.TEXT, frame.encode()).serialize(mask=True)
    many = one * max(1, _AT_ONCE // len(one))  # made before, because the quiet client shares this event loop
    async with open_client(server, "relay", "flood", audio=False) as client:
        while True:
            if not client.transport.get_write_buffer_size():
                client.transport.write(many)
            await asyncio.sleep(_EVERY)


async def _p99(server: Server, user: str, seconds: float) -> float:
    """The 99th percentile of the time to the server and back, in milliseconds."""
    async with open_client(server, "relay", user, audio=False) as client:
        sent: list[float] = []
        answering = asyncio.create_task(_pongs(client, sent, round(seconds / _EVERY)))
        began = time.monotonic()
        for number in range(round(seconds / _EVERY)):
            await asyncio.sleep(max(0.0, began + number * _EVERY - time.monotonic()))
            sent.append(time.monotonic())
            await client.send('{"type": "ping"}')
        return percentile(await answering, 99)


async def _pongs(client: ClientConnection, sent: list[float], count: int) -> list[float]:
    """Milliseconds until each pong. One pong answers all pings that have come before it."""
    delays: list[float] = []
    async for frame in client:
        if json.loads(frame).get("type") == "pong":
            now, answered = time.monotonic(), len(delays)
            delays += [(now - at) * 1000 for at in sent[answered:]]
            if len(delays) >= count:
                break
    return delays
