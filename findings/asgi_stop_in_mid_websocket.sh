#!/usr/bin/env bash
# uvicorn 0.54.0, hypercorn 0.18.0, daphne 4.2.3, granian 2.8.9: what a stop tells the clients of open WebSockets.
#
# Behaviour and output seen: on SIGTERM, with one open WebSocket, after
#                   the client gets         the application learns of it by
#   expected        1001 or 1012            websocket.disconnect, or lifespan.shutdown, while it can still send
#   uvicorn         1012 service restart    websocket.disconnect 1012, then lifespan.shutdown
#   hypercorn       1011 internal error     the cancellation of its task when the graceful timeout is over
#   daphne          no close frame          the cancellation of its task
#   granian         no close frame          lifespan.shutdown
# Why it surprises: RFC 6455 (section 7.4.1) has 1001 for "an endpoint is going away, such as a server going down".
#   hypercorn waits for its WebSockets before it sends lifespan.shutdown, which would be the application's reason to
#   close them: each stop lasts as long as the timeout, and ends with the code for a failure.
# For a relay: send the close while being canceled (daphne, and hypercorn over HTTP/1.1, still pass it on), and let
#   clients come back after 1006 and 1011 as after 1001.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check uvicorn==0.54.0 hypercorn==0.18.0 daphne==4.2.3 granian==2.8.9 websockets==15.0.1

cat >served.py <<'PYTHON'
import asyncio
from pathlib import Path


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while (await receive())["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        return await send({"type": "lifespan.shutdown.complete"})
    await receive()
    await send({"type": "websocket.accept"})
    try:
        Path("told").write_text((await receive())["type"])
    except asyncio.CancelledError:
        Path("told").write_text("canceled")
        raise
PYTHON

cat >check.py <<'PYTHON'
import asyncio
import socket
from importlib.metadata import version
from pathlib import Path
from subprocess import DEVNULL, Popen

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

SEEN = {
    "uvicorn": ("--port {}", 1012, "websocket.disconnect"),
    "hypercorn": ("--bind 127.0.0.1:{} --graceful-timeout 1", 1011, "canceled"),
    "daphne": ("--bind 127.0.0.1 --port {}", None, "canceled"),
    "granian": ("--interface asgi --port {}", None, None),
}


async def measure(name, options):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = options.format(port).split()
    server = Popen([f"venv/bin/{name}", *arguments, "served:app"], stdout=DEVNULL, stderr=DEVNULL)
    try:
        while True:
            try:
                websocket = await connect(f"ws://127.0.0.1:{port}/")
                break
            except OSError:  # not yet listening
                await asyncio.sleep(0.1)
        await asyncio.sleep(2)
        server.terminate()
        try:
            await websocket.recv()
        except ConnectionClosed as closed:
            return closed.rcvd.code if closed.rcvd else None
    finally:
        server.terminate()
        await asyncio.to_thread(server.wait)


async def main():
    for name, (options, code, told) in SEEN.items():
        Path("told").unlink(missing_ok=True)
        got = await measure(name, options)
        learned = Path("told").read_text() if Path("told").exists() else "neither"
        print(f"{name} {version(name)}: the client gets {got or 'no close frame'}; expected 1001 or 1012", flush=True)
        print(f"    the application learns of it by: {learned}")
        assert got == code and told in (None, learned), "the behaviour has changed"


asyncio.run(asyncio.wait_for(main(), 55))
PYTHON
timeout 60 venv/bin/python check.py
