"""The start of a conversation, until its setup is sent to the model."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from benchmarks.load import RELAY, TODAY, Kind, open_client
from benchmarks.processes import Lab, Server
from benchmarks.report import Row

AT_ONCE = 30
LIMIT = 5.0  # ms that the event loop may be busy without a pause


async def start(lab: Lab) -> list[Row]:
    """CPU time, and the longest stretch in which the server does nothing else; one and 30 at once."""
    kinds = [kind for kind in (RELAY, TODAY) if lab.builds(kind.build)]
    cpu: dict[tuple[Kind, int], list[float]] = {(kind, count): [] for count in (1, AT_ONCE) for kind in kinds}
    stretch: dict[tuple[Kind, int], list[float]] = {key: [] for key in cpu}
    async with AsyncExitStack() as stack:
        servers = {kind: stack.enter_context(lab.new_server(kind.build)) for kind in kinds}
        for number in range(1 + (5 if lab.quick else 15)):
            for kind, count in cpu:
                used, longest = await _start(lab, servers[kind], kind, count, f"{number}-{count}")
                lab.profile(servers[kind])
                if number:  # the first round loads what is imported late
                    cpu[kind, count].append(used)
                    stretch[kind, count].append(longest)
    rows = []
    for count in (1, AT_ONCE):
        what = "one" if count == 1 else f"{count} at once"
        mine = stretch[RELAY, count]
        limit = [LIMIT] * len(mine)
        row = Row(f"start: {what}, longest stretch of the loop", mine, "limit", limit, "{:.1f} ms", 1.0)
        rows.append(row)
        if TODAY in kinds:
            rows += [
                Row(
                    f"start: {what}, CPU",
                    cpu[RELAY, count],
                    "today",
                    cpu[TODAY, count],
                    "{:.1f} ms each",
                    0.33,
                ),
                Row(
                    f"start: {what}, longest stretch of the loop",
                    mine,
                    "today",
                    stretch[TODAY, count],
                    "{:.1f} ms",
                ),
            ]
    return rows


async def _start(lab: Lab, server: Server, kind: Kind, count: int, name: str) -> tuple[float, float]:
    """Milliseconds: of CPU time for each conversation, and the longest stretch."""
    await asyncio.to_thread(server.get, "/stretch")
    setups, before = lab.model.setups(), server.cpu()
    async with AsyncExitStack() as stack:
        opening = [
            stack.enter_async_context(open_client(server, kind.app, f"{name}-{number}"))
            for number in range(count)
        ]
        await asyncio.gather(*opening)
        await lab.set_up(setups + count)
        used = (server.cpu() - before) / count * 1000
        longest = await asyncio.to_thread(server.get, "/stretch") * 1000
    await asyncio.sleep(0.2)  # until they have ended
    return used, longest
