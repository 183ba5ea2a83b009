#!/usr/bin/env bash
# daphne 4.2.3 (autobahn 26.10.2): no standard close code but 1000 can be sent.
#
# Behaviour: `websocket.close` with 1001, 1008, 1011, 1012 or 1013 raises a bare Exception out of `send()`, and no
#   close goes out. Private codes are sent. The reason never is.
# Output seen: 1000: sent   1001, 1008, 1011, 1012, 1013: Exception: invalid close code …   4412: sent, without reason
# Why it surprises: RFC 6455 (section 7.4.1) and IANA's registry have these codes for servers: going away, policy,
#   internal error, restart, try again later. ASGI's specification takes any code, and uvicorn, hypercorn and granian
#   send them all.
# For a relay: give each close a private code as well (RFC 6455 section 7.4.2), and send that if the first one fails.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check daphne==4.2.3 autobahn==26.10.2 websockets==15.0.1

cat >served.py <<'PYTHON'
from pathlib import Path


async def app(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    try:
        await send({"type": "websocket.close", "code": int(scope["path"][1:]), "reason": "bye"})
        told = "sent"
    except Exception as error:
        told = f"{type(error).__name__}: {error}"
        await send({"type": "websocket.close", "code": 1000})
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
from websockets.exceptions import ConnectionClosed


async def main():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = Popen(["venv/bin/daphne", "--port", str(port), "served:app"], stdout=DEVNULL, stderr=DEVNULL)
    try:
        for code in (1000, 1001, 1008, 1011, 1012, 1013, 4412):
            while True:
                try:
                    websocket = await connect(f"ws://127.0.0.1:{port}/{code}")
                    break
                except OSError:  # not yet listening
                    await asyncio.sleep(0.1)
            try:
                await websocket.recv()
            except ConnectionClosed as closed:
                got = closed.rcvd
            while not Path("told").exists():
                await asyncio.sleep(0.05)
            told = Path("told").read_text()
            Path("told").unlink()
            print(f"{code}: {told}; the client gets {got.code} {got.reason!r}; expected {code} 'bye'", flush=True)
            works = code in (1000, 4412)
            assert (told == "sent") == works, "the behaviour has changed"
            assert works or told.startswith("Exception: invalid close code"), "the behaviour has changed"
            assert got.reason == "" and (not works or got.code == code), "the behaviour has changed"
    finally:
        server.terminate()
        server.wait()
    print(f"daphne {version('daphne')}, autobahn {version('autobahn')}")


asyncio.run(asyncio.wait_for(main(), 50))
PYTHON
timeout 60 venv/bin/python check.py
