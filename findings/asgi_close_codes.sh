#!/usr/bin/env bash
# uvicorn 0.54.0, hypercorn 0.18.0, daphne 4.2.3, granian 2.8.9: four answers to "why did the WebSocket end?"
#
# Behaviour and output seen: what `websocket.disconnect` tells the application, after
#                   the client closed   the connection   the application closed
#                   with 4001 "bye"     was lost         with 4002
#   expected        4001 bye            1006             4002
#   uvicorn         4001 bye            1005             4002
#   hypercorn       1006                1006             1000
#   daphne          4001                1006             4002
#   granian         4001                1005             1005
# Why it surprises: RFC 6455 (section 7.4.1) has 1005 for "the peer closed and gave no code" and 1006 for "no close
#   arrived". hypercorn reports a polite goodbye as a lost connection, uvicorn and granian the reverse, and only one of
#   the four passes the client's reason on, for which the ASGI specification has a key.
# For a relay: a decision like "lost: keep the conversation, it will be back; closed: end it" cannot be made from the
#   code unless the server is known. Let clients say goodbye in a message of their own.
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
    if scope["type"] != "websocket":
        return
    await receive()
    await send({"type": "websocket.accept"})
    if scope["path"] == "/application":
        await send({"type": "websocket.close", "code": 4002})
    message = await receive()
    assert message["type"] == "websocket.disconnect"
    told = f"{message.get('code')} {message.get('reason') or ''}".strip()
    Path("writing").write_text(told)
    Path("writing").rename("told")
PYTHON

cat >check.py <<'PYTHON'
import asyncio
import socket
from importlib.metadata import version
from pathlib import Path
from subprocess import DEVNULL, Popen

from websockets.asyncio.client import connect

SEEN = {
    "uvicorn": ["4001 bye", "1005", "4002"],
    "hypercorn": ["1006", "1006", "1000"],
    "daphne": ["4001", "1006", "4002"],
    "granian": ["4001", "1005", "1005"],
}


def command(server, port):
    match server:
        case "uvicorn":
            return ["--lifespan", "off", "--port", port]
        case "hypercorn":
            return ["--bind", f"127.0.0.1:{port}"]
        case "daphne":
            return ["--bind", "127.0.0.1", "--port", port]
        case "granian":
            return ["--interface", "asginl", "--port", port]


async def measure(name):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    server = Popen([f"venv/bin/{name}", *command(name, port), "served:app"], stdout=DEVNULL, stderr=DEVNULL)
    told = []
    try:
        for path in ("client", "lost", "application"):
            while True:
                try:
                    websocket = await connect(f"ws://127.0.0.1:{port}/{path}", compression=None)
                    break
                except OSError:  # not yet listening
                    await asyncio.sleep(0.1)
            if path == "client":
                await websocket.close(4001, "bye")
            elif path == "lost":
                websocket.transport.abort()
            await websocket.wait_closed()
            while not Path("told").exists():
                await asyncio.sleep(0.05)
            told.append(Path("told").read_text())
            Path("told").unlink()
    finally:
        server.terminate()
        server.wait()
    return told


async def main():
    row = "{:18} {:20} {:17} {}".format
    print(row("", "client closed 4001", "connection lost", "application closed 4002"))
    print(row("expected", "4001 bye", "1006", "4002"))
    for name, seen in SEEN.items():
        told = await measure(name)
        print(row(f"{name} {version(name)}", *told), flush=True)
        assert told == seen, "the behaviour has changed"


asyncio.run(asyncio.wait_for(main(), 50))
PYTHON
timeout 60 venv/bin/python check.py
