#!/usr/bin/env bash
# daphne 4.2.3 (autobahn 26.10.2): an empty WebSocket message is accepted from the application and never sent.
#
# Behaviour: `websocket.send` with "text": "" or "bytes": b"" returns as if it had been sent. No frame leaves
#   the server, and nothing is logged. In the other direction empty messages arrive as they should.
# Output seen: sent by the application: ['', 'after text', b'', b'after bytes']
#              received by the client:  ['after text', b'after bytes']
# Why it surprises: an empty message is a legal message (RFC 6455, section 5.6 sets no lower limit), the same
#   application delivers it under uvicorn, hypercorn and granian, and the application is told nothing.
# For a relay: an empty message cannot serve as a marker or a heartbeat, and counting messages on both sides
#   to find out what was lost gives the wrong answer behind daphne. Put every message in an envelope.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check daphne==4.2.3 autobahn==26.10.2 websockets==15.0.1

cat >served.py <<'PYTHON'
MESSAGES = ["", "after text", b"", b"after bytes"]


async def app(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    received = [await receive(), await receive()]
    for message in MESSAGES:
        await send({"type": "websocket.send", "text" if isinstance(message, str) else "bytes": message})
    empty = sum(not (message.get("text") or message.get("bytes")) for message in received)
    await send({"type": "websocket.send", "text": f"empty messages received: {empty}"})
    await send({"type": "websocket.close"})
PYTHON

cat >check.py <<'PYTHON'
import asyncio
import re
from importlib.metadata import version
from subprocess import PIPE, Popen, STDOUT

from served import MESSAGES
from websockets.asyncio.client import connect


async def main():
    command = ["venv/bin/daphne", "-b", "127.0.0.1", "-p", "0", "served:app"]
    server = Popen(command, stderr=STDOUT, stdout=PIPE, text=True)
    try:
        port = next(found[1] for line in server.stdout if (found := re.search(r"Listening on TCP.*:(\d+)", line)))
        async with connect(f"ws://127.0.0.1:{port}/") as socket:
            await socket.send("")
            await socket.send(b"")
            *received, counted = [message async for message in socket]
    finally:
        server.terminate()
    print("daphne", version("daphne"), "autobahn", version("autobahn"))
    print("client to application:  ", counted)
    print("sent by the application:", MESSAGES)
    print("expected at the client: ", MESSAGES)
    print("received by the client: ", received)
    assert counted == "empty messages received: 2"
    assert received == ["after text", b"after bytes"], "the behaviour has changed"


asyncio.run(asyncio.wait_for(main(), 30))
PYTHON
timeout 60 venv/bin/python check.py
