#!/usr/bin/env bash
# uvicorn 0.54.0, hypercorn 0.18.0, granian 2.8.9: the exit code after a start that failed can be 0, as after a success.
#
# Behaviour and output seen: the application answers lifespan.startup with lifespan.startup.failed ("no database");
#   each server logs it, serves nothing and ends by itself, with the exit code
#                one worker   two workers
#   expected     not 0        the same as with one
#   uvicorn      3            0
#   hypercorn    0            0
#   granian      1            1
# Why it surprises: uvicorn has a code of its own for a failed start, and its workers exit with it: the parent logs
#   "failed to start, stopping the parent process" and exits with 0. One option more, and a failure is a success.
# For a relay: systemd's Restart=on-failure, a container's restart policy "on-failure" and a deployment that
#   checks the code take this for a program that was finished. Let the manager restart always, and ask the server
#   for an answer instead of asking for the code.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check uvicorn==0.54.0 hypercorn==0.18.0 granian==2.8.9

cat >served.py <<'PYTHON'
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})
PYTHON

cat >check.py <<'PYTHON'
import socket
from importlib.metadata import version
from subprocess import PIPE, STDOUT, run

SEEN = {
    "uvicorn": ("--port {}", 3, 0),
    "hypercorn": ("--bind 127.0.0.1:{}", 0, 0),
    "granian": ("--interface asgi --port {}", 1, 1),
}
for name, (options, *seen) in SEEN.items():
    codes = []
    for workers in ("1", "2"):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [f"venv/bin/{name}", *options.format(port).split(), "--workers", workers, "served:app"]
        ended = run(command, stdout=PIPE, stderr=STDOUT, text=True, timeout=20)
        assert "no database" in ended.stdout, ended.stdout  # the server has seen the failure
        codes.append(ended.returncode)
    print(f"{name} {version(name)}: a start that fails exits with {codes[0]} (one worker), {codes[1]} (two workers); "
          "expected: never 0", flush=True)
    assert codes == seen, "the behaviour has changed"
PYTHON
timeout 60 venv/bin/python check.py
