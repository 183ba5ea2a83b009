#!/usr/bin/env bash
# nginx 1.22.1 (Debian package nginx; the one thing here that does not come from PyPI): `proxy_read_timeout`
# does not watch the proxied server once the connection is a WebSocket.
#
# Behaviour: on an upgraded connection each byte from the client starts the timeout for reading from the server
#   anew. A server that says nothing is cut off only if the client says nothing either.
# Output seen with `proxy_read_timeout 2s` and a server that never sends:
#   client silent:                   closed after 2.0 s
#   client sends every half second:  still open after 7 s
# Why it surprises: the manual sets the timeout "between two successive read operations" of the answer and
#   promises to close "if the proxied server does not transmit anything within this time".
# For a relay: a client that streams its microphone hides a dead or stuck backend from nginx; the timeout is a
#   limit on silence of both sides, not on the backend's. Whoever counts on it needs a limit of their own.
set -euo pipefail
nginx=$(PATH="$PATH:/usr/sbin" command -v nginx) || { echo "this needs nginx: install the Debian package nginx" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check websockets==15.0.1

cat >check.py <<'PYTHON'
import asyncio
import socket
import subprocess
import sys
import time
from pathlib import Path

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

CONFIGURATION = """
daemon off; master_process off; pid nginx.pid; error_log error.log; events {{ }}
http {{
    access_log off;
    client_body_temp_path t1; proxy_temp_path t2; fastcgi_temp_path t3; uwsgi_temp_path t4; scgi_temp_path t5;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://127.0.0.1:{upstream};
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection upgrade;
            proxy_read_timeout 2s;
        }}
    }}
}}
"""


async def listen_only(websocket):
    try:
        async for _ in websocket:
            pass
    except ConnectionClosed:
        pass


async def main(nginx):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    async with serve(listen_only, "127.0.0.1", 0, ping_interval=None) as upstream:
        Path("nginx.conf").write_text(CONFIGURATION.format(port=port, upstream=upstream.sockets[0].getsockname()[1]))
        proxy = subprocess.Popen([nginx, "-p", ".", "-c", "nginx.conf", "-e", "error.log"])
        try:
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    break
                except OSError:  # not yet listening
                    await asyncio.sleep(0.1)
            writer.close()

            async def lives(sends):
                async with connect(f"ws://127.0.0.1:{port}/", ping_interval=None) as websocket:
                    start = time.monotonic()
                    try:
                        while time.monotonic() - start < 7:
                            if sends:
                                await websocket.send(bytes(640))
                            try:
                                await asyncio.wait_for(websocket.recv(), 0.5)
                            except TimeoutError:
                                pass
                    except ConnectionClosed:
                        pass
                    return time.monotonic() - start

            silent, sending = await lives(False), await lives(True)
        finally:
            proxy.terminate()
            proxy.wait()
    print(subprocess.run([nginx, "-v"], stderr=subprocess.PIPE, text=True).stderr.strip())
    print("proxy_read_timeout 2s, a server that never sends; expected: closed after about 2 s, both times")
    print(f"client silent:                  closed after {silent:.1f} s")
    print(f"client sends every half second: {'still open' if sending >= 7 else 'closed'} after {sending:.1f} s")
    assert silent < 5 and sending >= 7, "the behaviour has changed"


asyncio.run(asyncio.wait_for(main(sys.argv[1]), 40))
PYTHON
timeout 60 venv/bin/python check.py "$nginx"
