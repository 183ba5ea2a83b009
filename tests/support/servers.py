"""ASGI servers other than the default one, as processes that serve `relay:app`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from support.ports import free_port
from support.process import HANGS, Process, relay_process, warm_relay
from support.server import need_module

COMMANDS = {
    "uvicorn": (
        "uvicorn relay:app --timeout-graceful-shutdown 3 --ws-per-message-deflate false"
        " --http h11 --ws-max-size 6291456"
    ),
    "hypercorn": "hypercorn relay:app --graceful-timeout 1",
    "granian": "granian relay:app --interface asgi --workers-kill-timeout 3",
    "daphne": "daphne relay:app --websocket-max-message-size 16777216 --websocket-max-frame-size 16777216",
}
"""How each server is started, as `docs/production.md` has it."""

_ADDRESS = {
    "uvicorn": "--port {port}",
    "hypercorn": "--bind 127.0.0.1:{port}",
    "granian": "--port {port}",
    "daphne": "--bind 127.0.0.1 --port {port}",
}

SERVERS = {
    **{
        f"uvicorn-{implementation}": f"{COMMANDS['uvicorn']} --ws {implementation}"
        for implementation in ("websockets-sansio", "websockets", "wsproto")
    },
    **{name: COMMANDS[name] for name in ("hypercorn", "granian", "daphne")},
}
"""The command of each server that is tested."""


@asynccontextmanager
async def served_by(
    server: str, folder: Path, app: str = "relay:app", **environment: str
) -> AsyncIterator[Process]:
    """An application under one of `SERVERS`, in a folder, with an environment of what is given alone."""
    program = server.partition("-")[0]
    need_module(program)
    port = free_port()
    options = f"{SERVERS[server].replace('relay:app', app)} {_ADDRESS[program].format(port=port)}"
    command = [sys.executable, "-m", *options.split()]
    # Those that start processes of their own start them with a new interpreter, which needs a new one itself.
    start = relay_process if program in ("hypercorn", "granian") else warm_relay
    async with start(command, folder, **environment) as process:
        process.port = port
        async with asyncio.timeout(HANGS):
            while not await _listens(port):
                assert process.is_running, process.log
                await asyncio.sleep(0.05)
        yield process


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True
