#!/usr/bin/env bash
# websockets 15.0.1 and uvicorn 0.54.0: a slow reader closes the connection to a peer that answers its pings at once.
#
# Behaviour: both send pings on a clock of their own, but see the pong only after everything that arrived before
#   it has been taken by the program. If messages come faster than the program takes them, reading pauses, the
#   pong waits behind them, and the library closes the connection with 1011 "keepalive ping timeout".
# Output seen (ping each second, timeout 2 s; on loopback, both ends prompt, the receiver takes 50 ms a message):
#   websockets client, 8 MB to play:     closed by the reader, 1011 (internal error) keepalive ping timeout
#   uvicorn server, 8 MB to work on:     closed by the reader, 1011 (internal error) keepalive ping timeout
#   the same receiver, messages no faster than it takes them: all 60 read
# Why it surprises: back-pressure is what a slow reader is told to use, and here it gets a healthy peer
#   declared dead. The log blames the network or the peer; the cause is the reader.
# For a relay: a live model makes sound faster than it is played. A client that plays each chunk before it reads
#   the next, or a handler that awaits the model before it reads on, is cut off after 40 s with the usual 20 s
#   values. Read at once into a bounded queue, and let another task take its time.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check websockets==15.0.1 uvicorn==0.54.0

cat >check.py <<'PYTHON'
import asyncio
import time
from contextlib import suppress
from importlib.metadata import version

import uvicorn
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

CHUNK = bytes(50_000)


async def flood(websocket):
    """Sends 8 MB as fast as the other side takes them; the close frame that ends this, if any."""
    try:
        for _ in range(160):
            await websocket.send(CHUNK)
        await websocket.wait_closed()
    except ConnectionClosed:
        pass
    return websocket.protocol.close_rcvd


async def slow_client():
    ended = asyncio.get_running_loop().create_future()

    async def burst(websocket):
        ended.set_result(await flood(websocket))

    async with serve(burst, "127.0.0.1", 0, ping_interval=None, compression=None) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with suppress(ConnectionClosed):
            async with connect(url, ping_interval=1, ping_timeout=2, compression=None) as websocket:
                async for _ in websocket:
                    await asyncio.sleep(0.05)
        return await ended


async def in_step():
    async def paced(websocket):
        for _ in range(60):
            await websocket.send(CHUNK)
            await asyncio.sleep(0.06)

    taken = 0
    async with serve(paced, "127.0.0.1", 0, ping_interval=None, compression=None) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with connect(url, ping_interval=1, ping_timeout=2, compression=None) as websocket:
            async for _ in websocket:
                taken += 1
                await asyncio.sleep(0.05)
    return taken


async def slow_application(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    with suppress(asyncio.CancelledError):  # uvicorn cancels the application when a ping times out
        while (await receive())["type"] == "websocket.receive":
            await asyncio.sleep(0.05)


async def slow_server():
    config = uvicorn.Config(
        slow_application, port=0, lifespan="off", log_level="critical", ws_ping_interval=1, ws_ping_timeout=2
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.05)
    url = f"ws://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    async with connect(url, ping_interval=None, compression=None) as websocket:
        ended = await flood(websocket)
    server.should_exit = True
    await serving
    return ended


async def main():
    start = time.monotonic()
    client, application, taken = await slow_client(), await slow_server(), await in_step()
    print("websockets", version("websockets"), "uvicorn", version("uvicorn"))
    print("a receiver that takes 50 ms a message; expected: all messages read, no close")
    print("messages in step with the receiver:    all", taken, "read")
    print("slow client, the server sends 8 MB:    closed by the reader,", client)
    print("slow application, the client sends 8 MB: closed by the reader,", application)
    for close in (client, application):
        assert close and (close.code, close.reason) == (1011, "keepalive ping timeout"), "the behaviour has changed"
    assert taken == 60


asyncio.run(asyncio.wait_for(main(), 50))
PYTHON
timeout 60 venv/bin/python check.py
