"""ASGI servers other than the default one, as processes that serve `relay:app`."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from support.process import HANGS, Process, relay_process

_UVICORN = "uvicorn {app} --port {port} --timeout-graceful-shutdown 3 --ws-per-message-deflate false --ws "

SERVERS = {
    "uvicorn-websockets-sansio": _UVICORN + "websockets-sansio",
    "uvicorn-websockets": _UVICORN + "websockets",
    "uvicorn-wsproto": _UVICORN + "wsproto",
    "hypercorn": "hypercorn {app} --bind 127.0.0.1:{port} --graceful-timeout 1",
    "granian": "granian {app} --interface asgi --port {port} --workers-kill-timeout 3",
    "daphne": "daphne {app} --bind 127.0.0.1 --port {port}",
}
"""The command line of each server, as `docs/production.md` has it."""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@asynccontextmanager
async def served_by(
    server: str, folder: Path, app: str = "relay:app", **environment: str
) -> AsyncIterator[Process]:
    """An application under one of `SERVERS`, in a folder, with an environment of what is given alone."""
    port = free_port()
    command = [sys.executable, "-m", *SERVERS[server].format(app=app, port=port).split()]
    async with relay_process(command, folder, **environment) as process:
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
