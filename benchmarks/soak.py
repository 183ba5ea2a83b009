"""Whether relay keeps what it no longer needs: half an hour of voice sessions. A benchmark, not a test.

    python benchmarks/soak.py [--minutes 30] [--sessions 100] [--folder FOLDER]

100 visitors speak and listen in real time with `relay serve` in a process of its own, which has its whole
guard on: tokens that open one socket each, limits, metrics, the log in JSON, sessions in a sqlite file.
Visitors leave and others come, one in a second; the model refuses, closes, falls silent; at times all
sockets, or all connections to the model, break at once. Others are refused, write over HTTP or stop reading.
At the end everybody leaves.

It says how fast the process's memory grows, and fails if something is left: a socket, a conversation, a run,
a task, a connection to the model, a file descriptor. FOLDER gets the samples, the server's log and a picture.
It needs half a core for the server, and as much for the model and for the clients. It runs where there are
POSIX signals.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

if __name__ == "__main__":
    sys.path[:1] = [str(ROOT), str(ROOT / "tests")]  # see bench.py

    from benchmarks.soaking.run import main

    sys.exit(main())
