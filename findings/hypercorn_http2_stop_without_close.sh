#!/usr/bin/env bash
# hypercorn 0.18.0: over HTTP/2 a stop ends open WebSockets without a close frame, whatever the application sends.
#
# Behaviour: on SIGTERM hypercorn waits for the graceful timeout and then cancels the application's tasks. Over HTTP/2
#   the task that writes to the connection is canceled with them, so nothing that is sent from then on leaves the
#   server.
# Output seen on SIGTERM, with one open WebSocket:
#   the application, when canceled,      the client gets over HTTP/1.1    over HTTP/2
#   sends nothing                        close 1011 (from hypercorn)      no close frame
#   sends websocket.close 1012           close 1012; send() returns       no close frame; send() does not return
# Why it surprises: HTTP/1.1 has the same application, server and stop, and the close arrives. The client's version
#   of HTTP decides whether it learns that the server restarts.
# For a relay: let clients take the end of a connection without a close frame (1006) for a restart, and set a limit
#   to each `send()` during a stop. The application here has one, of half a second.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check hypercorn==0.18.0 h2==4.4.1

cat >served.py <<'PYTHON'
import asyncio
from pathlib import Path


async def app(scope, receive, send):
    if scope["type"] != "websocket":
        return
    await receive()
    await send({"type": "websocket.accept"})
    try:
        await receive()
    except asyncio.CancelledError:
        if scope["path"] == "/closes":
            try:
                await asyncio.wait_for(send({"type": "websocket.close", "code": 1012}), 0.5)
                Path("told").write_text("send() returned")
            except TimeoutError:
                Path("told").write_text("send() did not return")
        raise
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
    "GET {} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
)


async def read_http1(port, path, opened):
    """What a WebSocket over HTTP/1.1 gets from its opening to the end of the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(UPGRADE.format(path).encode())
    await reader.readuntil(b"\r\n\r\n")
    opened()
    got = await reader.read()
    writer.close()
    return got


async def read_http2(port, path, opened):
    """The same on an HTTP/2 stream (RFC 8441)."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
    connection.initiate_connection()
    writer.write(connection.data_to_send())
    settled, got = False, b""
    while data := await reader.read(65536):
        for event in connection.receive_data(data):
            if isinstance(event, h2.events.RemoteSettingsChanged) and not settled:
                settled = True
                names = [":method", ":protocol", ":scheme", ":path", ":authority", "sec-websocket-version"]
                values = ["CONNECT", "websocket", "http", path, "localhost", "13"]
                connection.send_headers(1, list(zip(names, values)))
            elif isinstance(event, h2.events.ResponseReceived):
                opened()
            elif isinstance(event, h2.events.DataReceived):
                got += event.data
        writer.write(connection.data_to_send())
    writer.close()
    return got


async def measure(read, path):
    """The close code that the client got, and what became of the application's close."""
    Path("told").write_text("nothing sent")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = ["--bind", f"127.0.0.1:{port}", "--graceful-timeout", "1", "served:app"]
    server = Popen(["venv/bin/hypercorn", *arguments], stdout=DEVNULL, stderr=DEVNULL)
    try:
        while True:
            try:
                got = await read(port, path, server.terminate)
                break
            except OSError:  # not yet listening
                await asyncio.sleep(0.1)
    finally:
        server.terminate()
        await asyncio.to_thread(server.wait)
    assert not got or got.startswith(b"\x88\x02"), "something other than a close frame"
    return int.from_bytes(got[2:4]) if got else None, Path("told").read_text()


async def main():
    print("hypercorn", version("hypercorn"), "h2", version("h2"))
    for path, code, told in (("/", 1011, "nothing sent"), ("/closes", 1012, "send() returned")):
        first = await measure(read_http1, path)
        print(f"{path}: HTTP/1.1: {first[0]}, {first[1]}; expected over HTTP/2: the same", flush=True)
        second = await measure(read_http2, path)
        print(f"{path}: HTTP/2:   {second[0] or 'no close frame'}, {second[1]}", flush=True)
        assert first == (code, told)
        assert second == (None, told.replace("returned", "did not return")), "the behaviour has changed"


asyncio.run(asyncio.wait_for(main(), 50))
PYTHON
timeout 60 venv/bin/python check.py
