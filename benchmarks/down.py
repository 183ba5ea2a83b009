"""Sound on its way from the model to a client."""

from __future__ import annotations

from contextlib import AsyncExitStack
from statistics import median

from benchmarks.load import ask, open_client
from benchmarks.processes import run_server
from benchmarks.report import Row
from benchmarks.sound import CHUNK, PACE

KINDS = {  # (the application, whether its sound is base64)
    "floor": ("floor", False),
    "bare": ("bare", False),
    "bare base64": ("bare", True),
    "direct": ("direct", False),
    "relay": ("relay", False),
    "relay base64": ("relay", True),
}


async def down(env: dict[str, str], quick: bool) -> list[Row]:
    """CPU time for a chunk of sound on its way to the client, paced and in a burst."""
    # Many short rounds, because what else the machine does comes and goes by the second.
    rounds, chunks = (3, 80) if quick else (17, 120)
    paced: dict[str, list[float]] = {kind: [] for kind in KINDS}
    burst: dict[str, list[float]] = {kind: [] for kind in KINDS}
    merged: list[float] = []  # chunks a frame, in relay's bursts
    with run_server(env) as server:
        async with AsyncExitStack() as stack:
            clients = {}
            for kind, (app, base64) in KINDS.items():
                opening = open_client(server, app, kind.replace(" ", "-"), base64=base64)
                clients[kind] = await stack.enter_async_context(opening)
                await ask(clients[kind], chunks=150, every=PACE, base64=base64)  # warms it up
            for _ in range(rounds):
                for every, used in ((PACE, paced), (0, burst)):
                    for kind, client in clients.items():
                        before = server.cpu()
                        answer = await ask(client, chunks=chunks, every=every, base64=KINDS[kind][1])
                        used[kind].append((server.cpu() - before) / chunks * 1e6)
                        if kind != "floor" and answer.size != chunks * CHUNK:
                            raise AssertionError(f"{kind}: {answer.size} of {chunks * CHUNK} bytes came")
                        if kind == "relay" and not every:
                            merged.append(chunks / answer.frames)

    def row(what: str, used: dict[str, list[float]], kind: str, other: str, aim: float | None = None) -> Row:
        return Row(f"down, {what}", used[kind], other, used[other], "{:.0f} µs a chunk", aim)

    return [
        row("binary", paced, "relay", "floor", 1.15),
        row("base64", paced, "relay base64", "floor", 1.20),
        row("direct, for comparison", paced, "direct", "floor"),
        row("binary", paced, "relay", "direct"),
        row("binary", paced, "relay", "bare"),
        row("base64", paced, "relay base64", "bare base64"),
        row(f"binary, in a burst ({median(merged):.1f} chunks a frame)", burst, "relay", "floor"),
        row("base64, in a burst", burst, "relay base64", "floor"),
        row("direct, in a burst", burst, "direct", "floor"),
    ]
