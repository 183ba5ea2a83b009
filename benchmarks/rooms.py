"""An answer to many sockets of one conversation."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from websockets.asyncio.client import ClientConnection

from benchmarks.load import ask, listen, open_client
from benchmarks.processes import Lab
from benchmarks.report import Row
from benchmarks.sound import CHUNK

AIMS = {1: None, 10: 3.0, 100: None, 1000: 1.4}  # by the number of sockets


async def rooms(lab: Lab) -> list[Row]:
    """CPU time for each chunk of an answer and each socket that it reaches.

    relay's includes that of the run, which a few sockets share or many; the loop makes its frames itself.
    """
    rows = []
    for count, aim in AIMS.items():
        if lab.quick and aim is None:
            continue
        used = await _used(lab, count, *((3, 10) if lab.quick else (5, 30)))
        what, against = f"rooms: one answer to {count:,} sockets", "a bare loop over `send`"
        rows.append(Row(what, used["relay"], against, used["loop"], "{:.0f} µs a message", aim))
    return rows


async def _used(lab: Lab, count: int, rounds: int, chunks: int) -> dict[str, list[float]]:
    """For each application, microseconds for each chunk and socket."""
    used: dict[str, list[float]] = {"relay": [], "loop": []}
    every = max(0.01, count * 120e-6)  # all are served before the next chunk comes
    async with AsyncExitStack() as stack:
        server = stack.enter_context(lab.new_server("relay"))
        clients: dict[str, list[ClientConnection]] = {
            app: [await stack.enter_async_context(open_client(server, app, "room")) for _ in range(count)]
            for app in used
        }
        lab.profile(server)
        for number in range(1 + rounds):
            for app, values in used.items():
                before = server.cpu()
                first, *others = clients[app]
                listening = [asyncio.create_task(listen(client)) for client in others]
                answers = [await ask(first, chunks=chunks, every=every), *await asyncio.gather(*listening)]
                spent = (server.cpu() - before) / chunks / count * 1e6
                if any(answer.size != chunks * CHUNK for answer in answers):
                    raise AssertionError(f"{app}: not all {count} sockets got the whole answer")
                if number:  # the first round warms it up
                    values.append(spent)
    return used
