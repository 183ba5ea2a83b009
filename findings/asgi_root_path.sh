#!/usr/bin/env bash
# uvicorn 0.54.0, hypercorn 0.18.0, daphne 4.2.3, granian 2.8.9: two meanings of `root_path`.
#
# Behaviour and output seen: the option for `root_path` set to /ws, and a request for /ws/alice:
#   uvicorn      path '/ws/ws/alice'   root_path '/ws'
#   hypercorn    path '/ws/alice'      root_path '/ws'
#   daphne       path '/ws/alice'      root_path '/ws'
#   granian      path '/ws/alice'      root_path '/ws'
# Why it surprises: uvicorn takes the option for what a proxy has removed from the path, and puts it back; the others
#   pass the path as it came. A scope does not say which of the two was done: with a proxy that removes the prefix,
#   `path` is below the mount point under three servers, and the whole path under uvicorn and in a framework's mount.
# For a relay: remove `root_path` from `path` if it is there, and expect that it is not. If an address of one's own
#   begins like the mount point, try both.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check uvicorn==0.54.0 hypercorn==0.18.0 daphne==4.2.3 granian==2.8.9

cat >served.py <<'PYTHON'
async def app(scope, receive, send):
    if scope["type"] == "http":
        body = f"path {scope['path']!r}, root_path {scope['root_path']!r}".encode()
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})
PYTHON

cat >check.py <<'PYTHON'
import socket
import time
from importlib.metadata import version
from subprocess import DEVNULL, Popen
from urllib.request import urlopen

OPTIONS = {
    "uvicorn": "--port {} --lifespan off --root-path /ws",
    "hypercorn": "--bind 127.0.0.1:{} --root-path /ws",
    "daphne": "--bind 127.0.0.1 --port {} --root-path /ws",
    "granian": "--interface asginl --port {} --url-path-prefix /ws",
}
for name, options in OPTIONS.items():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = Popen([f"venv/bin/{name}", *options.format(port).split(), "served:app"], stdout=DEVNULL, stderr=DEVNULL)
    try:
        while True:
            try:
                told = urlopen(f"http://127.0.0.1:{port}/ws/alice").read().decode()
                break
            except OSError:  # not yet listening
                time.sleep(0.1)
    finally:
        server.terminate()
        server.wait()
    print(f"{name} {version(name)}: {told}; expected the same of all four", flush=True)
    path = "/ws/ws/alice" if name == "uvicorn" else "/ws/alice"
    assert told == f"path {path!r}, root_path '/ws'", "the behaviour has changed"
PYTHON
timeout 60 venv/bin/python check.py
