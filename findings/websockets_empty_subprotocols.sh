#!/usr/bin/env bash
# websockets 17.4: a client with no subprotocols to offer sends an empty header, and some servers answer 400.
#
# Behaviour: `connect(..., subprotocols=[])` sends `Sec-WebSocket-Protocol:` with nothing after it; only None leaves the
#   header out. websockets' own server refuses that header. Others accept it, with two meanings.
# Output seen, with the header left out and with the empty one (client and server of websockets 15.0.1 do the same):
#   websockets 17.4                     open, []    400
#   uvicorn 0.54.0, websockets-sansio   open, []    400
#   uvicorn 0.54.0, websockets          open, []    open, subprotocols ['']
#   uvicorn 0.54.0, wsproto             open, []    open, subprotocols ['']
#   hypercorn 0.18.0                    open, []    open, subprotocols ['']
#   granian 2.8.9                       open, []    open, subprotocols []
# Why it surprises: RFC 6455 wants at least one name in the header. An empty list offers nothing, and for a browser
#   `new WebSocket(url, [])` is the same as no list. Client and server of one library do not agree.
# For a relay: whoever passes the subprotocols of its own client on, as a proxy does, has to pass `names or None`: an
#   ASGI scope says [] where there are none. An application that chooses from the scope must not choose ''.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check websockets==17.4 uvicorn==0.54.0 wsproto==1.3.2 \
  hypercorn==0.18.0 granian==2.8.9

cat >application.py <<'PYTHON'
async def application(scope, receive, send):
    """Tells the client which subprotocols the server has found in its handshake."""
    if scope["type"] == "lifespan":
        while (message := await receive())["type"] != "lifespan.shutdown":
            await send({"type": message["type"] + ".complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "text": str(scope["subprotocols"])})
    await receive()
PYTHON
cat >check.py <<'PYTHON'
import asyncio
import logging
import socket
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import InvalidStatus

logging.disable(logging.CRITICAL)
SERVERS = {
    "uvicorn, websockets-sansio": ("uvicorn", "--ws", "websockets-sansio", "--port"),
    "uvicorn, websockets": ("uvicorn", "--ws", "websockets", "--port"),
    "uvicorn, wsproto": ("uvicorn", "--ws", "wsproto", "--port"),
    "hypercorn": ("hypercorn", "--bind"),
    "granian": ("granian", "--interface", "asgi", "--port"),
}
SEEN = {
    "websockets": "HTTP 400",
    "uvicorn, websockets-sansio": "HTTP 400",
    "uvicorn, websockets": "['']",
    "uvicorn, wsproto": "['']",
    "hypercorn": "['']",
    "granian": "[]",
}


async def told(port, subprotocols):
    """What the server finds in the handshake, or the status of its refusal."""
    while True:
        try:
            async with connect(f"ws://127.0.0.1:{port}/", subprotocols=subprotocols) as websocket:
                return await websocket.recv()
        except InvalidStatus as refused:
            return f"HTTP {refused.response.status_code}"
        except ConnectionRefusedError:  # the server has not started yet
            await asyncio.sleep(0.1)


async def compare(name, port):
    left_out, empty = await told(port, None), await told(port, [])
    print(f"{name} {version(name.split(',')[0])}: expected: {left_out} twice; seen: {left_out} and {empty}")
    assert left_out == "[]" and empty == SEEN[name], "the behaviour has changed"


async def main():
    async def handler(websocket):
        await websocket.send("[]")

    async with serve(handler, "127.0.0.1", 0) as server:
        await compare("websockets", server.sockets[0].getsockname()[1])
    for name, (program, *options) in SERVERS.items():
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        where = f"127.0.0.1:{port}" if options[-1] == "--bind" else str(port)
        program = Path(sys.executable).with_name(program)
        process = subprocess.Popen(
            [program, "application:application", *options, where],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            await compare(name, port)
        finally:
            process.terminate()
            process.wait()


asyncio.run(asyncio.wait_for(main(), 50))
PYTHON
timeout 60 venv/bin/python -W ignore check.py
