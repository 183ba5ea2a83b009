#!/usr/bin/env bash
# daphne 4.2.3, hypercorn 0.18.0 over HTTP/2: `send()` does not wait for a client that has stopped reading.
#
# Behaviour: `await send(...)` returns at once and the server keeps what the client has not taken in its own
#   memory, without a limit. uvicorn, granian, and the same hypercorn over HTTP/1.1, make the application wait.
# Output seen (64 MB offered in messages of 64 KB; the client opens a WebSocket and reads nothing; on Linux loopback):
#   uvicorn 0.54.0: 4 MB, then send() waits        granian 2.8.9: 4 MB, then send() waits
#   hypercorn 0.18.0, HTTP/1.1: 4 MB, then send() waits
#   hypercorn 0.18.0, HTTP/2: all 64 MB            daphne 4.2.3: all 64 MB
# Why it surprises: `send` is awaited, and HTTP/2 gives each stream a window of 64 KB, so the server knows exactly that
#   nothing was taken. The same program is bounded or unbounded depending on the client's version of HTTP.
# For a relay: a bounded queue in front of send() never fills under these two, so "too slow, drop it" never
#   happens, and the server keeps whole answers for each client on a bad line. Let the client acknowledge what
#   it got in messages of its own, or choose the server.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check uvicorn==0.54.0 websockets==15.0.1 hypercorn==0.18.0 daphne==4.2.3 granian==2.8.9 h2==4.4.1

cat >served.py <<'PYTHON'
import asyncio
from pathlib import Path

MESSAGE = bytes(2**16)
OFFERED = 1024  # messages: 64 MB


async def app(scope, receive, send):
    if scope["type"] != "websocket":
        return
    await receive()
    await send({"type": "websocket.accept"})
    taken = 0
    try:
        while taken < OFFERED:
            await asyncio.wait_for(send({"type": "websocket.send", "bytes": MESSAGE}), 2)
            taken += 1
            await asyncio.sleep(0)
    except TimeoutError:
        pass
    Path("writing").write_text(str(taken))
    Path("writing").rename("taken")
    while (await receive())["type"] != "websocket.disconnect":
        pass
PYTHON

cat >check.py <<'PYTHON'
import asyncio
import socket
from importlib.metadata import version
from pathlib import Path
from subprocess import DEVNULL, Popen

import h2.config
import h2.connection
import h2.events

UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
)


async def open_http1(port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    writer.write(UPGRADE)
    assert (await reader.readline()).startswith(b"HTTP/1.1 101")
    return writer


async def open_http2(port):
    """A WebSocket on an HTTP/2 stream (RFC 8441)."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
    connection.initiate_connection()
    writer.write(connection.data_to_send())
    settled = False
    while True:
        data = await reader.read(1024)
        assert data, "the server closed the connection"
        for event in connection.receive_data(data):
            if isinstance(event, h2.events.RemoteSettingsChanged) and not settled:
                settled = True
                names = [":method", ":protocol", ":scheme", ":path", ":authority", "sec-websocket-version"]
                values = ["CONNECT", "websocket", "http", "/", "localhost", "13"]
                connection.send_headers(1, list(zip(names, values)))
            if isinstance(event, h2.events.ResponseReceived):
                assert dict(event.headers)[":status"] == "200"
                return writer
        writer.write(connection.data_to_send())


async def measure(name, options, open_websocket):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = [option.format(port=port) for option in options.split()]
    server = Popen([f"venv/bin/{name}", *arguments, "served:app"], stdout=DEVNULL, stderr=DEVNULL)
    try:
        while True:
            try:
                writer = await open_websocket(port)
                break
            except OSError:  # not yet listening
                await asyncio.sleep(0.1)
        while not Path("taken").exists():
            await asyncio.sleep(0.05)
        taken = int(Path("taken").read_text())
        Path("taken").unlink()
        writer.transport.abort()
    finally:
        server.terminate()
        await asyncio.to_thread(server.wait)
    return taken


async def main():
    print("64 MB offered to a client that reads nothing; expected: send() waits after a few MB")
    for name, options, open_websocket, waits in (
        ("uvicorn", "--lifespan off --port {port}", open_http1, True),
        ("granian", "--interface asginl --port {port}", open_http1, True),
        ("hypercorn", "--bind 127.0.0.1:{port}", open_http1, True),
        ("hypercorn", "--bind 127.0.0.1:{port}", open_http2, False),
        ("daphne", "--bind 127.0.0.1 --port {port}", open_http1, False),
    ):
        taken = await measure(name, options, open_websocket)
        protocol = "HTTP/2" if open_websocket is open_http2 else "HTTP/1.1"
        outcome = "then send() waits" if taken < 1024 else "send() never waited"
        print(f"{name} {version(name)}, {protocol}: {taken // 16} MB, {outcome}", flush=True)
        assert (taken < 1024) == waits, "the behaviour has changed"


asyncio.run(asyncio.wait_for(main(), 50))
PYTHON
timeout 60 venv/bin/python check.py
