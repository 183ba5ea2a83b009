"""Speech on its way from a client to the model."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import NamedTuple

from benchmarks.load import ask, open_client, speak
from benchmarks.processes import run_server
from benchmarks.report import Row
from benchmarks.sound import MIC_BYTES_PER_MS


class Kind(NamedTuple):
    app: str
    ms: int  # of sound in a frame
    base64: bool = False

    def __str__(self) -> str:
        return f"{self.app}, {self.ms} ms {'base64' if self.base64 else 'binary'}"


KINDS = [
    Kind("relay", 8),
    Kind("relay", 40),
    Kind("relay", 8, base64=True),
    Kind("relay", 40, base64=True),
    Kind("direct", 40),
    Kind("bare", 8),  # takes the frames and does nothing with them
    Kind("bare", 40),
]


async def up(env: dict[str, str], quick: bool) -> list[Row]:
    """CPU time for a second of speech on its way to the model, in short and in long frames."""
    rounds, seconds, pace = 2 if quick else 12, 1.2, 0.2
    used: dict[Kind, list[float]] = {kind: [] for kind in KINDS}
    with run_server(env) as server:
        async with AsyncExitStack() as stack:
            clients = {}
            for kind in KINDS:
                user = f"{kind.app}-{kind.ms}-{kind.base64}"
                opening = open_client(server, kind.app, user, base64=kind.base64)
                clients[kind] = await stack.enter_async_context(opening)
                await speak(clients[kind], kind.ms, seconds, pace=pace, base64_=kind.base64)  # warms it up
            for _ in range(rounds):
                for kind, client in clients.items():
                    before = server.cpu()
                    await speak(client, kind.ms, seconds, pace=pace, base64_=kind.base64)
                    await asyncio.sleep(0.1)  # for what is still on its way
                    used[kind].append((server.cpu() - before) / seconds * 1000)
            for kind, client in clients.items():
                if kind.app == "relay":
                    came = int((await ask(client, count=True)).texts[0])
                    sent = round((rounds + 1) * seconds * 1000 * MIC_BYTES_PER_MS)
                    if not sent - 40 * MIC_BYTES_PER_MS <= came <= sent:
                        raise AssertionError(f"{kind}: {came} of {sent} bytes of sound came to the model")

    def row(what: str, kind: Kind, other: Kind, aim: float | None = None) -> Row:
        return Row(f"up, {what}", used[kind], str(other), used[other], "{:.1f} ms a second", aim)

    return [
        row("8 ms frames, binary", Kind("relay", 8), Kind("relay", 40), 1.3),
        row("8 ms frames, base64", Kind("relay", 8, base64=True), Kind("relay", 40, base64=True)),
        row("8 ms frames, binary", Kind("relay", 8), Kind("bare", 8)),
        row("40 ms frames, binary", Kind("relay", 40), Kind("bare", 40)),
        row("40 ms frames, binary", Kind("relay", 40), Kind("direct", 40)),
    ]
