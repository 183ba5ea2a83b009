"""A socket that comes back and is replayed what it missed."""

from __future__ import annotations

import json
import time

from benchmarks.load import ask, open_client
from benchmarks.processes import Lab
from benchmarks.report import Row


async def replay(lab: Lab) -> list[Row]:
    """From the reconnect to the first replayed sound, against the greeting of a new socket."""
    replayed: list[float] = []
    greeted: list[float] = []
    with lab.new_server("relay", grace=30) as server:
        async with open_client(server, "relay", "back") as client:
            hello = json.loads(await client.recv())
            await ask(client, chunks=250, every=0.002)
        for _ in range(5 if lab.quick else 25):
            began = time.monotonic()
            async with open_client(server, "relay", "back", after=f"{hello['epoch']}.50") as client:
                while not isinstance(await client.recv(), bytes):
                    pass
                replayed.append((time.monotonic() - began) * 1000)
            began = time.monotonic()
            async with open_client(server, "relay", "back") as client:
                await client.recv()
                greeted.append((time.monotonic() - began) * 1000)
    what = "replay: reconnect to the first replayed message, of 8 s of sound"
    return [Row(what, replayed, "to the greeting", greeted, "{:.1f} ms")]
