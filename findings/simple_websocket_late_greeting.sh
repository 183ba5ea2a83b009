#!/usr/bin/env bash
# simple-websocket 1.1.0: a message that arrives together with the handshake's answer waits for the next bytes.
#
# Behaviour: when the server's 101 answer and its first message come in one piece, the client reads both, but
#   `receive()` gives the message only after the server has sent something else.
# Output seen:
#   greeting 1 s after the handshake:    'hello' after 1.0 s
#   greeting together with the handshake: 'hello' after 3.0 s, when the next message came
# Why it surprises: TCP has no message borders, so a server that greets at once may put both in one segment.
#   The client has the bytes in memory and does not look at them; whether it happens depends on timing alone.
# For a relay: a server that speaks first (a ready message, a replay) seems silent to such a client, and a client
#   that waits for the greeting before it speaks waits for ever. Send the first message when the client has
#   spoken, or let a second one follow.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check simple-websocket==1.1.0

cat >check.py <<'PYTHON'
import asyncio
import base64
import hashlib
import re
import time
from importlib.metadata import version

import simple_websocket

HELLO, LATER = b"\x81\x05hello", b"\x81\x05later"  # complete text frames


async def serve(reader, writer):
    request = await reader.readuntil(b"\r\n\r\n")
    key = re.search(rb"(?i)sec-websocket-key: *(\S+)", request)[1]
    accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    answer = (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )
    if request.startswith(b"GET /together"):
        writer.write(answer + HELLO)
        await asyncio.sleep(3)
    else:
        writer.write(answer)
        await asyncio.sleep(1)
        writer.write(HELLO)
        await asyncio.sleep(2)
    writer.write(LATER)
    writer.close()


def greeting(url):
    client = simple_websocket.Client(url)
    start = time.monotonic()
    first = client.receive(timeout=10)
    waited = time.monotonic() - start
    assert (first, client.receive(timeout=10)) == ("hello", "later")
    return waited


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    apart = await asyncio.to_thread(greeting, f"{url}/apart")
    together = await asyncio.to_thread(greeting, f"{url}/together")
    print("simple-websocket", version("simple-websocket"))
    print(f"greeting 1 s after the handshake:     received after {apart:.1f} s")
    print("greeting together with the handshake: expected at once")
    print(f"                                      received after {together:.1f} s, with the next message")
    assert apart < 2.5 < together, "the behaviour has changed"


asyncio.run(asyncio.wait_for(main(), 40))
PYTHON
timeout 60 venv/bin/python check.py
