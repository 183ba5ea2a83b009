"""An interruption while sound is queued: how much of it is still sent."""

from __future__ import annotations

import asyncio

from benchmarks.load import ask, open_client
from benchmarks.processes import SEND_BUFFER, Lab
from benchmarks.report import Row
from benchmarks.sound import milliseconds


async def barge_in(lab: Lab) -> list[Row]:
    """Ten seconds of sound wait for a client that does not read; then the user interrupts the model."""
    handed: dict[str, list[float]] = {"relay": [], "direct": []}  # ms of sound, to `send` and too late
    arrived: dict[str, list[float]] = {"relay": [], "direct": []}  # ms of sound in all
    with lab.new_server("relay", send_buffer=SEND_BUFFER) as server:
        for number in range(1 if lab.quick else 3):
            for app in handed:
                async with open_client(server, app, f"logged-{number}", narrow=True) as client:
                    await asyncio.sleep(0.5)
                    client.transport.pause_reading()
                    asking = asyncio.create_task(ask(client, chunks=250, interrupt_after=0.5))
                    await asyncio.sleep(1.2)
                    client.transport.resume_reading()
                    answer = await asking
                    interrupted_at = int(answer.texts[-1].rsplit(" ", 1)[-1])
                sent = await asyncio.to_thread(server.get, "/sent")
                handed[app].append(milliseconds(sum(size for at, size in sent if at > interrupted_at)))
                arrived[app].append(milliseconds(answer.size))
    return [
        Row(f"barge-in, stale sound {what}", values["relay"], "direct", values["direct"], "{:.0f} ms of 10 s")
        for what, values in (("handed to `send`", handed), ("that arrives", arrived))
    ]
