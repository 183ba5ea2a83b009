#!/usr/bin/env bash
# granian 2.8.9: a ping is answered only while the application waits in `receive()`.
#
# Behaviour: the server reads the socket for the application's `receive()` alone. An application that does
#   something else for six seconds leaves a ping unanswered for six seconds, and if it then only sends, for ever.
# Output seen: uvicorn: pong after 0.0 s       granian: no pong in 5 s, pong after 6.0 s
#              client with `ping_interval=1, ping_timeout=3` under granian: closed, 1011 keepalive ping timeout
# Why it surprises: answering a ping is the server's duty (RFC 6455, section 5.5.2: as soon as is practical), the
#   ASGI specification gives applications no way to do it, and uvicorn, hypercorn and daphne do it by themselves.
# For a relay: a handler that awaits the model, or streams an answer, between two calls of `receive()` loses each
#   client that sends pings (Python's `websockets` does by default). Keep one task in `receive()` all the time.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check granian==2.8.9 uvicorn==0.54.0 websockets==15.0.1

cat >served.py <<'PYTHON'
import asyncio


async def app(scope, receive, send):
    if scope["type"] != "websocket":
        return
    await receive()
    await send({"type": "websocket.accept"})
    for _ in range(60):  # an answer of six seconds
        await asyncio.sleep(0.1)
        await send({"type": "websocket.send", "bytes": bytes(100)})
    while (await receive())["type"] != "websocket.disconnect":
        pass
PYTHON

cat >check.py <<'PYTHON'
import asyncio
import socket
import time
from importlib.metadata import version
from subprocess import DEVNULL, Popen

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed


async def drain(websocket):
    async for _ in websocket:
        pass


async def measure(*command):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = Popen([*command, "--port", str(port)], stdout=DEVNULL, stderr=DEVNULL)
    url = f"ws://127.0.0.1:{port}/"
    try:
        while True:
            try:
                websocket = await connect(url, ping_interval=None)
                break
            except OSError:
                await asyncio.sleep(0.1)
        reading = asyncio.create_task(drain(websocket))
        start = time.monotonic()
        await asyncio.wait_for(await websocket.ping(), 20)
        pong = time.monotonic() - start
        await websocket.close()
        await reading
        try:
            async with asyncio.timeout(5.5):
                async with connect(url, ping_interval=1, ping_timeout=3, close_timeout=0.2) as websocket:
                    await drain(websocket)
        except TimeoutError:
            return pong, "still open after 5.5 s"
        except ConnectionClosed as closed:
            return pong, f"closed by the client, {closed.sent.code} {closed.sent.reason}"
    finally:
        server.terminate()
        server.wait()


async def main():
    control = await measure("venv/bin/uvicorn", "served:app")
    seen = await measure("venv/bin/granian", "--interface", "asgi", "served:app")
    print("the application sends for 6 s, then waits in receive()")
    print(f"uvicorn {version('uvicorn')}: pong after {control[0]:.1f} s; with pings each second: {control[1]}")
    print("granian: expected the same")
    print(f"granian {version('granian')}: pong after {seen[0]:.1f} s; with pings each second: {seen[1]}")
    assert control[0] < 4 and control[1].startswith("still open")
    assert seen[0] > 4 and seen[1].endswith("1011 keepalive ping timeout"), "the behaviour has changed"


asyncio.run(asyncio.wait_for(main(), 50))
PYTHON
timeout 60 venv/bin/python check.py
